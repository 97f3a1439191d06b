"""The oldest sanity check there is: a network that cannot learn one batch by heart will not learn anything else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from medcli.data.batches import Batch
from medcli.training.engine import Prepared
from medcli.training.loop import learn_window
from medcli.training.memory import explain_out_of_memory
from medcli.training.optimisers import set_rate

__all__ = ["Overfit", "overfit_batch"]

STEPS = 200
ENOUGH = 0.05
"""The loss must fall to this share of its start; a sound network falls further within `STEPS` steps."""


@dataclass(frozen=True)
class Overfit:
    """How learning one batch by heart went.

    Args:
        first: loss of the first step.
        last: loss of the last step.
        steps: steps taken.
        learnt: whether the loss fell to `ENOUGH` of its start.
    """

    first: float
    last: float
    steps: int
    learnt: bool


def overfit_batch(prepared: Prepared, watch: Callable[[int, float], None] = lambda step, loss: None) -> Overfit:
    """Learn the first training batch over and over, without augmentation, dropout or weight decay; writes nothing."""
    settings = replace(prepared.plan.training, scheduler="constant")
    parts = replace(prepared.parts, augment=None, mixing=None, settings=settings)
    for module in parts.classifier.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for group in parts.optimizer.param_groups:
        group["weight_decay"] = 0.0
    batch: Batch = next(iter(parts.batches.epoch(0)))
    parts.classifier.train()
    first = loss = float("nan")
    step = 0
    with explain_out_of_memory(prepared.plan):
        for step in range(1, STEPS + 1):
            set_rate(parts.optimizer, min(1.0, step / 10))
            loss = float(learn_window(parts, [batch], epoch=0))
            first = loss if step == 1 else first
            watch(step, loss)
            if not math.isfinite(loss) or loss < first * ENOUGH / 2:
                break
    return Overfit(first, loss, step, loss <= first * ENOUGH)
