"""What maps of change and filled-in pictures are held to.

Changed pixels are few and faint, so that a map of zeros has a small mean error: they are weighted. Dice is left out:
with faint targets it makes maps worse than absolute and squared errors do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["MapLoss", "PictureLoss", "Terms", "slopes", "spectra", "structural_similarity"]

Terms = Mapping[str, Tensor]
"""Parts of a loss by name, each a scalar, before weighting."""

MapLossName = Literal["weighted-l1-l2", "l1-l2"]
SCALES = (1, 2, 4, 8)
WINDOW, SIGMA = 11, 1.5  # of the structural similarity (Wang et al. 2004)


@dataclass(frozen=True)
class MapLoss:
    """How far maps are from the truth; pixels without truth (NaN) count nowhere.

    Args:
        name: `weighted-l1-l2`, or `l1-l2`, in which every pixel counts the same.
        l1: weight of the absolute error of scaled maps.
        l2: weight of their squared error.
        scale: factor on both maps before these errors.
        changed: what a changed pixel counts, others 1.
        above: a pixel is changed where the truth is further from 0 than this.
        ssim: weight of 1 - SSIM.
        gradient: weight of the error of slopes at several sizes.
        fourier: weight of the error of log spectra.
        span: distance between the largest and the smallest value a map may have.
    """

    name: MapLossName = "weighted-l1-l2"
    l1: float = 1.0
    l2: float = 1.0
    scale: float = 10.0
    changed: float = 10.0
    above: float = 0.02
    ssim: float = 0.0
    gradient: float = 0.0
    fourier: float = 0.0
    span: float = 2.0

    def __call__(self, found: Tensor, truth: Tensor) -> tuple[Tensor, Terms]:
        """The loss and its parts.

        Args:
            found: float32 [B, 1, H, W].
            truth: the same shape, NaN where nothing is known.
        """
        valid = ~torch.isnan(truth)
        truth = torch.where(valid, truth, found.detach())
        count = valid.sum().clamp(min=1)
        weights = valid.to(found.dtype)
        if self.name == "weighted-l1-l2":
            weights = weights * torch.where(truth.abs() > self.above, self.changed, 1.0)
        error = (found - truth) * self.scale
        terms = {"l1": (weights * error.abs()).sum() / count, "l2": (weights * error.square()).sum() / count}
        total = self.l1 * terms["l1"] + self.l2 * terms["l2"]
        extra, parts = _further(found, truth, self.ssim, self.gradient, self.fourier, self.span)
        return total + extra, {**terms, **parts}


@dataclass(frozen=True)
class PictureLoss:
    """How far hidden parts of pictures in [0, 1] are from what was filled in; what was shown does not count.

    Args:
        l1: weight of the absolute error, a mean over hidden pixels.
        l2: weight of the squared error, likewise.
        ssim: weight of 1 - SSIM of the picture with its hidden parts filled in.
        gradient: weight of the error of slopes of that picture.
        fourier: weight of the error of its log spectrum.
    """

    l1: float = 1.0
    l2: float = 0.0
    ssim: float = 0.0
    gradient: float = 0.0
    fourier: float = 0.0

    def __call__(self, found: Tensor, picture: Tensor, hidden: Tensor) -> tuple[Tensor, Terms]:
        """The loss and its parts; all arguments [B, 1, H, W], `hidden` bool."""
        count = hidden.sum().clamp(min=1)
        error = torch.where(hidden, found - picture, torch.zeros_like(found))
        terms = {"l1": error.abs().sum() / count, "l2": error.square().sum() / count}
        filled = torch.where(hidden, found, picture)
        extra, parts = _further(filled, picture, self.ssim, self.gradient, self.fourier, 1.0)
        return self.l1 * terms["l1"] + self.l2 * terms["l2"] + extra, {**terms, **parts}


def structural_similarity(one: Tensor, other: Tensor, span: float) -> Tensor:
    """Mean SSIM of pictures [B, 1, H, W] with a Gaussian window of 11 pixels (Wang et al. 2004), a scalar.

    Args:
        span: distance between the largest and the smallest value a pixel may have.
    """
    reach = torch.arange(WINDOW, dtype=one.dtype, device=one.device) - WINDOW // 2
    line = torch.exp(-reach.square() / (2 * SIGMA**2))
    line = line / line.sum()
    side = min(WINDOW, *one.shape[-2:])
    if side < WINDOW:
        raise ValueError(f"pictures need {WINDOW} pixels a side, these have {side}")

    def blurred(values: Tensor) -> Tensor:
        return functional.conv2d(functional.conv2d(values, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))

    mean_one, mean_other = blurred(one), blurred(other)
    spread_one = blurred(one * one) - mean_one.square()
    spread_other = blurred(other * other) - mean_other.square()
    both = blurred(one * other) - mean_one * mean_other
    small, smaller = (0.01 * span) ** 2, (0.03 * span) ** 2
    brightness: Tensor = (2 * mean_one * mean_other + small) / (mean_one.square() + mean_other.square() + small)
    contrast: Tensor = (2 * both + smaller) / (spread_one + spread_other + smaller)
    mean: Tensor = (brightness * contrast).mean()
    return mean


def slopes(one: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference of slopes along both axes, at full, half, quarter and eighth size; a scalar."""
    total: Tensor = one.new_zeros(())
    used = [scale for scale in SCALES if min(one.shape[-2:]) >= 2 * scale]
    for scale in used:
        error = functional.avg_pool2d(one - other, scale) if scale > 1 else one - other
        total = total + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    mean: Tensor = total / max(1, len(used))
    return mean


def spectra(one: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference of log(1 + magnitude) of the Fourier transforms of [B, 1, H, W]; a scalar."""
    # Half precision has no transform of odd sizes, and maps are float32 by here.
    found, wanted = (torch.fft.rfft2(values.float(), norm="ortho").abs().log1p() for values in (one, other))
    mean: Tensor = (found - wanted).abs().mean()
    return mean


def _further(
    found: Tensor, truth: Tensor, ssim: float, gradient: float, fourier: float, span: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The parts that are only computed where they count."""
    total, parts = found.new_zeros(()), dict[str, Tensor]()
    if ssim:
        parts["ssim"] = 1 - structural_similarity(found, truth, span)
        total = total + ssim * parts["ssim"]
    if gradient:
        parts["gradient"] = slopes(found, truth)
        total = total + gradient * parts["gradient"]
    if fourier:
        parts["fourier"] = spectra(found, truth)
        total = total + fourier * parts["fourier"]
    return total, parts
