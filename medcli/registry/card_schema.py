"""The meaning level of a card: tables become typed values, and all that is wrong with one is said at once.

The dataclasses of `medcli.plugin` are the schema; a field added there needs nothing here.
"""

from __future__ import annotations

import types
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from medcli.errors import UsageProblem, nearest
from medcli.plugin import ArchitectureCard, Normalisation, OptionCard, RecipeValue
from medcli.registry.card_file import Table
from medcli.registry.requirements import requirement_fault

__all__ = ["RECIPE_SETTINGS", "STRATEGIES", "build_card"]

Keys = tuple[str, ...]

STRATEGIES = ("any", "train", "frozen", "layerwise", "gradual", "full", "lp-ft", "knn", "lora")
RECIPE_SETTINGS: Mapping[str, type] = {
    "epochs": int,
    "lr": float,
    "head_lr": float,
    "batch_size": int,
    "accumulate": int,
    "optimizer": str,
    "weight_decay": float,
    "scheduler": str,
    "warmup_epochs": float,
    "patience": int,
    "dropout": float,
    "drop_path": float,
    "head_norm": bool,
    "layer_decay": float,
    "decay_by": str,
    "unfreeze_at": list,
    "unfreeze_groups": int,
    "rank": int,
    "lora_alpha": float,
    "lora_dropout": float,
    "targets": str,
}
_FILLED_IN = {"name", "place"}
_NOUNS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list of whole numbers"}
_BAD = object()


@dataclass
class _Reading:
    """One pass over one architecture's table."""

    table: Table
    label: str
    sources: Mapping[str, str]
    problems: list[UsageProblem] = field(default_factory=list)

    def wrong(self, keys: Keys, message: str, hint: str | None = None) -> Any:
        dotted = ".".join((self.label, *keys))
        where = self.table.place(*keys)
        self.problems.append(UsageProblem(f"`{dotted}` {message}", where=where, hint=hint, code="bad-card"))
        return _BAD


def build_card(
    name: str, table: Table, sources: Mapping[str, str], section: str = "architectures"
) -> tuple[ArchitectureCard | None, list[UsageProblem]]:
    """The card of one architecture or difference model, or None with everything that is wrong in its table.

    Args:
        name: as the entry point calls it.
        table: with inheritance resolved.
        sources: short names of sources to their text.
        section: the kind of table, for messages.
    """
    reading = _Reading(table, f"{section}.{name}", sources)
    card = _record(ArchitectureCard, table.values, (), reading)
    if not isinstance(card, ArchitectureCard):
        return None, reading.problems
    card = replace(card, name=name, place=table.place())
    _check(card, reading)
    return (None if reading.problems else card), reading.problems


def _record(kind: type[Any], values: Any, keys: Keys, reading: _Reading) -> Any:
    """One dataclass from one table."""
    if not isinstance(values, Mapping):
        return reading.wrong(keys, "must be a table")
    hints, known = _schema(cast("Hashable", kind))
    found: dict[str, Any] = {}
    before = len(reading.problems)
    for key, value in values.items():
        if key not in known:
            near = nearest(key, known)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
            reading.wrong((*keys, key), "is no known key", hint)
            continue
        found[key] = _value(hints[key], value, (*keys, key), reading)
    for key, needed in known.items():
        if needed and key not in values:
            reading.wrong(keys, f"lacks `{key}`")
    if len(reading.problems) > before:
        return _BAD
    if "source" in found and kind.__name__ != "WeightCard":
        found["source"] = reading.sources.get(found["source"], found["source"])
    if kind is RecipeValue:
        found["place"] = reading.table.place(*keys)
    if kind is ArchitectureCard:
        found["name"] = ""
    return kind(**found)


@cache
def _schema(kind: Any) -> tuple[dict[str, Any], dict[str, bool]]:
    """Types of the fields, and whether each must be given."""
    known = {
        one.name: one.default is MISSING and one.default_factory is MISSING
        for one in fields(kind)
        if one.name not in _FILLED_IN
    }
    return get_type_hints(kind), known


def _value(kind: Any, value: Any, keys: Keys, reading: _Reading) -> Any:
    """One value of whatever type the schema asks for."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _union(arguments, value, keys, reading)
    if origin is Literal:
        if value in arguments:
            return value
        near = nearest(str(value), arguments)
        hint = f"did you mean `{near[0]}`?" if near else None
        return reading.wrong(keys, f"is `{value}`, not one of {_quoted(arguments)}", hint)
    if origin is tuple:
        if not isinstance(value, list):
            return reading.wrong(keys, "must be a list")
        return tuple(_value(arguments[0], item, (*keys, str(index)), reading) for index, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            return reading.wrong(keys, "must be a table")
        if keys and keys[0] == "recipes":
            return _recipes(value, keys, reading)
        return {key: _value(arguments[1], item, (*keys, key), reading) for key, item in value.items()}
    if is_dataclass(kind):
        return _record(cast("type[Any]", kind), value, keys, reading)
    return _scalar(kind, value, keys, reading)


def _union(arguments: tuple[Any, ...], value: Any, keys: Keys, reading: _Reading) -> Any:
    inner = [argument for argument in arguments if argument is not type(None)]
    if len(inner) == 1:
        return _value(inner[0], value, keys, reading)
    if isinstance(value, (int, float, bool, str)):
        return value
    return reading.wrong(keys, "must be a number, true, false or text")


def _scalar(kind: type, value: Any, keys: Keys, reading: _Reading) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if kind is list:
        if isinstance(value, list) and all(type(item) is int for item in value):
            return tuple(value)
        return reading.wrong(keys, f"must be {_NOUNS[list]}, not {value!r}")
    if type(value) is not kind:
        return reading.wrong(keys, f"must be {_NOUNS[kind]}, not {value!r}")
    return value


def _recipes(values: Mapping[str, Any], keys: Keys, reading: _Reading) -> Any:
    recipes: dict[str, dict[str, Any]] = {}
    for strategy, recipe in values.items():
        place = (*keys, strategy)
        if strategy not in STRATEGIES:
            near = nearest(strategy, STRATEGIES)
            reading.wrong(place, "is no strategy", f"did you mean `{near[0]}`?" if near else _quoted(STRATEGIES))
            continue
        if not isinstance(recipe, dict):
            reading.wrong(place, "must be a table")
            continue
        recipes[strategy] = {}
        for key, item in recipe.items():
            if key not in RECIPE_SETTINGS:
                near = nearest(key, RECIPE_SETTINGS)
                reading.wrong(
                    (*place, key), "is no setting of a recipe", f"did you mean `{near[0]}`?" if near else None
                )
            elif not isinstance(item, dict):
                reading.wrong((*place, key), "names no source; write `{ value = ..., source = ... }`")
            else:
                one = _record(RecipeValue, item, (*place, key), reading)
                if isinstance(one, RecipeValue):
                    checked = _scalar(RECIPE_SETTINGS[key], one.value, (*place, key), reading)
                    recipes[strategy][key] = replace(one, value=checked)
    return recipes


def _check(card: ArchitectureCard, reading: _Reading) -> None:
    """What types alone cannot say."""
    tags = [weights.tag for weights in card.weights]
    for tag in dict.fromkeys(tag for tag in tags if tags.count(tag) > 1):
        reading.wrong(("weights",), f"has the tag `{tag}` twice")
    if card.default_weights and card.default_weights not in tags:
        near = nearest(card.default_weights, tags)
        hint = f"did you mean `{near[0]}`?" if near else None
        reading.wrong(("default_weights",), f"is `{card.default_weights}`, which `weights` does not list", hint)
    named: list[tuple[Keys, Normalisation | None]] = [(("normalisation",), card.normalisation)]
    named += [(("weights", str(index)), one.normalisation) for index, one in enumerate(card.weights)]
    for option, about in card.options.items():
        message = option_fault(about, about.default)
        if message:
            reading.wrong(("options", option, "default"), message)
        values = [str(one) for one in about.choices] or (["true", "false"] if about.type == "bool" else [])
        for value, meant in about.normalisations.items():
            place = ("options", option, "normalisations", value)
            if values and value not in values:
                reading.wrong(place, f"is for a value the option cannot have; it has {_quoted(tuple(values))}")
            named.append((place, meant))
    for requirement in card.requires:
        if fault := requirement_fault(requirement):
            reading.wrong(("requires",), fault)
    for keys, normalisation in named:
        if normalisation and not _usable(normalisation):
            reading.wrong(keys, "needs as many means as standard deviations, all of these above 0")
    for number in ("params", "params_total", "input_size", "in_channels", "feature_dim", "stages", "blocks"):
        value = getattr(card, number)
        if value is not None and value < (0 if number.startswith("params") else 1):
            reading.wrong((number,), f"is {value}")
    if card.size.minimum < 1 or card.size.multiple < 1:
        reading.wrong(("size",), "needs a minimum and a multiple of at least 1")


def _usable(normalisation: Normalisation) -> bool:
    mean, std = normalisation.mean, normalisation.std
    return len(mean) == len(std) > 0 and min(std) > 0


def option_fault(option: OptionCard, value: Any) -> str:
    """Why `value` is none for this option; empty if it is one."""
    kind = {"int": int, "float": float, "bool": bool, "str": str}[option.type]
    if type(value) is not kind and not (kind is float and type(value) is int):
        return f"must be {_NOUNS[kind]}, not {value!r}"
    if option.choices and value not in option.choices:
        return f"is `{value}`, not one of {_quoted(option.choices)}"
    if isinstance(value, (int, float)):  # written so that NaN is refused too
        if option.minimum is not None and not value >= option.minimum:
            return f"is {value}, below {option.minimum:g}"
        if option.maximum is not None and not value <= option.maximum:
            return f"is {value}, above {option.maximum:g}"
    return ""


def _quoted(values: tuple[Any, ...]) -> str:
    return ", ".join(f"`{value}`" for value in values)
