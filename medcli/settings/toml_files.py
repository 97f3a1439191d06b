"""TOML with the line of every key, so that each complaint can name it. Syntax errors name line and column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medcli.errors import UsageProblem
from medcli.toml_lines import find_lines

__all__ = ["Document", "parse_toml", "read_toml"]


@dataclass(frozen=True)
class Document:
    """A parsed file, or one table of it.

    Args:
        shown: the file as messages name it.
        values: what tomli made of it.
        text: the whole file; its lines are looked up only when a message needs one.
        above: the path of the table that `values` is.
    """

    shown: str
    values: Mapping[str, Any]
    text: str = ""
    above: tuple[str, ...] = ()

    @cached_property
    def lines(self) -> Mapping[tuple[str, ...], int]:
        """Key path from the top of the file -> line, counted from 1."""
        return find_lines(self.text)

    def where(self, *path: str) -> str:
        """`file:line` of a key, or of the nearest table around it."""
        full = (*self.above, *path)
        for length in range(len(full), 0, -1):
            if full[:length] in self.lines:
                return f"{self.shown}:{self.lines[full[:length]]}"
        return self.shown

    def below(self, *path: str) -> Document:
        """The table at `path` as a document of its own; empty if there is none."""
        table: Any = self.values
        for key in path:
            table = table.get(key, {}) if isinstance(table, dict) else {}
        return Document(self.shown, table if isinstance(table, dict) else {}, self.text, (*self.above, *path))


def read_toml(path: Path, shown: str | None = None) -> Document:
    """Read a TOML file. Raises `UsageProblem` for a file that cannot be read or is no TOML."""
    shown = shown or str(path)
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UsageProblem(f"there is no file `{shown}`", code="missing-file") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UsageProblem("the file is not UTF-8 text", where=f"{shown}:{line}", code="broken-toml") from None
    except OSError as error:
        raise UsageProblem(
            f"`{shown}` cannot be read: {(error.strerror or str(error)).lower()}", code="unreadable-file"
        ) from None
    return parse_toml(text, shown)


def parse_toml(text: str, shown: str) -> Document:
    """Parse TOML text. Raises `UsageProblem` naming line and column when it is broken."""
    import tomli

    try:
        values = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise UsageProblem(
            f"the file is not valid TOML: {_lower_first(error.msg)}",
            where=f"{shown}:{error.lineno}:{error.colno}",
            hint="each name may stand once; beside `[data.NAME]` tables, `data = …` goes below `[train]`"
            if "overwrite" in error.msg or "twice" in error.msg
            else "put texts in quotes and close every bracket",
            code="broken-toml",
        ) from None
    return Document(shown, values, text)


def _lower_first(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
