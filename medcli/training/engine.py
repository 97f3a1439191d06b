"""A training from plan to finished run: builds the parts, runs the loop, keeps what must be kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from medcli.data.augment import Augmentation
from medcli.data.batches import Batches
from medcli.errors import UsageProblem
from medcli.evaluation.monitor import monitor_metrics
from medcli.models.build import Built, build_classifier, load_model, save_model
from medcli.models.classifier import Classifier
from medcli.models.device import Precision, choose_device, choose_precision
from medcli.prediction.predict import as_predictions, raw_outputs
from medcli.runs.directory import RunDirectory
from medcli.runs.records import append_log, append_metrics
from medcli.training.best import Best
from medcli.training.checkpoint import Position, conditions, load_checkpoint, restore, save_checkpoint
from medcli.training.class_weights import class_weights
from medcli.training.inputs import describe_cases, enlargement_note, open_splits, storage_notes
from medcli.training.interruption import Interruption
from medcli.training.loop import Parts, fit
from medcli.training.losses import make_criterion
from medcli.training.memory import explain_out_of_memory
from medcli.training.optimisers import make_optimizer
from medcli.training.plan import Plan
from medcli.training.progress import TrainingProgress
from medcli.training.schedules import Schedule
from medcli.training.strategies import plan_tuning, render_tuning

__all__ = ["Prepared", "Trained", "prepare", "train"]


@dataclass(frozen=True)
class Prepared:
    """A network, its data and everything that makes it learn, before the first step.

    Args:
        plan: what was decided.
        parts: what the loop works with.
        built: the network as built, with the report on loaded weights.
        batches: batches by split, in file order but for `train`.
        device: where it runs.
        precision: with what numbers.
        notes: sentences the user should read.
    """

    plan: Plan
    parts: Parts
    built: Built
    batches: dict[str, Batches]
    device: torch.device
    precision: Precision
    notes: tuple[str, ...]


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


def prepare(plan: Plan, *, progress: Callable[[str, int, int], None] | None = None) -> Prepared:
    """Build the network and open the data; nothing is written but the image cache.

    Raises:
        UsageProblem: settings this network, data or machine cannot do.
        RunFailure: unreadable images.
    """
    settings, compute = plan.training, plan.compute
    device = choose_device(compute.device)
    precision = choose_precision(compute.precision, device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    if compute.deterministic:
        torch.use_deterministic_algorithms(True)
    set_seed(compute.seed)
    built = build_classifier(plan.spec, weights=plan.model.weights, pretrained=plan.model.pretrained)
    classifier, notes = built.classifier, list(plan.notes)
    if built.load_report is not None:
        notes.append(f"weights: {built.load_report.sentence()}")
    if settings.init_from:
        notes.append(start_from(classifier, plan, Path(settings.init_from)))
    freeze(classifier, plan)
    with explain_out_of_memory(plan):
        batches = open_splits(plan, device, progress)
    notes += enlargement_note(plan) + storage_notes(batches)
    refuse_lone_images(classifier, batches["train"], plan)
    # accelerate keeps one state per process and would refuse a second training with another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision={"fp32": "no"}.get(precision, precision), cpu=device.type == "cpu")
    classifier.to(device).to(memory_format=torch.channels_last)
    ema = ema_of(classifier, plan)
    steps = math.ceil(len(batches["train"]) / settings.accumulate)
    tuning = None
    if plan.strategy is not None:
        tuning = plan_tuning(classifier, plan.strategy, settings, steps)
        tuning.begin_epoch(classifier, 0)
        notes += [*tuning.notes, f"strategy {tuning.strategy}:\n{render_tuning(tuning)}"]
    optimizer = make_optimizer(classifier, settings, device, tuning)
    callable_ = torch.compile(classifier) if settings.compile else classifier
    forward, optimizer = accelerator.prepare(callable_, optimizer)
    train_samples = plan.data.splits["train"]
    weights = class_weights(settings.class_weights, plan.data.target, train_samples.labels)
    parts = Parts(
        accelerator=accelerator,
        classifier=classifier,
        forward=forward,
        ema=ema,
        optimizer=optimizer,
        schedule=Schedule.of(settings, steps),
        criterion=make_criterion(
            plan.data.target,
            plan.loss,
            weights=None if weights is None else torch.from_numpy(weights).to(device),
            gamma=settings.focal_gamma,
            smoothing=settings.label_smoothing,
        ),
        batches=batches["train"],
        augment=None
        if settings.augment == "none" and settings.flip == "none"
        else Augmentation(settings.augment, settings.flip, compute.seed),
        preprocessing=plan.preprocessing,
        settings=settings,
        describe=lambda cases: describe_cases(batches["train"].samples, cases),
        tuning=tuning,
    )
    return Prepared(plan, parts, built, batches, device, precision, tuple(notes))


def start_from(classifier: Classifier, plan: Plan, run: Path) -> str:
    """Copy the best weights of a run into the network; a head for other classes stays new. Returns what was done."""
    if not run.exists():
        raise UsageProblem(
            f"there is no run `{run}`",
            where="--init-from",
            hint="`medcli runs list` shows the runs here",
            code="not-a-run",
        )
    loaded = load_model(run / "model.safetensors" if run.is_dir() else run)
    if loaded.spec.architecture != plan.spec.architecture:
        raise UsageProblem(
            f"`{run}` is a `{loaded.spec.architecture}`, whose weights do not fit a `{plan.spec.architecture}`",
            where="--init-from",
            hint=f"`medcli train {loaded.spec.architecture} … --init-from {run}`",
            code="other-architecture",
        )
    classifier.backbone.load_state_dict(loaded.classifier.backbone.state_dict())
    same = loaded.spec.target == plan.spec.target and loaded.spec.head_kind == plan.spec.head_kind
    if same and loaded.spec.head_norm == plan.spec.head_norm:
        classifier.medcli_head.load_state_dict(loaded.classifier.medcli_head.state_dict())
        return f"weights: the best of {run}, head included"
    return f"weights: the backbone of {run}; the head is new, because the targets differ"


def refuse_lone_images(classifier: Classifier, batches: Batches, plan: Plan) -> None:
    """Where every batch holds one image, see whether the network can normalise it at all.

    Raises:
        UsageProblem: a normalisation layer over the batch meets a single number per channel.
    """
    if min(batches.images, plan.compute.batch_size) > 1:
        return
    preprocessing = plan.preprocessing
    image = torch.zeros(1, preprocessing.channels, preprocessing.image_size, preprocessing.image_size)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            deepcopy(classifier).train()(image)
    except ValueError as error:
        one = plan.compute.batch_size == 1
        raise UsageProblem(
            f"`{plan.spec.architecture}` normalises over the batch and cannot learn from one image at a time",
            where="--batch-size" if one else plan.data.origin,
            hint="`--batch-size 2` or more" if one else "train on at least two images",
            code="batch-of-one",
        ) from error


def freeze(classifier: Classifier, plan: Plan) -> None:
    """Apply `--freeze-backbone`, `--freeze-layers` and `--grad-checkpointing`."""
    settings = plan.training
    if settings.freeze_backbone:
        classifier.freeze_backbone()
    elif settings.freeze_layers and plan.strategy is None:
        classifier.freeze_stages(settings.freeze_layers)
    if settings.grad_checkpointing:
        enable = getattr(classifier.backbone, "set_grad_checkpointing", None)
        if enable is None:
            raise UsageProblem(
                f"{plan.spec.architecture} cannot recompute activations (`--grad-checkpointing`)",
                hint="use a smaller `--batch-size` with `--accumulate`",
                code="no-grad-checkpointing",
            )
        enable(True)


def ema_of(classifier: Classifier, plan: Plan) -> ModelEmaV3 | None:
    """The moving average, whose decay rises as (step / (10 + step)) until `--ema-decay`."""
    if not plan.training.ema:
        return None
    return ModelEmaV3(classifier, decay=plan.training.ema_decay, use_warmup=True, warmup_gamma=10.0, warmup_power=1.0)


def raw_of(prepared: Prepared, network: nn.Module, split: str) -> torch.Tensor:
    """Raw outputs [n, ...] of a network for one split, on the CPU."""
    batches = prepared.batches[split]
    return raw_outputs(
        network,
        batches.epoch(0),
        batches.samples,
        preprocessing=prepared.plan.preprocessing,
        device=prepared.device,
        precision=prepared.precision,
    )


class RunJournal:
    """Keeps a run's figures, best weights and checkpoints."""

    def __init__(self, prepared: Prepared, run: RunDirectory, progress: TrainingProgress) -> None:
        self.prepared = prepared
        self.run = run
        self.progress = progress

    def validate(self, network: nn.Module) -> dict[str, float]:
        prepared, plan = self.prepared, self.prepared.plan
        raw = raw_of(prepared, network, "val")
        samples = prepared.batches["val"].samples
        labels = torch.from_numpy(np.ascontiguousarray(samples.labels))
        loss = float(prepared.parts.criterion(raw.to(prepared.device), labels.to(prepared.device)))
        head = plan.spec.head_kind
        figures = monitor_metrics(as_predictions(raw, samples, target=plan.data.target, head_kind=head))
        return {"loss": loss, **figures}

    def improved(self, position: Position) -> None:
        plan = self.prepared.plan
        save_model(
            self.run.model_file,
            self.prepared.parts.network,
            plan.spec,
            plan.preprocessing,
            {
                "epoch": position.best.epoch,
                "monitor": position.best.monitor,
                # A validation split without one of the classes has no AUC; JSON has no NaN.
                "value": None if math.isnan(position.best.value) else position.best.value,
            },
        )

    def epoch_done(self, row: dict[str, Any]) -> None:
        append_metrics(self.run, row)
        shown = ", ".join(f"{name} {value:.5g}" for name, value in row.items() if isinstance(value, float))
        append_log(self.run, f"epoch {row['epoch'] + 1}: {shown}{' (best)' if row['best'] else ''}")
        figures = {name: value for name, value in row.items() if name.startswith(("train_", "val_")) or name == "lr"}
        self.progress.epoch(
            epoch=row["epoch"],
            metrics=figures,
            monitor=self.prepared.plan.monitor,
            best=row["best"],
            seconds=row["seconds"],
            images_per_second=row["images_per_second"],
        )

    def save(self, position: Position) -> None:
        parts = self.prepared.parts
        scaler = parts.accelerator.scaler
        save_checkpoint(
            self.run.checkpoint_file,
            position=position,
            model=parts.classifier,
            ema=None if parts.ema is None else parts.ema.module,
            optimizer=unwrapped(parts.optimizer),
            scaler=scaler.state_dict() if scaler is not None else {},
            device=self.prepared.device,
        )


def unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser inside accelerate's wrapper."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


def train(
    prepared: Prepared,
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
    parts, settings = prepared.parts, prepared.plan.training
    position = Position(best=Best(prepared.plan.monitor))
    last = settings.epochs
    if resume:
        position = continue_from(prepared, run, say)
        if extend:
            # A run that was stopped first finishes what it planned; one that ended early goes on from where it ended.
            ended = not position.batch and (position.epoch >= settings.epochs or was_patient(prepared, position))
            last = (position.epoch if ended else settings.epochs) + extend
            position = replace(position, best=replace(position.best, waited=0))
    journal = RunJournal(prepared, run, progress)
    images = len(parts.batches.samples)
    progress.start(epochs=last, steps=len(parts.batches), images=images, first_epoch=position.epoch)
    try:
        with Interruption() as interruption, explain_out_of_memory(prepared.plan):
            position = fit(parts, position, journal, interruption, last)
    finally:
        progress.finish()
    finished = position.epoch >= last or position.best.exhausted(settings.patience)
    return Trained(position, 0 if finished else interruption.signal, position.epoch < last)


def was_patient(prepared: Prepared, position: Position) -> bool:
    """Whether patience ended the run before its last epoch."""
    return position.best.exhausted(prepared.plan.training.patience)


def continue_from(prepared: Prepared, run: RunDirectory, say: Callable[[str], None]) -> Position:
    """Restore a checkpoint into the parts; says what keeps the continuation from being bit-exact."""
    parts = prepared.parts
    checkpoint = load_checkpoint(run.checkpoint_file)
    optimizer = unwrapped(parts.optimizer)
    restore(
        checkpoint,
        model=parts.classifier,
        ema=None if parts.ema is None else parts.ema.module,
        optimizer=optimizer,
        device=prepared.device,
    )
    if checkpoint.scaler and parts.accelerator.scaler is not None:
        parts.accelerator.scaler.load_state_dict(dict(checkpoint.scaler))
    now = conditions(optimizer, prepared.device)
    changed = [f"{name} {old} -> {now[name]}" for name, old in checkpoint.conditions.items() if now.get(name) != old]
    if changed:
        say(f"the continuation is exact only up to rounding: {', '.join(changed)}")
    return checkpoint.position


def require_splits(plan: Plan) -> None:
    """Training needs images to learn from and images to choose the best epoch by.

    Raises:
        RunFailure: never; UsageProblem: a split is missing or empty.
    """
    for split in ("train", "val"):
        if split not in plan.data.splits or not len(plan.data.splits[split]):
            raise UsageProblem(
                f"`{plan.data.name}` has no `{split}` images",
                where=plan.data.origin,
                hint="let medcli draw splits with `--split 0.7,0.15,0.15`, or see `medcli data check`",
                code="no-split",
            )
