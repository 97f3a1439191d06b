"""The table of a benchmark: as wide as the terminal is, as Markdown, as CSV; failed rows stay in all of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from medcli.benchmark.front import pareto_front
from medcli.benchmark.protocol import PROTOCOL
from medcli.benchmark.rows import Row, Timing

__all__ = [
    "HEADLINE",
    "conditions_text",
    "csv_text",
    "failures",
    "front_of",
    "legend_text",
    "markdown_text",
    "table_text",
    "value_of",
]

MIB = 2**20
HEADLINE = "auc"
MARK = "*"
_GAP = 3
"""Characters between two columns."""


@dataclass(frozen=True)
class _Column:
    """One column.

    Args:
        heading: with its unit.
        cell: text for a row and one of its timings; empty where there is nothing to say.
        once: whether it is the same for every batch size, and shown with the first alone.
        keep: the smaller, the longer it stays where the terminal is narrow; 0 always stays.
    """

    heading: str
    cell: Callable[[Row, Timing], str]
    once: bool
    keep: int


def _number(value: float | None, form: str = ".3g", scale: float = 1.0) -> str:
    return "" if value is None else format(value / scale, form)


def _short(value: float | None) -> str:
    """Three digits, never as a power of ten."""
    if value is None:
        return ""
    return (
        f"{value:.0f}"
        if value >= 100
        else f"{value:.1f}"
        if value >= 10
        else f"{value:.2f}"
        if value >= 0.1
        else (f"{value:.3f}")
    )


def _of_facts(name: str, scale: float = 1.0) -> Callable[[Row, Timing], str]:
    def cell(row: Row, _: Timing) -> str:
        value = None if row.facts is None else getattr(row.facts, name)
        return "" if value is None else _short(value / scale)

    return cell


def _of_learning(name: str, scale: float = 1.0, form: str = ".1f") -> Callable[[Row, Timing], str]:
    return lambda row, _: "" if row.learning is None else _number(getattr(row.learning, name), form, scale)


def _figure(name: str, *, interval: bool = False) -> Callable[[Row, Timing], str]:
    def cell(row: Row, _: Timing) -> str:
        found = (row.learning.figures if row.learning else {}) or (row.facts.figures if row.facts else {})
        one = found.get(name)
        if not one or one.get("value") is None:
            return ""
        text = f"{one['value']:.3f}"
        if interval and one.get("low") is not None:
            text += f" [{one['low']:.3f}, {one['high']:.3f}]"
        return text

    return cell


def _state(row: Row, timing: Timing) -> str:
    learning = "" if row.learning is None or row.learning.state == "measured" else f"training {row.learning.state}"
    return "; ".join(text for text in ("" if timing.state == "measured" else timing.state, learning) if text)


_COLUMNS = (
    _Column("model", lambda row, _: row.item.label, True, 0),
    _Column("px", lambda row, _: "" if row.facts is None else str(row.facts.image_size), True, 6),
    _Column("M params", _of_facts("parameters", 1e6), True, 2),
    _Column("GMACs", _of_facts("macs", 1e9), True, 5),
    _Column("weights MB", _of_facts("weights_bytes", 1e6), True, 9),
    _Column("start-up s", _of_facts("startup_seconds"), True, 8),
    _Column("batch", lambda _, timing: str(timing.batch_size), False, 0),
    _Column("median ms", lambda _, timing: _short(timing.median_ms), False, 0),
    _Column("p90 ms", lambda _, timing: _short(timing.p90_ms), False, 4),
    _Column("images/s", lambda _, timing: _short(timing.images_per_second), False, 1),
    _Column("peak MiB", lambda _, timing: _number(timing.peak_bytes, ".0f", MIB), False, 3),
    _Column("device MiB", lambda _, timing: _number(timing.device_bytes, ".0f", MIB), False, 3),
    _Column("AUC [95 %]", _figure(HEADLINE, interval=True), True, 1),
    _Column("top-1 [95 %]", _figure("accuracy", interval=True), True, 4),
    _Column("top-5", _figure("top_5_accuracy"), True, 8),
    _Column("train s", _of_learning("seconds"), True, 2),
    _Column("train MiB", _of_learning("peak_bytes", MIB, ".0f"), True, 5),
    _Column("train device MiB", _of_learning("device_bytes", MIB, ".0f"), True, 5),
    _Column("M trainable", _of_learning("trainable", 1e6, ".3f"), True, 6),
    _Column("lr", lambda row, _: row.learning.lr if row.learning else "", True, 10),
    _Column("state", _state, False, 0),
)


def front_of(rows: Sequence[Row], batch_size: int) -> tuple[str, frozenset[str]]:
    """Which figure latency is set against, `auc` or `parameters`, and the keys of the rows on the Pareto front.

    It is AUC where that was asked for with `--data`, or is known of at least half the rows.

    Difference models answer another question and are fed pairs: they stand on no front with classifiers, and a toy
    that is made for tests would push everything off it.
    """
    timed = [row for row in rows if (one := row.timing(batch_size)) is not None and one.median_ms is not None]
    timed = [row for row in timed if not row.item.compares and not row.item.toy] or timed
    judged = sum(row.value(HEADLINE) is not None for row in timed)
    # Of a few runs among architectures AUC is known, and most of the others would be nowhere.
    most = 2 * judged >= len(timed) or any(row.learning is not None for row in timed)
    against = HEADLINE if judged and most else "parameters"
    known = [(row, value) for row in timed if (value := value_of(row, against)) is not None]
    points = [(_median(row, batch_size), value) for row, value in known]
    front = pareto_front(points, higher_is_better=against == HEADLINE)
    return against, frozenset(known[index][0].item.key for index in front)


def value_of(row: Row, against: str) -> float | None:
    """What latency is set against; None where it is unknown, or nothing at all."""
    if against == HEADLINE:
        return row.value(HEADLINE)
    return float(row.facts.parameters) if row.facts is not None and row.facts.parameters else None


def _median(row: Row, batch_size: int) -> float:
    found = row.timing(batch_size)
    assert found is not None
    return found.median_ms or 0.0


def _grid(rows: Sequence[Row], *, marked: frozenset[str] = frozenset()) -> tuple[list[_Column], list[list[str]]]:
    """The columns that say something, and the cells; facts of a row stand in its first line alone."""
    lines: list[list[str]] = []
    for row in rows:
        for index, timing in enumerate(row.timings):
            cells = [column.cell(row, timing) if not (column.once and index) else "" for column in _COLUMNS]
            if not index and row.item.key in marked:
                cells[0] += f" {MARK}"
            lines.append(cells)
    used = [index for index, column in enumerate(_COLUMNS) if column.keep == 0 and column.heading != "state"]
    used += [index for index in range(len(_COLUMNS)) if index not in used and any(line[index] for line in lines)]
    used.sort()
    return [_COLUMNS[index] for index in used], [[line[index] for index in used] for line in lines]


def table_text(rows: Sequence[Row], *, width: int | None = None, colour: bool = False) -> str:
    """The table for people.

    Args:
        rows: in the order shown.
        width: of the terminal in characters; columns that matter less give way. None for all columns.
        colour: whether rows that lack something may be coloured.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns, lines = _grid(rows, marked=_front(rows))
    widths = [max([len(column.heading), *(len(line[index]) for line in lines)]) for index, column in enumerate(columns)]
    kept = list(range(len(columns)))
    while width is not None and sum(widths[index] + _GAP for index in kept) > width:
        going = max(kept, key=lambda index: (columns[index].keep, index))
        if not columns[going].keep:
            break
        kept.remove(going)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for index in kept:
        words = columns[index].heading in {"model", "state", "lr"}
        table.add_column(
            columns[index].heading, justify="left" if words else "right", no_wrap=True, overflow="ellipsis"
        )
    states = [timing.state != "measured" for row in rows for timing in row.timings]
    for line, bad in zip(lines, states, strict=True):
        table.add_row(*(Text(line[index], style="red" if bad and colour else "") for index in kept))
    stream = io.StringIO()
    needed = sum(widths[index] + _GAP for index in kept)
    console = Console(
        file=stream,
        width=max(20, min(width, needed) if width is not None else needed),
        force_terminal=colour,
        no_color=not colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        highlight=False,
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def _front(rows: Sequence[Row]) -> frozenset[str]:
    sizes = sorted({timing.batch_size for row in rows for timing in row.timings})
    return front_of(rows, sizes[0])[1] if sizes and len(rows) > 1 else frozenset()


def legend_text(rows: Sequence[Row]) -> str:
    """What the mark behind some names means; empty where there is none."""
    if not _front(rows):
        return ""
    size = min(timing.batch_size for row in rows for timing in row.timings)
    other = "has a higher AUC" if front_of(rows, size)[0] == HEADLINE else "has fewer parameters"
    return f"{MARK} no other row is at once faster (batch {size}) and {other}"


def failures(rows: Sequence[Row]) -> list[str]:
    """One sentence per row and reason of what is missing."""
    found: list[str] = []
    for row in rows:
        reasons: dict[str, list[str]] = {}
        for timing in row.timings:
            if timing.state != "measured":
                reasons.setdefault(timing.reason or timing.state, []).append(str(timing.batch_size))
        for reason, sizes in reasons.items():
            found.append(f"{row.item.label}, batch {', '.join(sizes)}: {reason}")
        if row.learning is not None and row.learning.state != "measured":
            found.append(f"{row.item.label}, training: {row.learning.reason or row.learning.state}")
    return found


def conditions_text(rows: Sequence[Row]) -> str:
    """What all rows were measured with, in one line; several values are listed."""
    known = [row.facts for row in rows if row.facts is not None]
    if not known:
        return ""
    parts = []
    for name, form in (
        ("device", "{}"),
        ("precision", "{}"),
        ("memory_format", "{}"),
        ("threads", "{} CPU thread(s)"),
        ("runtime", "{}"),
    ):
        values = list(dict.fromkeys(str(getattr(facts, name)) for facts in known))
        parts.append(form.format(" or ".join(values)))
    return ", ".join(parts)


def markdown_text(rows: Sequence[Row]) -> str:
    """The whole result as Markdown: table, what is missing, conditions, protocol."""
    columns, lines = _grid(rows, marked=_front(rows))
    words = {"model", "state", "lr"}
    text = [
        "# Benchmark",
        "",
        "| " + " | ".join(column.heading for column in columns) + " |",
        "| " + " | ".join("---" if column.heading in words else "---:" for column in columns) + " |",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines),
        "",
    ]
    legend = legend_text(rows)
    if legend:
        text += [f"{legend}.", ""]
    lost = failures(rows)
    if lost:
        text += ["Not measured:", "", *(f"- {sentence}" for sentence in lost), ""]
    text += [f"Conditions: {conditions_text(rows)}.", "", f"Protocol: {PROTOCOL}", ""]
    return "\n".join(text)


def csv_text(rows: Sequence[Row]) -> str:
    """One line per row and batch size, plain numbers with the units in the names."""
    from dataclasses import asdict

    from medcli.benchmark.rows import Facts

    of_facts = [name for name in Facts.__dataclass_fields__ if name != "figures"]
    of_timing = list(Timing.__dataclass_fields__)
    learnt = any(row.learning is not None for row in rows)
    plain = ("state", "reason", "split", "images", "seconds", "trainable", "peak_bytes", "device_bytes", "epochs", "lr")
    figures = sorted({name for row in rows for name in _figures(row)})
    head = ["kind", "name", "label", "origin", "family", *of_facts, *of_timing]
    head += [f"training_{name}" for name in plain] if learnt else []
    head += [f"{name}{end}" for name in figures for end in ("", "_low", "_high")]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        facts = asdict(row.facts) if row.facts is not None else {}
        learning = asdict(row.learning) if row.learning is not None else {}
        for timing in row.timings:
            own = asdict(timing) | {"turns_ms": " ".join(f"{median:.6g}" for median in timing.turns_ms)}
            cells: list[Any] = [row.item.kind, row.item.name, row.item.label, row.item.origin, row.item.family]
            cells += [facts.get(name) for name in of_facts] + [own[name] for name in of_timing]
            cells += [learning.get(name) for name in plain] if learnt else []
            for name in figures:
                one = _figures(row).get(name, {})
                cells += [one.get(key) for key in ("value", "low", "high")]
            writer.writerow(["" if cell is None else cell for cell in cells])
    return stream.getvalue()


def _figures(row: Row) -> dict[str, dict[str, float | None]]:
    return dict((row.learning.figures if row.learning else {}) or (row.facts.figures if row.facts else {}))
