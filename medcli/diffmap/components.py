"""Findings in a map: connected areas of one sign at or above a threshold, the same for scores and for pictures.

Pixels that touch at an edge or a corner belong together; a positive and a negative pixel never do. NaN is no pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["Component", "components", "least_area"]

Map = npt.NDArray[np.floating]
TOUCHING = np.ones((3, 3), dtype=np.int8)
LEAST_SHARE = 0.001  # of a map's pixels: about the published code's 250 of 512 x 512


@dataclass(frozen=True)
class Component:
    """One connected area.

    Args:
        sign: 1 where the later image is denser (or the map has no signs), -1 where it is less dense.
        mask: bool [H, W], its own pixels.
        area: in pixels.
        centroid: (row, column), of its pixels counted alike.
        box: (top, left, bottom, right) in pixels, the last two exclusive.
        peak: the value furthest from 0, with its sign.
        peak_at: (row, column) of the first such pixel.
        mean: the mean value, with its sign.
    """

    sign: Literal[1, -1]
    mask: npt.NDArray[np.bool_]
    area: int
    centroid: tuple[float, float]
    box: tuple[int, int, int, int]
    peak: float
    peak_at: tuple[int, int]
    mean: float


def least_area(size: int) -> int:
    """The smallest finding in pixels of a map of `size`², where none was asked for: 0.1 % of it, at least 1."""
    return max(1, round(LEAST_SHARE * size * size))


def components(values: Map, threshold: float, min_area: int = 1) -> tuple[Component, ...]:
    """Connected areas where |value| ≥ threshold, the strongest peak first, then the largest, then from the top.

    Args:
        values: [H, W], NaN where nothing is known.
        threshold: above 0.
        min_area: smaller areas are left out, in pixels.
    """
    if not threshold > 0:
        raise ValueError(f"a threshold of {threshold} makes everything a finding")
    known = np.nan_to_num(values, nan=0.0).astype(np.float64)
    found: list[Component] = []
    signs: tuple[Literal[1, -1], ...] = (1, -1)
    for sign in signs:
        strength = sign * known
        labels, _ = ndimage.label(strength >= threshold, structure=TOUCHING)
        for number, box in enumerate(ndimage.find_objects(labels), 1):
            inside = labels[box] == number
            area = int(inside.sum())
            if area < min_area:
                continue
            top, left = box[0].start, box[1].start
            rows, columns = np.nonzero(inside)
            held = strength[box][inside]
            first = int(held.argmax())
            mask = np.zeros(known.shape, dtype=np.bool_)
            mask[box] = inside
            found.append(
                Component(
                    sign,
                    mask,
                    area,
                    (float(rows.mean()) + top, float(columns.mean()) + left),
                    (top, left, box[0].stop, box[1].stop),
                    float(sign * held[first]),
                    (int(rows[first]) + top, int(columns[first]) + left),
                    float(sign * held.mean()),
                )
            )
    return tuple(sorted(found, key=lambda one: (-abs(one.peak), -one.area, one.box)))
