"""Runs at a glance: what `runs list` shows, and the stored figures by which runs are compared."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medcli.errors import MedcliError, UsageProblem, nearest
from medcli.runs.directory import MANIFEST, RunDirectory, open_run
from medcli.runs.records import read_data, read_metrics
from medcli.runs.status import read_status
from medcli.settings.toml_files import read_toml

__all__ = [
    "Resumption",
    "StoredFigure",
    "Summary",
    "compare",
    "list_runs",
    "read_figures",
    "resumptions",
    "summarise",
]


@dataclass(frozen=True)
class Summary:
    """One run in one line.

    Args:
        path: its directory.
        state: as in `Status`, or `broken` for a run whose files cannot be read.
        command: what made it.
        architecture: its architecture; empty where unknown.
        started: UTC time.
        updated: UTC time of the last sign of life.
        epoch: epochs finished.
        epochs: epochs planned.
        monitor: the figure that chose the best epoch; empty before the first.
        value: that figure; NaN before the first epoch.
        best_epoch: that epoch, counted from 1; 0 before the first.
        data: name of the data set; empty where unknown.
        auc: of the test images, as its training evaluated it; NaN where there is none.
        accuracy: likewise.
        problem: what is wrong with it, or why it stopped; empty when nothing is.
    """

    path: Path
    state: str
    command: str = ""
    architecture: str = ""
    started: str = ""
    updated: str = ""
    epoch: int = 0
    epochs: int = 0
    monitor: str = ""
    value: float = math.nan
    best_epoch: int = 0
    data: str = ""
    auc: float = math.nan
    accuracy: float = math.nan
    problem: str = ""


@dataclass(frozen=True)
class Resumption:
    """A training that was taken up again.

    Args:
        time: UTC time.
        after_epoch: epochs it had finished by then.
        extend: epochs added to those planned; 0 for none.
        data_changes: what differed in the data, as the user accepted it.
    """

    time: str
    after_epoch: int
    extend: int = 0
    data_changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredFigure:
    """A figure as the end of a training evaluated it.

    Args:
        run: the run's directory.
        architecture: its architecture; empty where unknown.
        value: the figure; NaN where undefined.
        low: lower end of its 95 % interval; NaN where there is none.
        high: upper end.
        n: labelled cases.
        convention: what exactly it is.
    """

    run: Path
    architecture: str
    value: float
    low: float
    high: float
    n: int
    convention: str


def list_runs(root: str | Path = "runs") -> tuple[Summary, ...]:
    """Every run directly below `root`, newest first. A damaged one is listed as such; other folders are passed over.

    Raises:
        UsageProblem: `root` is no folder, or may not be read.
    """
    folder = Path(root)
    try:
        found = [entry for entry in folder.iterdir() if (entry / MANIFEST).is_file()]
    except OSError as error:
        raise UsageProblem(
            f"`{folder}` cannot be listed: {(error.strerror or str(error)).lower()}",
            hint="`medcli runs list DIR` names the folder that holds the runs",
            code="no-runs",
        ) from None
    return tuple(
        sorted(
            (summarise(RunDirectory(path)) for path in found),
            key=lambda one: (one.started, one.path.name),
            reverse=True,
        )
    )


def summarise(run: RunDirectory) -> Summary:
    """One run in one line; never fails because of what the run holds."""
    try:
        status = read_status(run)
        rows = [row for row in read_metrics(run) if isinstance(row.get("epoch"), int)]
        architecture = _architecture(run)
    except MedcliError as problem:
        place = f" ({problem.where})" if problem.where else ""
        return Summary(run.path, "broken", problem=problem.message + place)
    except OSError as error:
        return Summary(run.path, "broken", problem=f"cannot be read: {(error.strerror or str(error)).lower()}")
    best = status.best
    value, best_epoch = best.get("value"), best.get("epoch")
    # While a run is going on, its status tells its beginning and its figures tell the present.
    epoch = max(status.epoch, rows[-1]["epoch"] + 1 if rows else 0)
    updated = status.updated
    if status.state == "running" and run.metrics_file.is_file():
        updated = max(updated, _modified(run.metrics_file))
    return Summary(
        run.path,
        status.state,
        status.command,
        architecture,
        status.started,
        updated,
        epoch,
        max(status.epochs, epoch),
        str(best.get("monitor", "")),
        float(value) if isinstance(value, int | float) else math.nan,
        best_epoch if isinstance(best_epoch, int) else 0,
        _data_name(run),
        _test_value(run, "auc"),
        _test_value(run, "accuracy"),
        status.error,
    )


def resumptions(run: RunDirectory) -> tuple[Resumption, ...]:
    """Each time the training was taken up again, first to last; what cannot be read is left out."""
    try:
        rows = read_metrics(run)
    except (MedcliError, OSError):
        return ()
    found: list[Resumption] = []
    epochs = 0
    for row in rows:
        if isinstance(row.get("epoch"), int):
            epochs = row["epoch"] + 1
        elif row.get("event") == "resumed":
            extend, changes = row.get("extend"), row.get("data_changes")
            found.append(
                Resumption(
                    str(row.get("time", "")),
                    epochs,
                    extend if isinstance(extend, int) else 0,
                    tuple(map(str, changes)) if isinstance(changes, list) else (),
                )
            )
    return tuple(found)


def read_figures(run: RunDirectory, split: str) -> Mapping[str, Any]:
    """The stored evaluation of one split, as JSON.

    Raises:
        UsageProblem: there is none yet, not for this split, or it cannot be read.
    """
    file = run.evaluation_file
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        held = list(document)
        if not all(_sound(figure) for one in document.values() for figure in one["figures"].values()):
            raise ValueError("not figures")
    except FileNotFoundError:
        raise UsageProblem(
            f"`{run.path}` holds no evaluation: its training has not finished",
            hint=f"`medcli train --resume {run.path}` finishes it" if run.checkpoint_file.is_file() else None,
            code="not-finished",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UsageProblem("the evaluation cannot be read", where=str(file), code="bad-run-file") from None
    if split not in held:
        raise UsageProblem(
            f"`{run.path}` has no evaluation of `{split}`; it has {', '.join(f'`{name}`' for name in held) or 'none'}",
            where=str(file),
            hint="`--on val` compares on the validation images" if "val" in held else None,
            code="no-such-split",
        )
    chosen: Mapping[str, Any] = document[split]
    return chosen


def compare(runs: Sequence[str | Path], metric: str, split: str = "test") -> tuple[StoredFigure, ...]:
    """One stored figure of several runs, in the order given.

    Raises:
        UsageProblem: no run, no evaluation, or a figure it does not hold (with the nearest names).
    """
    return tuple(_figure(open_run(path), metric, split) for path in runs)


def _figure(run: RunDirectory, metric: str, split: str) -> StoredFigure:
    document = read_figures(run, split)
    figures = document["figures"]
    if metric not in figures:
        close = nearest(metric, figures) or tuple(name for name in figures if name.startswith(metric))
        known = ", ".join(f"`{name}`" for name in figures)
        raise UsageProblem(
            f"the evaluation of `{run.path}` holds no figure `{metric}`",
            where="--metric",
            hint=f"did you mean `{close[0]}`?" if close else f"it holds {known}",
            code="unknown-metric",
        )
    figure = figures[metric]
    try:
        return StoredFigure(
            run.path,
            _architecture(run),
            _number(figure["value"]),
            _number(figure["low"]),
            _number(figure["high"]),
            int(document["n"]),
            str(figure.get("convention", "")),
        )
    except (KeyError, TypeError, ValueError):
        raise UsageProblem(
            "the evaluation cannot be read", where=str(run.evaluation_file), code="bad-run-file"
        ) from None


def _sound(figure: Any) -> bool:
    numbers = [figure.get(part) for part in ("value", "low", "high")]
    return all(number is None or isinstance(number, int | float) for number in numbers)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _architecture(run: RunDirectory) -> str:
    if not run.config_file.is_file():
        return ""
    named = read_toml(run.config_file).values.get("architecture", "")
    return named if isinstance(named, str) else ""


def _data_name(run: RunDirectory) -> str:
    try:
        named = read_data(run).get("name", "")
    except (MedcliError, OSError):
        return ""
    return named if isinstance(named, str) else ""


def _test_value(run: RunDirectory, name: str) -> float:
    try:
        return _number(read_figures(run, "test")["figures"][name]["value"])
    except (MedcliError, KeyError, TypeError, ValueError):
        return math.nan


def _modified(file: Path) -> str:
    return datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat(timespec="seconds")
