"""Training a head on features that are computed once, so that many epochs cost about one pass of the backbone.

The loop is the ordinary one: its batches hold features where images were, and its network is the head alone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from medcli.data.batches import Batch, Batches
from medcli.data.cache import available_memory
from medcli.errors import UsageProblem
from medcli.models.classifier import Classifier
from medcli.models.device import autocast
from medcli.models.tensor_file import write_tensors
from medcli.prediction.feature_cache import FeatureCache
from medcli.prediction.features import PLAIN, Extractor, View
from medcli.runs.directory import RunDirectory
from medcli.training.loop import Ema, Parts
from medcli.training.nearest import remember
from medcli.training.plan import Plan

if TYPE_CHECKING:
    from medcli.training.engine import Prepared

__all__ = [
    "FeatureBatches",
    "HeadAverage",
    "HeadFeatures",
    "best_head",
    "extract",
    "extractor_of",
    "keep_head",
    "learner",
    "on_features",
    "passes",
    "refuse_other_backbone",
    "uses_features",
    "with_head",
]

CHUNK = 512
SHARE_OF_MEMORY = 0.25

Progress = Callable[[str, int, int], None]


def uses_features(plan: Plan) -> bool:
    """Whether the backbone never changes in this training, so that its features may stand for the images."""
    return plan.strategy is not None and plan.strategy.strategy in {"frozen", "knn"}


def passes(plan: Plan) -> int:
    """How many images go through the backbone before the first step, all splits and views together."""
    if not uses_features(plan):
        return 0
    asked = None if plan.strategy is None else plan.strategy.feature_views
    return sum(
        len(samples) * (min(asked or 1, plan.training.epochs) if split == "train" else 1)
        for split, samples in plan.data.splits.items()
    )


def learner(plan: Plan, network: nn.Module) -> nn.Module:
    """The part of a classifier that a training changes: what its loop calls and its checkpoints hold."""
    return network.get_submodule("medcli_head") if uses_features(plan) else network


@dataclass(frozen=True)
class HeadFeatures:
    """What stands for the images where the backbone never changes.

    Args:
        extractor: the backbone that made them.
        rows: features [n, D] of the images as they are, by split.
        seconds: what computing features took, all splits and views together; cached ones take none.
        images: how many went through the backbone for that.
    """

    extractor: Extractor
    rows: Mapping[str, Tensor]
    seconds: float = 0.0
    images: int = 0

    def raw(self, network: nn.Module, split: str) -> Tensor:
        """Raw outputs [n, ...] of a classifier's head for one split, on the CPU, float32."""
        head = network.get_submodule("medcli_head")
        device, was_training = self.extractor.device, head.training
        head.eval()
        try:
            with torch.inference_mode(), autocast(device, self.extractor.precision):
                found = [head(rows.to(device)).float().cpu() for rows in torch.split(self.rows[split], CHUNK)]
        finally:
            head.train(was_training)
        return torch.cat(found).clone()


@dataclass
class Views:
    """Features of the training images as the epochs see them: view after view, and round again.

    Args:
        extractor: the backbone.
        batches: the training images.
        views: in the order of the epochs.
        cache: where features that do not fit in memory are read again.
        held: features in memory, by view.
    """

    extractor: Extractor
    batches: Batches
    views: tuple[View, ...]
    cache: FeatureCache | None
    keys: list[str | None] = field(default_factory=list)
    held: dict[int, Tensor] = field(default_factory=dict)

    def view(self, epoch: int) -> View:
        """What an epoch (0-based) sees."""
        return self.views[epoch % len(self.views)]

    def of(self, epoch: int) -> Tensor:
        """float32 [n, D] of an epoch (0-based)."""
        return self.get(epoch % len(self.views))

    def get(self, place: int) -> Tensor:
        """One view's features, from memory, else from the cache, else computed again."""
        if place not in self.held:
            key = self.keys[place] if place < len(self.keys) else None
            rows = self.extractor.features(self.batches, self.views[place], key=key, cache=self.cache).rows
            self.hold(place, rows)
        return self.held[place]

    def hold(self, place: int, rows: Tensor) -> None:
        """Keep a view in memory; the others stay only where all of them fit."""
        if rows.nbytes * len(self.views) > available_memory() * SHARE_OF_MEMORY:
            self.held.clear()
        self.held[place] = rows


class FeatureBatches:
    """Training batches of the very cases and order that the images would come in, with features [B, D] as `images`."""

    def __init__(self, batches: Batches, views: Views, parts: Parts) -> None:
        self.samples = batches.samples
        self._batches, self._views, self._parts = batches, views, parts
        self._labels = torch.from_numpy(np.ascontiguousarray(batches.samples.labels))

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches `start`, `start` + 1, ... of this epoch."""
        features, labels = self._views.of(epoch), self._seen_labels(self._views.view(epoch))
        for rows in self._batches.rows(epoch, start):
            chosen, own = torch.from_numpy(rows), self._batches.own(rows)
            held = chosen if own is None else chosen[own]
            yield Batch(features.index_select(0, held), labels.index_select(0, chosen), chosen, own)

    def _seen_labels(self, view: View) -> Tensor:
        """Labels [n, ...] as they are in a view: a mirrored image may have changed them."""
        swap, augment = self._parts.swap, self._parts.augment
        if swap is None or augment is None or view.augment is None:
            return self._labels
        return swap(self._labels, augment.mirrored(torch.arange(len(self._labels)), view.number))


class HeadAverage:
    """A moving average of the head alone: averaging a backbone that never changes would cost more than the training."""

    def __init__(self, classifier: Classifier, average: Callable[[nn.Module], Ema]) -> None:
        self._average = average(classifier.medcli_head)
        self.module: nn.Module = with_head(classifier, self._average.module)

    def update(self, model: nn.Module, step: int | None = None) -> None:
        """Move towards the head of `model`."""
        self._average.update(model.get_submodule("medcli_head"), step)


def with_head(classifier: Classifier, head: nn.Module) -> Classifier:
    """A classifier of the same backbone, which is shared, and another head."""
    other = copy.copy(classifier)
    other._modules = {**classifier._modules, "medcli_head": head}
    return other


def on_features(prepared: Prepared, *, cache: FeatureCache | None, progress: Progress | None = None) -> Prepared:
    """The same training with features in place of images: computed now, or found in the cache.

    Args:
        prepared: a network whose backbone never learns, and its image batches.
        cache: where features are kept; None keeps nothing.
        progress: told ("features of SPLIT:", images done, images in all).

    Raises:
        RunFailure: features that are no numbers, unreadable images.
        UsageProblem: `knn` with more neighbours than training images.
    """
    plan, parts = prepared.plan, prepared.parts
    if not isinstance(parts.batches, Batches):
        raise TypeError("these batches hold features already")
    knn = plan.spec.head_kind == "knn"
    views, notes = ((PLAIN,), []) if knn else _choose_views(prepared)
    extractor = extractor_of(prepared)
    training = Views(extractor, prepared.batches["train"], views, cache)
    rows: dict[str, Tensor] = {}
    found, made, began = [], 0, time.perf_counter()
    for split, batches in prepared.batches.items():
        for place, view in enumerate(views if split == "train" else (PLAIN,)):
            name = f"{split} view {view.number}" if view.number else split
            work = partial(extract, extractor, batches, view, cache, name, progress)
            features, key, said = parts.team.one_at_first(work)
            notes += said
            made += 0 if key.cached else len(features)
            found += [name] if key.cached else []
            if split == "train":
                training.keys.append(key.key)
                training.hold(place, features)
            if split != "train" or knn:
                rows[split] = features
    seconds = time.perf_counter() - began
    if made:
        where = f", kept in {cache.directory}" if cache is not None else ""
        notes.append(f"features of {made:,} images computed in {seconds:.1f} s{where}")
    if found:
        notes.append(f"features found in the cache: {', '.join(found)}")
    if knn:
        notes.append(remember(prepared, rows["train"]))
    learnt = FeatureBatches(parts.batches, training, parts)
    return replace(
        prepared,
        parts=replace(parts, batches=learnt, augment=None, preprocessing=None, swap=None, mixing=None),
        features=HeadFeatures(extractor, rows, seconds if made else 0.0, made),
        notes=(*prepared.notes, *notes),
    )


@dataclass(frozen=True)
class Found:
    """Under which key features are kept, and whether they were there already."""

    key: str | None
    cached: bool


def extract(
    extractor: Extractor,
    batches: Batches,
    view: View,
    cache: FeatureCache | None,
    name: str,
    progress: Progress | None,
) -> tuple[Tensor, Found, tuple[str, ...]]:
    """Features [n, D] of one split and view, where they came from, and what the user should know."""
    key = extractor.key(batches.samples, view) if cache is not None else None
    done, total = 0, len(batches.samples)

    def count(images: int) -> None:
        nonlocal done
        done += images
        if progress is not None:
            progress(f"features of {name}:", done, total)

    features = extractor.features(batches, view, key=key, cache=cache, on_batch=count)
    return features.rows, Found(key, features.cached), features.notes


def extractor_of(prepared: Prepared) -> Extractor:
    """The backbone as it is now, with what decides about its features."""
    plan = prepared.plan
    return Extractor.of(
        prepared.built.classifier.backbone,
        plan.spec,
        plan.preprocessing,
        device=prepared.device,
        precision=prepared.precision,
    )


def _choose_views(prepared: Prepared) -> tuple[tuple[View, ...], list[str]]:
    """The views that epochs go through, one after another; asked for by number, since each costs a pass."""
    strategy, augment = prepared.plan.strategy, prepared.parts.augment
    asked = None if strategy is None else strategy.feature_views
    if augment is None:
        return (PLAIN,), []
    if asked is None:
        note = (
            "frozen: features are those of the images as they are, without augmentation, at the cost of one pass; "
            "`--feature-views 5` learns from five augmented views of each"
        )
        return (PLAIN,), [note]
    count = min(asked, prepared.plan.training.epochs)
    return tuple(View(1 + place, augment) for place in range(count)), []


def keep_head(run: RunDirectory, state: Mapping[str, Tensor], extractor: Extractor) -> None:
    """Write the best head so far, a small file, so that the whole network need be written only once.

    Raises:
        RunFailure: no space, no permission.
    """
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    path = _best_file(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, tensors, {"backbone": extractor.weights})


def best_head(run: RunDirectory, classifier: Classifier) -> Classifier | None:
    """The classifier with the best head that the run has kept, or None before the first.

    Raises:
        UsageProblem: the file is damaged.
    """
    path = _best_file(run)
    if not path.is_file():
        return None
    with _reading(path), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        head = copy.deepcopy(classifier.medcli_head)
        head.load_state_dict(tensors)
    return with_head(classifier, head)


def refuse_other_backbone(run: RunDirectory, extractor: Extractor) -> None:
    """A continued run must go on with the features it began with.

    Raises:
        UsageProblem: the weights from which the backbone is built have changed, or the file is damaged.
    """
    path = _best_file(run)
    if not path.is_file():
        return
    with _reading(path), safe_open(path, framework="pt") as file:
        before = (file.metadata() or {})["backbone"]
    if before != extractor.weights:
        raise UsageProblem(
            "the backbone has other weights than when this run began",
            where=str(path),
            hint="put the weight file back, or start again with `--out NEW_DIR`",
            code="weights-changed",
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise UsageProblem(
            f"`{path.name}` is damaged: {error}",
            where=str(path),
            hint="start again with `--out NEW_DIR`",
            code="bad-checkpoint",
        ) from error


def _best_file(run: RunDirectory) -> Path:
    return run.checkpoint_file.with_name("best-head.safetensors")
