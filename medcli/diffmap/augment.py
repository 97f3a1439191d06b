"""Random changes of training pairs: one geometry for a pair and its map, an exposure for each image, the order.

What happens follows from (seed, epoch, pair) alone, as for single images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medcli.data.augment.draws import STREAMS, counters_of, on, uniform
from medcli.data.augment.geometry import flip_some, move
from medcli.data.augment.intensity import expose
from medcli.data.augment.strengths import LEVELS, Flip

__all__ = ["PairAugmentation"]

FIRST_BASELINE, FIRST_FOLLOWUP, SWAP = 2**42, 2**42 + 64, 2**42 + 128


@dataclass(frozen=True)
class PairAugmentation:
    """Changes a batch of pairs.

    Args:
        level: how far, as for single images.
        flip: mirror pair and map.
        swap: let half of the pairs change places; their maps change the sign, or stay where they have none.
        signed: whether maps have signs.
        seed: of the run.
    """

    level: Literal["none", "light", "medium", "heavy"]
    flip: Flip
    swap: bool
    signed: bool
    seed: int

    def __call__(self, planes: Tensor, index: Tensor, epoch: int) -> Tensor:
        """Change every pair in its own way.

        Args:
            planes: float32 [B, 3, H, W]: baseline, follow-up, map (NaN where unknown); not written to.
            index: int64 [B], positions in the data set.
            epoch: pairs change differently in every epoch.
        """
        counters = counters_of(self.seed, epoch, index)
        draws = uniform(counters)
        planes = flip_some(planes, draws, self.flip)
        if self.level != "none":
            strength = LEVELS[self.level]
            # What lies outside repeats the border, of images and map alike; a NaN takes its neighbours with it.
            planes = move(planes, draws, strength)
            first = expose(planes[:, :1], uniform(counters, STREAMS, FIRST_BASELINE), strength)
            second = expose(planes[:, 1:2], uniform(counters, STREAMS, FIRST_FOLLOWUP), strength)
            planes = torch.cat([first, second, planes[:, 2:]], dim=1)
        if self.swap:
            swapped = on(planes, uniform(counters, 1, SWAP)[:, 0] < 0.5)
            sign = -1.0 if self.signed else 1.0
            planes = torch.where(swapped, torch.cat([planes[:, 1:2], planes[:, :1], sign * planes[:, 2:]], 1), planes)
        return planes
