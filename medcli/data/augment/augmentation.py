"""Random changes of training images, a whole batch at a time.

What happens to an image follows from (seed, epoch, position of the image) through a counter-based hash, never from a
random state: a resumed run, another batch size or another device sees the very same changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medcli.data.augment.draws import EXTRAS, FIRST_EXTRA, Counters, Numbers, counters_of, uniform
from medcli.data.augment.geometry import flip_some, mirrored, move, turn
from medcli.data.augment.intensity import add_noise, add_speckle, bend, erase, expose, recolour, restain
from medcli.data.augment.modalities import MODALITIES
from medcli.data.augment.policies import apply_policy, policy_of
from medcli.data.augment.strengths import LEVELS, Flip, Level, Strength

__all__ = ["Augmentation", "Kind"]

Kind = Level | Literal["modality", "randaugment", "autoaugment"]


@dataclass(frozen=True)
class Augmentation:
    """Changes a batch of images in [0, 1] units; values are not clamped.

    Args:
        level: a key of `LEVELS`, `modality` (the safe changes of one kind of picture), or a policy.
        flip: mirror left-right, top-bottom or both, each with probability one half.
        seed: of the run.
        modality: a key of `MODALITIES`: needed by `modality`, reduces a policy, and nothing to a level.
    """

    level: Kind
    flip: Flip
    seed: int
    modality: str | None = None

    def __call__(self, images: Tensor, index: Tensor, epoch: int) -> Tensor:
        """Change every image in its own way.

        Args:
            images: float32 [B, C, H, W] on any device; not written to.
            index: int64 [B], position of each image in its data set.
            epoch: images change differently in every epoch.

        Returns:
            a tensor of the same shape and device. Channels that were views of one plane still are.
        """
        channels = images.shape[1]
        grey = channels > 1 and images.stride(1) == 0
        planes = images[:, :1] if grey else images
        counters = counters_of(self.seed, epoch, index)
        draws = uniform(counters)
        planes = flip_some(planes, draws, self.flip)
        if self.level == "modality":
            planes = _safe(planes, counters, draws, MODALITIES[str(self.modality)].safe)
        elif self.level == "randaugment" or self.level == "autoaugment":
            policy = policy_of(self.level, self.modality)
            planes = apply_policy(planes, uniform(counters, EXTRAS, FIRST_EXTRA), policy)
        elif self.level != "none":
            strength = LEVELS[self.level]
            planes = expose(move(planes, draws, strength), draws, strength)
            if strength.noise:
                planes = add_noise(planes, counters, draws, strength)
            if strength.erase:
                planes = erase(planes, draws, strength)
        return planes.expand(-1, channels, -1, -1) if grey else planes

    def mirrored(self, index: Tensor, epoch: int) -> Tensor:
        """Which of these images are mirrored left-right in this epoch: bool [B], on the CPU."""
        return torch.from_numpy(mirrored(uniform(counters_of(self.seed, epoch, index)), self.flip))


def _safe(planes: Tensor, counters: Counters, draws: Numbers, safe: Strength) -> Tensor:
    """The safe changes of one kind of picture, [B, C, S, S]."""
    extra = uniform(counters, EXTRAS, FIRST_EXTRA)
    planes = turn(planes, extra) if safe.turns else planes
    planes = move(planes, draws, safe)
    if planes.shape[1] == 3:  # a grey picture has no colour to change
        planes = recolour(planes, extra, safe) if safe.hue or safe.saturation else planes
        planes = restain(planes, extra, safe) if safe.stain else planes
    if safe.gamma or safe.gain:
        planes = bend(planes, extra, safe)
    if safe.contrast or safe.brightness:
        planes = expose(planes, draws, safe)
    if safe.speckle:
        planes = add_speckle(planes, counters, extra, safe)
    return add_noise(planes, counters, draws, safe) if safe.noise else planes
