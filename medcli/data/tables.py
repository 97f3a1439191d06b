"""Delimited text as it comes out of spreadsheets and data frames: every cell stays text, every row knows its line."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medcli.errors import UsageProblem, listed, nearest

__all__ = ["TABLE_SUFFIXES", "Table", "is_table", "read_header", "read_table"]

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")
SEPARATORS = ",;\t|"
SNIFFED_LINES = 50


@dataclass(frozen=True)
class Table:
    """A header and rows of text.

    Args:
        path: the file as given.
        columns: the header.
        rows: one tuple of cells per row, as long as the header.
        lines: the line in the file where each row ends.
    """

    path: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def column(self, name: str, flag: str) -> tuple[str, ...]:
        """The cells of one column.

        Raises:
            UsageProblem: no such column; the message lists the columns, `flag` says who asked.
        """
        if name not in self.columns:
            close = nearest(name, self.columns, 1)
            raise UsageProblem(
                f"`{self.path}` has no column `{name}`; its columns are {self.listed()}",
                where=flag,
                hint=f"`{flag} '{close[0]}'`" if close else None,
                code="unknown-column",
            )
        position = self.columns.index(name)
        return tuple(row[position].strip() for row in self.rows)

    def named(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Columns as typed, with `A,B` taken apart where no column has that name and every part is one."""
        names: list[str] = []
        for text in wanted:
            parts = [part.strip() for part in text.split(",")]
            names += parts if text not in self.columns and set(parts) <= set(self.columns) else [text]
        return tuple(names)

    def where(self, row: int) -> str:
        """`file:line` of a row."""
        return f"{self.path}:{self.lines[row]}"

    def listed(self) -> str:
        """The columns, for messages."""
        return listed(self.columns, 40)


def is_table(path: str) -> bool:
    """Whether the name says delimited text."""
    return path.lower().endswith(TABLE_SUFFIXES)


def read_header(path: str) -> tuple[str, ...]:
    """The columns of a table, from its first lines alone: what completion can afford on a large file.

    Raises:
        UsageProblem: the separator cannot be told.
        OSError: the file cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    opened = gzip.open if path.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        lines = [line for _, line in zip(range(SNIFFED_LINES), file, strict=False)]
    return tuple(next(csv.reader(lines, delimiter=_separator(path, lines)), []))


def read_table(path: str) -> Table:
    """Read a table, with its separator (comma, semicolon, tab or bar) found from header and first rows.

    Raises:
        UsageProblem: unreadable, not UTF-8, empty, or rows that do not fit the header (with file and line).
    """
    text = _text(path)
    lines = text.split("\n", SNIFFED_LINES + 1)[:SNIFFED_LINES]
    if not text.strip():
        raise UsageProblem(f"`{path}` is empty", code="empty-table")
    separator = _separator(path, lines)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = []
    numbers: list[int] = []
    for number, cells in _rows(path, reader):
        if not any(cell.strip() for cell in cells):
            continue
        if not columns:
            columns = tuple(cell.strip() for cell in cells)
            continue
        if len(cells) != len(columns):
            raise UsageProblem(
                f"{len(cells)} cells where the header has {len(columns)}", where=f"{path}:{number}", code="ragged-table"
            )
        rows.append(tuple(cells))
        numbers.append(number)
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise UsageProblem(f"`{path}` has two columns called `{twice[0]}`", code="duplicate-column")
    if not rows:
        raise UsageProblem(f"`{path}` has a header and no rows", code="empty-table")
    return Table(path, columns, tuple(rows), tuple(numbers))


def _text(path: str) -> str:
    try:
        raw = Path(path).read_bytes()
        if path.lower().endswith(".gz"):
            raw = gzip.decompress(raw)
    except FileNotFoundError:
        raise UsageProblem(f"`{path}` does not exist", code="missing-path") from None
    except (OSError, EOFError) as error:
        raise UsageProblem(f"`{path}` cannot be read: {error}", code="unreadable-table") from None
    encoding = "utf-16" if raw[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UsageProblem(
            f"`{path}` is not UTF-8 text", where=f"{path}:{line}", hint="save the table as UTF-8", code="encoding"
        ) from None
    if "\0" in text:
        raise UsageProblem(f"`{path}` is not a table (it holds zero bytes)", code="not-a-table")
    return text


def _rows(path: str, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number = reader.line_num  # type: ignore[attr-defined]
            raise UsageProblem(f"broken quoting: {error}", where=f"{path}:{number}", code="broken-table") from None
        yield reader.line_num, cells  # type: ignore[attr-defined]


def _separator(path: str, lines: list[str]) -> str:
    """The separator that gives every sniffed row as many cells as the header; the one with the most cells wins."""
    fits: dict[str, int] = {}
    for separator in SEPARATORS:
        try:
            parsed = [row for row in csv.reader(lines, delimiter=separator) if any(cell.strip() for cell in row)]
        except csv.Error:
            continue
        # The last sniffed line may end inside a quoted cell.
        widths = {len(row) for row in (parsed[:-1] if len(lines) == SNIFFED_LINES else parsed)}
        if parsed and len(parsed[0]) > 1 and len(widths) == 1:
            fits[separator] = len(parsed[0])
    if fits:
        return max(fits, key=lambda separator: fits[separator])
    header = next((line for line in lines if line.strip()), "")
    # No separator fits every row: take the header's, so that the message can name the row that does not fit.
    best = max(SEPARATORS, key=header.count)
    if not header.count(best):
        raise UsageProblem(
            f"`{path}` has a single column `{header.strip()}`, or separates its columns by something else than "
            "comma, semicolon, tab or bar",
            code="one-column",
        )
    return best
