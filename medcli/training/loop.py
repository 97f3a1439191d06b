"""The training loop, short enough to read in a sitting: windows of batches, epochs, validation, the best weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from medcli.data.augment import Augmentation
from medcli.data.batches import Batch
from medcli.data.dataset import Preprocessing, Samples
from medcli.data.resize import normalise
from medcli.errors import RunFailure
from medcli.models.classifier import Classifier
from medcli.settings.groups import TrainingSettings
from medcli.training.checkpoint import Position
from medcli.training.interruption import Interruption
from medcli.training.label_guards import Swap
from medcli.training.losses import Criterion
from medcli.training.mixing import Mixing
from medcli.training.optimisers import set_rate
from medcli.training.progress import TrainingProgress
from medcli.training.schedules import Schedule
from medcli.training.strategies import Tuning
from medcli.training.team import Team

__all__ = ["CaseBatches", "Course", "Ema", "Journal", "Parts", "Trained", "fit", "learn_window"]


class CaseBatches(Protocol):
    """The batches of every epoch, in an order that depends on the epoch alone."""

    @property
    def samples(self) -> Samples: ...

    def __len__(self) -> int: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Trained:
    """How a training ended.

    Args:
        position: where it stands.
        signal: the signal that interrupted it, or 0.
        early: whether patience ended it.
    """

    position: Position
    signal: int
    early: bool


class Window(Protocol):
    """Cases that go through the network together; the loop itself asks which they are and no more."""

    @property
    def index(self) -> Tensor: ...


class Windows(Protocol):
    """The batches of every epoch, in an order that depends on the epoch alone."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]: ...


class Course(Protocol):
    """What the loop needs of a training, whatever learns and from what: classes of images, or maps of pairs."""

    @property
    def settings(self) -> TrainingSettings: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    @property
    def schedule(self) -> Schedule: ...

    @property
    def batches(self) -> Windows: ...

    @property
    def network(self) -> nn.Module:
        """The network whose figures count."""
        ...

    def describe(self, cases: Sequence[int], /) -> str:
        """Cases by position, for error messages."""
        ...

    def begin_epoch(self, epoch: int, fresh: bool) -> None:
        """Get ready to learn: `fresh` at its beginning, not where it is taken up in its middle."""
        ...

    def begin_step(self, epoch: int, steps: int) -> None:
        """Before the optimiser step that follows `steps` others: which rates are the peaks of the schedule."""
        ...

    def learn(self, window: Sequence[Any], epoch: int) -> Tensor:
        """One optimiser step from the batches of one accumulation window; the mean loss, still on the device."""
        ...

    def end_step(self, steps: int) -> None:
        """After the optimiser step that is the `steps`th."""
        ...

    def figures(self) -> Mapping[str, float]:
        """What the epoch's training gave besides its loss."""
        ...


class Ema(Protocol):
    """A moving average of the weights, as timm's `ModelEmaV3` keeps it."""

    module: nn.Module

    def update(self, model: nn.Module, step: int | None = None) -> None: ...


@dataclass(frozen=True)
class Parts:
    """What the loop works with.

    Args:
        accelerator: device, mixed precision and gradient scaling.
        classifier: the network itself.
        forward: what is called: the network as accelerate (and torch.compile) wrapped it.
        ema: its moving average, or None.
        optimizer: over the trainable parameters.
        schedule: factor of the peak rate for each optimiser step.
        criterion: the loss.
        batches: training batches.
        augment: changes images [B, C, S, S] in [0, 1] units, or None.
        preprocessing: for normalisation, after augmentation; None where the batches hold features, to be taken as they
            are.
        settings: how to learn.
        tuning: rates of single blocks and when they join in, or None.
        team: the processes that learn together.
        swap: which labels change places with a mirrored image, or None.
        mixing: blends or patches pairs of images, or None.
        patients: describes cases by position, for error messages.
    """

    accelerator: Accelerator
    classifier: Classifier
    forward: Callable[[Tensor], Tensor]
    ema: Ema | None
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    criterion: Criterion
    batches: CaseBatches
    augment: Augmentation | None
    preprocessing: Preprocessing | None
    settings: TrainingSettings
    describe: Callable[[Sequence[int]], str]
    tuning: Tuning | None = None
    team: Team = field(default_factory=Team)
    swap: Swap | None = None
    mixing: Mixing | None = None

    @property
    def network(self) -> nn.Module:
        """The network whose figures count: the average where there is one."""
        return self.ema.module if self.ema is not None else self.classifier

    def begin_epoch(self, epoch: int, fresh: bool) -> None:  # noqa: ARG002 (part of the protocol)
        """Let the blocks in that join now."""
        if self.tuning is not None:
            self.tuning.begin_epoch(self.classifier, epoch)
        self.classifier.train()

    def begin_step(self, epoch: int, steps: int) -> None:
        """Set the rates of single blocks."""
        if self.tuning is not None:
            self.tuning.set_peaks(self.optimizer, epoch, steps)

    def learn(self, window: Sequence[Batch], epoch: int) -> Tensor:
        """See `learn_window`."""
        return learn_window(self, window, epoch)

    def end_step(self, steps: int) -> None:
        """Move the average."""
        if self.ema is not None:
            self.ema.update(self.classifier, step=steps)

    def figures(self) -> Mapping[str, float]:
        """Nothing but the loss."""
        return {}

    def images(self, batch: Batch, epoch: int) -> Tensor:
        """A batch as the network sees it in training: on the device, augmented, normalised."""
        device = self.accelerator.device
        images = batch.images.to(device, non_blocking=True)
        if self.preprocessing is None:
            return images
        if self.augment is not None:
            images = self.augment(images, batch.held_keys, epoch)
        images = normalise(images, self.preprocessing)
        return images.contiguous(memory_format=torch.channels_last)

    def labels(self, batch: Batch, epoch: int) -> Tensor:
        """The labels of the whole batch on the device, as they are after augmentation."""
        labels = batch.labels.to(self.accelerator.device, non_blocking=True)
        if self.swap is None or self.augment is None:
            return labels
        return self.swap(labels, self.augment.mirrored(batch.keys, epoch))


class Journal(Protocol):
    """What happens around the loop: figures, files, and who watches."""

    progress: TrainingProgress

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Figures of the validation split, `loss` among them."""
        ...

    def improved(self, position: Position) -> None:
        """A new best epoch: keep the weights."""
        ...

    def epoch_done(self, row: dict[str, Any]) -> None:
        """Record an epoch's figures."""
        ...

    def save(self, position: Position) -> None:
        """Write the checkpoint."""
        ...

    def ended(self, position: Position) -> None:
        """The loop is over, for whatever reason: write what was put off until then."""
        ...


def learn_window(parts: Parts, window: Sequence[Batch], epoch: int) -> Tensor:
    """One optimiser step from the batches of one accumulation window; returns the mean loss, still on the device.

    Every image weighs the same, however the window is cut into batches and the batches into processes.
    """
    team, count = parts.team, sum(len(batch.index) for batch in window)
    total = torch.zeros((), device=parts.accelerator.device)
    for batch in window:
        labels = parts.labels(batch, epoch)
        mixed = None if parts.mixing is None else parts.mixing.draw(batch, epoch, team.share)
        with team.quiet(parts.accelerator, parts.forward, last=batch is window[-1]):
            with parts.accelerator.autocast():
                images = parts.images(batch, epoch)
                raw = parts.forward(images if mixed is None else mixed.images(images))
            whole = team.whole(raw.float(), batch)
            loss = parts.criterion(whole, labels) if mixed is None else mixed.loss(parts.criterion, whole, labels)
            parts.accelerator.backward(loss * (team.factor(batch) * len(batch.index) / count))
        total += loss.detach() * len(batch.index)
    if parts.settings.clip_grad > 0:
        parts.accelerator.clip_grad_norm_(parts.classifier.parameters(), parts.settings.clip_grad)
    parts.optimizer.step()
    parts.optimizer.zero_grad(set_to_none=True)
    return total / count


def learn_epoch(parts: Course, position: Position, interruption: Interruption, watch: TrainingProgress) -> Position:
    """Learn the rest of the epoch that `position` stands in; returns early, after a whole step, when interrupted."""
    parts.begin_epoch(position.epoch, not position.batch)
    stream: Iterator[Window] = parts.batches.epoch(position.epoch, start=position.batch)
    pending: tuple[Tensor, Sequence[Window]] | None = None
    while window := tuple(islice(stream, parts.settings.accumulate)):
        parts.begin_step(position.epoch, position.steps)
        set_rate(parts.optimizer, parts.schedule.factor(position.steps, position.plateau.factor))
        loss = parts.learn(window, position.epoch)
        parts.end_step(position.steps + 1)
        # The loss is read one window late, so that a GPU has the next window queued while we wait for it.
        if pending is not None:
            position = _account(parts, position, *pending, watch)
        pending = (loss, window)
        position = replace(position, batch=position.batch + len(window), steps=position.steps + 1)
        if interruption.asked():
            break
    return _account(parts, position, *pending, watch) if pending is not None else position


def _account(
    parts: Course, position: Position, loss: Tensor, window: Sequence[Window], watch: TrainingProgress
) -> Position:
    value, count = float(loss), sum(len(batch.index) for batch in window)
    if not math.isfinite(value):
        cases = [int(index) for batch in window for index in batch.index]
        raise RunFailure(
            f"the loss became {value} in epoch {position.epoch + 1}; the batch held: {parts.describe(cases)}",
            hint=f"try `--lr {parts.settings.lr / 10:g}`, `--clip-grad 1`, a longer `--warmup-epochs`, "
            "`--precision fp32`, and look at these images with `medcli data inspect FILE`",
            code="loss-not-finite",
        )
    position = replace(position, loss_sum=position.loss_sum + value * count, seen=position.seen + count)
    watch.step(epoch=position.epoch, step=position.batch, loss=position.loss_sum / position.seen, images=count)
    return position


def fit(parts: Course, position: Position, journal: Journal, interruption: Interruption, last_epoch: int) -> Position:
    """Train from `position` up to `last_epoch` epochs, until patience runs out, or until interrupted."""
    settings = parts.settings
    while position.epoch < last_epoch and not position.best.exhausted(settings.patience):
        began, known = time.perf_counter(), position.seen
        position = learn_epoch(parts, position, interruption, journal.progress)
        learnt = time.perf_counter() - began
        position = replace(position, seconds=position.seconds + learnt)
        if interruption.signal and position.batch < len(parts.batches):
            journal.save(position)
            return position
        figures = journal.validate(parts.network)
        best = position.best.observe(position.epoch, figures[position.best.monitor])
        is_best = best.epoch == position.epoch
        row: dict[str, Any] = {
            "epoch": position.epoch,
            "train_loss": position.loss_sum / max(1, position.seen),
            **parts.figures(),
            **{f"val_{name}": value for name, value in figures.items()},
            "lr": parts.optimizer.param_groups[0]["lr"],
            "best": is_best,
            "seconds": round(learnt, 3),
            "images_per_second": round((position.seen - known) / max(learnt, 1e-9), 1),
        }
        plateau = position.plateau.observe(is_best, settings.step_gamma)
        position = Position(best, position.epoch + 1, 0, position.steps, 0.0, 0, plateau, position.seconds)
        if is_best:
            journal.improved(position)
        journal.epoch_done(row)
        interruption.asked()
        finished = position.epoch >= last_epoch or position.best.exhausted(settings.patience)
        if finished or interruption.signal or position.epoch % settings.checkpoint_every == 0:
            journal.save(position)
        if interruption.signal:
            return position
    return position
