"""Where one image lies on another, and the figures that say how well: values, apart from the search that finds them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

__all__ = ["Alignment", "Image", "Mask", "Quality"]

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Alignment:
    """Follow-up pixels -> baseline pixels.

    Args:
        matrix: float64 [2, 3] on (row, column, 1).
        bend: float32 [2, H, W], added to the result in baseline pixels (row, column); None without a B-spline.
        shape: (H, W) of the follow-up.
    """

    matrix: npt.NDArray[np.float64]
    bend: npt.NDArray[np.float32] | None
    shape: tuple[int, int]

    def coordinates(self) -> npt.NDArray[np.float64]:
        """float64 [2, H, W]: where each follow-up pixel lies in the baseline (row, column)."""
        row, column = np.mgrid[: self.shape[0], : self.shape[1]].astype(np.float64)
        out = np.stack([m[0] * row + m[1] * column + m[2] for m in self.matrix])
        return out if self.bend is None else out + self.bend

    def apply(self, image: Image, valid: Mask | None = None) -> tuple[Image, Mask]:
        """Bring an image of the baseline's grid into follow-up coordinates (cubic; 0 outside).

        Returns:
            float32 [H, W], and where it shows something, bool [H, W].
        """
        at = self.coordinates()
        if np.array_equal(at, np.mgrid[: self.shape[0], : self.shape[1]]):
            return image.astype(np.float32), np.ones(self.shape, bool) if valid is None else valid.copy()
        height, width = image.shape
        slack = 0.01  # an optimiser's last digits must not cost a row of pixels
        inside = (at[0] >= -slack) & (at[0] <= height - 1 + slack) & (at[1] >= -slack) & (at[1] <= width - 1 + slack)
        if valid is not None:
            inside &= map_coordinates(valid.astype(np.float32), at, order=1, mode="nearest") > 0.99
        warped = map_coordinates(image.astype(np.float32), at, order=3, mode="nearest", output=np.float32)
        low, high = float(image.min()), float(image.max())
        return np.where(inside, np.clip(warped, low, high), np.float32(0)), inside


@dataclass(frozen=True)
class Quality:
    """How well two images lie over each other; image measures count valid pixels only.

    Args:
        ncc_before: correlation of local detail, -1 to 1, without any alignment.
        ncc_after: with it.
        mi_before: mutual information of the grey values in nats.
        mi_after: with the alignment.
        overlap: share of the follow-up's valid pixels that the baseline shows too.
        turn: rotation in degrees.
        scale: geometric mean of both axes' scale.
        shift: (row, column) in pixels that the image's centre moves.
        displacement: 50th, 95th and 100th percentile in pixels over valid pixels.
        jacobian_min: smallest local change of area; at most 0 is a fold.
        folding: share of pixels that fold.
        absorbed: with a B-spline, the share of the affine map's large differences that it took away; else 0.
        failures: why this alignment must not be used; empty if it may.
    """

    ncc_before: float
    ncc_after: float
    mi_before: float
    mi_after: float
    overlap: float
    turn: float
    scale: float
    shift: tuple[float, float]
    displacement: tuple[float, float, float]
    jacobian_min: float
    folding: float
    absorbed: float
    failures: tuple[str, ...]
