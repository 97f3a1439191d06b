"""A report as Markdown with its pictures beside it: for repositories, model hubs, and converters to other formats."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from medcli.report.document import (
    Absent,
    Block,
    Bullets,
    Cell,
    Document,
    Facts,
    Gallery,
    Heading,
    Notice,
    Table,
    Text,
)
from medcli.report.escaping import markdown_text, sentence

__all__ = ["render_markdown"]


def render_markdown(document: Document, folder: str) -> str:
    """The file's text.

    Args:
        document: what is written.
        folder: of the pictures, relative to the file.
    """
    front = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in document.front.items()]
    lines = ["---", *front, "---", "", f"# {markdown_text(document.title)}", "", markdown_text(document.subtitle), ""]
    lines += [f"*{markdown_text(document.made)}*", ""]
    for notice in document.notices:
        lines += [*_notice(notice), ""]
    if document.tiles:
        tiles = [(tile.name, tile.text, tile.below) for tile in document.tiles]
        lines += [*_table(("figure", "value", ""), tiles, (0, 2)), ""]
    lines += ["## Contents", ""]
    lines += [f"- [{markdown_text(section.title)}](#{section.identifier})" for section in document.sections]
    for section in document.sections:
        lines += ["", f'<a id="{section.identifier}"></a>', "", f"## {markdown_text(section.title)}"]
        for block in section.blocks:
            lines += ["", *_block(block, folder)]
    return "\n".join(lines) + "\n"


def _block(block: Block, folder: str) -> list[str]:
    match block:
        case Text():
            return [markdown_text(block.text)]
        case Heading():
            return [f"### {markdown_text(block.text)}"]
        case Notice():
            return _notice(block)
        case Absent():
            how = f" `{block.command}` adds it." if block.command else ""
            return [f"> **Absent: {markdown_text(block.what)}.** {markdown_text(sentence(block.why))}{how}"]
        case Bullets():
            return [f"- {markdown_text(sentence(item))}" for item in block.items]
        case Facts():
            return _table(("", ""), block.rows, (0, 1))
        case Table():
            rows = [[_cell(cell) for cell in row] for row in block.rows]
            note = ["", f"*{markdown_text(sentence(block.note))}*"] if block.note else []
            return [f"**{markdown_text(block.caption)}**", "", *_table(block.columns, rows, block.texts), *note]
        case Gallery():
            lines: list[str] = []
            for picture in block.pictures:
                alt = re.sub(r"\s+", " ", markdown_text(picture.alt))
                lines += [f"![{alt}]({folder}/{picture.name}.png)", "", f"*{markdown_text(picture.caption)}*", ""]
            return lines[:-1]


def _notice(notice: Notice) -> list[str]:
    head = "**Warning.** " if notice.level == "warning" else ""
    return [f"> {head}{markdown_text(notice.text)}"]


def _cell(cell: Cell) -> str:
    return cell.text


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[int]) -> list[str]:
    rule = ["---" if index in texts else "---:" for index in range(len(columns))]
    lines = [_line([markdown_text(one) for one in columns]), _line(rule)]
    return [*lines, *(_line([markdown_text(cell) for cell in row]) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
