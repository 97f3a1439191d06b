"""Types and limits of the settings, held by one pydantic-settings model that is made from the dataclasses.

This module imports pydantic, so only code that really resolves settings imports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import AllowInfNan, BeforeValidator, Strict, ValidationError, create_model
from pydantic import Field as ModelField
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from medcli.errors import MedcliError, UsageProblem
from medcli.settings.fields import Field, all_fields
from medcli.settings.layers import Layer

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = ["check_layer", "expected", "merge"]


class LayerSource(PydanticBaseSettingsSource):
    """One of our layers as a source of pydantic-settings, whose own sources cannot say where a value stands."""

    def __init__(self, settings_class: type[BaseSettings], layer: Layer) -> None:
        super().__init__(settings_class)
        self.layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The value of one field, its key, and that it needs no further decoding."""
        key = field.alias or field_name
        return self.layer.values.get(key), key, False

    def __call__(self) -> dict[str, Any]:
        return dict(self.layer.values)


class _LayeredSettings(BaseSettings):
    model_config = SettingsConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (called by keyword)
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (called by keyword)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (called by keyword)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Our layers, highest first; the environment is read by `medcli.settings.layers` alone."""
        assert isinstance(init_settings, InitSettingsSource)
        layers: tuple[Layer, ...] = init_settings.init_kwargs["layers"]
        return tuple(LayerSource(settings_cls, layer) for layer in reversed(layers))


def merge(layers: Iterable[Layer]) -> dict[str, Any]:
    """Field name -> typed value over all layers, lowest first; settings that no layer names have their default.

    The layers must have passed `check_layer`; a value that has not raises pydantic's `ValidationError`.
    """
    model = _settings(*layers)
    return {name: getattr(model, f"{name}_") for name in all_fields()}


def check_layer(layer: Layer, fields: Mapping[str, Field] | None = None) -> dict[str, MedcliError]:
    """Field name -> what is wrong with the layer's value. Unknown names are the layer's own business.

    Args:
        layer: the values.
        fields: the settings of the command they are for, where some of its words are not all words of the setting.
    """
    known = {name: value for name, value in layer.values.items() if name in all_fields()}
    own = {**all_fields(), **(fields or {})}
    wrong = [
        name
        for name, value in known.items()
        if own[name].choices != all_fields()[name].choices
        and value is not None
        and not all(one in own[name].choices for one in _as_tuple(value))
    ]
    try:
        _settings(Layer(layer.name, known))
    except ValidationError as error:
        wrong += [str(item["loc"][0]) for item in error.errors(include_url=False)]
    return {name: _problem(own[name], known[name], str(layer.origin(name))) for name in dict.fromkeys(wrong)}


def _problem(field: Field, value: Any, where: str) -> UsageProblem:
    shown = _shown(value)
    if field.base is str and not field.choices and _undecodable(shown):
        escaped = shown.encode("utf-8", "backslashreplace").decode("utf-8")
        return UsageProblem(
            f"{escaped} for `{field.name}` is not valid text",
            where=where,
            hint="rename the file or folder",
            code="undecodable-name",
        )
    if field.many and field.choices and isinstance(value, list | tuple):
        shown = _shown([one for one in value if one not in field.choices])
    return UsageProblem(f"`{field.name}` must be {expected(field)}, not {shown}", where=where, code="bad-value")


def _undecodable(text: str) -> bool:
    """Whether the text holds bytes that the system could not decode; Python keeps them as lone surrogates."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def expected(field: Field) -> str:
    """What a value of this setting looks like, for messages: `a whole number of at least 1`."""
    if field.choices:
        one = "one of " + ", ".join(f"`{choice}`" for choice in field.choices)
    elif field.base is bool:
        one = "`true` or `false`"
    elif field.base is str:
        one = "a text that is not empty"
    else:
        one = f"a {'whole ' if field.base is int else ''}number{_limits(field)}"
    if field.many:
        return f"a list, each {one}"
    return one


def _limits(field: Field) -> str:
    low, high = field.option.minimum, field.option.maximum
    words = []
    if low is not None:
        words.append(f"above {low:.10g}" if field.option.exclusive else f"of at least {low:.10g}")
    if high is not None:
        words.append(f"at most {high:.10g}")
    return " " + " and ".join(words) if words else ""


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list | tuple):
        return "`" + ",".join(str(item) for item in value) + "`"
    return "nothing" if value is None or value == "" else f"`{value}`"


def _settings(*layers: Layer) -> BaseSettings:
    # Not a field: `settings_customise_sources` takes the layers out again.
    keywords: dict[str, Any] = {"layers": layers}
    return _model()(**keywords)


@cache
def _model() -> type[_LayeredSettings]:
    # The trailing underscore keeps names such as `json` apart from the model's own attributes.
    definitions: Mapping[str, Any] = {
        f"{name}_": (_annotation(field), ModelField(default=field.default, alias=name))
        for name, field in all_fields().items()
    }
    model: type[_LayeredSettings] = create_model("Settings", __base__=_LayeredSettings, **definitions)
    return model


def _annotation(field: Field) -> Any:
    kind: Any
    if field.choices:
        kind = Literal[field.choices]
    else:
        rules: list[Any] = [Strict()]
        if field.base is str:
            rules.append(MinLen(1))
        if field.base is float:
            rules.append(AllowInfNan(False))
        if field.option.minimum is not None:
            rules.append((Gt if field.option.exclusive else Ge)(field.option.minimum))
        if field.option.maximum is not None:
            rules.append(Le(field.option.maximum))
        kind = Annotated[(field.base, *rules)]
    if field.many:
        kind = Annotated[tuple[kind, ...], BeforeValidator(_as_tuple)]
    return kind | None if field.optional else kind


def _as_tuple(value: Any) -> Any:
    """A file may write one value without brackets."""
    if isinstance(value, list):
        return tuple(value)
    return value if isinstance(value, tuple) else (value,)
