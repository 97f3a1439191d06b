"""Experiment trackers beside a run: they get what the run itself keeps, and nothing leaves the machine unasked."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import Any

from medcli.errors import RunFailure, UsageProblem
from medcli.registry.layout import install_line
from medcli.runs.directory import RunDirectory
from medcli.settings.resolve import Resolved
from medcli.training.progress import TrainingProgress

__all__ = ["Tracked", "refuse_missing", "tracked"]


class Tracked:
    """A watcher that also hands the figures of every epoch to trackers, which count epochs from 1."""

    def __init__(self, progress: TrainingProgress, trackers: Sequence[Any]) -> None:
        self._progress, self._trackers = progress, tuple(trackers)
        self.start, self.step, self.finish = progress.start, progress.step, progress.finish

    def epoch(
        self,
        *,
        epoch: int,
        metrics: Mapping[str, float],
        monitor: str,
        best: bool,
        seconds: float,
        images_per_second: float,
    ) -> None:
        """Pass it on, and to the trackers what is a number."""
        self._progress.epoch(
            epoch=epoch,
            metrics=metrics,
            monitor=monitor,
            best=best,
            seconds=seconds,
            images_per_second=images_per_second,
        )
        every = {**metrics, "seconds": seconds, "images_per_second": images_per_second}
        figures = {name: float(value) for name, value in every.items() if math.isfinite(value)}
        for tracker in self._trackers:
            with _in_order():
                tracker.log(figures, step=epoch + 1)


def refuse_missing(names: Sequence[str]) -> None:
    """Check that the packages are there, before anything is written.

    Raises:
        UsageProblem: one that is not, with the line that installs it.
    """
    for name in names:
        if find_spec(name) is None:
            raise UsageProblem(
                f"`--log-with {name}` needs the package `{name}`, which is not installed",
                where="--log-with",
                hint=install_line((f"medcli[{name}]",)),
                code="missing-extra",
            )


@contextmanager
def tracked(
    progress: TrainingProgress, names: Sequence[str], run: RunDirectory, resolved: Resolved
) -> Iterator[TrainingProgress]:
    """Start accelerate's trackers, tell them the settings, and end them however the training ends.

    They write below the run's `tracking/`, unless the user's own variables (`WANDB_MODE`, `MLFLOW_TRACKING_URI`,
    `TRACKIO_DIR`, ...) say otherwise; W&B is offline unless `WANDB_MODE` says `online`.

    Raises:
        RunFailure: a tracker could not start.
    """
    if not names:
        yield progress
        return
    place = run.tracking.resolve()
    place.mkdir(parents=True, exist_ok=True)
    settings = {name: _plain(value) for name, value in _told(resolved)}
    started: list[Any] = []
    try:
        for name in dict.fromkeys(names):
            with _in_order(name):
                tracker = _tracker(name, run.path.resolve().name, str(place))
                tracker.start()
                started.append(tracker)
                tracker.store_init_configuration(settings)
        yield Tracked(progress, started)
    finally:
        for tracker in started:
            with _in_order():
                tracker.finish()


@contextmanager
def _in_order(name: str = "") -> Iterator[None]:
    """Services greet on stdout, which holds the answer alone; what they raise is theirs to explain."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        raise RunFailure(
            f"the tracker {name} failed: {type(error).__name__}: {error}".replace("  ", " "),
            where="--log-with",
            hint="leave it out: the run keeps every figure in `metrics.jsonl`",
            code="tracker",
        ) from error


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _told(resolved: Resolved) -> list[tuple[str, Any]]:
    given = {"architecture": resolved.architecture, "command": resolved.command, **resolved.values}
    return [(name, value) for name, value in given.items() if value is not None]


def _tracker(name: str, run: str, place: str) -> Any:
    from accelerate import tracking

    if name == "tensorboard":
        return tracking.TensorBoardTracker("tensorboard", place)
    if name == "wandb":
        os.environ.setdefault("WANDB_MODE", "offline")
        return tracking.WandBTracker("medcli", name=run, dir=place)
    if name == "mlflow":
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
        return tracking.MLflowTracker("medcli", logging_dir=f"file://{place}/mlflow", run_name=run)
    os.environ.setdefault("TRACKIO_DIR", f"{place}/trackio")
    return tracking.TrackioTracker("medcli", name=run)
