"""How far scores may be taken at their word: calibration errors, Brier score, likelihood.

Published tools disagree on bins, edges and what happens at a confidence of exactly 1; every choice made here is stated
where it is made, and golden values fix them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft, next_fast_len, rfft

__all__ = ["Reliability", "assign_bins", "brier_terms", "nll_terms", "reliability", "smooth_ece"]

Floats = npt.NDArray[np.float64]

CLIP = 1e-15
"""Smallest probability whose logarithm is taken; how often it was needed is counted."""


def assign_bins(confidence: npt.ArrayLike, bins: int, binning: Literal["width", "mass"]) -> npt.NDArray[np.int64]:
    """The bin of each confidence [n], 0-based.

    `width`: B intervals (lo, hi] of equal width over [0, 1], the first closed at 0, the last at 1. `mass`: sorted and
    cut into B parts as equal as possible (the first n mod B one larger), each cut moved up past equal confidences, so
    that equal values always share a bin and the order of the cases does not matter; parts emptied so are left out.
    """
    values = np.asarray(confidence, dtype=np.float64)
    if binning == "width":
        edges = np.linspace(0.0, 1.0, bins + 1)
        return np.clip(np.searchsorted(edges, values, side="left") - 1, 0, bins - 1).astype(np.int64)
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    ordered = np.sort(values)
    size, larger = divmod(len(values), bins)
    cuts = np.cumsum([size + (part < larger) for part in range(bins)])[:-1]
    cuts = cuts[(cuts > 0) & (cuts < len(values))]
    # The upper edge of a part is the value before its cut; searching for it moves the cut past every equal value.
    upper = np.unique(ordered[cuts - 1])
    return np.searchsorted(upper, values, side="left").astype(np.int64)


_HALVINGS = 10
_NARROWEST = 1e-3
"""How finely the width of the smooth error is searched, and where its search ends."""


@dataclass(frozen=True)
class Reliability:
    """A reliability table over the bins that hold cases.

    Args:
        count: cases per bin (or their weight).
        confidence: mean confidence per bin.
        accuracy: share of events per bin (correct predictions, or positives).
    """

    count: Floats
    confidence: Floats
    accuracy: Floats

    @property
    def gaps(self) -> Floats:
        """|mean confidence - share of events| per bin."""
        result: Floats = np.abs(self.confidence - self.accuracy)
        return result

    @property
    def ece(self) -> float:
        """Expected calibration error: gaps weighted by count. NaN without cases."""
        return float((self.count * self.gaps).sum() / self.count.sum()) if len(self.count) else float("nan")

    @property
    def average(self) -> float:
        """Average calibration error: plain mean of the gaps of the bins that hold cases."""
        return float(self.gaps.mean()) if len(self.count) else float("nan")

    @property
    def debiased(self) -> float:
        """Root of the squared gaps less what chance adds to them (Kumar, Liang and Ma 2019), at least 0.

        A bin of one case, whose chance error cannot be estimated, adds nothing. NaN without cases.
        """
        if not len(self.count):
            return float("nan")
        several = self.count > 1
        count, share = self.count[several], self.accuracy[several]
        squares = (self.confidence[several] - share) ** 2 - share * (1.0 - share) / (count - 1.0)
        return float(np.sqrt(max(0.0, (count * squares).sum() / self.count.sum())))

    def largest(self, minimum: float = 1) -> float:
        """Maximum calibration error over bins with at least `minimum` cases; NaN where no bin has as many."""
        gaps = self.gaps[self.count >= minimum]
        return float(gaps.max()) if len(gaps) else float("nan")


def reliability(
    confidence: npt.ArrayLike, event: npt.ArrayLike, bins: int = 15, binning: Literal["width", "mass"] = "width"
) -> Reliability:
    """Bin confidences [n] and compare them with events [n] (bool)."""
    values = np.asarray(confidence, dtype=np.float64)
    happened = np.asarray(event, dtype=np.float64)
    index = assign_bins(values, bins, binning)
    count = np.bincount(index, minlength=bins).astype(np.float64)
    kept = count > 0
    confidences = np.bincount(index, weights=values, minlength=bins)[kept] / count[kept]
    events = np.bincount(index, weights=happened, minlength=bins)[kept] / count[kept]
    return Reliability(count[kept], confidences, events)


def smooth_ece(confidence: npt.ArrayLike, event: npt.ArrayLike) -> float:
    """Calibration error without bins (Blasiok and Nakkiran 2023), in [0, 1]; NaN without cases.

    The errors confidence - event are smoothed with a Gaussian that is reflected at 0 and 1, and the mean of their
    absolute value is taken. The width is the largest one below the result it leads to. Grid, search and weights are
    those of the authors' package relplot, whose figures these are: the width is found to 1/1024, and the ends of the
    grid weigh as much as its middle, so that the result can fall a little below |mean confidence - share of events|.

    Args:
        confidence: [n] in 0..1.
        event: [n], bool.
    """
    values = np.asarray(confidence, dtype=np.float64)
    if not len(values):
        return float("nan")
    errors = values - np.asarray(event, dtype=np.float64)
    low, high = 1.0, 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle < _NARROWEST or middle < _smoothed_error(values, errors, middle):
            high = middle
        else:
            low = middle
    return _smoothed_error(values, errors, low)


def _smoothed_error(values: Floats, errors: Floats, width: float) -> float:
    points = max(2000, round(20.0 / width)) // 2 + 1
    grid = np.linspace(0.0, 1.0, points)
    cell = np.clip((values * (points - 1)).astype(np.int64), 0, points - 2)
    part = values * (points - 1) - cell
    kernel = np.exp(-((grid - 0.5) ** 2) / (2.0 * width**2)) / (np.sqrt(2.0 * np.pi) * width)
    size = next_fast_len(4 * points, real=True)
    shape = rfft(kernel, size)
    where = np.linspace(0.0, 1.0, max(200, round(10.0 / width)))

    def smooth(weights: Floats) -> Floats:
        mass = np.bincount(cell, weights=weights * (1.0 - part), minlength=points)
        mass += np.bincount(cell + 1, weights=weights * part, minlength=points)
        reflected = np.concatenate([mass[:0:-1], mass, mass[-2::-1]])
        moved = irfft(rfft(reflected, size) * shape, size)[points // 2 + points - 1 :][:points]
        result: Floats = np.interp(where, grid, moved)
        return result

    density = smooth(np.ones_like(values)) + 1e-4
    return float(np.abs(smooth(errors)).sum() / density.sum())


def brier_terms(scores: Floats, labels: npt.NDArray[Any]) -> Floats:
    """Each case's squared distance [n] between scores [n, K] and the one-hot label, summed over the K classes."""
    own = np.take_along_axis(scores, labels[:, None].astype(np.int64), axis=1)[:, 0]
    result: Floats = (scores**2).sum(axis=1) - 2.0 * own + 1.0
    return result


def nll_terms(own: npt.ArrayLike, clip: float = CLIP) -> tuple[Floats, int]:
    """Negative logarithm [n] of the score given to the true class, and how many were raised to `clip` first.

    scikit-learn's `log_loss` clips at 2.2e-16 instead; where confident scores are wrong, the choice decides the mean.
    """
    values = np.asarray(own, dtype=np.float64)
    return -np.log(np.maximum(values, clip)), int((values < clip).sum())
