"""Writes the card reference of `plugins/README.md` from `medcli.plugin`, so that it cannot fall behind the schema.

python plugins/card_reference.py
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from medcli.plugin import (
    ArchitectureCard,
    MemoryNote,
    Normalisation,
    OptionCard,
    Recipe,
    RecipeValue,
    Reference,
    Scaling,
    SizeRule,
    WeightCard,
)
from medcli.registry.card_schema import RECIPE_SETTINGS, STRATEGIES

__all__ = ["page_with_reference", "reference"]

PAGE = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- from here on written by card_reference.py -->", "<!-- until here written by card_reference.py -->"

SECTIONS: tuple[tuple[type, str], ...] = (
    (ArchitectureCard, "The table of an architecture or difference model"),
    (Normalisation, "Normalisation"),
    (SizeRule, "Size"),
    (WeightCard, "Weights"),
    (OptionCard, "Options"),
    (Reference, "References"),
    (MemoryNote, "Memory"),
    (Scaling, "Scaling"),
)
NOT_IN_TOML = {"name", "place"}
PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", list: "list of whole numbers"}
MANY = {str: "texts", int: "whole numbers", float: "numbers"}


def reference() -> str:
    """The reference as Markdown: a table per dataclass of the schema, and the settings of a recipe."""
    parts = []
    for kind, title in SECTIONS:
        meanings = _meanings(kind)
        parts += [f"### {title}", "", "| field | type | meaning |", "| --- | --- | --- |"]
        hints = get_type_hints(kind)
        for field in fields(kind):
            if field.name in NOT_IN_TOML:
                continue
            needed = field.default is MISSING and field.default_factory is MISSING
            said = f"{_type(hints[field.name])}{', required' if needed else ''}"
            parts.append(f"| `{field.name}` | {said} | {meanings[field.name]} |")
        parts.append("")
    parts += [
        "### Recipes",
        "",
        f"Strategies: {', '.join(f'`{name}`' for name in STRATEGIES)}. Settings, each with a source:",
        "",
        "| setting | type |",
        "| --- | --- |",
        *(f"| `{name}` | {PLAIN[kind]} |" for name, kind in RECIPE_SETTINGS.items()),
    ]
    return "\n".join(parts)


def page_with_reference(page: str) -> str:
    """The page with a new reference between its two marks. Raises `ValueError` where they are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks `{BEGIN}` or `{END}`")
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


def _meanings(kind: type) -> dict[str, str]:
    """Field to its text in the docstring's `Args:`."""
    text = cleandoc(kind.__doc__ or "").partition("Args:\n")[2]
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        start = re.match(r"    (\w+): (.*)", line)
        if start:
            name, found[start[1]] = start[1], start[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return {name: meaning.replace("|", r"\|") for name, meaning in found.items()}


def _type(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = [one for one in arguments if one is not type(None)]
        return _type(inner[0]) if len(inner) == 1 else "number, true, false or text"
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in arguments if one)
    if origin is tuple:
        inside = arguments[0]
        if get_origin(inside) in (Union, types.UnionType):
            return "list of numbers or texts"
        return f"list of {MANY[inside]}" if inside in MANY else f"list of {_type(inside).replace('table', 'tables')}"
    if kind == Mapping[str, Recipe]:
        return "strategy to [recipe](#recipes)"
    if kind == Mapping[str, tuple[str, ...]]:
        return "role to list of patterns"
    if origin is not None and issubclass(origin, Mapping):
        return f"name to {_type(arguments[1])}"
    if is_dataclass(kind):
        titles = dict(SECTIONS)
        title = titles[kind] if isinstance(kind, type) and kind in titles else RecipeValue.__name__
        return f"[table](#{title.lower()})"
    return PLAIN[kind]


if __name__ == "__main__":
    PAGE.write_text(page_with_reference(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
