"""A training of maps, or on masked pictures, from plan to the end of its loop: what is built, learnt and kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import set_seed
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from medcli.data.augment import Augmentation
from medcli.data.batches import Batches
from medcli.diffmap.augment import PairAugmentation
from medcli.diffmap.course import DifferenceCourse, Learner, Lesson, MaskLesson, PairLesson
from medcli.diffmap.judging import figures_of, judge
from medcli.diffmap.losses import MapLoss, PictureLoss
from medcli.diffmap.masking import Masking, Ramp
from medcli.diffmap.network import build_discriminator, load_encoder
from medcli.diffmap.plan import DifferencePlan
from medcli.diffmap.run import build_network, run_tensors, save_difference
from medcli.errors import UsageProblem
from medcli.models.device import Precision, autocast, choose_precision
from medcli.registry.discovery import DIFFERENCE_MODELS, discover, find
from medcli.runs.directory import RunDirectory
from medcli.training.best import Best
from medcli.training.checkpoint import Position, save_checkpoint
from medcli.training.following import follow, prolonged, take_up, unwrapped
from medcli.training.inputs import open_splits, storage_notes
from medcli.training.join import join, own_device
from medcli.training.journal import record_epoch
from medcli.training.loop import Ema, Trained
from medcli.training.memory import explain_out_of_memory
from medcli.training.optimisers import optimizer_over, parameter_groups
from medcli.training.processes import place
from medcli.training.progress import TrainingProgress
from medcli.training.schedules import Schedule

__all__ = ["DifferenceJournal", "Ready", "asked", "learn", "make_ready"]

HELD_OUT = 0x5EED  # added to the seed of the masks that validation pictures have in every epoch alike
LEAST_JUDGED = 32  # pixels a side that a discriminator of patches needs


@dataclass(frozen=True)
class Ready:
    """A network, its data and everything that makes it learn, before the first step.

    Args:
        plan: what was decided.
        course: what the loop works with.
        batches: by split; those to learn from are also in the course.
        device: where it runs.
        precision: with what numbers.
        origin: distribution and version of the package that made the network.
        notes: sentences the user should read.
    """

    plan: DifferencePlan
    course: DifferenceCourse
    batches: Mapping[str, Batches]
    device: torch.device
    precision: Precision
    origin: str
    notes: tuple[str, ...]


def make_ready(plan: DifferencePlan, *, progress: Callable[[str, int, int], None] | None = None) -> Ready:
    """Build the network and open the data; nothing is written but the caches of images and alignments.

    Raises:
        UsageProblem: settings this model, data or machine cannot do.
        RunFailure: unreadable images.
    """
    settings, compute, loss = plan.training, plan.compute, plan.loss
    where = place()
    if where.of > 1:
        raise UsageProblem(
            "difference models are trained in one process",
            where="WORLD_SIZE",
            hint="start it without torchrun or `accelerate launch`",
            code="one-process",
        )
    if loss.adversarial and plan.image_size < LEAST_JUDGED:
        raise UsageProblem(
            f"`--adversarial` judges patches of pictures of at least {LEAST_JUDGED} pixels a side",
            where="--image-size",
            hint=f"--image-size {LEAST_JUDGED}",
            code="bad-image-size",
        )
    device = own_device(plan, where)
    precision = choose_precision(compute.precision, device)
    accelerator, _ = join(plan, device, precision)
    if compute.deterministic:
        torch.use_deterministic_algorithms(True)
    set_seed(compute.seed)
    model, network = build_network(plan.spec, weights=plan.weights)
    notes = [*plan.notes, *_start(model, network, plan)]
    if settings.grad_checkpointing:
        _checkpoint_activations(model, network, plan)
    with explain_out_of_memory(plan):
        batches = open_splits(plan, device, progress)
    notes += storage_notes(batches)
    judge_of = None
    if loss.adversarial:
        judge_of = build_discriminator(model, 2 if plan.masks else 3)
    learner = Learner(network, judge_of, frozen=plan.difference.freeze_encoder).to(device)
    ema: Ema | None = None
    if settings.ema:
        ema = ModelEmaV3(network, decay=settings.ema_decay, use_warmup=True, warmup_gamma=10.0, warmup_power=1.0)
    groups = parameter_groups(network, settings.lr, settings.weight_decay)
    if judge_of is not None:
        groups += parameter_groups(judge_of, loss.discriminator_lr or settings.lr, settings.weight_decay)
    optimizer = accelerator.prepare(optimizer_over(groups, settings, device))
    steps = math.ceil(len(batches["train"]) / settings.accumulate)
    course = DifferenceCourse(
        accelerator=accelerator,
        learner=learner,
        lesson=_lesson(plan, settings.epochs * steps),
        ema=ema,
        optimizer=optimizer,
        schedule=Schedule.of(settings, steps),
        batches=batches["train"],
        settings=settings,
        loss=loss,
    )
    entry = find(discover(), plan.spec.model, DIFFERENCE_MODELS)
    return Ready(plan, course, batches, device, precision, entry.origin, tuple(notes))


def _start(model: nn.Module, network: nn.Module, plan: DifferencePlan) -> list[str]:
    """Copy weights of other runs; returns what was done."""
    notes = []
    if plan.training.init_from:
        state = run_tensors(plan.training.init_from, "--init-from")
        expected = network.state_dict()
        fitting = [name for name in expected if name in state and state[name].shape == expected[name].shape]
        if len(fitting) != len(expected) or len(state) != len(expected):
            raise UsageProblem(
                f"`{plan.training.init_from}` holds another network: {len(fitting)} of {len(expected)} tensors fit",
                where="--init-from",
                hint="`--encoder-from` takes the encoder alone",
                code="weights-do-not-fit",
            )
        network.load_state_dict(state)
        notes.append(f"weights: the best of {plan.training.init_from}")
    if plan.difference.encoder_from:
        report = load_encoder(model, run_tensors(plan.difference.encoder_from, "--encoder-from"))
        notes.append(f"encoder: from {plan.difference.encoder_from}, {report.sentence()}")
    elif plan.difference.freeze_encoder and not (
        plan.weights or plan.training.init_from or plan.spec.options.get("encoder_weights")
    ):
        notes.append("the frozen encoder has random weights (`--encoder-from RUN` gives it others)")
    return notes


def _checkpoint_activations(model: nn.Module, network: nn.Module, plan: DifferencePlan) -> None:
    """`--grad-checkpointing`."""
    found = False
    for part in dict.fromkeys((network, model)):
        enable = getattr(part, "set_grad_checkpointing", None)
        if enable is not None:
            enable(True)
            found = True
    if not found:
        raise UsageProblem(
            f"{plan.spec.model} cannot recompute activations (`--grad-checkpointing`)",
            hint="use a smaller `--batch-size` with `--accumulate`",
            code="no-grad-checkpointing",
        )


def _lesson(plan: DifferencePlan, steps: int) -> Lesson:
    loss, settings, seed = plan.loss, plan.training, plan.compute.seed
    level: Any = settings.augment  # the command offers the plain levels alone
    flip = settings.flip or "none"
    if plan.masks is None:
        swap = plan.difference.order_swap and plan.spec.register != "none"
        augment = PairAugmentation(level, flip, swap, plan.spec.map == "signed", seed)
        return PairLesson(plan.spec, _map_loss(plan), augment)
    masks = plan.masks
    picture = PictureLoss(loss.l1_weight, loss.l2_weight, loss.ssim_weight, loss.gradient_weight, loss.fourier_weight)
    plain = level == "none" and flip == "none"
    return MaskLesson(
        plan.spec,
        picture,
        Masking(masks.mask_mode, masks.mask_patches, seed),
        Ramp(masks.mask_ratio, steps),
        None if plain else Augmentation(level, flip, seed),
    )


def _map_loss(plan: DifferencePlan) -> MapLoss:
    loss, name = plan.loss, plan.training.loss or "weighted-l1-l2"
    return MapLoss(
        "l1-l2" if name == "l1-l2" else "weighted-l1-l2",
        l1=loss.l1_weight,
        l2=loss.l2_weight,
        scale=loss.map_scale,
        changed=loss.changed_weight,
        above=loss.changed_above,
        ssim=loss.ssim_weight,
        gradient=loss.gradient_weight,
        fourier=loss.fourier_weight,
        span=2.0 if plan.spec.map == "signed" else 1.0,
    )


class DifferenceJournal:
    """Keeps a run's figures, best weights and checkpoints; see `medcli.training.loop.Journal`."""

    def __init__(self, ready: Ready, run: RunDirectory, progress: TrainingProgress) -> None:
        self.ready = ready
        self.run = run
        self.progress = progress

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Loss, and for maps the figures of change, of the validation split."""
        ready, plan = self.ready, self.ready.plan
        if plan.masks is not None:
            losses = [(float(loss), images) for loss, images in asked(ready, network, "val")]
            return {"loss": sum(loss * images for loss, images in losses) / sum(images for _, images in losses)}
        judged = judge(
            network,
            plan.spec,
            ready.batches["val"],
            device=ready.device,
            precision=ready.precision,
            criterion=_map_loss(plan),
        )
        figures = figures_of(judged.thinned(), signed=plan.spec.map == "signed")
        return {"loss": judged.loss, **figures}

    def improved(self, position: Position) -> None:
        """Write the model file."""
        best = {
            "epoch": position.best.epoch,
            "monitor": position.best.monitor,
            "value": None if math.isnan(position.best.value) else position.best.value,
        }
        save_difference(self.run.model_file, self.ready.course.network, self.ready.plan.spec, best)

    def epoch_done(self, row: dict[str, Any]) -> None:
        """Record an epoch's figures and tell whoever watches."""
        record_epoch(self.run, row, self.progress, monitor=self.ready.plan.monitor)

    def save(self, position: Position) -> None:
        """Write the checkpoint."""
        course = self.ready.course
        scaler = course.accelerator.scaler
        save_checkpoint(
            self.run.checkpoint_file,
            position=position,
            model=course.learner,
            ema=None if course.ema is None else course.ema.module,
            optimizer=unwrapped(course.optimizer),
            scaler=scaler.state_dict() if scaler is not None else {},
            device=self.ready.device,
        )

    def ended(self, position: Position) -> None:
        """Nothing was put off."""


def asked(ready: Ready, network: nn.Module, split: str) -> Iterator[tuple[torch.Tensor, int]]:
    """The loss of each batch of a split of pictures, with the same parts hidden every time, and its images."""
    lesson = ready.course.lesson
    masks = ready.plan.masks
    assert isinstance(lesson, MaskLesson)
    assert masks is not None
    hide = replace(lesson.masking, seed=lesson.masking.seed + HELD_OUT)
    network.eval()
    with torch.inference_mode():
        for batch in ready.batches[split].epoch(0):
            pictures = batch.images.to(ready.device)
            hidden = hide(batch.index, 0, masks.mask_ratio, pictures.shape[-1]).to(ready.device)
            with autocast(ready.device, ready.precision):
                answer = lesson.ask(network, pictures, hidden)
            yield answer.loss, len(batch.index)


def learn(
    ready: Ready,
    run: RunDirectory,
    progress: TrainingProgress,
    *,
    resume: bool = False,
    extend: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Trained:
    """Run the loop to its end, to patience, or to a signal. The run directory must be claimed.

    Args:
        resume: continue from the run's checkpoint.
        extend: epochs beyond the planned ones.
        say: receives sentences the user should read.

    Raises:
        RunFailure: a loss that is not finite, or no memory; the sentence says which setting to change.
    """
    course, plan = ready.course, ready.plan
    journal = DifferenceJournal(ready, run, progress)
    position, last = Position(best=Best(plan.monitor)), plan.training.epochs
    if resume:
        position = take_up(
            run,
            model=course.learner,
            ema=None if course.ema is None else course.ema.module,
            optimizer=course.optimizer,
            accelerator=course.accelerator,
            device=ready.device,
            say=say,
        )
        position, last = prolonged(position, plan.training, extend)
    return follow(course, plan, journal, position, last, images=len(course.batches.samples))
