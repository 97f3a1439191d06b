"""Where values come from. Each source is a layer that knows the file and line, variable or flag of every value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medcli.errors import MedcliError, UsageProblem, nearest
from medcli.settings.commands import COMMANDS, CommandSettings
from medcli.settings.fields import Field, all_fields

__all__ = ["LAYERS", "RESERVED_VARIABLES", "Layer", "Origin", "flag_layer", "variable_layer"]

LAYERS = ("default", "recipe", "user file", "project file", "preset", "config file", "variable", "flag")
"""The layers, lowest first."""

RESERVED_VARIABLES = frozenset({"MEDCLI_PLUGINS", "MEDCLI_STRICT_PLUGINS"})
"""Variables that are no settings: plugin discovery reads them."""


@dataclass(frozen=True)
class Origin:
    """Where one value came from.

    Args:
        layer: one of `LAYERS`.
        where: flag, variable, `file:line`, or the card and recipe; empty for a default.
    """

    layer: str
    where: str = ""

    def __str__(self) -> str:
        match self.layer:
            case "default":
                return "default"
            case "flag":
                return f"`{self.where}`"
            case "variable":
                return f"variable `{self.where}`"
            case "preset":
                return f"preset `{self.where}`"
            case _:
                return self.where

    @property
    def rank(self) -> int:
        """Its place in the order; a higher layer wins."""
        return LAYERS.index(self.layer)


@dataclass(frozen=True)
class Layer:
    """The values of one source.

    Args:
        name: one of `LAYERS`.
        values: field name -> value.
        where: field name -> where it stands.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)

    def origin(self, name: str) -> Origin:
        """The origin of one of its values."""
        return Origin(self.name, self.where.get(name, ""))

    def without(self, names: frozenset[str]) -> Layer:
        """The same layer with some fields left out."""
        return Layer(self.name, {key: value for key, value in self.values.items() if key not in names}, self.where)


def flag_layer(given: Mapping[str, Any]) -> Layer:
    """The flags that were typed, by field name."""
    known = all_fields()
    return Layer("flag", dict(given), {name: known[name].flag for name in given if name in known})


def variable_layer(command: CommandSettings, environ: Mapping[str, str]) -> tuple[Layer, list[MedcliError]]:
    """The `MEDCLI_*` variables that this command reads, and what is wrong with any of them.

    `MEDCLI_<COMMAND>_<FIELD>` wins over `MEDCLI_<FIELD>`. An empty variable counts as not set, as in most programs.
    """
    names = _variable_names()
    values: dict[str, Any] = {}
    where: dict[str, str] = {}
    problems: list[MedcliError] = []
    for variable in sorted(environ, key=lambda name: (name.startswith(command.variable_prefix), name)):
        if not variable.startswith("MEDCLI_") or variable in RESERVED_VARIABLES:
            continue
        if variable not in names:
            usable = [name for name, (_, setting) in names.items() if not setting.option.flag_only]
            close = nearest(variable, [*usable, *RESERVED_VARIABLES])
            hint = f"did you mean `{close[0]}`?" if close else "`medcli config init` lists every setting"
            problems.append(
                UsageProblem(f"unknown variable `{variable}`", where="environment", hint=hint, code="unknown-variable")
            )
            continue
        owner, setting = names[variable]
        if setting.option.flag_only:
            problems.append(
                UsageProblem(
                    f"`{variable}` cannot be set by a variable",
                    where="environment",
                    hint=f"use the flag `{setting.flag}`",
                    code="flag-only",
                )
            )
        elif environ[variable].strip() and owner in (None, command.name) and setting.name in command.fields:
            values[setting.name] = _from_text(setting, environ[variable].strip())
            where[setting.name] = variable
    return Layer("variable", values, where), problems


def _variable_names() -> dict[str, tuple[str | None, Field]]:
    names: dict[str, tuple[str | None, Field]] = {}
    for command in COMMANDS.values():
        if command.layered:
            for name, setting in command.fields.items():
                names[f"MEDCLI_{name.upper()}"] = (None, setting)
                names[f"{command.variable_prefix}{name.upper()}"] = (command.name, setting)
    return names


def _from_text(setting: Field, text: str) -> Any:
    """A variable's text as the setting's type; where that fails, the text itself, about which validation complains."""
    if setting.many:
        pieces: Sequence[str] = [piece.strip() for piece in text.split(",")] if setting.comma_split else [text]
        return tuple(_scalar(setting, piece) for piece in pieces)
    return _scalar(setting, text)


def _scalar(setting: Field, text: str) -> Any:
    if setting.base is bool:
        if not setting.option.in_file:
            # `NO_COLOR` convention: any text switches it on.
            return text.lower() not in {"0", "false", "no", "off"}
        return {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }.get(text.lower(), text)
    try:
        return setting.base(text)
    except ValueError:
        return text
