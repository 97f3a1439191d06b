"""Where each key of a TOML file stands, because an error without a line sends its reader searching."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["find_lines"]

_PART = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*(\.|=|$)?""")
_STRUCTURE = re.compile(r"""[\[\]{}]|\"{3}|'{3}""")
Path = tuple[str, ...]


def find_lines(text: str) -> dict[Path, int]:
    """Line numbers, from 1, of tables, keys, and items of multi-line arrays (`("a", "weights", "0")`).

    `text` must be valid TOML. A key within an inline table has no line of its own: ask for the nearest prefix.
    """
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    key: Path = ()
    depth, item, closing = 0, 0, ""
    # Not `splitlines`: TOML strings may hold U+2028 and its like, which end no line.
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.strip()
        if closing:  # inside a multi-line string
            if closing in line:
                closing = ""
            continue
        if depth == 0:
            if not bare or bare.startswith("#"):
                continue
            if bare.startswith("["):
                double = bare.startswith("[[")
                *above, last = _key(bare[2 if double else 1 :])
                table = (*_within(above, counts, lines, number), last)
                if double:
                    counts[table] = counts.get(table, -1) + 1
                    lines.setdefault(table, number)
                    table = (*table, str(counts[table]))
                lines[table] = number
                continue
            key, item = (*table, *_key(bare)), 0
            for length in range(len(table) + 1, len(key) + 1):
                lines.setdefault(key[:length], number)
        elif depth == 1 and bare and bare[0] not in "#]":
            lines[*key, str(item)] = number
            item += 1
        depth, closing = _balance(line, depth)
    return lines


def _within(names: Sequence[str], counts: Mapping[Path, int], lines: dict[Path, int], number: int) -> Path:
    """The path of the tables around a table; of an array of tables it is the latest one."""
    path: Path = ()
    for name in names:
        path = (*path, name)
        lines.setdefault(path, number)
        if path in counts:
            path = (*path, str(counts[path]))
    return path


def _key(text: str) -> Path:
    """The parts of a dotted key at the start of `text`."""
    parts: list[str] = []
    position = 0
    while match := _PART.match(text, position):
        escaped, literal, bare, _ = match.groups()
        parts.append(next(part for part in (literal, bare, _plain(escaped)) if part is not None))
        position = match.end()
        if match.group(4) != ".":
            break
    return tuple(parts)


def _plain(escaped: str | None) -> str | None:
    if escaped is None or "\\" not in escaped:
        return escaped
    import tomli

    return str(tomli.loads(f'key = "{escaped}"')["key"])


def _balance(line: str, depth: int) -> tuple[int, str]:
    """Depth of open brackets after the line, and the delimiter of a multi-line string left open in it."""
    if not _STRUCTURE.search(line):  # most lines, and a card is read for every listing
        return depth, ""
    position = 0
    while position < len(line):
        for delimiter in ('"""', "'''"):
            if line.startswith(delimiter, position):
                end = line.find(delimiter, position + 3)
                if end < 0:
                    return depth, delimiter
                position = end + 2
                break
        else:
            character = line[position]
            if character == "#":
                break
            if character in "\"'":
                position = _end_of_string(line, position)
            elif character in "[{":
                depth += 1
            elif character in "]}":
                depth -= 1
        position += 1
    return depth, ""


def _end_of_string(line: str, start: int) -> int:
    position = start + 1
    while position < len(line) and line[position] != line[start]:
        position += 2 if line[position] == "\\" and line[start] == '"' else 1
    return position
