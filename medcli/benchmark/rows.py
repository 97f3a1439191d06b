"""The rows of a benchmark and their file: a line is appended as soon as a row is known, so that none is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from medcli.benchmark.items import Item, item_from_json, item_to_json
from medcli.errors import UsageProblem
from medcli.runs.directory import writing

__all__ = [
    "SCHEMA",
    "Facts",
    "Learning",
    "Row",
    "State",
    "Timing",
    "append_row",
    "failed",
    "merge",
    "read_rows",
    "row_from_json",
    "row_to_json",
    "timing_from_json",
]

SCHEMA = "medcli-benchmark-row/1"
State = Literal["measured", "failed", "timed-out", "out-of-memory"]


@dataclass(frozen=True)
class Facts:
    """What does not depend on the batch size.

    Args:
        image_size: side in pixels.
        in_channels: channels.
        parameters: of the whole network; None for a bundle, whose graph no longer knows.
        backbone: of its backbone; of a difference model, its encoder.
        macs: multiply-accumulate operations of convolutions, matrix products and attention for one image (or pair).
        weights_bytes: of everything in its state, as it is held for the measurement.
        startup_seconds: from the start of a fresh interpreter to the first result of batch size 1.
        import_seconds: of that, torch and the architecture's package.
        build_seconds: of that, making the network and giving it weights.
        first_seconds: of that, the first pass.
        base_bytes: resident memory after the imports, before the network.
        device: where it ran, as the driver calls it.
        precision: number format of the passes.
        memory_format: order of pixels.
        threads: CPU threads.
        runtime: `torch` or `onnx`, with its version.
        busy: processors that other processes kept busy just before; None where that is unknown.
        figures: stored test figures of a run (`auc`, `accuracy`), value, low, high.
    """

    image_size: int
    in_channels: int
    parameters: int | None
    backbone: int | None
    macs: int | None
    weights_bytes: int
    startup_seconds: float
    import_seconds: float
    build_seconds: float
    first_seconds: float
    base_bytes: int
    device: str
    precision: str
    memory_format: str
    threads: int
    runtime: str
    busy: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """One batch size.

    Args:
        batch_size: images (or pairs) per pass; never another one than asked for.
        state: whether it was measured.
        reason: why not.
        median_ms: of a pass.
        p90_ms: of a pass.
        images_per_second: batch size over the median.
        passes: timed ones.
        warmups: passes before them.
        compile_seconds: of the first pass, where it was compiled.
        peak_bytes: resident memory of the process while this batch size was measured.
        peak_of: `batch`, or `process` where the system cannot set the peak back.
        device_bytes: most that was allocated on the device; None on a CPU.
        turns_ms: median of each turn: far apart where the machine was unsteady.
    """

    batch_size: int
    state: State = "measured"
    reason: str = ""
    median_ms: float | None = None
    p90_ms: float | None = None
    images_per_second: float | None = None
    passes: int = 0
    warmups: int = 0
    compile_seconds: float | None = None
    peak_bytes: int | None = None
    peak_of: str = "batch"
    device_bytes: int | None = None
    turns_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class Learning:
    """The short training of one architecture.

    Args:
        state: whether it came to its end.
        reason: why not.
        split: whose images the figures are of: `test`, or `val` where there is no test split.
        images: how many of them are labelled.
        figures: `auc`, `accuracy`, `top_5_accuracy`, ... as value, low, high (95 %).
        seconds: of learning, features of a frozen backbone included.
        trainable: parameters that learnt.
        peak_bytes: resident memory of the process while it learnt.
        device_bytes: most that was allocated on the device; None on a CPU.
        epochs: epochs learnt.
        images_trained: training images.
        lr: peak learning rate, and where it came from.
        split_hash: of which case is in which split: equal in every row.
        weights: what it started from.
        run: where its figures and predictions lie.
    """

    state: State = "measured"
    reason: str = ""
    split: str = ""
    images: int = 0
    figures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    trainable: int | None = None
    peak_bytes: int | None = None
    device_bytes: int | None = None
    epochs: int = 0
    images_trained: int = 0
    lr: str = ""
    split_hash: str = ""
    weights: str = ""
    run: str = ""


@dataclass(frozen=True)
class Row:
    """Everything known about one item.

    Args:
        item: what was measured.
        facts: None where the network could not be built or run at all.
        timings: one per batch size, ascending.
        learning: its short training, where one was asked for.
        time: UTC, when the row was finished.
    """

    item: Item
    facts: Facts | None = None
    timings: tuple[Timing, ...] = ()
    learning: Learning | None = None
    time: str = ""

    def timing(self, batch_size: int) -> Timing | None:
        """That of one batch size."""
        return next((one for one in self.timings if one.batch_size == batch_size), None)

    def missing(self, batch_sizes: Sequence[int]) -> tuple[int, ...]:
        """The batch sizes that have not been measured."""
        return tuple(size for size in batch_sizes if (found := self.timing(size)) is None or found.state != "measured")

    def value(self, name: str) -> float | None:
        """A figure of its training, else a stored one of a run."""
        found = (self.learning.figures if self.learning else {}) or (self.facts.figures if self.facts else {})
        value = found.get(name, {}).get("value")
        return float(value) if isinstance(value, int | float) else None


def failed(row: Row, batch_sizes: Sequence[int]) -> bool:
    """Whether anything asked for is missing from it."""
    return bool(row.missing(batch_sizes)) or (row.learning is not None and row.learning.state != "measured")


def merge(old: Row | None, new: Row) -> Row:
    """A later row over an earlier one: what it measured replaces, what only the earlier one measured stays."""
    if old is None:
        return new
    kept = {one.batch_size: one for one in old.timings}
    kept |= {
        one.batch_size: one
        for one in new.timings
        if one.state == "measured" or kept.get(one.batch_size, one).state != "measured"
    }
    better = new.learning is not None and (
        new.learning.state == "measured" or old.learning is None or old.learning.state != "measured"
    )
    return replace(
        new,
        facts=new.facts or old.facts,
        timings=tuple(kept[size] for size in sorted(kept)),
        learning=new.learning if better else old.learning,
    )


def row_to_json(row: Row) -> dict[str, Any]:
    """Plain JSON types."""
    return {
        "schema": SCHEMA,
        "item": item_to_json(row.item),
        "facts": None if row.facts is None else asdict(row.facts),
        "timings": [asdict(one) for one in row.timings],
        "learning": None if row.learning is None else asdict(row.learning),
        "time": row.time,
    }


def row_from_json(document: Mapping[str, Any]) -> Row:
    """The inverse of `row_to_json`; raises `ValueError` or `TypeError` where it is none."""
    if document.get("schema") != SCHEMA:
        raise ValueError(f"its format is {document.get('schema')!r}, not {SCHEMA!r}")
    facts, learning = document["facts"], document["learning"]
    timings = tuple(map(timing_from_json, document["timings"]))
    if any(one.state not in get_args(State) for one in timings):
        raise ValueError("unknown state")
    return Row(
        item_from_json(document["item"]),
        None if facts is None else Facts(**_known(Facts, facts)),
        timings,
        None if learning is None else Learning(**_known(Learning, learning)),
        str(document["time"]),
    )


def timing_from_json(document: Mapping[str, Any]) -> Timing:
    """The inverse of `asdict`; raises `TypeError` where it is none."""
    known = _known(Timing, document)
    return Timing(**{**known, "turns_ms": tuple(known.get("turns_ms", ()))})


def _known(kind: type, document: Mapping[str, Any]) -> dict[str, Any]:
    # A later medcli may add facts; those this one does not know are passed over.
    names = {entry.name for entry in fields(kind)}
    return {name: value for name, value in document.items() if name in names}


def append_row(path: Path, row: Row) -> None:
    """Add one line and see it onto the disk.

    Raises:
        RunFailure: no space, no permission.
    """
    with writing(path), path.open("a+b") as handle:
        # A process that ended in the middle of a line must not spoil the next one.
        handle.seek(0)
        written = handle.read()
        if not written.endswith(b"\n"):
            handle.truncate(written.rfind(b"\n") + 1)
        handle.write(json.dumps(row_to_json(row), allow_nan=False).encode() + b"\n")
        handle.flush()
        os.fsync(handle.fileno())


def read_rows(path: Path) -> dict[str, Row]:
    """What is known by now: item key to row, later lines merged over earlier ones; an unfinished last line is left out.

    Raises:
        UsageProblem: a line that is no row, with its number.
    """
    rows: dict[str, Row] = {}
    if not path.is_file():
        return rows
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = row_from_json(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if number == len(lines):  # the process ended in the middle of this line
                break
            raise UsageProblem(
                f"this is no row of a benchmark: {error}", where=f"{path}:{number}", code="bad-results"
            ) from error
        rows[row.item.key] = merge(rows.get(row.item.key), row)
    return rows
