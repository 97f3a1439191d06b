"""A run directory while something is learnt: what is recorded when it begins, and how it is marked when it ends."""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from medcli.errors import MedcliError, UsageProblem
from medcli.runs.directory import RunDirectory, refuse_occupied, replace_text
from medcli.runs.records import (
    append_log,
    append_metrics,
    truncate_metrics,
    write_config,
    write_data,
    write_environment,
)
from medcli.runs.status import State, Status, held, now, read_status, refuse_busy, write_status
from medcli.settings.resolve import Resolved
from medcli.training.checkpoint import load_checkpoint
from medcli.training.interruption import Interrupted
from medcli.training.loop import Trained

__all__ = ["Beginning", "completed", "kept", "reserve", "stopped"]


@dataclass(frozen=True)
class Beginning:
    """What a run is told when a training begins in it, or goes on.

    Args:
        command: what makes the run, such as `train`.
        resolved: the settings with their origins.
        title: what learns, for the log.
        record: the data, as `data.json` holds it.
        plugins: every plugin used, as `distribution version`.
        facts: what the figures depend on besides the settings.
        epochs: epochs planned.
        goes_on: whether the run was there before.
        extend: epochs beyond the planned ones.
        data_changes: what differs from the data the run began with, accepted by the user.
        files: further files of a new run, name -> text.
    """

    command: str
    resolved: Resolved
    title: str
    record: Mapping[str, Any]
    plugins: Sequence[str]
    facts: Mapping[str, Any]
    epochs: int
    goes_on: bool = False
    extend: int = 0
    data_changes: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


def reserve(run: RunDirectory, *, overwrite: bool, confirm: Callable[[str], bool]) -> None:
    """Settle whether the directory may be used before any image is read; nothing is touched yet.

    Raises:
        UsageProblem: it is occupied, in use, or the user said no.
    """
    refuse_occupied(run, overwrite=overwrite)
    if run.path.is_dir() and any(run.path.iterdir()):
        refuse_busy(run)
        if not confirm(f"replace the run in `{run.path}`?"):
            raise UsageProblem("not replaced, as you asked", where="--overwrite", code="not-confirmed")


@contextlib.contextmanager
def kept(run: RunDirectory, beginning: Beginning) -> Iterator[Status]:
    """Hold a claimed run, record what begins in it, and say in it what ended it where that was an error.

    Whoever uses it marks the other two ends: `completed` and `stopped`.
    """
    with held(run):
        began = _begin(run, beginning)
        try:
            how = "continued" if beginning.goes_on else "started"
            append_log(run, f"{beginning.command} {beginning.title}: {how}")
            yield began
        except Interrupted:
            raise
        except BaseException as error:
            _failed(run, began, error)
            raise


def completed(run: RunDirectory, began: Status, trained: Trained) -> None:
    """Mark the run as finished."""
    best = trained.position.best
    append_log(run, f"completed: best epoch {best.epoch + 1}, {best.monitor} {best.value:.5g}")
    write_status(run, _status(began, "completed", trained))


def stopped(run: RunDirectory, began: Status, trained: Trained) -> Interrupted:
    """Mark the run as interrupted; the error to raise."""
    append_log(run, f"stopped by signal {trained.signal}")
    write_status(run, _status(began, "interrupted", trained))
    return Interrupted(
        trained.signal,
        f"stopped in epoch {trained.position.epoch + 1}; everything is saved in `{run.path}`",
        f"continue with `medcli {began.command} --resume {run.path}`",
    )


def _begin(run: RunDirectory, beginning: Beginning) -> Status:
    """Record what this training is, or mark that it goes on."""
    if not beginning.goes_on:
        write_config(run, beginning.resolved)
        write_data(run, beginning.record)
        for name, text in beginning.files.items():
            replace_text(run.path / name, text)
        write_environment(run, plugins=beginning.plugins, facts=beginning.facts)
        status = Status("running", beginning.command, now(), now(), epochs=beginning.epochs)
    else:
        status = replace(read_status(run), state="running", updated=now(), error="")
        changes = list(beginning.data_changes)
        marker = {"event": "resumed", "time": now(), "extend": beginning.extend, "data_changes": changes}
        truncate_metrics(run, load_checkpoint(run.checkpoint_file).position.epoch)
        append_metrics(run, marker)
        if changes:
            write_data(run, {**beginning.record, "accepted_changes": changes})
    write_status(run, status)
    return status


def _status(began: Status, state: State, trained: Trained) -> Status:
    position = trained.position
    best = {"epoch": position.best.epoch + 1, "monitor": position.best.monitor, "value": position.best.value}
    return replace(
        began,
        state=state,
        updated=now(),
        epoch=position.epoch,
        best=best if position.best.epoch >= 0 and math.isfinite(position.best.value) else {},
    )


def _failed(run: RunDirectory, began: Status, error: BaseException) -> None:
    """Say in the run what ended it; the full traceback goes into its log."""
    sentence = error.message if isinstance(error, MedcliError) else f"{type(error).__name__}: {error}"
    state: State = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
    with contextlib.suppress(MedcliError, OSError):
        with run.log_file.open("a", encoding="utf-8") as log:
            log.write("".join(traceback.format_exception(error)))
        write_status(run, replace(read_status(run), state=state, updated=now(), error=sentence, started=began.started))
