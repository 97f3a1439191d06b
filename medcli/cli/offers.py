"""What the shell may offer at the cursor, by the kind of value wanted.

Nothing here imports torch, numpy, pandas, rich or pydantic. Paths are left to the shell itself, which knows about
spaces, quotes and `~`; the answer only says that a path is wanted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcli.errors import MedcliError

__all__ = ["KIND_OF_PLACEHOLDER", "Offer", "offer"]

RUNS_OFFERED = 30
SYNTHETIC = ("synthetic/chest", "synthetic/chest-pairs")
# A placeholder that already says what is wanted.
KIND_OF_PLACEHOLDER = {"COLUMN": "column", "CLASS": "class", "KEY=VALUE": "arch_opt", "TAG|FILE": "weights|path"}


@dataclass(frozen=True)
class Offer:
    """What fits at the cursor.

    Args:
        values: words with a short explanation each, already narrowed to the prefix.
        files: whether any path fits too.
        dirs: whether a folder fits too.
    """

    values: tuple[tuple[str, str], ...] = ()
    files: bool = False
    dirs: bool = False

    def __add__(self, other: Offer) -> Offer:
        return Offer(self.values + other.values, self.files or other.files, self.dirs or other.dirs)


def offer(kind: str, incomplete: str, typed: Mapping[str, Any] | None = None) -> Offer:
    """What to offer for one kind of value, or several kinds joined by `|`; an unknown kind offers nothing.

    Args:
        kind: as in `Positional.completes` and `Option.completes`.
        incomplete: what stands before the cursor.
        typed: the command's other parameters typed so far.
    """
    total = Offer()
    for part in kind.split("|"):
        source = _SOURCES.get(part)
        if source is not None:
            total += source(incomplete, typed or {})
    return total


def _named(names: tuple[str, ...], incomplete: str) -> Offer:
    return Offer(tuple((name, "") for name in names if name.startswith(incomplete)))


def _architectures(incomplete: str, typed: Mapping[str, Any]) -> Offer:
    from medcli.registry.discovery import architecture_names

    return _named(tuple(architecture_names(incomplete)), incomplete)


def _architecture_options(incomplete: str, typed: Mapping[str, Any]) -> Offer:
    from medcli.registry.cards import read_card
    from medcli.registry.discovery import discover, find

    architecture = typed.get("architecture")
    if not architecture:
        return Offer()
    card = read_card(find(discover(), architecture))
    if card is None:
        return Offer()
    key, equals, _ = incomplete.partition("=")
    if equals:
        option = card.options.get(key)
        return _named(tuple(f"{key}={choice}" for choice in option.choices), incomplete) if option else Offer()
    return Offer(tuple((f"{name}=", option.help) for name, option in card.options.items() if name.startswith(key)))


def _presets(incomplete: str, typed: Mapping[str, Any]) -> Offer:
    from medcli.settings.presets import presets

    return Offer(tuple((name, "") for name in presets() if name.startswith(incomplete)))


def _commands(incomplete: str, typed: Mapping[str, Any]) -> Offer:
    from medcli.settings.commands import COMMANDS

    return _named(tuple(command.table for command in COMMANDS.values() if command.layered), incomplete)


def _runs(incomplete: str, typed: Mapping[str, Any]) -> Offer:
    root = Path("runs")
    if incomplete or not root.is_dir():
        return Offer(dirs=True)
    found = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())[-RUNS_OFFERED:]
    return Offer(tuple((f"runs/{name}", "") for name in found), dirs=not found)


def _data(incomplete: str, typed: Mapping[str, Any]) -> Offer:
    name, equals, path = incomplete.rpartition("=")
    names = _named(SYNTHETIC, path) if path else Offer()
    return Offer(tuple((f"{name}{equals}{value}", text) for value, text in names.values), files=True)


def _columns(incomplete: str, typed: Mapping[str, Any]) -> Offer:
    """Columns of the tables typed so far; `NAME=` in front of one and `A,` before it are kept."""
    from medcli.data.tables import is_table, read_header

    start = incomplete[: max(incomplete.rfind("="), incomplete.rfind(",")) + 1]
    found: dict[str, str] = {}
    for path in _typed_paths(typed):
        if is_table(path) and Path(path).is_file():
            # An unreadable table offers nothing; the command itself will say what is wrong with it.
            with contextlib.suppress(MedcliError, OSError, ValueError, EOFError):
                found |= dict.fromkeys(read_header(path), Path(path).name)
    return Offer(tuple((start + name, where) for name, where in found.items() if (start + name).startswith(incomplete)))


def _classes(incomplete: str, typed: Mapping[str, Any]) -> Offer:
    """Class names that the typed run remembers, or the names of the class folders typed as data."""
    import json

    names: dict[str, None] = {}
    for path in map(Path, _typed_paths(typed)):
        if (path / "data.json").is_file():
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                names |= dict.fromkeys(json.loads((path / "data.json").read_text("utf-8"))["target"]["class_names"])
        elif path.is_dir():
            inner = [path / name for name in ("train", "val", "test") if (path / name).is_dir()] or [path]
            names |= dict.fromkeys(
                sorted(entry.name for folder in inner for entry in folder.iterdir() if entry.is_dir())
            )
    return _named(tuple(names), incomplete)


def _weights(incomplete: str, typed: Mapping[str, Any]) -> Offer:
    """The tags on the typed architecture's card."""
    from medcli.registry.cards import read_card
    from medcli.registry.discovery import discover, find

    name = typed.get("architecture") or typed.get("source")
    card = read_card(find(discover(), name)) if name and not Path(name).exists() else None
    return _named(tuple(one.tag for one in card.weights), incomplete) if card else Offer()


def _manuals(incomplete: str, typed: Mapping[str, Any]) -> Offer:
    """The word that may come next in the name of a command, and at first the guides."""
    from medcli.cli.app import program

    before = next((value for value in typed.values() if isinstance(value, list | tuple)), ())
    group: Any = program()
    for word in before:
        group = getattr(group, "members", {}).get(word)
    rows: list[tuple[str, str]] = list(group.rows()) if hasattr(group, "rows") else []
    if not before:
        from medcli.cli.guides import guides

        rows += [(name, one.title) for name, one in guides().items()]
    return Offer(tuple(row for row in rows if row[0].startswith(incomplete)))


def _shells(incomplete: str, typed: Mapping[str, Any]) -> Offer:
    from medcli.cli.completion import SHELLS

    return _named(SHELLS, incomplete)


def _typed_paths(typed: Mapping[str, Any]) -> Iterator[str]:
    """Everything typed so far that could be a path, without the `NAME=` of a named set."""
    for value in typed.values():
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str):
                yield text if Path(text).exists() else text.rpartition("=")[2]


_SOURCES: Mapping[str, Callable[[str, Mapping[str, Any]], Offer]] = {
    "architecture": _architectures,
    "arch_opt": _architecture_options,
    "class": _classes,
    "column": _columns,
    "preset": _presets,
    "command": _commands,
    "run": _runs,
    "data": _data,
    "weights": _weights,
    "manual": _manuals,
    "cache_action": lambda incomplete, typed: _named(("list", "clear"), incomplete),
    "shell": _shells,
    "synthetic": lambda incomplete, typed: _named(SYNTHETIC, incomplete),
    "path": lambda incomplete, typed: Offer(files=True),
    "dir": lambda incomplete, typed: Offer(dirs=True),
}
