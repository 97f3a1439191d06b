"""The strategy `knn`: nothing is trained, the training images themselves are the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medcli.models.nearest import NearestHead
from medcli.training.best import Best
from medcli.training.checkpoint import Position

if TYPE_CHECKING:
    from medcli.training.engine import Prepared, RunJournal

__all__ = ["judge_neighbours", "remember"]


def remember(prepared: Prepared, features: Tensor) -> None:
    """Fill the head with the training images.

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


def judge_neighbours(prepared: Prepared, journal: RunJournal) -> Position:
    """Validate the neighbours and keep them: all that a run of theirs does; it counts as one epoch."""
    monitor = prepared.plan.monitor
    figures = journal.validate(prepared.built.classifier)
    best = Best(monitor).observe(0, figures[monitor])
    seconds = 0.0 if prepared.features is None else prepared.features.seconds
    position = Position(best, epoch=1, seconds=seconds)
    journal.write_model(prepared.built.classifier, position)
    row = {"epoch": 0, "train_loss": None, **{f"val_{name}": value for name, value in figures.items()}, "best": True}
    images = len(prepared.batches["train"].samples)
    journal.epoch_done({**row, "seconds": seconds, "images_per_second": images / seconds if seconds else 0.0})
    return position
