"""What a recommendation starts from: the goal, the machine and the data, as far as they are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ASSUMED_GPU_GB", "Situation"]

ASSUMED_GPU_GB = 8.0


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A goal with what is known about machine and data; None is not known, and no rule about it applies.

    Args:
        goal: one of the goals of `--goal`.
        gpu_gb: memory of the GPU in GB; 0 for a machine without one.
        gpu_assumed: whether nobody said so.
        images: training images.
        modality: kind of picture, one of `Rules.modalities` or of an installed card.
        task: as in `medcli.data.target.TASKS`.
        classes: number of classes or labels.
        imbalance: cases of the largest class over those of the smallest.
        channels: 1 or 3.
        side: the shorter side of the pictures in pixels.
        sided: whether a label names left or right, so that mirroring would make it wrong.
        known_set: name of a MedMNIST set, such as `pathmnist`.
        typed: settings of the data as the user gave them, by name, to be repeated in commands.
        notes: what the user should know about how this was found.
    """

    goal: str = "accuracy"
    gpu_gb: float = ASSUMED_GPU_GB
    gpu_assumed: bool = False
    images: int | None = None
    modality: str | None = None
    task: str | None = None
    classes: int | None = None
    imbalance: float | None = None
    channels: int | None = None
    side: int | None = None
    sided: bool = False
    known_set: str | None = None
    typed: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def cpu(self) -> bool:
        """Whether there is no GPU."""
        return self.gpu_gb <= 0
