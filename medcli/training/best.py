"""Which epoch counts as the best one, and when to stop looking for a better."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from medcli.data.target import Target

__all__ = ["Best", "default_monitor"]


def default_monitor(target: Target) -> str:
    """The figure that chooses the best epoch unless the user names another."""
    return "qwk" if target.task == "ordinal" else "auc"


@dataclass(frozen=True)
class Best:
    """The best epoch so far. A figure that is NaN never counts as an improvement.

    Args:
        monitor: the figure's name; `loss` is better when lower, all others when higher.
        epoch: the best epoch, 0-based, or -1.
        value: its figure.
        waited: epochs since then.
    """

    monitor: str
    epoch: int = -1
    value: float = math.nan
    waited: int = 0

    def improved_by(self, value: float) -> bool:
        """Whether `value` beats what there is. The first epoch always counts, so that a run has weights."""
        if self.epoch < 0:
            return True
        if math.isnan(value):
            return False
        if math.isnan(self.value):
            return True
        return value < self.value if self.monitor == "loss" else value > self.value

    def observe(self, epoch: int, value: float) -> Best:
        """The state after `epoch` with figure `value`."""
        if self.improved_by(value):
            return Best(self.monitor, epoch, value, 0)
        return replace(self, waited=self.waited + 1)

    def exhausted(self, patience: int) -> bool:
        """Whether `patience` epochs have passed without improvement (0 = never)."""
        return patience > 0 and self.waited >= patience
