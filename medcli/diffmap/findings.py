"""From a map on its model's square to findings in the later image's own pixels, in millimetres, and by side.

A reader looks for a finding in the file that was given, never in a network's square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from medcli.diffmap.components import Component, components
from medcli.diffmap.scaling import resized

__all__ = ["SIDES", "Finding", "Grid", "Limits", "findings_of"]

Image = npt.NDArray[np.float32]
Side = Literal["right", "left", "midline"]
MIDDLE = 0.025  # share of the width on either side of the middle line that belongs to neither side
SIDES = (
    "of the patient, who faces the reader: the left half of the picture is the patient's right side; `midline` is the "
    "middle 5% of its width. Taken from the picture's middle line, not from the spine"
)


@dataclass(frozen=True)
class Limits:
    """What of a map is shown and counted.

    Args:
        threshold: pixels of findings have at least this |value|.
        min_area: of a finding, in pixels of the map as the model makes it.
        dead_zone: |value| below which nothing is coloured.
        source: where the threshold comes from, in words.
    """

    threshold: float
    min_area: int
    dead_zone: float
    source: str


@dataclass(frozen=True)
class Grid:
    """How the model's square lies over the follow-up's own pixels: the long side fills it, the rest is padding.

    Args:
        size: side of the square.
        shape: (height, width) of the follow-up's file.
    """

    size: int
    shape: tuple[int, int]

    @property
    def inner(self) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the picture within the square, as `medcli.data.resize` pads it."""
        scale = self.size / max(self.shape)
        height, width = (max(1, round(length * scale)) for length in self.shape)
        return (self.size - height) // 2, (self.size - width) // 2, height, width

    @property
    def steps(self) -> tuple[float, float]:
        """File pixels per pixel of the square (row, column)."""
        _, _, height, width = self.inner
        return self.shape[0] / height, self.shape[1] / width

    def area(self, pixels: int) -> float:
        """So many pixels of the square in pixels of the file."""
        down, across = self.steps
        return pixels * down * across

    def crop(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The picture without its padding."""
        top, left, height, width = self.inner
        return values[top : top + height, left : left + width]

    def to_file(self, row: float, column: float) -> tuple[float, float]:
        """A place in the square as a place in the file; the middle of the first pixel is (0, 0) in both."""
        top, left, _, _ = self.inner
        down, across = self.steps
        return (row + 0.5 - top) * down - 0.5, (column + 0.5 - left) * across - 0.5

    def unfold(self, values: Image, shape: tuple[int, int] | None = None) -> Image:
        """A map of the square at the file's own size or another (float32 [H, W], bilinear); NaN stays NaN."""
        shape = self.shape if shape is None else shape
        inner = np.ascontiguousarray(self.crop(values), dtype=np.float32)
        if inner.shape == shape:
            return inner
        known = np.isfinite(inner)
        grown, seen = (resized(layer.astype(np.float32), shape) for layer in (np.where(known, inner, 0), known))
        return np.where(seen > 0.99, grown, np.float32("nan")).astype(np.float32)


@dataclass(frozen=True)
class Finding:
    """One place where something changed, in the follow-up's own pixels.

    Args:
        id: from 1, the strongest first; the number in the pictures.
        sign: 1 new or denser, -1 gone or less dense.
        area_px: in pixels of the file.
        area_mm2: None where the file does not say how large a pixel is.
        centroid: (row, column), the middle of the first pixel being (0, 0).
        box: (top, left, bottom, right) in pixels, the last two exclusive.
        peak: the value furthest from 0.
        mean: the mean value.
        side: of the patient, see `SIDES`; None for other than frontal views.
        component: the same on the model's square.
    """

    id: int
    sign: Literal[1, -1]
    area_px: int
    area_mm2: float | None
    centroid: tuple[float, float]
    box: tuple[int, int, int, int]
    peak: float
    mean: float
    side: Side | None
    component: Component


def findings_of(
    values: Image,
    grid: Grid,
    limits: Limits,
    *,
    spacing: tuple[float, float] | None = None,
    mirrored: bool = False,
    frontal: bool = True,
) -> tuple[Finding, ...]:
    """Findings of a map, the strongest first.

    Args:
        values: float32 [S, S] on the square, NaN where nothing is known.
        grid: of the follow-up.
        limits: what counts.
        spacing: mm per pixel of the follow-up's file (row, column), or None.
        mirrored: whether the header says that rows run to the patient's right.
        frontal: whether the view has a left and a right side.
    """
    height, width = grid.shape
    found = []
    for number, part in enumerate(components(values, limits.threshold, limits.min_area), 1):
        pixels = grid.area(part.area)
        row, column = grid.to_file(*part.centroid)
        top, left = grid.to_file(part.box[0] - 0.5, part.box[1] - 0.5)
        bottom, right = grid.to_file(part.box[2] - 0.5, part.box[3] - 0.5)
        found.append(
            Finding(
                number,
                part.sign,
                max(1, round(pixels)),
                None if spacing is None else pixels * spacing[0] * spacing[1],
                (row, column),
                (
                    max(0, round(top + 0.5)),
                    max(0, round(left + 0.5)),
                    min(height, round(bottom + 0.5)),
                    min(width, round(right + 0.5)),
                ),
                part.peak,
                part.mean,
                _side(column, width, mirrored) if frontal else None,
                part,
            )
        )
    return tuple(found)


def _side(column: float, width: int, mirrored: bool) -> Side:
    place = (column + 0.5) / width - 0.5
    if abs(place) < MIDDLE:
        return "midline"
    return "right" if (place < 0) != mirrored else "left"
