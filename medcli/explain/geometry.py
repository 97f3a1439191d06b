"""From the network's square input back to the picture: a map lies where the network saw what it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from medcli.data.dataset import Picture, Preprocessing

__all__ = ["Placed", "displayed", "enlarged", "placed"]

Floats = npt.NDArray[np.float32]

LONGEST = 640
"""Pixels of the longer side of a displayed picture: enough for a screen and a page."""


@dataclass(frozen=True)
class Placed:
    """A map in the proportions of a picture.

    Args:
        values: float32 [h, w], 0 where the network saw nothing.
        seen: bool [h, w], false where `--fit crop` cut the picture off.
    """

    values: Floats
    seen: npt.NDArray[np.bool_]


def displayed(picture: Picture) -> Floats:
    """A picture for a person, float32 [h, w] or [h, w, 3] in [0, 1], at most 640 px a side, in its own proportions."""
    pixels: npt.NDArray[Any] = picture.pixels
    units = (pixels.astype(np.float32) - np.float32(picture.low)) / np.float32(picture.high - picture.low)
    planes = torch.from_numpy(units if units.ndim == 3 else units[:, :, None]).permute(2, 0, 1)
    height, width = planes.shape[1:]
    if max(height, width) > LONGEST:
        size = _within(height, width, LONGEST)
        planes = F.interpolate(planes[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    shown: Floats = planes.permute(1, 2, 0).clamp(0, 1).numpy()
    return shown if picture.pixels.ndim == 3 else shown[:, :, 0]


def enlarged(grid: Tensor, size: int) -> Tensor:
    """A map [h, w] over the network's input, bilinear, [size, size]."""
    return F.interpolate(grid[None, None].float(), size=(size, size), mode="bilinear", align_corners=False)[0, 0]


def placed(grid: Tensor, picture: Picture, preprocessing: Preprocessing, longest: int = LONGEST) -> Placed:
    """A map of the network's input [h, w], of any resolution, laid over the picture it was made from.

    Args:
        grid: over the whole square input.
        picture: as decoded.
        preprocessing: how the picture became square.
        longest: pixels of the longer side of the result.
    """
    height, width = picture.pixels.shape[:2]
    out_height, out_width = _within(height, width, longest)
    if preprocessing.fit == "squash" or height == width:
        values = _resized(grid.float(), out_height, out_width)
        return Placed(values, np.ones(values.shape, dtype=bool))
    size = preprocessing.image_size
    square = enlarged(grid, size)
    if preprocessing.fit == "pad":
        scale = size / max(height, width)
        inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (size - inner_height) // 2, (size - inner_width) // 2
        values = _resized(square[top : top + inner_height, left : left + inner_width], out_height, out_width)
        return Placed(values, np.ones(values.shape, dtype=bool))
    short = min(height, width)
    whole_height, whole_width = size * height // short, size * width // short
    top, left = (whole_height - size) // 2, (whole_width - size) // 2
    canvas, seen = torch.zeros(2, whole_height, whole_width)
    canvas[top : top + size, left : left + size] = square
    seen[top : top + size, left : left + size] = 1
    inside = _resized(seen, out_height, out_width) > 0.5
    return Placed(np.where(inside, _resized(canvas, out_height, out_width), 0).astype(np.float32), inside)


def _within(height: int, width: int, longest: int) -> tuple[int, int]:
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resized(values: Tensor, height: int, width: int) -> Floats:
    # Bilinear enlargement of a few cells draws diamonds; overshooting below nothing is cut off.
    wide = F.interpolate(values[None, None], size=(height, width), mode="bicubic", align_corners=False)
    found: Floats = wide[0, 0].clamp_min(0).numpy()
    return found
