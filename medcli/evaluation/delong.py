"""Intervals and comparisons of areas under the ROC curve from placements, without resampling.

DeLong's variance takes cases for independent. Where patients repeat, placements are first summed per patient, as
Obuchowski (Biometrics 53:567, 1997) does; with one case per patient the two are the same number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from medcli.evaluation.proportions import finite

__all__ = ["Area", "AreaDifference", "area_under_roc", "compare_areas", "holm", "mean_area"]

Floats = npt.NDArray[np.float64]

_Z = float(norm.ppf(0.975))


@dataclass(frozen=True)
class Area:
    """An area under the ROC curve.

    Args:
        value: the area; NaN unless both classes occur.
        influence: [patients], what each patient moves it by; their squares add up to its variance.
        defined: whether there are enough patients of both kinds (two) for a variance.
    """

    value: float
    influence: Floats
    defined: bool

    @property
    def error(self) -> float:
        """Standard error; NaN where there is none."""
        return math.sqrt(float((self.influence**2).sum())) if self.defined else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval, cut at 0 and 1."""
        reach = _Z * self.error
        if math.isnan(reach):
            return math.nan, math.nan
        return max(0.0, self.value - reach), min(1.0, self.value + reach)

    @property
    def chance(self) -> float:
        """Two-sided p of an area of 0.5."""
        return _p(self.value - 0.5, self.error)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        low, high = self.interval
        return {"value": finite(self.value), "low": finite(low), "high": finite(high), "error": finite(self.error)}


def area_under_roc(
    scores: npt.ArrayLike, positive: npt.ArrayLike, clusters: npt.NDArray[np.int64] | None = None, count: int = 0
) -> Area:
    """The area of scores [n] for truths [n] (bool), ties half, with every patient's influence on it.

    Args:
        scores: higher means more likely positive.
        positive: the truth.
        clusters: the patient of each case, 0..count-1; None where each case is its own.
        count: number of patients, of whom some may have no case here.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if clusters is None:
        clusters, count = np.arange(len(values)), len(values)
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return Area(math.nan, np.zeros(count), False)
    ranks = rankdata(values)
    # The share of negatives below each positive, and of positives above each negative, ties half.
    below = (ranks[truth] - rankdata(values[truth])) / negatives
    above = 1.0 - (ranks[~truth] - rankdata(values[~truth])) / positives
    area = float(below.mean())
    influence = np.zeros(count)
    defined = True
    for owners, placement in ((clusters[truth], below), (clusters[~truth], above)):
        patients = len(np.unique(owners))
        defined = defined and patients > 1
        scale = math.sqrt(patients / max(1, patients - 1)) / len(placement)
        influence += scale * np.bincount(owners, weights=placement - area, minlength=count)
    return Area(area, influence, defined)


def mean_area(areas: Sequence[Area]) -> Area:
    """The unweighted mean of areas of the same patients, undefined where one of them is."""
    influence = np.mean([one.influence for one in areas], axis=0)
    return Area(float(np.mean([one.value for one in areas])), influence, all(one.defined for one in areas))


@dataclass(frozen=True)
class AreaDifference:
    """The second area minus the first, of the same patients.

    Args:
        value: the difference.
        low: lower end of its 95 % interval; NaN where there is none.
        high: upper end.
        z: difference over its standard error.
        p: two-sided.
    """

    value: float
    low: float
    high: float
    z: float
    p: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        return {name: finite(getattr(self, name)) for name in ("value", "low", "high", "z", "p")}


def compare_areas(first: Area, second: Area) -> AreaDifference:
    """Second minus first; what the two have in common is taken into account."""
    value = second.value - first.value
    if not (first.defined and second.defined):
        return AreaDifference(value, math.nan, math.nan, math.nan, math.nan)
    error = math.sqrt(float(((second.influence - first.influence) ** 2).sum()))
    z = value / error if error else (0.0 if not value else math.copysign(math.inf, value))
    return AreaDifference(value, value - _Z * error, value + _Z * error, z, _p(value, error))


def holm(values: Sequence[float]) -> list[float]:
    """p values adjusted for being many (Holm); NaN stays and is not counted."""
    known = sorted((value, index) for index, value in enumerate(values) if not math.isnan(value))
    result = [math.nan] * len(values)
    highest = 0.0
    for place, (value, index) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - place)))
        result[index] = highest
    return result


def _p(value: float, error: float) -> float:
    if math.isnan(value) or math.isnan(error):
        return math.nan
    if not error:
        return 0.0 if value else 1.0
    return float(2 * norm.sf(abs(value / error)))
