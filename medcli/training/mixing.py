"""Mixup and cutmix: pairs of images are blended or patched together, and so are their labels.

timm's `Mixup` draws from numpy's global state and knows no missing labels; here every draw follows from seed, epoch and
batch alone, so that a resumed run mixes what it would have mixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medcli.data.batches import Batch
from medcli.data.shares import Share
from medcli.training.losses import Criterion

__all__ = ["Mixed", "Mixing", "partners"]

BOTH = 0.5
"""How often a batch is cut rather than blended, where both are asked for (timm's `switch_prob`)."""


@dataclass(frozen=True)
class Mixed:
    """How one batch is mixed.

    Args:
        kept: what every image keeps of itself, 0 to 1.
        box: top, bottom, left and right, in pixels, of the patch that comes from the partner; None where whole images
            are blended.
        partner: for every image of the whole batch the position of its partner, int64 [B]; its own for none.
        held: the same for the images that this process holds, as positions among them.
    """

    kept: float
    box: tuple[int, int, int, int] | None
    partner: Tensor
    held: Tensor

    def images(self, images: Tensor) -> Tensor:
        """Mixed images [b, C, H, W]; those given are not written to."""
        others = images[self.held.to(images.device)]
        if self.box is None:
            return images * self.kept + others * (1 - self.kept)
        top, bottom, left, right = self.box
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
        return mixed

    def loss(self, criterion: Criterion, raw: Tensor, labels: Tensor) -> Tensor:
        """The loss of the whole batch against labels mixed as the images are.

        Class labels: the loss against an image's own label and that against its partner's, in proportion, which for
        losses that are linear in the target is the loss against the soft target; 0/1 labels are blended. A label that
        is missing in either image is missing in the mixture.

        Args:
            criterion: of a target with class labels or 0/1 labels, not of ranks.
            raw: raw outputs [B, ...].
            labels: [B, ...], as in `Target`.
        """
        others = labels[self.partner.to(labels.device)]
        if labels.is_floating_point():
            return criterion(raw, labels * self.kept + others * (1 - self.kept))
        if labels.ndim > 1:
            missing = (labels < 0) | (others < 0)
            labels, others = labels.masked_fill(missing, -1), others.masked_fill(missing, -1)
        return self.kept * criterion(raw, labels) + (1 - self.kept) * criterion(raw, others)


@dataclass(frozen=True)
class Mixing:
    """How batches are mixed.

    Args:
        mixup: both parameters of the beta distribution that shares of blended images come from; 0 for no blending.
        cutmix: the same for the area that an image keeps when a patch is exchanged; 0 for no patches.
        seed: of the run.
    """

    mixup: float
    cutmix: float
    seed: int

    def draw(self, batch: Batch, epoch: int, share: Share) -> Mixed:
        """What happens to a batch; the same in every process that shares it."""
        sequence = np.random.SeedSequence([self.seed, epoch, int(batch.keys[0])])
        random = np.random.Generator(np.random.PCG64(sequence))
        chooser, centre_y, centre_x = random.random(3)
        cut = self.cutmix > 0 and (self.mixup == 0 or chooser < BOTH)
        alpha = self.cutmix if cut else self.mixup
        kept = float(random.beta(alpha, alpha))
        partner = partners(len(batch.index), share)
        held = partner if batch.own is None else (partner[batch.own] - batch.own[0]).clamp(0, len(batch.own) - 1)
        if not cut:
            return Mixed(kept, None, partner, held)
        height, width = batch.images.shape[-2:]
        half = math.sqrt(1 - kept) / 2
        top, bottom = (round(min(max(edge, 0.0), 1.0) * height) for edge in (centre_y - half, centre_y + half))
        left, right = (round(min(max(edge, 0.0), 1.0) * width) for edge in (centre_x - half, centre_x + half))
        # Part of the patch may lie outside, so labels go by what was really exchanged.
        exchanged = (bottom - top) * (right - left) / (height * width)
        return Mixed(1 - exchanged, (top, bottom, left, right), partner, held)


def partners(images: int, share: Share) -> Tensor:
    """Each image's partner: its neighbour in the batch, int64 [images]; the last one of an odd number stays alone.

    Pairs never span two processes. Where every process holds an even number they are those of a single process.
    """
    partner = torch.arange(images)
    first = 0
    for count in share.counts(images):
        pairs = partner[first : first + count - count % 2].view(-1, 2)
        pairs.copy_(pairs.flip(1))
        first += count
    return partner
