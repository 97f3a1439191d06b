"""The trials of a study as a table: for a person, for a spreadsheet, and for a program."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from medcli.runs.directory import RunDirectory, replace_text

__all__ = ["TrialRow", "best_row", "count_states", "rows_of", "settings_text", "table_text", "write_tables"]

_STATES = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Args:
        trial: its number, from 1.
        state: completed, pruned, failed, interrupted, running or waiting.
        value: its best figure on validation; NaN where it has none.
        epoch: the epoch of that figure, from 1; 0 where it has none.
        epochs: epochs it learnt.
        seconds: time from its beginning to its end; NaN while it runs.
        settings: what was chosen for it.
        reason: why it was pruned or failed, or which trial it repeats.
        host: the machine that ran it.
        run: its directory there.
        history: the figure after every epoch.
    """

    trial: int
    state: str
    value: float
    epoch: int
    epochs: int
    seconds: float
    settings: Mapping[str, Any]
    reason: str
    host: str
    run: str
    history: tuple[float, ...]


def rows_of(study: Study) -> tuple[TrialRow, ...]:
    """Every trial that was begun, first to last; one begun beyond the limit by a second process is left out."""
    minimise = study.direction.name == "MINIMIZE"
    return tuple(
        _row(one, minimise)
        for one in study.get_trials(deepcopy=False)
        if one.state != TrialState.WAITING and not one.user_attrs.get("surplus")
    )


def _row(one: FrozenTrial, minimise: bool) -> TrialRow:
    notes = one.user_attrs
    history = tuple(value for _, value in sorted(one.intermediate_values.items()))
    value, epoch = math.nan, 0
    if one.state == TrialState.COMPLETE and one.value is not None:
        value, epoch = one.value, int(notes.get("epoch", 0))
    elif history:
        value = min(history) if minimise else max(history)
        epoch = history.index(value) + 1
    return TrialRow(
        trial=one.number + 1,
        state="interrupted" if notes.get("interrupted") else _STATES[one.state],
        value=value,
        epoch=epoch,
        epochs=int(notes.get("epochs", len(history))),
        seconds=one.duration.total_seconds() if one.duration is not None else math.nan,
        settings=one.params,
        reason=str(notes.get("reason", "")),
        host=str(notes.get("host", "")),
        run=str(notes.get("run", "")),
        history=history,
    )


def best_row(rows: Sequence[TrialRow], monitor: str) -> TrialRow | None:
    """The best completed trial, the first of several equals; None where none was completed."""
    done = [row for row in rows if row.state == "completed" and math.isfinite(row.value)]
    sign = -1 if monitor == "loss" else 1
    return max(done, key=lambda row: sign * row.value, default=None)


def count_states(rows: Sequence[TrialRow]) -> dict[str, int]:
    """How many trials ended in each way, in the order completed, pruned, failed and so on; absent ways are left out."""
    order = ("completed", "pruned", "failed", "interrupted", "running")
    return {state: count for state in order if (count := sum(row.state == state for row in rows))}


def settings_text(settings: Mapping[str, Any]) -> str:
    """Chosen settings in one line."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in settings.items())


def value_text(value: Any) -> str:
    """A setting as a person reads it: four digits are enough to compare by."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table_text(rows: Sequence[TrialRow], names: Sequence[str], monitor: str) -> str:
    """The table for a person, best trial first, the others behind it in the order of their figure."""
    sign = 1 if monitor == "loss" else -1
    order = {"completed": 0, "pruned": 1}

    def place(row: TrialRow) -> tuple[int, float, int]:
        return order.get(row.state, 2), sign * row.value if math.isfinite(row.value) else math.inf, row.trial

    head = ["trial", "state", f"val {monitor}", "epoch", "seconds", *names, "reason"]
    cells = [
        [
            str(row.trial),
            row.state,
            f"{row.value:.4f}" if math.isfinite(row.value) else "-",
            f"{row.epoch}/{row.epochs}" if row.epochs else "-",
            f"{row.seconds:.0f}" if math.isfinite(row.seconds) else "-",
            *(value_text(row.settings[name]) if name in row.settings else "-" for name in names),
            row.reason,
        ]
        for row in sorted(rows, key=place)
    ]
    widths = [max(len(line[column]) for line in [head, *cells]) for column in range(len(head))]
    left = {1, len(head) - 1}

    def line(texts: Sequence[str]) -> str:
        parts = [
            text.ljust(width) if column in left else text.rjust(width)
            for column, (text, width) in enumerate(zip(texts, widths, strict=True))
        ]
        return "  ".join(parts).rstrip()

    return "\n".join(map(line, [head, *cells]))


def write_tables(run: RunDirectory, rows: Sequence[TrialRow], names: Sequence[str], monitor: str) -> None:
    """Write `trials.csv`, `trials.txt` and `trials.json`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", f"val_{monitor}", "epoch", "epochs", "seconds", *names, "reason", "host", "run"])
    for row in rows:
        figures = [repr(number) if math.isfinite(number) else "" for number in (row.value, row.seconds)]
        chosen = [row.settings.get(name, "") for name in names]
        ends = [row.reason, row.host, row.run]
        writer.writerow([row.trial, row.state, figures[0], row.epoch, row.epochs, figures[1], *chosen, *ends])
    replace_text(run.path / "trials.csv", text.getvalue())
    replace_text(run.path / "trials.txt", table_text(rows, names, monitor) + "\n")
    document = {"schema": "medcli-trials/1", "monitor": monitor, "trials": [row_to_json(row) for row in rows]}
    replace_text(run.path / "trials.json", json.dumps(document, indent=1, allow_nan=False) + "\n")


def row_to_json(row: TrialRow) -> dict[str, Any]:
    """A trial as JSON can hold it; a figure that is undefined becomes null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(row).items()
    }
