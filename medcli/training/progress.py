"""What the loop tells whoever watches it; the command line decides how that looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["NoProgress", "TrainingProgress"]


class TrainingProgress(Protocol):
    """A watcher of one training. `step` is called for every batch and must be cheap."""

    def start(self, *, epochs: int, steps: int, images: int, first_epoch: int) -> None:
        """Training begins: `steps` batches and `images` images per epoch, starting at `first_epoch` (0-based)."""
        ...

    def step(self, *, epoch: int, step: int, loss: float, images: int) -> None:
        """A batch of `images` images was learnt; `loss` is the running mean of this epoch."""
        ...

    def epoch(
        self,
        *,
        epoch: int,
        metrics: Mapping[str, float],
        monitor: str,
        best: bool,
        seconds: float,
        images_per_second: float,
    ) -> None:
        """An epoch ended with these figures; `best` says whether it is the best one so far."""
        ...

    def finish(self) -> None:
        """Training ended, for whatever reason."""
        ...


class NoProgress:
    """Watches silently."""

    def start(self, *, epochs: int, steps: int, images: int, first_epoch: int) -> None:
        pass

    def step(self, *, epoch: int, step: int, loss: float, images: int) -> None:
        pass

    def epoch(
        self,
        *,
        epoch: int,
        metrics: Mapping[str, float],
        monitor: str,
        best: bool,
        seconds: float,
        images_per_second: float,
    ) -> None:
        pass

    def finish(self) -> None:
        pass
