"""Guides a person can read without leaving the terminal: `medcli help TOPIC`.

A guide is a plain text file beside this module: a title, paragraphs, lists, and commands on lines of their own indented
by four spaces. Every command in them is run by a test.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medcli.cli.help import copyable

__all__ = ["Guide", "guide", "guides", "laid_out"]

FOLDER = Path(__file__).with_name("topics")
INDENT = "    "


@dataclass(frozen=True)
class Guide:
    """One topic.

    Args:
        name: what is typed after `medcli help`.
        title: its first line.
        text: the whole file.
    """

    name: str
    title: str
    text: str

    def commands(self) -> tuple[str, ...]:
        """The command lines it shows, each put together again where it goes on after a backslash."""
        joined = self.text.replace("\\\n", " ")
        lines = [line.strip() for line in joined.split("\n") if line.startswith(f"{INDENT}medcli ")]
        return tuple(" ".join(line.split()) for line in lines)


def guides() -> Mapping[str, Guide]:
    """Every topic by name, sorted."""
    return {path.stem: guide(path.stem) for path in sorted(FOLDER.glob("*.txt"))}


def guide(name: str) -> Guide:
    """Read one topic.

    Raises:
        FileNotFoundError: there is none of that name.
    """
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    return Guide(name, text.split("\n", 1)[0].strip(), text)


def laid_out(text: str, width: int) -> str:
    """The text no wider than `width` columns: paragraphs are filled, commands can still be copied."""
    parts = [_block(block, max(40, width)) for block in text.strip("\n").split("\n\n")]
    return "\n\n".join(parts)


def _block(block: str, width: int) -> str:
    lines: list[str] = []
    for line in block.split("\n"):
        if line.startswith((INDENT, "- ")) or not lines or lines[-1].startswith(INDENT):
            lines.append(line)
        else:
            lines[-1] = f"{lines[-1]} {line.strip()}"
    return "\n".join(_line(line, width) for line in lines)


def _line(line: str, width: int) -> str:
    if line.startswith(f"{INDENT}medcli "):
        return textwrap.indent(copyable(line.strip(), width - len(INDENT)), INDENT)
    if line.startswith(INDENT):
        return line
    hanging = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False)
