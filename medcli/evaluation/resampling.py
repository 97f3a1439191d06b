"""Bootstrap over patients: which patients a resample holds, and how often, as a matrix of weights.

Images of one patient are not independent, so patients are drawn, never images. Every figure is a function of patient
weights, so that 2,000 resamples cost a few matrix products instead of 2,000 evaluations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from threadpoolctl import ThreadpoolController

__all__ = [
    "Binned",
    "Clusters",
    "RankPlan",
    "Sums",
    "centred_interval",
    "clusters_of",
    "percentile_interval",
    "resample_weights",
]

Floats = npt.NDArray[np.float64]

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


def centred_interval(value: float, draws: Floats, *, floor: float = -np.inf) -> tuple[float, float, int]:
    """As `percentile_interval`, for a figure that resampling inflates, such as a calibration error close to zero.

    Drawing with replacement adds noise, which an absolute gap counts as error: plain percentiles can lie wholly above
    the estimate. The draws are moved by their bias (mean minus estimate), and nothing falls below `floor`.
    """
    defined = draws[np.isfinite(draws)]
    if len(defined) < 2:
        return percentile_interval(draws)
    low, high, failed = percentile_interval(draws - (defined.mean() - value))
    return max(low, floor), max(high, floor), failed


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
        return area, average


def _counts(rows: npt.NDArray[Any], columns: npt.NDArray[Any], shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
