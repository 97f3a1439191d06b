"""One trial: a training like any other, but without test images, watched by the pruner, and leaving little behind."""

from __future__ import annotations

import gc
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from optuna.trial import Trial

from medcli.errors import MedcliError, RunFailure
from medcli.runs.directory import MANIFEST, RunDirectory, replace_text
from medcli.runs.records import append_log
from medcli.runs.status import read_status, write_status
from medcli.training.interruption import Interrupted, Interruption
from medcli.training.progress import TrainingProgress
from medcli.training.session import Watch, conduct
from medcli.training.start import Start, adapted, fresh

__all__ = [
    "Pruned",
    "TrialProgress",
    "TrialResult",
    "drop_weights",
    "plan_trial",
    "plan_whole",
    "run_trial",
    "without_test",
]

WEIGHTS = ("model.safetensors", "adapter", "checkpoints")
"""What of a trial is large; only the best one keeps it, and never its checkpoints."""


class Pruned(MedcliError):
    """A trial was stopped early because others were better by then."""


@dataclass(frozen=True)
class TrialResult:
    """A trial that came to its end.

    Args:
        value: its best validation figure.
        epoch: the epoch of that figure, counted from 1.
        epochs: epochs learnt.
        seconds: time spent learning.
    """

    value: float
    epoch: int
    epochs: int
    seconds: float


def plan_whole(command: str, source: str | None, given: Mapping[str, Any]) -> Start:
    """Plan a training as its command would.

    Args:
        command: `train`, `finetune` or `lora`.
        source: architecture, or for the latter two a run.
        given: its settings, as if they were flags.

    Raises:
        UsageProblem: whatever is wrong with them.
    """
    return fresh(command, source, given) if command == "train" else adapted(command, source, given)


def plan_trial(command: str, source: str | None, given: Mapping[str, Any]) -> Start:
    """The same without its test images. See `plan_whole`."""
    return without_test(plan_whole(command, source, given))


def without_test(start: Start) -> Start:
    """A training as a search may see it: its test images are neither read nor predicted."""
    data = start.plan.data
    seen = {split: samples for split, samples in data.splits.items() if split != "test"}
    return replace(start, plan=replace(start.plan, data=replace(data, splits=seen)))


def run_trial(
    start: Start,
    run: RunDirectory,
    trial: Trial,
    *,
    command: str,
    progress: TrainingProgress,
    interruption: Interruption,
    say: Callable[[str], None],
    reading: Callable[[str, int, int], None],
) -> TrialResult:
    """Carry out one trial in a directory of its own.

    Raises:
        Pruned: after an epoch that others did better in.
        Interrupted: by a signal.
        MedcliError: it failed; the sentence says why.
    """
    watched = TrialProgress(progress, trial, start.plan.monitor, interruption)
    watch = Watch(watched, say, reading, lambda question: True)
    try:
        outcome = conduct(start, watch, command=command, out=str(run.path), overwrite=False)
    except Pruned as pruned:
        _close(run, pruned.message)
        raise
    finally:
        shutil.rmtree(run.path / "checkpoints", ignore_errors=True)
        # What a failed trial held on the device must not starve the next one.
        gc.collect()
        if start.plan.compute.device != "cpu" and torch.cuda.is_available():
            torch.cuda.empty_cache()
    if not math.isfinite(outcome.best.value):
        raise RunFailure(
            f"val {outcome.best.monitor} is undefined: the validation images lack a class",
            hint="choose another figure with `--monitor`",
            code="no-figure",
        )
    return TrialResult(outcome.best.value, outcome.best.epoch + 1, outcome.epochs, outcome.seconds)


def _close(run: RunDirectory, reason: str) -> None:
    """A pruned trial did not fail: its status says so, and its log holds no traceback."""
    text = run.log_file.read_text(encoding="utf-8")
    replace_text(run.log_file, text.partition("Traceback (most recent call last)")[0])
    append_log(run, reason)
    write_status(run, replace(read_status(run), state="interrupted", error=reason))


def drop_weights(run: RunDirectory) -> None:
    """Remove what is large from a trial that is not the best; its settings, figures and log stay."""
    if not (run.path / MANIFEST).is_file():
        return
    for name in WEIGHTS:
        path = run.path / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class TrialProgress:
    """Hands a training's figures to the pruner after every epoch, and everything to whoever watches.

    Args:
        inner: shows it.
        trial: is told the figure of each epoch.
        monitor: that figure.
        interruption: signals that came before the training listened for them.
    """

    def __init__(self, inner: TrainingProgress, trial: Trial, monitor: str, interruption: Interruption) -> None:
        self._inner = inner
        self._trial = trial
        self._monitor = monitor
        self._interruption = interruption
        self._epochs = 0
        self._seen = 0

    def start(self, *, epochs: int, steps: int, images: int, first_epoch: int) -> None:
        if self._interruption.signal:
            raise Interrupted(self._interruption.signal, "stopped before the first step", "")
        self._epochs = epochs
        self._inner.start(epochs=epochs, steps=steps, images=images, first_epoch=first_epoch)

    def step(self, *, epoch: int, step: int, loss: float, images: int) -> None:
        self._inner.step(epoch=epoch, step=step, loss=loss, images=images)

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
        self._inner.epoch(
            epoch=epoch,
            metrics=metrics,
            monitor=monitor,
            best=best,
            seconds=seconds,
            images_per_second=images_per_second,
        )
        # Counted here: a training in two stages counts its epochs twice.
        step, self._seen = self._seen, self._seen + 1
        value = metrics.get(f"val_{self._monitor}", math.nan)
        if not math.isfinite(value):
            return
        self._trial.report(value, step)
        # Asked after the last epoch too: halving takes its standings down while it is asked.
        behind = self._trial.should_prune()
        if behind and epoch + 1 < self._epochs:
            raise Pruned(
                f"pruned after epoch {step + 1}: val {self._monitor} {value:.4f} was behind other trials",
                code="pruned",
            )

    def finish(self) -> None:
        self._inner.finish()
