"""Learning-rate schedules as factors of each group's own peak rate, so that ratios between groups always hold."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from medcli.settings.groups import TrainingSettings

__all__ = ["EXTENSION_FACTOR", "Plateau", "Schedule"]

EXTENSION_FACTOR = 0.1
"""Share of the peak rate at which `--extend` trains on: the planned schedule has already ended near zero."""

WARMUP_START = 0.01
ONECYCLE_RISE = 0.3
ONECYCLE_START = 1 / 25
PLATEAU_PATIENCE = 5


@dataclass(frozen=True)
class Schedule:
    """The factor of the peak rate for every optimiser step.

    Args:
        name: `cosine`, `plateau`, `step`, `onecycle` or `constant`.
        steps: optimiser steps of the planned run; later steps use `EXTENSION_FACTOR`.
        warmup: steps in which the factor rises linearly (onecycle has its own rise of 30 %, Smith & Topin 2018).
        floor: smallest factor, `min_lr / lr`.
        drops: for `step`, the shares of the run at which the factor is multiplied by `gamma`.
        gamma: factor of each drop.
    """

    name: str
    steps: int
    warmup: int
    floor: float
    drops: tuple[float, ...]
    gamma: float

    @classmethod
    def of(cls, settings: TrainingSettings, steps_per_epoch: int) -> Schedule:
        """The schedule that the settings describe for `steps_per_epoch` optimiser steps an epoch."""
        return cls(
            name=settings.scheduler,
            steps=settings.epochs * steps_per_epoch,
            warmup=min(round(settings.warmup_epochs * steps_per_epoch), settings.epochs * steps_per_epoch - 1),
            floor=min(settings.min_lr / settings.lr, 1.0),
            drops=settings.step_at,
            gamma=settings.step_gamma,
        )

    def factor(self, step: int, plateau: float = 1.0) -> float:
        """The factor for optimiser step `step` (0-based); `plateau` is what `Plateau` has come down to."""
        if step >= self.steps:
            return EXTENSION_FACTOR
        if self.name == "onecycle":
            return self._onecycle(step)
        if step < self.warmup:
            return WARMUP_START + (1 - WARMUP_START) * step / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        if self.name == "cosine":
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))
        if self.name == "step":
            return float(self.gamma ** sum(step >= share * self.steps for share in self.drops))
        if self.name == "plateau":
            return max(plateau, self.floor)
        return 1.0

    def _onecycle(self, step: int) -> float:
        rise = max(1.0, ONECYCLE_RISE * self.steps)
        if step < rise:
            low, high, done = ONECYCLE_START, 1.0, step / rise
        else:
            low, high, done = 1.0, self.floor, (step - rise) / max(1.0, self.steps - rise)
        return high + (low - high) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Plateau:
    """Lowers the rate when the monitored figure has stood still for `PLATEAU_PATIENCE` epochs."""

    factor: float = 1.0
    waited: int = 0

    def observe(self, improved: bool, gamma: float) -> Plateau:
        """The state after one more epoch."""
        if improved:
            return replace(self, waited=0)
        if self.waited + 1 > PLATEAU_PATIENCE:
            return Plateau(factor=self.factor * gamma)
        return replace(self, waited=self.waited + 1)
