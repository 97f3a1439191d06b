"""What a search may change, and between which values: the default spaces and those of a file.

Names, types and limits are those of the settings themselves, so a space can hold nothing that a flag could not say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from medcli.errors import MedcliError, UsageProblem, nearest
from medcli.settings.commands import COMMANDS
from medcli.settings.fields import Field, all_fields
from medcli.settings.groups import ComputeSettings, DataSettings, OutputSettings
from medcli.settings.layers import Layer
from medcli.settings.resolve import raise_all
from medcli.settings.toml_files import Document, read_toml
from medcli.settings.validation import check_layer

__all__ = [
    "Choices",
    "Dimension",
    "Range",
    "default_space",
    "read_space",
    "render_space",
    "searchable",
    "space_to_json",
]


@dataclass(frozen=True)
class Choices:
    """A setting that takes one of some values.

    Args:
        name: the setting.
        values: what it may be, in the order given.
    """

    name: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return f"one of {', '.join(_text(value) for value in self.values)}"


@dataclass(frozen=True)
class Range:
    """A numeric setting that takes any value between two, both included.

    Args:
        name: the setting.
        low: the smallest value.
        high: the largest value.
        log: whether every order of magnitude is equally likely.
        step: distance of the values tried; None for any (or 1 for whole numbers).
        whole: whether the setting takes whole numbers alone.
    """

    name: str
    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def __str__(self) -> str:
        step = f", in steps of {self.step:g}" if self.step is not None else ""
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.log else ''}{step}"


Dimension = Choices | Range

# Bookkeeping changes no recipe; `monitor` is what trials are compared by, and `strategy` is what is searched.
_NEVER = frozenset(
    {
        "accept_data_change",
        "adapter",
        "checkpoint_every",
        "compile",
        "extend",
        "init_from",
        "log_with",
        "monitor",
        "overfit_batch",
        "random_weights",
        "resume",
        "strategy",
    }
)
_ALL_THE_SAME = frozenset({"batch_size", "image_size", "fit", "precision"})
_KEYS = ("low", "high", "log", "step", "choices")


def default_space(strategy: str) -> tuple[Dimension, ...]:
    """The space of a strategy where no file gives one."""
    if strategy == "lora":
        return (
            Choices("rank", (4, 8, 16, 32)),
            Choices("lora_alpha", (16.0, 32.0, 64.0)),
            Range("lr", 1e-5, 1e-3, log=True),
            Choices("batch_size", (8, 16, 32, 48)),
            Range("dropout", 0.1, 0.5),
        )
    return (
        Range("lr", 1e-5, 1e-3, log=True),
        Choices("batch_size", (16, 32, 64)),
        Choices("dropout", (0.0, 0.1, 0.3, 0.5)),
        Choices("weight_decay", (0.0, 0.01, 0.05)),
    )


def searchable(command: str) -> dict[str, Field]:
    """The settings of a training command that a space may name: one value each, and part of the recipe."""
    return {
        name: field
        for name, field in COMMANDS[command].fields.items()
        if not field.many
        and not field.option.flag_only
        and not field.option.safe_on_resume
        and name not in _NEVER
        and (field.group not in (DataSettings, ComputeSettings, OutputSettings) or name in _ALL_THE_SAME)
    }


def read_space(path: Path, command: str, shown: str | None = None) -> tuple[Dimension, ...]:
    """The space a TOML file describes for a training command.

    Raises:
        UsageProblem: the file cannot be read, or one thing in it is wrong; file and line are named.
        Problems: everything that is wrong with it.
    """
    document = read_toml(path, shown)
    problems: list[MedcliError] = []
    for key in document.values:
        if key != "space":
            hint = "write `[space]` and below it `lr = { low = 1e-5, high = 1e-3, log = true }`"
            problems.append(_problem(document, f"unknown key `{key}`; a space is one table `[space]`", key, hint=hint))
    table = document.below("space")
    if not isinstance(document.values.get("space", {}), dict):
        problems.append(_problem(document, "`space` must be a table of settings", "space"))
    elif not table.values and not problems:
        hint = "write `[space]` and below it `lr = { low = 1e-5, high = 1e-3, log = true }`"
        problems.append(_problem(document, "the file holds no `[space]` with settings to search", hint=hint))
    space: list[Dimension] = []
    for key, value in table.values.items():
        found = _dimension(table, key, value, command)
        if isinstance(found, Choices | Range):
            if any(found.name == other.name for other in space):
                problems.append(_problem(table, f"`{key}` is set twice, with `-` and with `_`", key))
            space.append(found)
        else:
            problems += found
    raise_all(problems)
    return tuple(space)


def _dimension(table: Document, key: str, value: Any, command: str) -> Dimension | list[MedcliError]:
    name, known = key.replace("-", "_"), searchable(command)
    if name not in known:
        return [_unknown(table, key, name, command, known)]
    field = known[name]
    if isinstance(value, dict) and "choices" in value:
        if len(value) > 1:
            return [_problem(table, f"`{key}` has `choices`, so it takes nothing else", key)]
        value = value["choices"]
    if isinstance(value, list):
        return _choices(table, key, value, field)
    if isinstance(value, dict):
        return _range(table, key, value, field)
    return [
        _problem(
            table,
            f"`{key}` has one value, so there is nothing to search",
            key,
            hint=f"fix it with the flag `{field.flag}`, or give a list `[…]` or `{{ low = …, high = … }}`",
        )
    ]


def _choices(table: Document, key: str, values: list[Any], field: Field) -> Dimension | list[MedcliError]:
    if not values:
        return [_problem(table, f"`{key}` lists no values", key)]
    wrong = [problem for value in values for problem in _checked(table, key, value, field)]
    if wrong:
        return wrong
    typed = tuple(field.base(value) for value in values)
    twice = next((value for value in typed if typed.count(value) > 1), None)
    if twice is not None:
        return [_problem(table, f"`{key}` lists `{_text(twice)}` twice", key)]
    return Choices(field.name, typed)


def _range(table: Document, key: str, bounds: Mapping[str, Any], field: Field) -> Dimension | list[MedcliError]:
    if field.choices or field.base not in (int, float):
        hint = f'list what it may be: `{key} = ["{field.choices[0]}"]`' if field.choices else "list what it may be"
        return [_problem(table, f"`{key}` is not a number, so it has no range", key, hint=hint)]
    problems: list[MedcliError] = []
    for inner in bounds:
        if inner not in _KEYS:
            close = nearest(inner, _KEYS)
            hint = f"did you mean `{close[0]}`?" if close else f"it takes {', '.join(f'`{one}`' for one in _KEYS)}"
            problems.append(_problem(table, f"unknown key `{inner}` of `{key}`", key, inner, hint=hint))
    for inner in ("low", "high"):
        if inner not in bounds:
            problems.append(_problem(table, f"`{key}` needs `{inner}`", key, hint=f"{key} = {{ low = …, high = … }}"))
        else:
            problems += _checked(table, key, bounds[inner], field, inner)
    if not isinstance(bounds.get("log", False), bool):
        problems.append(_problem(table, f"`log` of `{key}` must be `true` or `false`", key, "log"))
    step = bounds.get("step")
    numeric = (int,) if field.base is int else (int, float)
    if step is not None and (not isinstance(step, numeric) or isinstance(step, bool) or not 0 < step < float("inf")):
        kind = "whole number" if field.base is int else "number"
        problems.append(_problem(table, f"`step` of `{key}` must be a {kind} above 0, not `{step}`", key, "step"))
    if problems:
        return problems
    dimension = Range(
        field.name,
        field.base(bounds["low"]),
        field.base(bounds["high"]),
        bool(bounds.get("log", False)),
        None if step is None else field.base(step),
        field.base is int,
    )
    return [_problem(table, sentence, key) for sentence in _contradictions(key, dimension)] or dimension


def _contradictions(key: str, one: Range) -> Iterator[str]:
    if one.low >= one.high:
        yield f"`low` of `{key}` ({one.low:g}) must be below its `high` ({one.high:g})"
    elif one.log and one.low <= 0:
        yield f"`{key}` is logarithmic, so its `low` must be above 0, not {one.low:g}"
    elif one.log and one.step is not None:
        yield f"`{key}` is logarithmic, so it takes no `step`"
    elif one.step is not None and (Decimal(str(one.high)) - Decimal(str(one.low))) % Decimal(str(one.step)):
        yield f"`step` of `{key}` ({one.step:g}) does not lead from {one.low:g} to {one.high:g}"


def _checked(table: Document, key: str, value: Any, field: Field, *inner: str) -> list[MedcliError]:
    """What the setting itself says against a value."""
    where = table.where(key, *inner)
    return list(check_layer(Layer("config file", {field.name: value}, {field.name: where})).values())


def _unknown(table: Document, key: str, name: str, command: str, known: Collection[str]) -> UsageProblem:
    if name in COMMANDS[command].fields:
        setting = all_fields()[name]
        hint = f"give it once, for every trial: `{setting.flag}`"
        return _problem(table, f"`{key}` is no part of the recipe, so it cannot be searched", key, hint=hint)
    if name in all_fields():
        return _problem(table, f"`{key}` is no setting of `medcli {command}`, which these trials run", key)
    close = nearest(name, known)
    hint = f"did you mean `{close[0]}`?" if close else f"`medcli {command} --help` lists the settings"
    return _problem(table, f"unknown setting `{key}`", key, hint=hint, code="unknown-setting")


def _problem(
    document: Document, message: str, *path: str, hint: str | None = None, code: str = "bad-space"
) -> UsageProblem:
    return UsageProblem(message, where=document.where(*path), hint=hint, code=code)


def render_space(space: Collection[Dimension]) -> str:
    """The space as a file that `--space` reads."""
    import tomli_w

    lines = ["# What this search tried; `--space THIS` tries the same elsewhere.", "[space]"]
    for one in space:
        if isinstance(one, Choices):
            lines.append(
                tomli_w.dumps({one.name: list(one.values)}, multiline_strings=False).strip().replace("\n", " ")
            )
            continue
        parts = [f"low = {one.low!r}", f"high = {one.high!r}"]
        parts += ["log = true"] if one.log else []
        parts += [f"step = {one.step!r}"] if one.step is not None else []
        lines.append(f"{one.name} = {{ {', '.join(parts)} }}")
    return "\n".join(lines) + "\n"


def space_to_json(space: Collection[Dimension]) -> dict[str, Any]:
    """The space as JSON can hold it, by setting."""
    return {
        one.name: {"choices": list(one.values)}
        if isinstance(one, Choices)
        else {"low": one.low, "high": one.high, "log": one.log, "step": one.step}
        for one in space
    }


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
