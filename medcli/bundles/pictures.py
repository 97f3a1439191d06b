"""Decoded pictures as the graph of a bundle takes them: bytes, or units where a source has more than eight bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.dataset import Picture

__all__ = ["as_input"]


def as_input(picture: Picture) -> npt.NDArray[Any]:
    """One picture as [h, w, 1 or 3]: uint8, or float32 in [0, 1] where bytes would lose something."""
    pixels = picture.pixels
    if pixels.dtype != np.uint8 or picture.low != 0 or picture.high != 255:
        # As `medcli.data.resize` does it, in the same order and precision.
        values = np.array(pixels, dtype=np.float32, order="C")
        if picture.low:
            values -= np.float32(picture.low)
        pixels = values / np.float32(float(picture.high) - float(picture.low))
    return pixels[..., None] if pixels.ndim == 2 else pixels
