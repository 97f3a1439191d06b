"""Plain tables that stay readable in a narrow terminal: long texts wrap in their column before a column gives way."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

__all__ = ["facts_text", "table_text"]

_GAP = 2
_NARROWEST = 12  # characters; a wrapped text narrower than this is a ladder of single words
_LONGEST_WORD = 40  # characters; a longer word, such as a path, is broken rather than given the whole line


def table_text(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None = None) -> str:
    """Aligned text under a heading; columns of numbers stand to the right, missing cells are `-`.

    Args:
        columns: the headings.
        rows: cells, one sequence per row, as long as `columns`.
        width: of the terminal in characters; None where the table may be as wide as it is. The first column is never
            wrapped or left out, because it is what a person copies. A last line says which columns had no room.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
    kept = len(columns) if width is None else _fit(columns, cells, numeric, widths, width)
    right = numeric[:kept]
    lines = [_line(columns[:kept], widths, right)]
    for row in cells:
        lines += _wrapped(row[:kept], widths, right)
    if kept < len(columns):
        missing = ", ".join(name for name in columns[kept:] if name) or "a column"
        lines += [f"(no room here for: {missing}; a wider terminal or `--json` shows all)"]
    return "\n".join(lines)


def facts_text(rows: Sequence[tuple[str, str]], width: int | None = None) -> str:
    """Names and what is to be said of each, in two columns; what is longer than `width` wraps in the second."""
    names = max((len(name) for name, _ in rows), default=0) + _GAP
    room = None if width is None else max(_NARROWEST, width - names)
    lines = []
    for name, text in rows:
        told = [text] if room is None or len(text) <= room else textwrap.wrap(text, room, break_on_hyphens=False)
        lines += [f"{name if not level else '':<{names}}{part}".rstrip() for level, part in enumerate(told)]
    return "\n".join(lines)


def _fit(
    columns: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], widths: list[int], width: int
) -> int:
    """How many columns stay; narrows `widths` of columns of text in place."""
    floors = [
        widths[i]
        if i == 0 or numeric[i]
        else min(widths[i], max([_NARROWEST, len(name), *(min(_longest_word(row[i]), _LONGEST_WORD) for row in cells)]))
        for i, name in enumerate(columns)
    ]
    kept = len(columns)
    while kept > 1 and sum(floors[:kept]) + _GAP * (kept - 1) > width:
        kept -= 1
    while (over := sum(widths[:kept]) + _GAP * (kept - 1) - width) > 0:
        widest = max(range(kept), key=lambda i: (widths[i] - floors[i], i))
        room = widths[widest] - floors[widest]
        if room == 0:
            break
        widths[widest] -= min(room, over)
    return kept


def _wrapped(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    stacks = [
        textwrap.wrap(text, size, break_on_hyphens=False) if len(text) > size and i else [text]
        for i, (text, size) in enumerate(zip(row, widths, strict=False))
    ]
    height = max(len(stack) for stack in stacks)
    levels = [[stack[level] if level < len(stack) else "" for stack in stacks] for level in range(height)]
    return [_line(texts, widths, right) for texts in levels]


def _line(texts: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    parts = [
        text.rjust(size) if to_the_right else text.ljust(size)
        for text, size, to_the_right in zip(texts, widths, right, strict=False)
    ]
    return (" " * _GAP).join(parts).rstrip()


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
