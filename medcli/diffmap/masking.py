"""Which patches of a picture are hidden in masked pretraining.

What is hidden follows from (seed, epoch, image) alone, so that a resumed run hides what it would have hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from medcli.data.augment.draws import counters_of, uniform

__all__ = ["MaskMode", "Masking", "Ramp"]

MaskMode = Literal["single", "random", "checkerboard"]

START = 0.05
FLAT, RISE, TOP, FALL = 0.05, 0.20, 0.40, 0.10
"""Shares of all steps (public code of LongitudinalMIM): at the start value, rising, at the top, on the second slope."""

CENTRE_LEAST, CENTRE_MOST = 0.8, 1.2
FIRST = 2**43  # streams of random numbers that no augmentation uses


@dataclass(frozen=True)
class Ramp:
    """The chance of a patch to be hidden as training goes on.

    It stays at 0.05, rises to the top, stays there, and comes down halfway on the second slope. What the published code
    does after that slope is not known; here the chance stays where it is.

    Args:
        top: the largest chance.
        steps: optimiser steps of the whole run.
    """

    top: float
    steps: int

    def at(self, step: int) -> float:
        """The chance for optimiser step `step`, counted from 0."""
        done = step / max(1, self.steps)
        end = START + 0.5 * (self.top - START)
        points = np.cumsum([0.0, FLAT, RISE, TOP, FALL])
        return float(np.interp(done, points, (START, START, self.top, self.top, end)))


@dataclass(frozen=True)
class Masking:
    """Draws masks.

    Args:
        mode: `single`: one patch, likelier near the centre (weights 0.8 at the corners to 1.2); `random`: each patch by
            chance, but at least one; `checkerboard`: every other patch, beginning with one or the other.
        patches: patches along each side.
        seed: of the run.
    """

    mode: MaskMode
    patches: int
    seed: int

    def __call__(self, index: Tensor, epoch: int, chance: float, size: int) -> Tensor:
        """What is hidden, bool [B, 1, size, size], on the CPU.

        Args:
            index: int64 [B], positions of the images in their set.
            epoch: another one hides other patches.
            chance: of a patch, for `random`.
            size: side in pixels.
        """
        count = self.patches
        draws = uniform(counters_of(self.seed, epoch, index), count * count + 1, FIRST).astype(np.float64)
        hidden = self._patches(draws, chance).reshape(-1, 1, count, count)
        grid = torch.from_numpy(hidden.astype(np.float32))
        return functional.interpolate(grid, size=(size, size), mode="nearest") > 0.5

    def _patches(self, draws: npt.NDArray[np.float64], chance: float) -> npt.NDArray[np.bool_]:
        count = self.patches
        if self.mode == "checkerboard":
            row, column = np.divmod(np.arange(count * count), count)
            return np.asarray((row + column) % 2 == (draws[:, :1] < 0.5))
        if self.mode == "random":
            hidden = draws[:, 1:] < chance
            # Where chance hides nothing there would be nothing to learn: then the patch that came closest to it.
            hidden[np.arange(len(draws)), draws[:, 1:].argmin(axis=1)] = True
            return hidden
        edges = np.cumsum(_centre_weights(count))
        chosen = np.searchsorted(edges / edges[-1], draws[:, 0], side="right")
        return np.asarray(np.arange(count * count) == np.minimum(chosen, count * count - 1)[:, None])


def _centre_weights(count: int) -> npt.NDArray[np.float64]:
    """[count * count], largest in the middle."""
    along = np.abs(np.linspace(-1, 1, count))
    away = np.hypot(along[:, None], along[None]).ravel()
    share = (away - away.min()) / max(1e-9, float(away.max() - away.min()))
    return np.asarray(CENTRE_MOST - (CENTRE_MOST - CENTRE_LEAST) * share)
