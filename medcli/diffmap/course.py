"""What learns from pairs or from masked pictures: a lesson gives the loss of a batch, the course makes steps of it.

The loop, its checkpoints and its schedules are those of every other training. A discriminator shares the optimiser,
in groups of its own: whatever has no gradient is left alone by a step, so that both learn in turns and one checkpoint
holds both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from medcli.data.augment import Augmentation
from medcli.data.batches import Batch, Batches
from medcli.diffmap.augment import PairAugmentation
from medcli.diffmap.losses import MapLoss, PictureLoss, Terms
from medcli.diffmap.masking import Masking, Ramp
from medcli.diffmap.run import DifferenceSpec, prepared_images
from medcli.settings.groups import DifferenceLossSettings, TrainingSettings
from medcli.training.inputs import describe_cases
from medcli.training.loop import Ema
from medcli.training.schedules import Schedule

__all__ = ["Answer", "DifferenceCourse", "Learner", "Lesson", "MaskLesson", "PairLesson"]

TERMS = ("l1", "l2", "ssim", "gradient", "fourier", "adversarial", "discriminator")


@dataclass(frozen=True)
class Answer:
    """What a network made of a batch.

    Args:
        found: float32 [B, 1, H, W], with gradient.
        wanted: the same, as it should be; equal to `found` where nothing is known.
        beside: [B, c, H, W], what a discriminator sees with either.
        loss: a scalar.
        terms: its parts.
    """

    found: Tensor
    wanted: Tensor
    beside: Tensor
    loss: Tensor
    terms: Terms


class Lesson(Protocol):
    """What is asked of a network."""

    def __call__(self, network: nn.Module, batch: Batch, epoch: int, step: int, device: torch.device) -> Answer: ...


@dataclass(frozen=True)
class PairLesson:
    """A pair, asked for its map.

    Args:
        spec: what images go through, and the kind of map.
        criterion: the loss.
        augment: changes of pairs.
    """

    spec: DifferenceSpec
    criterion: MapLoss
    augment: PairAugmentation

    def __call__(self, network: nn.Module, batch: Batch, epoch: int, step: int, device: torch.device) -> Answer:  # noqa: ARG002
        """See `Lesson`."""
        planes = self.augment(batch.images.to(device, non_blocking=True), batch.keys, epoch)
        baseline, followup, truth = planes[:, :1], planes[:, 1:2], planes[:, 2:]
        truth = truth if self.spec.map == "signed" else truth.abs()
        found = network(prepared_images(baseline, self.spec), prepared_images(followup, self.spec)).float()
        loss, terms = self.criterion(found, truth)
        wanted = torch.where(torch.isnan(truth), found.detach(), truth)
        return Answer(found, wanted, torch.cat([baseline, followup], dim=1), loss, terms)


@dataclass(frozen=True)
class MaskLesson:
    """A picture with hidden parts, to be filled in.

    Args:
        spec: what images go through.
        criterion: the loss.
        masking: what is hidden.
        ramp: how much of it, as training goes on.
        augment: changes of pictures, or None.
    """

    spec: DifferenceSpec
    criterion: PictureLoss
    masking: Masking
    ramp: Ramp
    augment: Augmentation | None

    def __call__(self, network: nn.Module, batch: Batch, epoch: int, step: int, device: torch.device) -> Answer:
        """See `Lesson`."""
        pictures = batch.images.to(device, non_blocking=True)
        if self.augment is not None:
            pictures = self.augment(pictures, batch.keys, epoch).clamp(0, 1)
        hidden = self.masking(batch.keys, epoch, self.ramp.at(step), pictures.shape[-1]).to(device)
        return self.ask(network, pictures, hidden)

    def ask(self, network: nn.Module, pictures: Tensor, hidden: Tensor) -> Answer:
        """Pictures [B, 1, H, W] in [0, 1] of which `hidden` is black."""
        shown = pictures.masked_fill(hidden, 0.0)
        found = network(prepared_images(shown, self.spec)).float()
        loss, terms = self.criterion(found, pictures, hidden)
        # What is shown need not be drawn again, so that only what was filled in can betray it.
        return Answer(torch.where(hidden, found, pictures), pictures, shown, loss, terms)


class Learner(nn.Module):
    """All that a checkpoint holds besides the optimiser: the network, its discriminator, sums over the epoch so far.

    Args:
        network: what is trained.
        discriminator: learns in turns with it, or None.
        frozen: whether the network's encoder stays as it is, running statistics included.
    """

    def __init__(self, network: nn.Module, discriminator: nn.Module | None = None, *, frozen: bool = False) -> None:
        super().__init__()
        self.network = network
        self.discriminator = discriminator
        self.frozen = frozen
        self.step = 0  # set by the loop before every step, so no checkpoint needs it
        self.tally: Tensor
        self.register_buffer("tally", torch.zeros(2, len(TERMS)))
        if frozen:
            for parameter in self.encoder.parameters():
                parameter.requires_grad_(False)

    @property
    def encoder(self) -> nn.Module:
        """The network's encoder."""
        encoder: nn.Module = self.network.encoder  # type: ignore[assignment]
        return encoder

    def train(self, mode: bool = True) -> Learner:
        """As usual, but a frozen encoder always judges."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def count(self, terms: Terms, images: int) -> None:
        """Add parts of a loss, each the mean over `images`."""
        for name, value in terms.items():
            place = TERMS.index(name)
            self.tally[0, place] += value.detach() * images
            self.tally[1, place] += images


@dataclass(frozen=True)
class DifferenceCourse:
    """See `medcli.training.loop.Course`.

    Args:
        accelerator: device, mixed precision and gradient scaling.
        learner: network and discriminator.
        lesson: what is asked.
        ema: moving average of the network, or None.
        optimizer: over both.
        schedule: factor of the peak rates.
        batches: training batches.
        settings: how to learn.
        loss: what the discriminator counts, and from when.
    """

    accelerator: Accelerator
    learner: Learner
    lesson: Lesson
    ema: Ema | None
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    batches: Batches
    settings: TrainingSettings
    loss: DifferenceLossSettings

    @property
    def network(self) -> nn.Module:
        """The network whose figures count: the average where there is one."""
        return self.ema.module if self.ema is not None else self.learner.network

    def describe(self, cases: Sequence[int]) -> str:
        """Identifiers, for error messages."""
        return describe_cases(self.batches.samples, cases)

    def begin_epoch(self, epoch: int, fresh: bool) -> None:  # noqa: ARG002 (part of the protocol)
        """Start the sums anew, unless the epoch is taken up in its middle."""
        if fresh:
            self.learner.tally.zero_()
        self.learner.train()

    def begin_step(self, epoch: int, steps: int) -> None:  # noqa: ARG002 (part of the protocol)
        """Note how far training is, for what changes with it."""
        self.learner.step = steps

    def learn(self, window: Sequence[Batch], epoch: int) -> Tensor:
        """One step of the network and, where it counts, one of the discriminator; the network's mean loss."""
        judge = self.learner.discriminator if epoch + 1 >= self.loss.adversarial_from else None
        if judge is not None:
            judge.requires_grad_(False)
        count = sum(len(batch.index) for batch in window)
        total = torch.zeros((), device=self.accelerator.device)
        seen: list[tuple[Tensor, Tensor, int]] = []
        for batch in window:
            with self.accelerator.autocast():
                answer = self.lesson(self.learner.network, batch, epoch, self.learner.step, self.accelerator.device)
                loss, terms = answer.loss, dict(answer.terms)
                if judge is not None:
                    belief = judge(torch.cat([answer.beside, answer.found], dim=1)).float()
                    terms["adversarial"] = functional.binary_cross_entropy_with_logits(belief, torch.ones_like(belief))
                    loss = loss + self.loss.adversarial_weight * terms["adversarial"]
                    real = torch.cat([answer.beside, answer.wanted], dim=1)
                    made = torch.cat([answer.beside, answer.found.detach()], dim=1)
                    seen.append((real, made, len(batch.index)))
            self.accelerator.backward(loss * (len(batch.index) / count))
            self.learner.count(terms, len(batch.index))
            total += loss.detach() * len(batch.index)
        self._step(self.learner.network)
        if judge is not None:
            self._learn_to_judge(judge, seen, count)
        return total / count

    def _learn_to_judge(self, judge: nn.Module, seen: Sequence[tuple[Tensor, Tensor, int]], count: int) -> None:
        judge.requires_grad_(True)
        for real, made, images in seen:
            with self.accelerator.autocast():
                right, wrong = judge(real).float(), judge(made).float()
            loss = 0.5 * (
                functional.binary_cross_entropy_with_logits(right, torch.ones_like(right))
                + functional.binary_cross_entropy_with_logits(wrong, torch.zeros_like(wrong))
            )
            self.accelerator.backward(loss * (images / count))
            self.learner.count({"discriminator": loss}, images)
        self._step(judge)

    def _step(self, part: nn.Module) -> None:
        if self.settings.clip_grad > 0:
            self.accelerator.clip_grad_norm_(part.parameters(), self.settings.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def end_step(self, steps: int) -> None:
        """Move the average."""
        if self.ema is not None:
            self.ema.update(self.learner.network, step=steps)

    def figures(self) -> Mapping[str, float]:
        """The mean of each part of the loss over the epoch."""
        sums, images = self.learner.tally.tolist()
        return {f"train_{name}": total / seen for name, total, seen in zip(TERMS, sums, images, strict=True) if seen}
