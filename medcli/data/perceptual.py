"""Images that look alike: a 64-bit perceptual hash and all pairs of hashes that differ in a few bits."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn

from medcli.data.dataset import Picture

__all__ = ["MAX_BITS", "near_pairs", "perceptual_hash"]

MAX_BITS = 4
SIDE, LOW = 32, 8
BLOCK = 2048


def perceptual_hash(picture: Picture) -> int:
    """64 bits: whether each of the 8 x 8 lowest frequencies of the 32 x 32 grey picture is above their median."""
    span = picture.high - picture.low
    values = (np.asarray(picture.pixels, dtype=np.float32) - np.float32(picture.low)) / np.float32(span)
    grey = values @ np.array([0.299, 0.587, 0.114], dtype=np.float32) if values.ndim == 3 else values
    small = np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX))
    low = dctn(small, norm="ortho")[:LOW, :LOW].ravel()
    # The constant term would only say how bright the picture is.
    bits = low > np.median(low[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_pairs(hashes: npt.NDArray[np.uint64], bits: int = MAX_BITS) -> list[tuple[int, int, int]]:
    """All pairs (i, j, distance), i < j, whose hashes differ in at most `bits` bits, in ascending order.

    Hashes are cut into `bits` + 1 bands: two that differ in at most `bits` bits agree in one band at least, so only
    hashes that share a band are compared.
    """
    edges = np.linspace(0, 64, bits + 2).astype(int)
    found: dict[tuple[int, int], int] = {}
    for start, stop in pairwise(edges):
        band = (hashes >> np.uint64(start)) & np.uint64(2 ** int(stop - start) - 1)
        buckets: defaultdict[int, list[int]] = defaultdict(list)
        for position, value in enumerate(band.tolist()):
            buckets[value].append(position)
        for members in buckets.values():
            if len(members) > 1:
                _compare(hashes, np.array(members), bits, found)
    return sorted((i, j, distance) for (i, j), distance in found.items())


def _compare(
    hashes: npt.NDArray[np.uint64], members: npt.NDArray[np.int64], bits: int, found: dict[tuple[int, int], int]
) -> None:
    for start in range(0, len(members), BLOCK):
        rows = members[start : start + BLOCK]
        distances = np.bitwise_count(hashes[rows][:, None] ^ hashes[members][None, :])
        for one, two in zip(*np.nonzero(distances <= bits), strict=True):
            i, j = int(rows[one]), int(members[two])
            if i < j:
                found[i, j] = int(distances[one, two])
