"""Pictures of a pair brought to their square without torch, so that a bundle makes maps where torch is not installed.

The arithmetic is that of `medcli.data.resize` (bilinear, antialiased, padded); a test holds the two together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from medcli.data.dataset import Picture

__all__ = ["padded_square", "resized"]

LUMA = np.array((0.299, 0.587, 0.114), dtype=np.float32)
Image = npt.NDArray[np.float32]


def padded_square(picture: Picture, size: int) -> Image:
    """A picture as units in its own range, grey, the long side filling the square, float32 [size, size].

    Args:
        picture: grey or colour.
        size: side in pixels.
    """
    values = np.array(picture.pixels, dtype=np.float32, order="C")
    if picture.low:
        values -= np.float32(picture.low)
    values /= np.float32(float(picture.high) - float(picture.low))
    if values.ndim == 3:
        red, green, blue = (values[..., place] for place in range(3))
        values = red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]
    height, width = values.shape
    if (height, width) == (size, size):
        return np.ascontiguousarray(values)
    scale = size / max(height, width)
    inner = resized(values, (max(1, round(height * scale)), max(1, round(width * scale))))
    top, left = (size - inner.shape[0]) // 2, (size - inner.shape[1]) // 2
    square = np.zeros((size, size), dtype=np.float32)
    square[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return square


def resized(image: Image, shape: tuple[int, int]) -> Image:
    """Bilinear, antialiased where it shrinks: float32 [h, w] -> float32 `shape`, unclamped."""
    down, across = (_weights(old, new) for old, new in zip(image.shape, shape, strict=True))
    return np.ascontiguousarray((across @ (down @ np.ascontiguousarray(image, dtype=np.float32)).T).T)


def _weights(old: int, new: int) -> csr_matrix:
    """float32 [new, old]: the triangle around each new pixel's middle, as wide as the pixels that it stands for."""
    step = old / new
    reach = max(step, 1.0)
    middle = (np.arange(new) + 0.5) * step
    first = np.maximum((middle - reach + 0.5).astype(np.int64), 0)
    stop = np.minimum((middle + reach + 0.5).astype(np.int64), old)
    column = first[:, None] + np.arange(int((stop - first).max()))
    weight = np.clip(1 - np.abs((column - middle[:, None] + 0.5) / reach), 0, None)
    weight[column >= stop[:, None]] = 0
    weight /= weight.sum(axis=1, keepdims=True)
    row, place = np.nonzero(weight)
    return csr_matrix((weight[row, place].astype(np.float32), (row, column[row, place])), shape=(new, old))
