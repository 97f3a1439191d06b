"""What the shell offers after TAB, by the kind of value wanted, and the script that asks bash to offer it.

Nothing here imports torch, numpy, pandas, rich or pydantic. Paths are left to bash itself, which knows about spaces,
quotes and `~`; the answer only says that a path is wanted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["COMPLETE_VARIABLE", "SHELLS", "Offer", "Word", "bash_reply", "bash_script", "offer", "words_of"]

COMPLETE_VARIABLE = "_MEDCLI_COMPLETE"
SHELLS = ("bash", "zsh", "fish", "powershell")
RUNS_OFFERED = 30
SYNTHETIC = ("synthetic/chest",)

# Readline's own file completion (`-o default`) quotes and expands correctly, but only acts while COMPREPLY is empty, so
# names and files are mixed through `compgen` alone where both fit.
_BASH = """\
_medcli_completion() {
    local IFS=$'\\n' reply
    mapfile -t reply < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \\
        _MEDCLI_COMPLETE=complete_bash "$1" 2>/dev/null)
    COMPREPLY=("${reply[@]:1}")
    case "${reply[0]}" in
        *nospace*) compopt -o nospace ;;
    esac
    case "${reply[0]}" in
        *files*)
            if ((${#COMPREPLY[@]})); then
                compopt -o filenames
                mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$2")
            else
                compopt -o default
            fi ;;
        *dirs*)
            if ((${#COMPREPLY[@]})); then
                compopt -o filenames
                mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -d -- "$2")
            else
                compopt -o dirnames
            fi ;;
    esac
}
complete -F _medcli_completion medcli
"""


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


@dataclass(frozen=True)
class Word:
    """The words before the cursor and the one under it, as medcli parses them.

    Args:
        before: complete words after the program's name.
        incomplete: the word under the cursor, up to it.
        kept: how many of its last characters bash will replace; bash cuts words at `=` and `:`.
    """

    before: tuple[str, ...]
    incomplete: str
    kept: int


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


_SOURCES: Mapping[str, Callable[[str, Mapping[str, Any]], Offer]] = {
    "architecture": _architectures,
    "arch_opt": _architecture_options,
    "preset": _presets,
    "command": _commands,
    "run": _runs,
    "data": _data,
    "synthetic": lambda incomplete, typed: _named(SYNTHETIC, incomplete),
    "path": lambda incomplete, typed: Offer(files=True),
    "dir": lambda incomplete, typed: Offer(dirs=True),
}


def bash_script() -> str:
    """The text to source in bash 4.4 or later."""
    return _BASH


def words_of(joined: str, cursor: int) -> Word:
    """Undo how bash cuts a command line into words.

    Args:
        joined: `COMP_WORDS`, one word per line.
        cursor: `COMP_CWORD`.
    """
    raw = joined.split("\n")[: cursor + 1]
    raw += [""] * (cursor + 1 - len(raw))
    merged: list[str] = []
    glue = False
    for position, word in enumerate(raw):
        breaker = word in {"=", ":"} and position > 1
        if (glue or breaker) and len(merged) > 1:
            merged[-1] += word
        else:
            merged.append(word)
        glue = breaker
    last = raw[cursor]
    return Word(
        before=tuple(_unquote(word) for word in merged[1:-1]),
        incomplete=_unquote(merged[-1]),
        kept=0 if last in {"=", ":"} and cursor > 1 else len(_unquote(last)),
    )


def _unquote(word: str) -> str:
    import shlex

    for attempt in (word, f"{word}'", f'{word}"'):
        try:
            return "".join(shlex.split(attempt))
        except ValueError:
            continue
    return word.rstrip("\\")


def bash_reply(found: Offer, word: Word) -> str:
    """The lines the script reads: how bash shall act, then the words, cut to the part that bash replaces."""
    modes = [name for name, on in (("files", found.files), ("dirs", found.dirs and not found.files)) if on]
    values = [value for value, _ in found.values]
    if values and all(value.endswith(("=", "/")) for value in values):
        modes.append("nospace")
    cut = len(word.incomplete) - word.kept
    flag, equals, _ = word.incomplete.partition("=")
    if equals and flag.startswith("-"):
        cut -= len(flag) + 1
    return "\n".join([" ".join(modes) or "words", *(value[max(0, cut) :] for value in values)])
