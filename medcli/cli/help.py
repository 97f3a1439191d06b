"""Help pages as values, and the one way they become text.

Plain text needs no rich, reads well at 80 columns and in a log file, and keeps the panels of the settings.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import cleandoc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medcli.settings.fields import Field

__all__ = ["Description", "HelpPage", "Row", "Section", "copyable", "describe", "option_row", "render"]

NAME_COLUMN = 26
PLACEHOLDERS = {int: "N", float: "X", str: "TEXT"}
OTHER_SECTIONS = frozenset({"Args:", "Arguments:", "Returns:", "Raises:", "Note:"})


@dataclass(frozen=True)
class Description:
    """What a docstring says to a user.

    Args:
        summary: its first paragraph in one line.
        paragraphs: the following ones.
        examples: command lines, each complete.
    """

    summary: str
    paragraphs: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line of a section: a name and what it means."""

    name: str
    text: str


@dataclass(frozen=True)
class Section:
    """Rows under a heading."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class HelpPage:
    """Everything one help page shows, in reading order."""

    usage: str
    description: Description
    sections: tuple[Section, ...] = ()
    closing: tuple[str, ...] = ()


def describe(docstring: str | None) -> Description:
    """Take a command's docstring apart; lines under `Examples:` are commands, other Google sections are dropped."""
    summary = ""
    paragraphs: list[str] = []
    examples: list[str] = []
    skipping = False
    for block in cleandoc(docstring or "").split("\n\n"):
        lines = [line for line in block.splitlines() if line.strip()]
        if not lines:
            continue
        heading = lines[0].strip()
        if heading in {"Examples:", "Example:"}:
            skipping = False
            examples += _commands(lines[1:])
        elif heading in OTHER_SECTIONS:
            skipping = True
        elif lines[0].startswith(" ") and examples:
            examples += _commands(lines)
        elif not skipping or not lines[0].startswith(" "):
            skipping = False
            text = " ".join(line.strip() for line in lines)
            if summary:
                paragraphs.append(text)
            else:
                summary = text
    return Description(summary, tuple(paragraphs), tuple(examples))


def _commands(lines: Sequence[str]) -> list[str]:
    """Command lines put together again: a line that does not start the program goes on with the one before."""
    commands: list[str] = []
    for line in (text.strip().removesuffix("\\").rstrip() for text in lines):
        if commands and not line.startswith("medcli "):
            commands[-1] = f"{commands[-1]} {line}"
        else:
            commands.append(line)
    return commands


def option_row(field: Field, *, negatable: bool) -> Row:
    """How one setting appears among the options."""
    name = f"{field.option.short}, {field.flag}" if field.option.short else f"    {field.flag}"
    if field.base is bool:
        name += f", --no-{field.flag[2:]}" if negatable else ""
    else:
        name += f" {field.option.metavar or ('NAME' if field.choices else PLACEHOLDERS[field.base])}"
    facts = []
    if field.choices:
        facts.append(f"one of {', '.join(map(str, field.choices))}")
    if field.option.minimum is not None and field.option.maximum is not None:
        facts.append(f"{field.option.minimum:g} to {field.option.maximum:g}")
    default = _default(field)
    if field.option.from_recipe:
        facts.append(f"default: from the architecture's recipe, else {default or 'off'}")
    elif default:
        facts.append(f"default: {default}")
    return Row(name, f"{field.option.help} [{'; '.join(facts)}]" if facts else field.option.help)


def _default(field: Field) -> str:
    value = field.default
    if value is None or value == () or value is False:
        return ""
    if value is True:
        return "on"
    if isinstance(value, tuple):
        return ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def render(page: HelpPage, width: int) -> str:
    """The page as text no wider than `width` columns, where its words allow."""
    width = max(40, width)
    parts = [
        textwrap.fill(
            page.usage,
            width,
            initial_indent="Usage: ",
            subsequent_indent=" " * 7,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
    parts.append(_paragraph(page.description.summary, width))
    if page.description.examples:
        parts.append(
            "\n".join(["Examples:", *(_indented(copyable(line, width)) for line in page.description.examples)])
        )
    parts += [_paragraph(text, width) for text in page.description.paragraphs]
    names = [len(row.name) for section in page.sections for row in section.rows]
    column = min(NAME_COLUMN, max(names, default=0) + 2)
    parts += [_section(section, width, column) for section in page.sections if section.rows]
    parts += [_paragraph(text, width) for text in page.closing]
    return "\n\n".join(part for part in parts if part)


def _paragraph(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def copyable(command: str, width: int) -> str:
    """A command line as it can be copied: what is too long goes on after a backslash, before an option."""
    lines = [""]
    for piece in command.replace(" --", "\n --").split("\n"):
        if lines[-1] and len(lines[-1]) + len(piece) > width - 4:
            lines[-1] += " \\"
            lines.append(f"   {piece}")
        else:
            lines[-1] += piece
    return "\n".join(lines)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))


def _section(section: Section, width: int, column: int) -> str:
    lines = [f"{section.title}:"]
    for row in section.rows:
        text = textwrap.wrap(row.text, width - column - 2, break_long_words=False, break_on_hyphens=False)
        if len(row.name) + 2 > column:
            lines.append(f"  {row.name}")
        else:
            lines.append(f"  {row.name.ljust(column)}{text.pop(0) if text else ''}".rstrip())
        lines += [" " * (column + 2) + line for line in text]
    return "\n".join(lines)
