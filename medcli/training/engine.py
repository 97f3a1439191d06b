"""A training from plan to finished run: builds the parts, runs the loop, keeps what must be kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import set_seed
from timm.utils.model_ema import ModelEmaV3

from medcli.data.batches import Batches
from medcli.data.shares import Share
from medcli.errors import UsageProblem
from medcli.models.adapted import is_adapted
from medcli.models.build import Built, build_classifier, load_model, load_run
from medcli.models.classifier import Classifier
from medcli.models.device import Precision, choose_precision
from medcli.prediction.feature_cache import FeatureCache
from medcli.runs.directory import RunDirectory, no_run, open_run
from medcli.training.adapting import adapt, checkpointed, run_origin, take_base
from medcli.training.best import Best
from medcli.training.checkpoint import Position
from medcli.training.class_weights import class_weights
from medcli.training.following import follow, prolonged, take_up, unwrapped
from medcli.training.frozen import (
    HeadAverage,
    HeadFeatures,
    learner,
    on_features,
    refuse_other_backbone,
    uses_features,
)
from medcli.training.imbalance import adjustment_of, augmentation_of, mixing_of
from medcli.training.inputs import describe_cases, enlargement_note, open_splits, storage_notes
from medcli.training.join import everything_learns, join, launcher_note, normalisation_note, own_device
from medcli.training.journal import RunJournal, raw_of
from medcli.training.loop import Ema, Parts, Trained
from medcli.training.losses import make_criterion
from medcli.training.memory import explain_out_of_memory
from medcli.training.nearest import judge_neighbours
from medcli.training.optimisers import make_optimizer
from medcli.training.plan import Plan
from medcli.training.probe import probe_head, probes, refuse_spread_weights
from medcli.training.processes import place
from medcli.training.progress import TrainingProgress
from medcli.training.sampling import balanced_chances
from medcli.training.schedules import Schedule
from medcli.training.strategies import plan_tuning, render_tuning

__all__ = ["Prepared", "prepare", "raw_of", "train", "unwrapped"]


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
        features: what stands for the images where the backbone never changes; None where images are needed.
    """

    plan: Plan
    parts: Parts
    built: Built
    batches: dict[str, Batches]
    device: torch.device
    precision: Precision
    notes: tuple[str, ...]
    features: HeadFeatures | None = None


def prepare(
    plan: Plan, *, progress: Callable[[str, int, int], None] | None = None, keep_features: bool = True
) -> Prepared:
    """Build the network and open the data; nothing is written but the caches of images and features.

    Args:
        plan: what was decided.
        progress: told (what is read, images done, images in all).
        keep_features: whether computed features are kept on disk.

    Raises:
        UsageProblem: settings this network, data or machine cannot do.
        RunFailure: unreadable images.
    """
    settings, compute = plan.training, plan.compute
    device = own_device(plan, place())
    precision = choose_precision(compute.precision, device)
    accelerator, team = join(plan, device, precision)
    refuse_spread_weights(plan, team.sharded)
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
    notes += adapt(classifier, plan, settings.freeze_layers)
    with explain_out_of_memory(plan):
        batches = open_splits(plan, device, progress, team)
    if settings.sampler == "balanced":
        train = batches["train"]
        batches["train"] = train.drawn(balanced_chances(plan.data.target, train.samples.labels))
    notes += enlargement_note(plan) + storage_notes(batches)
    if not uses_features(plan):
        refuse_lone_images(classifier, batches["train"], plan, team.share)
    notes += launcher_note() + normalisation_note(learner(plan, classifier), team, compute.batch_size)
    classifier.to(device).to(memory_format=torch.channels_last)
    ema = ema_of(classifier, plan)
    steps = math.ceil(len(batches["train"]) / settings.accumulate)
    tuning = None
    if plan.strategy is not None:
        tuning = plan_tuning(classifier, plan.strategy, settings, steps)
        tuning.begin_epoch(classifier, 0)
        notes += [*tuning.notes, f"strategy {tuning.strategy}:\n{render_tuning(tuning)}"]
    loraplus = plan.lora.loraplus_ratio if plan.lora else 1.0
    optimizer = make_optimizer(classifier, settings, device, tuning, loraplus=loraplus)
    subject = learner(plan, classifier)
    callable_ = torch.compile(subject) if settings.compile else subject
    with everything_learns(team, optimizer):
        forward, optimizer = accelerator.prepare(callable_, optimizer)
    team.draw_apart(compute.seed)
    train_samples = plan.data.splits["train"]
    weights = class_weights(settings.class_weights, plan.data.target, train_samples.labels)
    adjustment = adjustment_of(settings, plan.data.target, train_samples.labels)
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
            adjustment=None if adjustment is None else torch.from_numpy(adjustment).to(device),
        ),
        batches=batches["train"].shared(team.share),
        augment=augmentation_of(settings, compute.seed),
        preprocessing=plan.preprocessing,
        settings=settings,
        describe=lambda cases: describe_cases(batches["train"].samples, cases),
        swap=plan.swap,
        mixing=mixing_of(settings, compute.seed),
        tuning=tuning,
        team=team,
    )
    prepared = Prepared(plan, parts, built, batches, device, precision, tuple(notes))
    if not uses_features(plan):
        return prepared
    with explain_out_of_memory(plan):
        return on_features(prepared, cache=FeatureCache() if keep_features else None, progress=progress)


def start_from(classifier: Classifier, plan: Plan, run: Path) -> str:
    """Copy the best weights of a run into the network; a head for other classes stays new. Returns what was done."""
    if not run.exists():
        missing = no_run(run)
        missing.where = "--init-from"
        raise missing
    if plan.lora is not None and is_adapted(run):
        return take_base(classifier, plan, run)
    loaded = load_run(open_run(run)) if run.is_dir() else load_model(run)
    if loaded.classifier.adapters is not None:
        loaded.classifier.merge()
    if loaded.spec.architecture != plan.spec.architecture:
        raise UsageProblem(
            f"`{run}` is a `{loaded.spec.architecture}`, whose weights do not fit a `{plan.spec.architecture}`",
            where="--init-from",
            hint=f"`medcli train {loaded.spec.architecture} … --init-from {run}`",
            code="other-architecture",
        )
    classifier.backbone.load_state_dict(loaded.classifier.backbone.state_dict())
    classifier.origin = run_origin(plan, run)
    same = loaded.spec.target == plan.spec.target and loaded.spec.head_kind == plan.spec.head_kind != "knn"
    if same and loaded.spec.head_norm == plan.spec.head_norm:
        classifier.medcli_head.load_state_dict(loaded.classifier.medcli_head.state_dict())
        return f"weights: the best of {run}, head included"
    return f"weights: the backbone of {run}; the head is new, because target or head differ"


def refuse_lone_images(classifier: Classifier, batches: Batches, plan: Plan, share: Share) -> None:
    """Where every batch holds one image, see whether the network can normalise it at all.

    Raises:
        UsageProblem: a normalisation layer over the batch meets a single number per channel.
    """
    most = min(batches.images, plan.compute.batch_size)
    # Only several processes repeat images to fill their shares up.
    if (most if share.of == 1 else share.width(most, plan.compute.batch_size)) > 1:
        return
    preprocessing = plan.preprocessing
    image = torch.zeros(1, preprocessing.channels, preprocessing.image_size, preprocessing.image_size)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            deepcopy(classifier).train()(image)
    except ValueError as error:
        one = plan.compute.batch_size <= share.of
        raise UsageProblem(
            f"`{plan.spec.architecture}` normalises over the batch and cannot learn from one image at a time",
            where="--batch-size" if one else plan.data.origin,
            hint=f"`--batch-size {share.of + 1}` or more" if one else "train on at least two images",
            code="batch-of-one",
        ) from error


def freeze(classifier: Classifier, plan: Plan) -> None:
    """Apply `--freeze-backbone`, `--freeze-layers` and `--grad-checkpointing`."""
    settings = plan.training
    if settings.freeze_backbone:
        classifier.freeze_backbone()
    elif settings.freeze_layers and plan.strategy is None and plan.lora is None:
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


def ema_of(classifier: Classifier, plan: Plan) -> Ema | None:
    """The moving average, whose decay rises as (step / (10 + step)) until `--ema-decay`."""
    if not plan.training.ema:
        return None
    decay = plan.training.ema_decay
    average = partial(ModelEmaV3, decay=decay, use_warmup=True, warmup_gamma=10.0, warmup_power=1.0)
    return HeadAverage(classifier, average) if uses_features(plan) else average(classifier)


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
    journal = RunJournal(prepared, run, progress)
    if prepared.plan.spec.head_kind == "knn":
        return Trained(judge_neighbours(prepared, journal), 0, False)
    position, last = Position(best=Best(prepared.plan.monitor)), settings.epochs
    if resume:
        position, last = prolonged(continue_from(prepared, run, say), settings, extend)
    elif probes(prepared.plan):
        with explain_out_of_memory(prepared.plan):
            for sentence in probe_head(prepared, cache=FeatureCache()):
                say(sentence)
    images = len(parts.batches.samples)
    return follow(parts, prepared.plan, journal, position, last, images=images, team=parts.team)


def continue_from(prepared: Prepared, run: RunDirectory, say: Callable[[str], None]) -> Position:
    """Restore a checkpoint into the parts; says what keeps the continuation from being bit-exact."""
    parts = prepared.parts
    if prepared.features is not None and run.checkpoint_file.is_file():
        refuse_other_backbone(run, prepared.features.extractor)
    return take_up(
        run,
        model=checkpointed(prepared.plan, parts.classifier),
        ema=None if parts.ema is None else checkpointed(prepared.plan, parts.ema.module),
        optimizer=parts.optimizer,
        accelerator=parts.accelerator,
        device=prepared.device,
        say=say,
        rank=parts.team.place.rank,
    )


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
