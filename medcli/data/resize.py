"""The one definition of how a decoded picture becomes a network's input.

Training, cache, evaluation, prediction and export all call these functions; a second definition, however close (PIL,
resizing of bytes), moves probabilities by a thousand times the tolerance we promise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from medcli.data.dataset import Picture, Preprocessing

__all__ = ["normalise", "to_planes", "to_tensor", "untouched_bytes"]

# Rec. 601 luma, the weights JPEG and PIL use for grey.
LUMA = (0.299, 0.587, 0.114)


def to_tensor(picture: Picture, preprocessing: Preprocessing) -> Tensor:
    """One picture as the network sees it before normalisation.

    Returns:
        float32 [C, S, S] in [0, 1] units (bicubic resizing may overshoot: nothing is clamped).
    """
    return to_planes(picture, preprocessing).expand(preprocessing.channels, -1, -1).contiguous()


def to_planes(picture: Picture, preprocessing: Preprocessing) -> Tensor:
    """Like `to_tensor`, but a grey picture for a network with three channels stays one plane.

    Returns:
        float32 [1, S, S] or [3, S, S]; repeating the single plane gives `to_tensor`.
    """
    planes = _channels(_in_units(picture), preprocessing.channels)
    return _resize(planes, preprocessing.image_size, preprocessing.interpolation, preprocessing.fit)


def untouched_bytes(picture: Picture, preprocessing: Preprocessing) -> npt.NDArray[np.uint8] | None:
    """The stored bytes where conversion to units is all that happens, so that a cache may keep uint8 without loss.

    Returns:
        uint8 [1, S, S] or [3, S, S] with value / 255 equal to `to_planes`, or None where resizing, another range or a
        change from colour to grey makes float32 necessary.
    """
    pixels, size = picture.pixels, preprocessing.image_size
    if pixels.dtype != np.uint8 or picture.low != 0 or picture.high != 255 or pixels.shape[:2] != (size, size):
        return None
    if pixels.ndim == 2:
        return pixels[None]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) if preprocessing.channels == 3 else None


def normalise(batch: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(x - mean) / std per channel.

    Args:
        batch: float32 [B, C, H, W] in [0, 1] units, on any device.
        preprocessing: its `mean` and `std` have one value per channel, or one for all.

    Returns:
        a new float32 tensor of the same shape.
    """
    mean = torch.tensor(preprocessing.mean, dtype=batch.dtype, device=batch.device).view(1, -1, 1, 1)
    std = torch.tensor(preprocessing.std, dtype=batch.dtype, device=batch.device).view(1, -1, 1, 1)
    return batch.sub(mean).div_(std)


def _in_units(picture: Picture) -> Tensor:
    pixels: npt.NDArray[Any] = picture.pixels
    values = torch.from_numpy(np.array(pixels, dtype=np.float32, order="C"))
    if picture.low:
        values.sub_(float(picture.low))
    values.div_(float(picture.high) - float(picture.low))
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1).contiguous()


def _channels(planes: Tensor, channels: int) -> Tensor:
    if planes.shape[0] == 3 and channels == 1:
        red, green, blue = (planes[i : i + 1] for i in range(3))
        return red.mul(LUMA[0]).add_(green.mul(LUMA[1])).add_(blue.mul(LUMA[2]))
    return planes


def _resize(planes: Tensor, size: int, interpolation: str, fit: str) -> Tensor:
    height, width = planes.shape[1:]
    if (height, width) == (size, size):
        return planes
    if fit == "squash":
        return _interpolate(planes, size, size, interpolation)
    if fit == "pad":
        scale = size / max(height, width)
        new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
        inner = _interpolate(planes, new_height, new_width, interpolation)
        top, left = (size - new_height) // 2, (size - new_width) // 2
        return F.pad(inner, (left, size - new_width - left, top, size - new_height - top))
    # The long side is cut off, not rounded, as in torchvision and the processors that weights are published with.
    short = min(height, width)
    new_height, new_width = size * height // short, size * width // short
    outer = _interpolate(planes, new_height, new_width, interpolation)
    top, left = (new_height - size) // 2, (new_width - size) // 2
    return outer[:, top : top + size, left : left + size].contiguous()


def _interpolate(planes: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    if planes.shape[1:] == (height, width):
        return planes
    return F.interpolate(planes[None], size=(height, width), mode=interpolation, align_corners=False, antialias=True)[0]
