"""The strategy `knn`: nothing is trained, the training images themselves are the model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medcli.errors import UsageProblem
from medcli.models.nearest import NearestHead, too_many_neighbours
from medcli.settings.groups import StrategySettings
from medcli.training.best import Best
from medcli.training.checkpoint import Position

if TYPE_CHECKING:
    from medcli.training.engine import Prepared
    from medcli.training.journal import RunJournal

__all__ = ["few_neighbours", "judge_neighbours", "refuse_continuing", "refuse_too_many", "remember"]


def remember(prepared: Prepared, features: Tensor) -> str:
    """Fill the head with the training images; returns what it does with them.

    Args:
        features: float32 [n, D], in the order of the training samples.

    Raises:
        UsageProblem: more neighbours are to vote than there are training images.
    """
    head, strategy = prepared.built.classifier.get_submodule("medcli_head"), prepared.plan.strategy
    if not isinstance(head, NearestHead) or strategy is None:
        raise TypeError("only a plan of strategy `knn` has neighbours")
    labels = torch.from_numpy(np.ascontiguousarray(prepared.batches["train"].samples.labels))
    head.remember(features, labels, strategy.nearest)
    return f"knn: of {len(features):,} training images the {strategy.nearest} nearest vote, by cosine similarity"


def refuse_too_many(neighbours: int, images: int) -> None:
    """See early, before any image is read, that the training images suffice.

    Raises:
        UsageProblem: more neighbours are to vote than there are training images.
    """
    if neighbours > images:
        raise too_many_neighbours(neighbours, images)


def few_neighbours(strategy: StrategySettings, images: int) -> StrategySettings:
    """The strategy for a rehearsal on a few images, which must do for neighbours, too."""
    return replace(strategy, nearest=min(strategy.nearest, images))


def refuse_continuing(strategy: object, run: str) -> None:
    """Raises UsageProblem where a run that trained nothing is to be resumed or extended."""
    if strategy == "knn":
        raise UsageProblem(
            f"`{run}` compares with stored images and has trained nothing that could go on",
            where="--resume",
            hint="start again with `--out NEW_DIR`; features that were computed are found in the cache",
            code="nothing-to-continue",
        )


def judge_neighbours(prepared: Prepared, journal: RunJournal) -> Position:
    """Validate the neighbours and keep them: all that a run of theirs does; it counts as one epoch."""
    monitor, images = prepared.plan.monitor, len(prepared.batches["train"].samples)
    journal.progress.start(epochs=1, steps=0, images=images, first_epoch=0)
    figures = journal.validate(prepared.built.classifier)
    best = Best(monitor).observe(0, figures[monitor])
    seconds = 0.0 if prepared.features is None else prepared.features.seconds
    position = Position(best, epoch=1, seconds=seconds)
    journal.write_model(prepared.built.classifier, position)
    row = {"epoch": 0, "train_loss": None, **{f"val_{name}": value for name, value in figures.items()}, "best": True}
    journal.epoch_done({**row, "seconds": seconds, "images_per_second": images / seconds if seconds else 0.0})
    journal.progress.finish()
    return position
