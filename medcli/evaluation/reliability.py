"""What a reliability diagram shows, as numbers: bins, the band that chance alone explains, and a histogram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrik

from medcli.evaluation.calibration import assign_bins

__all__ = ["Bar", "Curve", "chance_ece", "reliability_curve"]

Floats = npt.NDArray[np.float64]

_COLUMNS = 30
"""Columns of the histogram over 0..1."""


@dataclass(frozen=True)
class Bar:
    """One bin that holds cases.

    Args:
        n: cases.
        confidence: their mean confidence.
        events: share of events among them.
        low: lower end of the consistency band: with probabilities as true as they claim, 95 % of samples of this size
            have a share between `low` and `high`.
        high: upper end.
    """

    n: int
    confidence: float
    events: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """The reliability of one question.

    Args:
        bars: bins in rising order.
        histogram: cases in each of 30 columns of equal width over 0..1.
    """

    bars: tuple[Bar, ...]
    histogram: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "bins": [
                {
                    "n": bar.n,
                    "confidence": bar.confidence,
                    "events": bar.events,
                    "consistency_low": bar.low,
                    "consistency_high": bar.high,
                }
                for bar in self.bars
            ],
            "histogram": list(self.histogram),
        }


def reliability_curve(
    confidence: npt.ArrayLike, event: npt.ArrayLike, bins: int, binning: Literal["width", "mass"]
) -> Curve:
    """Bin confidences [n] and compare them with events [n] (bool).

    The band takes the cases of a bin for independent draws with the bin's mean confidence, which is a little wider than
    with their own ones, and too narrow where cases of one patient resemble each other.
    """
    count, mean, share = _table(confidence, event, bins, binning)
    low, high = _quantile(0.025, count, mean), _quantile(0.975, count, mean)
    values = np.asarray(confidence, dtype=np.float64)
    histogram, _ = np.histogram(np.clip(values, 0.0, 1.0), bins=_COLUMNS, range=(0.0, 1.0))
    bars = tuple(
        Bar(int(row[0]), float(row[1]), float(row[2]), float(row[3]), float(row[4]))
        for row in zip(count, mean, share, low, high, strict=True)
    )
    return Curve(bars, tuple(int(column) for column in histogram))


def chance_ece(
    confidence: npt.ArrayLike, bins: int, binning: Literal["width", "mass"], *, seed: int = 0, draws: int = 1000
) -> float:
    """The ECE that 95 % of perfectly calibrated samples with these confidences [n] stay below.

    Events are drawn bin by bin as if their probabilities were the bin's mean confidence, cases independent.
    """
    values = np.asarray(confidence, dtype=np.float64)
    if not len(values):
        return float("nan")
    count, mean, _ = _table(values, np.zeros(len(values)), bins, binning)
    drawn = np.random.default_rng(seed).binomial(count.astype(np.int64), np.clip(mean, 0.0, 1.0), (draws, len(count)))
    errors = np.abs(drawn / count - mean) @ count / count.sum()
    return float(np.quantile(errors, 0.95))


def _table(
    confidence: npt.ArrayLike, event: npt.ArrayLike, bins: int, binning: Literal["width", "mass"]
) -> tuple[Floats, Floats, Floats]:
    values, happened = np.asarray(confidence, dtype=np.float64), np.asarray(event, dtype=np.float64)
    index = assign_bins(values, bins, binning)
    count = np.bincount(index, minlength=bins).astype(np.float64)
    kept = count > 0
    mean = np.bincount(index, weights=values, minlength=bins)[kept] / count[kept]
    share = np.bincount(index, weights=happened, minlength=bins)[kept] / count[kept]
    return count[kept], mean, share


def _quantile(level: float, count: Floats, chance: Floats) -> Floats:
    """Quantiles of the share of events among `count` independent cases: the smallest share whose CDF is `level`."""
    inside = np.clip(chance, 1e-15, 1.0 - 1e-15)
    raw = bdtrik(level, count, inside)
    # Where already no event at all is likelier than the level, the inverse has no value.
    events = np.where(np.isfinite(raw), np.ceil(np.nan_to_num(raw) - 1e-9), 0.0)
    result: Floats = np.clip(events, 0.0, count) / count
    return result
