"""What happens when the cases a model is least sure of are left to a reader: risk against coverage.

Published figures depend on conventions and on the order of equal confidences; here a curve has one point per distinct
confidence, so equal cases are kept or left together and no order matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

__all__ = [
    "RiskCoverage",
    "best_aurc",
    "decision_confidence",
    "expected_aurc",
    "identity_augrc",
    "risk_coverage",
    "spearman_of_errors",
]

Floats = npt.NDArray[np.float64]


def decision_confidence(scores: npt.ArrayLike, threshold: float = 0.5) -> Floats:
    """How sure a yes-or-no decision at a threshold is, in 0.5 to 1; at 0.5 it is the score of the answer given.

    Elsewhere it is what that score would be if the log-odds were shifted to put the threshold at 0.5.

    Args:
        scores: [n], of the positive answer.
        threshold: a score from which on the answer is yes.
    """
    values = np.asarray(scores, dtype=np.float64)
    if threshold == 0.5:
        return np.maximum(values, 1.0 - values)
    with np.errstate(divide="ignore"):
        own = np.log(values) - np.log1p(-values)
        edge = np.log(threshold) - np.log1p(-threshold) if 0 < threshold < 1 else np.inf * np.sign(threshold - 0.5)
    apart = np.where(np.isinf(own) & np.isinf(edge) & (own == edge), 0.0, np.abs(own - edge))
    result: Floats = 1.0 / (1.0 + np.exp(-apart))
    return result


@dataclass(frozen=True)
class RiskCoverage:
    """Cases kept and errors among them, from the strictest confidence threshold to the loosest.

    Args:
        thresholds: distinct confidences, falling; cases with at least this confidence are kept.
        kept: cases kept.
        errors: errors among them.
    """

    thresholds: Floats
    kept: npt.NDArray[np.int64]
    errors: npt.NDArray[np.int64]

    @property
    def n(self) -> int:
        """All cases."""
        return int(self.kept[-1]) if len(self.kept) else 0

    @cached_property
    def coverage(self) -> Floats:
        """Share of cases kept."""
        result: Floats = self.kept / max(1, self.n)
        return result

    @cached_property
    def risk(self) -> Floats:
        """Share of errors among the cases kept."""
        result: Floats = self.errors / self.kept
        return result

    @property
    def augrc(self) -> float:
        """Area under the generalised risk (errors kept over all cases) against coverage.

        Straight lines join the points, which is what any order of equal cases has on average.
        """
        if not self.n:
            return math.nan
        return _trapezoid(np.append(0.0, self.coverage), np.append(0.0, self.errors / self.n))

    @property
    def aurc_trapezoid(self) -> float:
        """Area under risk against coverage by trapezoids, the first risk held down to coverage 0 (fd-shifts).

        It depends on ties: rounding the confidences may lower it.
        """
        if not self.n:
            return math.nan
        return _trapezoid(np.append(0.0, self.coverage), np.append(self.risk[:1], self.risk))

    def at_risk(self, limit: float) -> int:
        """The loosest threshold whose risk is at most `limit`, as an index; -1 where no threshold is."""
        fitting = np.flatnonzero(self.risk <= limit)
        return int(fitting[-1]) if len(fitting) else -1

    def referring(self, share: float) -> int:
        """The loosest threshold that leaves at least this share to a reader, as an index; -1 where it leaves all."""
        # Counted, because 1 - 0.2 is no 0.8 in binary.
        fitting = np.flatnonzero(self.n - self.kept >= share * self.n - 1e-9)
        return int(fitting[-1]) if len(fitting) else -1

    def at_coverage(self, share: float) -> int:
        """The strictest threshold that keeps at least this share, as an index; -1 without cases."""
        fitting = np.flatnonzero(self.kept >= share * self.n - 1e-9)
        return int(fitting[0]) if len(fitting) else -1

    def points(self, most: int = 101) -> list[dict[str, float]]:
        """At most so many points of the curve for a plot, evenly spread over coverage."""
        wanted = np.searchsorted(self.coverage, np.linspace(0.0, 1.0, most))
        chosen = np.unique(np.minimum(wanted, len(self.kept) - 1)).tolist() if len(self.kept) else []
        return [
            {
                "coverage": float(self.coverage[index]),
                "risk": float(self.risk[index]),
                "threshold": float(self.thresholds[index]),
            }
            for index in chosen
        ]


def risk_coverage(confidence: npt.ArrayLike, wrong: npt.ArrayLike) -> RiskCoverage:
    """The curve of confidences [n] and errors [n] (bool)."""
    values, errors = np.asarray(confidence, dtype=np.float64), np.asarray(wrong, dtype=bool)
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(values) else np.zeros(0, np.int64)
    return RiskCoverage(ordered[last], (last + 1).astype(np.int64), np.cumsum(errors[order])[last].astype(np.int64))


def expected_aurc(curve: RiskCoverage) -> float:
    """Mean risk over the n prefixes of the ranking, averaged over the orders of equal cases."""
    if not curve.n:
        return math.nan
    harmonic = np.append(0.0, np.cumsum(1.0 / np.arange(1, curve.n + 1)))
    before = np.append(0, curve.kept[:-1])
    earlier = np.append(0, curve.errors[:-1])
    share = (curve.errors - earlier) / (curve.kept - before)
    # The j-th of a group of equal cases has the expected risk (earlier + j share) / (before + j).
    sums = share * (curve.kept - before) + (earlier - before * share) * (harmonic[curve.kept] - harmonic[before])
    return float(sums.sum() / curve.n)


def spearman_of_errors(confidence: npt.ArrayLike, wrong: npt.ArrayLike) -> tuple[float, float]:
    """Rank correlation of uncertainty with being wrong, and its two-sided p for independent cases; else NaN."""
    doubt, errors = -np.asarray(confidence, dtype=np.float64), np.asarray(wrong, dtype=np.float64)
    if len(doubt) < 3 or np.ptp(doubt) == 0 or np.ptp(errors) == 0:
        return math.nan, math.nan
    found = spearmanr(doubt, errors)
    return float(found.statistic), float(found.pvalue)


def identity_augrc(auroc: npt.ArrayLike, wrong: npt.ArrayLike) -> Floats:
    """AUGRC from the AUROC of errors and their share: (1 - AUROC) acc err + err² / 2, exactly, ties or none.

    Without errors, or with nothing else, the AUROC is undefined and its term 0.
    """
    share = np.asarray(wrong, dtype=np.float64)
    product = share * (1.0 - share)
    result: Floats = np.where(product > 0, (1.0 - np.asarray(auroc)) * product, 0.0) + share**2 / 2
    return result


def best_aurc(wrong: float) -> float:
    """The AUROC-perfect ranking's area: err + (1 - err) ln(1 - err); what E-AURC is the excess over."""
    return wrong + (1 - wrong) * math.log1p(-wrong) if wrong < 1 else 1.0


def _trapezoid(x: Floats, y: Floats) -> float:
    return float(((x[1:] - x[:-1]) * (y[1:] + y[:-1])).sum() / 2)
