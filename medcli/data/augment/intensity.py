"""What a pixel's value becomes: exposure, colour, stain, noise, and rectangles that are taken away."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medcli.data.augment.draws import (
    AREA,
    BRIGHTNESS,
    CONTRAST,
    ERASE,
    FIRST_SPECKLE,
    GAIN,
    GAMMA,
    HUE,
    LEFT,
    NOISE,
    RATIO,
    SATURATION,
    SPECKLE,
    STAIN,
    TOP,
    Counters,
    Numbers,
    normal,
    on,
    signed,
)
from medcli.data.augment.geometry import column
from medcli.data.augment.strengths import Strength

__all__ = ["HAEMATOXYLIN_EOSIN_DAB", "add_noise", "add_speckle", "bend", "erase", "expose", "recolour", "restain"]

LUMA = (0.299, 0.587, 0.114)

HAEMATOXYLIN_EOSIN_DAB = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Optical density in red, green and blue of each stain (Ruifrok and Johnston, 2001)."""


def expose(planes: Tensor, draws: Numbers, strength: Strength) -> Tensor:
    """Contrast about mid-grey, then brightness."""
    # About mid-grey and not the image's mean: a mean over the batch's memory may round differently with its size.
    factor = 1 + strength.contrast * signed(draws, CONTRAST)
    offset = 0.5 * (1 - factor) + strength.brightness * signed(draws, BRIGHTNESS)
    return planes.mul(on(planes, factor.astype(np.float32))).add_(on(planes, offset.astype(np.float32)))


def bend(planes: Tensor, extra: Numbers, strength: Strength) -> Tensor:
    """Gain, then gamma: each value times a factor and to a power near 1; black stays black."""
    if strength.gain:
        planes = planes * on(planes, (1 + strength.gain * signed(extra, GAIN)).astype(np.float32))
    return planes.clamp(0, 1).pow(on(planes, (1 + strength.gamma * signed(extra, GAMMA)).astype(np.float32)))


def recolour(planes: Tensor, extra: Numbers, strength: Strength) -> Tensor:
    """Turn the colours about the grey axis and stretch their distance from it; grey and luma stay as they are."""
    angle = math.radians(strength.hue) * signed(extra, HUE)
    factor = 1 + strength.saturation * signed(extra, SATURATION)
    along, across = (on(planes, (factor * part(angle)).astype(np.float32)) for part in (np.cos, np.sin))
    red, green, blue = planes[:, :1], planes[:, 1:2], planes[:, 2:]
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    # Chroma as red and blue differences, scaled to [-0.5, 0.5] as in YCbCr; green follows from the luma.
    in_red, in_blue = (red - luma) / (2 - 2 * LUMA[0]), (blue - luma) / (2 - 2 * LUMA[2])
    new_red = luma + (2 - 2 * LUMA[0]) * (along * in_red + across * in_blue)
    new_blue = luma + (2 - 2 * LUMA[2]) * (along * in_blue - across * in_red)
    new_green = (luma - LUMA[0] * new_red - LUMA[2] * new_blue) / LUMA[1]
    return torch.cat([new_red, new_green, new_blue], dim=1).clamp_(0, 1)


def restain(planes: Tensor, extra: Numbers, strength: Strength) -> Tensor:
    """Jitter in stain space (Tellez et al., IEEE TMI 2018): densities of haematoxylin, eosin and DAB, each by itself.

    The shift acts in proportion to the tissue's own density, so that a white background stays white.
    """
    stains = np.array(HAEMATOXYLIN_EOSIN_DAB)
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    back = np.linalg.inv(stains)
    density = [planes[:, axis : axis + 1].clamp(1 / 255, 1).log().neg() for axis in range(3)]
    tissue = (density[0] + density[1] + density[2]).div(3).clamp(max=1)
    amounts = []
    for stain in range(3):
        factor = on(planes, (1 + strength.stain * signed(extra, STAIN + 2 * stain)).astype(np.float32))
        shift = on(planes, (strength.stain * signed(extra, STAIN + 2 * stain + 1)).astype(np.float32))
        amounts.append(_mixture(density, back[:, stain]) * factor + shift * tissue)
    changed = [_mixture(amounts, stains[:, axis]) for axis in range(3)]
    return torch.cat(changed, dim=1).neg_().exp_().clamp_(0, 1)


def _mixture(parts: Sequence[Tensor], shares: npt.NDArray[np.float64]) -> Tensor:
    # Term by term rather than by a matrix product, which may round differently with the batch size.
    return parts[0] * float(shares[0]) + parts[1] * float(shares[1]) + parts[2] * float(shares[2])


def add_noise(planes: Tensor, counters: Counters, draws: Numbers, strength: Strength) -> Tensor:
    """The same noise in every channel."""
    return planes + normal(planes, counters) * column(planes, strength.noise * draws[:, NOISE])[..., None]


def add_speckle(planes: Tensor, counters: Counters, extra: Numbers, strength: Strength) -> Tensor:
    """Noise in proportion to the value, the same in every channel; black stays black."""
    grain = normal(planes, counters, FIRST_SPECKLE) * column(planes, strength.speckle * extra[:, SPECKLE])[..., None]
    return planes * (1 + grain)


def erase(planes: Tensor, draws: Numbers, strength: Strength) -> Tensor:
    """Replace a rectangle by mid-grey, now and then."""
    height, width = planes.shape[-2:]
    smallest, largest = strength.erase_area
    area = smallest + (largest - smallest) * draws[:, AREA]
    # Sides between 1:3 and 3:1, evenly in the logarithm.
    ratio = np.exp((2 * draws[:, RATIO] - 1) * math.log(3) / 2)
    tall, wide = np.sqrt(area) * ratio, np.sqrt(area) / ratio
    top, left = draws[:, TOP] * (1 - tall), draws[:, LEFT] * (1 - wide)
    chosen = draws[:, ERASE] < strength.erase
    y = ((torch.arange(height, device=planes.device) + 0.5) / height).view(1, -1, 1)
    x = ((torch.arange(width, device=planes.device) + 0.5) / width).view(1, 1, -1)
    y0, y1 = column(planes, top), column(planes, np.where(chosen, top + tall, top - 1))
    x0, x1 = column(planes, left), column(planes, left + wide)
    inside = (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
    return planes.masked_fill(inside[:, None], 0.5)
