"""Shares with intervals that stay honest at 0 and 1, and where several cases belong to one patient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

__all__ = ["Proportion", "clopper_pearson", "effective_size", "finite", "proportion"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Proportion:
    """A share of cases.

    Args:
        value: the share; NaN without cases.
        low: lower end of the interval.
        high: upper end.
        count: cases that count.
        n: cases in all.
    """

    value: float
    low: float
    high: float
    count: int
    n: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        return {
            "value": finite(self.value),
            "low": finite(self.low),
            "high": finite(self.high),
            "count": self.count,
            "n": self.n,
        }


def finite(value: float) -> float | None:
    """A number for JSON, which knows neither NaN nor infinity."""
    return float(value) if math.isfinite(value) else None


def clopper_pearson(count: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a binomial share; (NaN, NaN) without cases.

    Fractions are welcome: an effective number of cases is rarely whole.
    """
    if not n > 0:
        return math.nan, math.nan
    tail = (1.0 - level) / 2
    low = float(beta.ppf(tail, count, n - count + 1)) if count > 0 else 0.0
    high = float(beta.ppf(1.0 - tail, count + 1, n - count)) if count < n else 1.0
    return low, high


def effective_size(happened: npt.ArrayLike, clusters: npt.NDArray[np.int64] | None) -> float:
    """How many independent cases would tell as much about a share as these do.

    The variance is that of a ratio of patients' totals (Korn and Graubard, Survey Methodology 24:193, 1998). It cannot
    be estimated from a share of 0 or 1, and there each patient counts once.

    Args:
        happened: bool [n].
        clusters: int64 [n], the patient of each case, or None where each case is its own.
    """
    events = np.asarray(happened, dtype=np.float64)
    n = len(events)
    if clusters is None or n == 0:
        return float(n)
    _, index = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(index.reshape(-1)).astype(np.float64)
    patients = len(sizes)
    if patients == n:
        return float(n)
    share = events.mean()
    if share in (0.0, 1.0) or patients < 2:
        return float(patients)
    excess = np.bincount(index.reshape(-1), weights=events) - share * sizes
    variance = patients / (patients - 1) * float((excess**2).sum()) / n**2
    return float(min(n, share * (1 - share) / variance)) if variance > 0 else float(n)


def proportion(happened: npt.ArrayLike, clusters: npt.NDArray[np.int64] | None, level: float = 0.95) -> Proportion:
    """The share of events [n] (bool) with its Clopper–Pearson interval.

    Where patients repeat, the interval is that of as many independent cases as tell the same (`effective_size`).
    """
    events = np.asarray(happened, dtype=bool)
    n, count = len(events), int(events.sum())
    if not n:
        return Proportion(math.nan, math.nan, math.nan, 0, 0)
    size = effective_size(events, clusters)
    low, high = clopper_pearson(count / n * size, size, level)
    return Proportion(count / n, low, high, count, n)
