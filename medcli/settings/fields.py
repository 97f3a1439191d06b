"""The dataclasses of `medcli.settings.groups` as one table: flags, files, variables and schema are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from medcli.settings import groups
from medcli.settings.groups import Option

__all__ = ["Field", "all_fields", "fields_of"]


@dataclass(frozen=True)
class Field:
    """One setting, its annotation taken apart.

    Args:
        name: the Python name, unique over all groups.
        group: the dataclass it belongs to.
        option: help, panel, limits.
        default: the value when no layer sets it.
        base: `int`, `float`, `bool` or `str`: the type of one value.
        choices: the accepted words, or empty.
        many: whether the value is a tuple of `base`.
        optional: whether None is a value.
    """

    name: str
    group: type
    option: Option
    default: Any
    base: type
    choices: tuple[Any, ...]
    many: bool
    optional: bool

    @property
    def flag(self) -> str:
        """The long flag, such as `--image-size`."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def comma_split(self) -> bool:
        """Whether one text may hold several values: numbers always, words where the placeholder shows a comma."""
        return self.many and (self.base is not str or "," in self.option.metavar)


@cache
def fields_of(group: type) -> tuple[Field, ...]:
    """The settings of one dataclass, in the order in which they are written."""
    hints = get_type_hints(group, include_extras=True)
    return tuple(_take_apart(item.name, group, hints[item.name], item.default) for item in fields(group))


@cache
def all_fields() -> Mapping[str, Field]:
    """Every setting by name. Raises `TypeError` when two groups use one name, because each fact stands once."""
    table: dict[str, Field] = {}
    for name in groups.__all__:
        group = getattr(groups, name)
        if group is Option:
            continue
        for field in fields_of(group):
            if field.name in table:
                raise TypeError(f"`{field.name}` is in both {table[field.name].group.__name__} and {name}")
            table[field.name] = field
    return table


def _take_apart(name: str, group: type, annotation: Any, default: Any) -> Field:
    kind, option = get_args(annotation)
    if default is MISSING:
        raise TypeError(f"setting `{name}` needs a default")
    optional = many = False
    choices: tuple[Any, ...] = ()
    if get_origin(kind) is UnionType or NoneType in get_args(kind):
        optional = True
        (kind,) = [part for part in get_args(kind) if part is not NoneType]
    if get_origin(kind) is tuple:
        many = True
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        kind = type(choices[0])
    return Field(name, group, option, default, kind, choices, many, optional)
