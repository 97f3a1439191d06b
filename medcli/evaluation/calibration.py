"""How far scores may be taken at their word: calibration errors, Brier score, likelihood.

Published tools disagree on bins, edges and what happens at a confidence of exactly 1; every choice made here is stated
where it is made, and golden values fix them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Reliability", "assign_bins", "brier_terms", "nll_terms", "reliability"]

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
