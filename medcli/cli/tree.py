"""The command line as values: what may be typed, before anything of it is loaded and without any parser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medcli.cli.help import Description
from medcli.errors import nearest

if TYPE_CHECKING:
    from medcli.settings.commands import CommandSettings

__all__ = ["Command", "Group", "RootOption", "suggestions"]


@dataclass(frozen=True)
class Command:
    """A command that is not loaded yet.

    Args:
        name: as typed after the program's name, such as `models list`.
        summary: one line for listings.
        load: imports its module and returns its function.
        settings: what it takes; a function, because the settings table is not needed to list commands.
    """

    name: str
    summary: str
    load: Callable[[], Callable[..., Any]]
    settings: Callable[[], CommandSettings]


@dataclass(frozen=True)
class RootOption:
    """An option of the program itself that answers at once.

    Args:
        flags: its spellings.
        help: one sentence.
        act: called with the typed value (`""` for a flag); the program ends afterwards.
        metavar: the placeholder of its value; empty for a flag.
        choices: the accepted values.
    """

    flags: tuple[str, ...]
    help: str
    act: Callable[[str], None]
    metavar: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Commands under one word; the program itself is the group without a word.

    Args:
        name: the word, or the program's name.
        description: what its help page says.
        members: what may follow, by word, in the order of help.
        options: options of its own, besides `--help`.
        closing: paragraphs below the list of commands.
    """

    name: str
    description: Description
    members: Mapping[str, Command | Group]
    options: tuple[RootOption, ...] = ()
    closing: tuple[str, ...] = ()

    def rows(self) -> tuple[tuple[str, str], ...]:
        """Each member's word and summary."""
        return tuple(
            (name, member.summary if isinstance(member, Command) else member.description.summary)
            for name, member in self.members.items()
        )


def suggestions(word: str, group: Group) -> tuple[str, ...]:
    """What may have been meant by an unknown word: near words, or the same word one level deeper."""
    deeper = (
        f"{name} {word}"
        for name, member in group.members.items()
        if isinstance(member, Group) and word in member.members
    )
    return nearest(word, group.members) or tuple(deeper)
