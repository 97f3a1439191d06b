"""What a report is made of, apart from how it is written: HTML and Markdown are two renderings of the same values.

Texts are plain, with `code` between backticks; a renderer escapes them. Nothing here is ever markup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from matplotlib.figure import Figure

__all__ = [
    "Absent",
    "Block",
    "Bullets",
    "Cell",
    "Document",
    "Facts",
    "Gallery",
    "Heading",
    "Notice",
    "Picture",
    "Section",
    "Table",
    "Text",
    "Tile",
    "cells",
    "named",
]

Mark = Literal["", "auto", "author", "na"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Args:
        text: what is read.
        value: the number behind it in full, for programs; None where the text is no number or is undefined.
        mark: how a checklist item stands.
    """

    text: str
    value: float | None = None
    mark: Mark = ""


def cells(*texts: Cell | str) -> tuple[Cell, ...]:
    """A row of a table."""
    return tuple(one if isinstance(one, Cell) else Cell(one) for one in texts)


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str

    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str

    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Notice:
    """A sentence that must not be overlooked."""

    text: str
    level: Literal["note", "warning"] = "note"

    kind: ClassVar[str] = "notice"


@dataclass(frozen=True)
class Absent:
    """What is not here, and what would bring it.

    Args:
        what: such as `explanations`.
        why: one sentence.
        command: what to type; empty where nothing would.
    """

    what: str
    why: str
    command: str = ""

    kind: ClassVar[str] = "absent"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]

    kind: ClassVar[str] = "bullets"


@dataclass(frozen=True)
class Facts:
    """Names with their values, one under another."""

    rows: tuple[tuple[str, str], ...]

    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Table:
    """Cells under a heading.

    Args:
        caption: one sentence that says what is in it.
        columns: their headings.
        rows: as long as `columns`.
        texts: positions of the columns that hold words; the others hold numbers and stand to the right.
        note: conventions, below the table.
        widths: of the columns in per cent, where tables below one another should line up; empty for their own.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    texts: tuple[int, ...] = (0,)
    note: str = ""
    widths: tuple[int, ...] = ()

    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Picture:
    """A plot, or an image that exists already.

    Args:
        name: its kind, such as `roc`; `named` makes it unique in the report.
        alt: what it shows, for those who cannot see it.
        caption: below it.
        figure: the plot; None for an image.
        png: the bytes of an image.
        wide: whether it needs the whole width.
    """

    name: str
    alt: str
    caption: str
    figure: Figure | None = None
    png: bytes = b""
    wide: bool = False


@dataclass(frozen=True)
class Gallery:
    """Pictures beside one another, as many as fit.

    Args:
        pictures: in reading order.
        broad: whether they are twice as wide as high, so that two stand in a row and not three.
    """

    pictures: tuple[Picture, ...]
    broad: bool = False

    kind: ClassVar[str] = "gallery"


Block = Text | Heading | Notice | Absent | Bullets | Facts | Table | Gallery


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Args:
        identifier: its anchor, ours and never from data.
        title: its heading.
        blocks: what is in it.
    """

    identifier: str
    title: str
    blocks: tuple[Block, ...]

    @property
    def absences(self) -> tuple[Absent, ...]:
        """What is named as absent in it."""
        return tuple(block for block in self.blocks if isinstance(block, Absent))


@dataclass(frozen=True)
class Tile:
    """A figure that is shown large at the top."""

    name: str
    text: str
    below: str
    value: float | None = None


@dataclass(frozen=True)
class Document:
    """A whole report.

    Args:
        title: such as `resnet18 on pneumoniamnist`.
        subtitle: one sentence: what was judged on how many cases.
        made: when and by what.
        tiles: the figures to look at first.
        notices: what every reader must know before anything else.
        sections: in reading order.
        front: for programs that read Markdown model cards: key to value, JSON values only.
    """

    title: str
    subtitle: str
    made: str
    tiles: tuple[Tile, ...]
    notices: tuple[Notice, ...]
    sections: tuple[Section, ...]
    front: Mapping[str, object] = field(default_factory=dict)

    def pictures(self) -> tuple[Picture, ...]:
        """Every picture, in order."""
        return tuple(
            picture
            for section in self.sections
            for block in section.blocks
            if isinstance(block, Gallery)
            for picture in block.pictures
        )


def named(sections: Iterable[Section]) -> tuple[Section, ...]:
    """The same sections, every picture with a name of its own: `roc`, `roc-2`, …"""
    seen: Counter[str] = Counter()

    def own(picture: Picture) -> Picture:
        seen[picture.name] += 1
        number = seen[picture.name]
        return picture if number == 1 else replace(picture, name=f"{picture.name}-{number}")

    def block_of(block: Block) -> Block:
        return replace(block, pictures=tuple(map(own, block.pictures))) if isinstance(block, Gallery) else block

    return tuple(replace(section, blocks=tuple(map(block_of, section.blocks))) for section in sections)
