"""Bootstrap over patients: which patients a resample holds, and how often, as a matrix of weights.

Images of one patient are not independent, so patients are drawn, never images. Every figure is a function of patient
weights, so that 2,000 resamples cost a few matrix products instead of 2,000 evaluations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse
from threadpoolctl import ThreadpoolController

__all__ = [
    "Binned",
    "Clusters",
    "Interval",
    "IntervalKind",
    "RankPlan",
    "Sums",
    "bootstrap_interval",
    "centred_interval",
    "clusters_of",
    "interval_kind",
    "percentile_interval",
    "resample_weights",
]

Floats = npt.NDArray[np.float64]

IntervalKind = Literal["percentile", "centred", "sandwich"]
"""How a 95 % interval came about: the two of `bootstrap_interval`, or the robust errors of a fitted coefficient."""

_BUDGET = 2_000_000
"""Numbers per block of weights (16 MB): large enough for matrix products, small enough for any machine."""

_DENSE = 20_000_000
"""Numbers up to which totals per patient are kept dense (160 MB), because a dense product is several times faster."""


@dataclass(frozen=True)
class Clusters:
    """Who belongs together.

    Args:
        index: int64 [n], the patient of each case, 0..count-1.
        count: number of patients.
        known: whether patients were given; otherwise each case is its own.
    """

    index: npt.NDArray[np.int64]
    count: int
    known: bool


def clusters_of(patients: npt.NDArray[np.str_] | None, n: int) -> Clusters:
    """Patients of n cases; a case without a patient is one of its own.

    Args:
        patients: str [n], `""` where unknown, or None.
        n: number of cases.
    """
    if patients is None:
        return Clusters(np.arange(n, dtype=np.int64), n, False)
    names, inverse = np.unique(patients, return_inverse=True)
    index = inverse.reshape(-1).astype(np.int64)
    count = len(names)
    if count and names[0] == "":
        alone = np.flatnonzero(patients == "")
        index[alone] = count + np.arange(len(alone))
        index -= 1
        count = count - 1 + len(alone)
    return Clusters(index, count, True)


def resample_weights(clusters: Clusters, resamples: int, seed: int) -> Iterator[Floats]:
    """Blocks [patients, r] of how often each patient was drawn; r adds up to `resamples`.

    As many patients as there are, with replacement and without strata: strata by class would hold the mix of classes
    fixed and make accuracy look more certain than it is. The same patients and seed give the same weights.
    """
    generator = np.random.default_rng(seed)
    count = clusters.count
    block = max(1, min(256, _BUDGET // max(1, count)))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = generator.integers(0, count, size=(size, count))
        drawn += (np.arange(size) * count)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=size * count)
        yield np.ascontiguousarray(counts.reshape(size, count).T.astype(np.float64))


def percentile_interval(draws: Floats) -> tuple[float, float, int]:
    """95 % percentile interval of draws [r], and how many were undefined (left out); NaN when under two are left."""
    defined = draws[np.isfinite(draws)]
    failed = len(draws) - len(defined)
    if len(defined) < 2:
        return float("nan"), float("nan"), failed
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high), failed


def centred_interval(
    value: float, draws: Floats, *, floor: float = -np.inf, ceiling: float = np.inf
) -> tuple[float, float, int]:
    """As `percentile_interval`, for a figure that resampling inflates, such as a calibration error close to zero.

    Drawing with replacement adds noise, which an absolute gap counts as error: plain percentiles can lie wholly above
    the estimate. The draws are moved by their bias (mean minus estimate), and nothing falls below `floor` or
    above `ceiling`.
    """
    defined = draws[np.isfinite(draws)]
    if len(defined) < 2:
        return percentile_interval(draws)
    low, high, failed = percentile_interval(draws - (defined.mean() - value))
    return max(low, floor), min(max(high, floor), ceiling), failed


class Interval(NamedTuple):
    """A 95 % interval over resamples.

    Args:
        low: lower end; NaN where there is none.
        high: upper end.
        failed: resamples in which the figure was undefined; they are left out.
        kind: how it came about.
    """

    low: float
    high: float
    failed: int
    kind: IntervalKind


def interval_kind(name: str) -> IntervalKind:
    """The kind of interval a resampled figure has, wherever it is shown.

    Calibration errors over bins (`ece...`, `mce...`) are sums of absolute gaps, which resampling widens: centred. All
    other figures move about their estimate: percentiles.
    """
    return "centred" if name.startswith(("ece", "mce")) else "percentile"


def bootstrap_interval(name: str, value: float, draws: Floats, *, difference: bool = False) -> Interval:
    """The interval of a figure, or of the difference of one figure between two sets of predictions.

    Args:
        name: of the figure, which decides the kind; see `interval_kind`.
        value: the estimate; an undefined one has no interval, whatever some resamples happen to allow.
        draws: [r], NaN where a resample leaves the figure undefined.
        difference: whether value and draws are differences, which may lie below zero.
    """
    kind = interval_kind(name)
    if not len(draws) or np.isnan(value):
        return Interval(float("nan"), float("nan"), 0, kind)
    if kind == "percentile":
        return Interval(*percentile_interval(draws), kind)
    # A calibration error lies between 0 and 1, its change between -1 and 1.
    return Interval(*centred_interval(value, draws, floor=-1.0 if difference else 0.0, ceiling=1.0), kind)


@dataclass(frozen=True)
class Binned:
    """Per-case values that each count in one of several rows.

    Args:
        size: number of rows.
        index: int64 [n], the row of each case.
        values: [n].
    """

    size: int
    index: npt.NDArray[np.int64]
    values: npt.NDArray[Any]


class Sums:
    """Additive figures: named rows of per-case values, added up per patient once, then per resample by one product.

    Args:
        rows: name -> values [n] or [m, n], or `Binned` values.
        clusters: int64 [n], the patient of each case.
        count: number of patients.
    """

    def __init__(
        self, rows: Mapping[str, npt.NDArray[Any] | Binned], clusters: npt.NDArray[np.int64], count: int
    ) -> None:
        self._spans: dict[str, tuple[slice, bool]] = {}
        n = len(clusters)
        belongs = sparse.csr_matrix((np.ones(n), (clusters, np.arange(n))), (count, n))
        parts = []
        start = 0
        for name, values in rows.items():
            if isinstance(values, Binned):
                size, flat = values.size, False
                part = sparse.csr_matrix((values.values.astype(np.float64), (values.index, clusters)), (size, count))
            else:
                table = np.atleast_2d(values).astype(np.float64)
                size, flat = len(table), values.ndim == 1
                part = sparse.csr_matrix((belongs @ table.T).T)
            parts.append(part)
            self._spans[name] = (slice(start, start + size), flat)
            start += size
        totals = sparse.vstack(parts, format="csr")
        self._totals = totals.toarray() if start * count <= _DENSE else totals

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        """Weighted totals for weights [patients, r]: name -> [r] or [m, r]."""
        # Such thin products gain nothing from a second thread, whose waiting costs five times more on busy cores.
        with _blas().limit(limits=1, user_api="blas"):
            sums = np.asarray(self._totals @ weights)
        return {name: sums[span.start] if flat else sums[span] for name, (span, flat) in self._spans.items()}


@cache
def _blas() -> ThreadpoolController:
    """The libraries behind numpy's products; finding them costs milliseconds, so it is done once."""
    return ThreadpoolController()


class RankPlan:
    """Areas under the ROC and precision-recall curves as functions of patient weights.

    The cases are sorted once. Between two neighbouring distinct scores of positives, negatives need only be counted, so
    a resample costs one sparse product and a cumulative sum over the positives' distinct scores.

    Args:
        scores: [n].
        positive: bool [n].
        clusters: int64 [n], the patient of each case.
        count: number of patients.
    """

    def __init__(
        self, scores: npt.NDArray[Any], positive: npt.NDArray[np.bool_], clusters: npt.NDArray[np.int64], count: int
    ) -> None:
        values, place = np.unique(scores[positive], return_inverse=True)
        rows = len(values)
        negative = scores[~positive]
        gap = np.searchsorted(values, negative, side="left")
        tied = np.zeros(len(negative), dtype=bool)
        inside = gap < rows
        tied[inside] = values[gap[inside]] == negative[inside]
        owners = clusters[~positive]
        self._positives = _counts(place.reshape(-1), clusters[positive], (rows, count))
        # One more row for negatives above every positive.
        self._between = _counts(gap[~tied], owners[~tied], (rows + 1, count))
        self._tied = _counts(gap[tied], owners[tied], (rows, count)) if tied.any() else None

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """(AUC, average precision), each [r], for weights [patients, r]; NaN where a class has no weight."""
        area, average, _ = self._areas(weights, prefixes=False)
        return area, average

    def with_prefix_risk(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """As a call, and third the mean share of positives among the n prefixes of the rising ranking.

        With errors as positives and uncertainty as scores that is AURC, averaged over the orders of equal scores.
        Weights must be whole numbers: a case drawn twice stands in the ranking twice.
        """
        return self._areas(weights, prefixes=True)

    def _areas(self, weights: Floats, *, prefixes: bool) -> tuple[Floats, Floats, Floats]:
        hits: Floats = self._positives @ weights
        between: Floats = self._between @ weights
        tied: Floats | None = None if self._tied is None else self._tied @ weights
        below = np.cumsum(between, axis=0)
        negatives = below[-1].copy()
        below = below[:-1]
        half = below
        if tied is not None:
            through = np.cumsum(tied, axis=0)
            negatives += through[-1] if len(through) else 0.0
            below = below + through - tied
            half = below + tied / 2
        positives = hits.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            area = np.einsum("ij,ij->j", hits, half) / (positives * negatives)
            above = positives - np.cumsum(hits, axis=0) + hits
            called = above + (negatives - below)
            precision = np.divide(above, called, out=np.zeros_like(above), where=called > 0)
            average = np.einsum("ij,ij->j", hits, precision) / positives
        average = np.where(negatives > 0, average, np.nan)
        if not prefixes:
            return area, average, np.zeros(0)
        before = (np.cumsum(hits, axis=0) - hits + below).astype(np.int64)
        together = (hits if tied is None else hits + tied).astype(np.int64)
        return area, average, _prefix_risk(hits, before, together, (positives + negatives).astype(np.int64))


def _prefix_risk(
    hits: Floats, before: npt.NDArray[np.int64], together: npt.NDArray[np.int64], total: npt.NDArray[np.int64]
) -> Floats:
    """Mean over the `total` [r] prefixes of the share of hits in them, from groups [m, r] of equal scores.

    A hit at place p is in the prefixes from p on and adds 1/p + ... + 1/total; within a group it stands anywhere with
    equal chance. So only the places of hits are needed, and H(0) + ... + H(k - 1) = k (H(k) - 1).
    """
    harmonic = np.append(0.0, np.cumsum(1.0 / np.arange(1, int(total.max(initial=0)) + 1)))
    sums = np.arange(len(harmonic)) * (harmonic - 1.0)
    mean = np.divide(sums[before + together] - sums[before], together, out=np.zeros_like(hits), where=together > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = (hits.sum(axis=0) * harmonic[total] - np.einsum("ij,ij->j", hits, mean)) / total
    return result


def _counts(rows: npt.NDArray[Any], columns: npt.NDArray[Any], shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
