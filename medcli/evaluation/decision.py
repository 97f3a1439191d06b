"""Decision curves: whether acting on the probabilities does more good than treating everyone, or no one.

A net benefit weighs a false alarm by the odds of the probability at which one acts, so it means something only where
scores are probabilities; the callers ask for calibrated ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.evaluation.proportions import finite
from medcli.evaluation.questions import Question

__all__ = ["CONVENTION", "GRID", "DecisionCurve", "decision_curve"]

Floats = npt.NDArray[np.float64]

GRID: Floats = np.concatenate([[0.001, 0.002, 0.005], np.arange(1, 100) / 100])
"""Probabilities at which one acts: 0.01 to 0.99, and a few below for rare findings."""

CONVENTION = (
    "net benefit: true positives/n - false positives/n x p/(1-p), acting from probability p on; 95 % Wald intervals, "
    "by patient where patients repeat"
)


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefits of one yes-or-no question.

    Args:
        name: the label, or empty.
        n: cases.
        prevalence: share of positives.
        thresholds: [t], probabilities at which one acts.
        model: net benefit [t] of acting on the model.
        treat_all: net benefit [t] of acting always; of acting never it is 0.
        error: standard error [t] of `model`.
        gain_error: standard error [t] of what the model gains over the better of the two.
    """

    name: str
    n: int
    prevalence: float
    thresholds: Floats
    model: Floats
    treat_all: Floats
    error: Floats
    gain_error: Floats

    @property
    def gain(self) -> Floats:
        """Model minus the better of acting always and acting never, [t]."""
        result: Floats = self.model - np.maximum(self.treat_all, 0.0)
        return result

    @property
    def useful(self) -> tuple[float, float]:
        """First and last threshold of the longest stretch where the model surely gains; (NaN, NaN) where none."""
        sure = self.gain - 1.96 * self.gain_error > 0
        edges = np.flatnonzero(np.diff(np.concatenate([[False], sure, [False]]).astype(np.int8)))
        if not len(edges):
            return math.nan, math.nan
        starts, ends = edges[::2], edges[1::2]
        longest = int(np.argmax(ends - starts))
        return float(self.thresholds[starts[longest]]), float(self.thresholds[ends[longest] - 1])

    def at(self, threshold: float) -> int:
        """The index of a threshold of the grid."""
        return int(np.abs(self.thresholds - threshold).argmin())

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        low, high = self.useful
        return {
            "name": self.name,
            "n": self.n,
            "prevalence": self.prevalence,
            "useful": [finite(low), finite(high)],
            "points": [
                {
                    "threshold": float(at),
                    "model": float(model),
                    "low": finite(model - 1.96 * error),
                    "high": finite(model + 1.96 * error),
                    "treat_all": float(everyone),
                    "treat_none": 0.0,
                }
                for at, model, error, everyone in zip(
                    self.thresholds, self.model, self.error, self.treat_all, strict=True
                )
            ],
        }


def decision_curve(question: Question, thresholds: Floats = GRID) -> DecisionCurve:
    """The curve of a yes-or-no question with probabilities for scores.

    Each net benefit is a mean over cases, so its variance is that of patients' totals.
    """
    if question.truth is None or question.scores is None:
        raise ValueError("this is no yes-or-no question")
    scores, truth = question.scores, question.truth
    n = len(truth)
    _, owners = np.unique(question.owners, return_inverse=True)
    owners = owners.reshape(-1)
    patients = int(owners.max()) + 1
    odds = thresholds / (1 - thresholds)
    # A case at place j is called at the first j thresholds.
    place = np.searchsorted(thresholds, scores, side="right")
    hits, false = (_called(owners[rows], place[rows], patients, len(thresholds)) for rows in (truth, ~truth))
    totals = hits - false * odds
    cases = np.bincount(owners, minlength=patients).astype(np.float64)
    sick = np.bincount(owners[truth], minlength=patients).astype(np.float64)
    everyone = sick[:, None] - (cases - sick)[:, None] * odds
    model, treat_all = totals.sum(axis=0) / n, everyone.sum(axis=0) / n
    against = np.where(treat_all > 0, everyone, 0.0)
    return DecisionCurve(
        question.name,
        n,
        float(truth.mean()),
        thresholds,
        model,
        treat_all,
        _error(totals, cases, n),
        _error(totals - against, cases, n),
    )


def _called(owners: npt.NDArray[np.int64], place: npt.NDArray[np.int64], patients: int, size: int) -> Floats:
    """How many cases of each patient are called at each threshold, [patients, t]."""
    cells = np.bincount(owners * (size + 1) + place, minlength=patients * (size + 1)).reshape(patients, size + 1)
    result: Floats = cells[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:].astype(np.float64)
    return result


def _error(totals: Floats, cases: Floats, n: int) -> Floats:
    """Standard error [t] of means whose patients have these totals [patients, t]."""
    patients = len(cases)
    if patients < 2:
        return np.full(totals.shape[1], np.nan)
    excess = totals - np.outer(cases, totals.sum(axis=0) / n)
    result: Floats = np.sqrt(patients / (patients - 1) * (excess**2).sum(axis=0)) / n
    return result
