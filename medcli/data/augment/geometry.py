"""Where a pixel comes from: mirroring and quarter turns by index, everything else in one interpolation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from medcli.data.augment.draws import MIRROR, ROTATE, SCALE, SHEAR, SHIFT_X, SHIFT_Y, TURN, UPEND, Numbers, on, signed
from medcli.data.augment.strengths import Fill, Flip, Strength

__all__ = ["column", "flip_some", "mirrored", "move", "read_at", "turn"]

Numbers64 = npt.NDArray[np.float64]


def flip_some(planes: Tensor, draws: Numbers, flip: Flip) -> Tensor:
    """Mirror left-right, top-bottom or both, each with probability one half, every value exact."""
    # Mirroring by index keeps every value exact; as part of the affine map it would be interpolated.
    for stream, axis, names in ((MIRROR, -1, ("horizontal", "both")), (UPEND, -2, ("vertical", "both"))):
        if flip in names:
            chosen = on(planes, draws[:, stream] < 0.5)
            planes = torch.where(chosen, planes.flip(axis), planes)
    return planes


def mirrored(draws: Numbers, flip: Flip) -> npt.NDArray[np.bool_]:
    """Which images `flip_some` mirrors left-right, [B]."""
    return draws[:, MIRROR] < 0.5 if flip in ("horizontal", "both") else np.zeros(len(draws), dtype=np.bool_)


def turn(planes: Tensor, extra: Numbers) -> Tensor:
    """Turn square pictures by 0, 90, 180 or 270 degrees, every value exact."""
    quarters = np.floor(extra[:, TURN] * 4)
    turned = planes.clone()
    for quarter in (1, 2, 3):
        rows = torch.from_numpy(np.flatnonzero(quarters == quarter)).to(planes.device)
        turned[rows] = planes[rows].rot90(quarter, (-2, -1))
    return turned


def move(planes: Tensor, draws: Numbers, strength: Strength) -> Tensor:
    """Shift, rotate, scale and shear in one interpolation."""
    angle = np.radians(strength.rotate) * signed(draws, ROTATE)
    shear = np.tan(math.radians(strength.shear) * signed(draws, SHEAR))
    # Reading positions grow when the image shrinks, hence the inverse.
    zoom = 1 / (1 + strength.scale * signed(draws, SCALE))
    cosine, sine = np.cos(angle) * zoom, np.sin(angle) * zoom
    rows = (
        (cosine, cosine * shear - sine, 2 * strength.shift * signed(draws, SHIFT_X)),
        (sine, sine * shear + cosine, 2 * strength.shift * signed(draws, SHIFT_Y)),
    )
    return read_at(planes, rows, strength.fill)


def read_at(planes: Tensor, rows: Sequence[tuple[Numbers64, Numbers64, Numbers64]], fill: Fill) -> Tensor:
    """Read each image at an affine map of its own.

    Args:
        planes: [B, C, H, W].
        rows: (a, b, c) of each axis, [B] each: x is read at a x + b y + c, in half sides from the centre; a map that is
            a rotation stays one on images that are not square.
        fill: what lies outside.
    """
    height, width = planes.shape[-2:]
    aspect = height / width
    (ax, bx, cx), (ay, by, cy) = rows
    x = _centres(width, planes.device).view(1, 1, -1)
    y = _centres(height, planes.device).view(1, -1, 1)
    # Element by element rather than by affine_grid: its matrix product may round differently with the batch size.
    grid = torch.empty(len(planes), height, width, 2, device=planes.device)
    for axis, coefficients in enumerate(((ax, bx * aspect, cx), (ay / aspect, by, cy))):
        a, b, c = (column(planes, values) for values in coefficients)
        grid[..., axis] = a * x + (b * y + c)
    return F.grid_sample(planes, grid, mode="bilinear", padding_mode=fill, align_corners=False)


def column(planes: Tensor, values: npt.NDArray[np.floating]) -> Tensor:
    """One float32 number per image, [B, 1, 1], where the images are."""
    return torch.from_numpy(values.astype(np.float32)).to(planes.device).view(-1, 1, 1)


def _centres(count: int, device: torch.device) -> Tensor:
    """Pixel centres in grid_sample's units (align_corners=False), float32 [count]."""
    return ((torch.arange(count, dtype=torch.float64) * 2 + 1) / count - 1).to(torch.float32).to(device)
