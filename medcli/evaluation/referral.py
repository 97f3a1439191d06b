"""Referral tables: what leaving the least sure cases to a reader would change, with honest bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from medcli.errors import UsageProblem
from medcli.evaluation.delong import Area, area_under_roc
from medcli.evaluation.discrimination import average_precision
from medcli.evaluation.proportions import Proportion, finite, proportion
from medcli.evaluation.questions import Question
from medcli.evaluation.selective import (
    RiskCoverage,
    best_aurc,
    expected_aurc,
    identity_augrc,
    risk_coverage,
    spearman_of_errors,
)

__all__ = [
    "CONVENTIONS",
    "SHARES",
    "Deferral",
    "Referral",
    "Selective",
    "cost_threshold",
    "parse_deferral",
    "referral_at",
    "selective",
]

Floats = npt.NDArray[np.float64]
Way = Literal["below", "budget", "cost"]

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of cases referred in the table."""

RISKS = (0.01, 0.02, 0.05, 0.1)
COVERAGES = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)

CONVENTIONS = {
    "augrc": "area under (errors kept / all cases) against coverage, equal confidences together; equals "
    "(1 - AUROC of errors) acc err + err²/2",
    "e_augrc": "augrc minus that of a ranking with all errors last, err²/2",
    "aurc": "mean risk of the n prefixes of the ranking, averaged over the orders of equal confidences (Geifman)",
    "aurc_trapezoid": "trapezoids over distinct confidences, the first risk held down to coverage 0 (fd-shifts); "
    "depends on ties",
    "e_aurc": "aurc minus err + (1 - err) ln(1 - err) (Geifman)",
    "auroc_error": "area under the ROC curve of uncertainty for finding errors; interval by DeLong, by patient where "
    "patients repeat",
    "aupr_error": "average precision of uncertainty for finding errors; by chance it is the share of errors",
    "spearman": "rank correlation of uncertainty with being wrong; where patients repeat, p is that of an auroc_error "
    "of 0.5",
    "coverage_at_risk": "largest share kept whose errors are at most this share, equal confidences together; 0 where "
    "none is",
    "bounds": "Clopper–Pearson, 95 %, of as many independent cases as tell the same where patients repeat; for one "
    "threshold fixed beforehand",
}


@dataclass(frozen=True)
class Referral:
    """Cases kept at one confidence threshold, and what is in them.

    Args:
        share: the share that was to be referred; NaN where a threshold was given.
        threshold: cases with at least this confidence are kept; infinite where none is.
        risk: errors among the cases kept, with exact bounds.
        kept_patients: patients all of whose cases are kept, or None where none are known.
        sensitivity: among the cases kept; None unless it is a yes-or-no question.
        specificity: among the cases kept.
        found: positives called positive or referred, among all positives: the sensitivity of the model together with a
            reader who overlooks nothing.
        missed: positives kept and called negative.
        missed_patients: patients with such a case, or None where no patients are known.
        n: all cases.
    """

    share: float
    threshold: float
    risk: Proportion
    kept_patients: int | None
    sensitivity: Proportion | None
    specificity: Proportion | None
    found: Proportion | None
    missed: int
    missed_patients: int | None
    n: int

    @property
    def referred(self) -> float:
        """Share of cases referred: at least what was asked, as equal confidences go together."""
        return 1 - self.risk.n / self.n

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        yes = {} if self.sensitivity is None or self.specificity is None or self.found is None else {
            "sensitivity": self.sensitivity.to_dict(),
            "specificity": self.specificity.to_dict(),
            "found_or_referred": self.found.to_dict(),
            "missed": self.missed,
            "missed_patients": self.missed_patients,
        }  # fmt: skip
        return {
            "wanted": finite(self.share),
            "referred": self.referred,
            "threshold": finite(self.threshold),
            "kept": self.risk.n,
            "kept_patients": self.kept_patients,
            "risk": self.risk.to_dict(),
            **yes,
        }


def referral_at(question: Question, threshold: float, share: float = math.nan) -> Referral:
    """Keep the cases of at least this confidence."""
    kept = question.confidence >= threshold
    clusters = question.clusters

    def among(happened: npt.NDArray[np.bool_], rows: npt.NDArray[np.bool_]) -> Proportion:
        return proportion(happened[rows], None if clusters is None else clusters[rows])

    sensitivity = specificity = found = None
    missed = np.zeros(len(kept), dtype=bool)
    if question.truth is not None:
        right = ~question.wrong
        sensitivity, specificity = among(right, kept & question.truth), among(right, kept & ~question.truth)
        missed = kept & question.truth & question.wrong
        found = among(~missed, question.truth)
    whole = None
    if clusters is not None:
        whole = len(np.unique(clusters)) - len(np.unique(clusters[~kept]))
    return Referral(
        share,
        threshold,
        among(question.wrong, kept),
        whole,
        sensitivity,
        specificity,
        found,
        int(missed.sum()),
        None if clusters is None else len(np.unique(clusters[missed])),
        len(question),
    )


@dataclass(frozen=True)
class Deferral:
    """A rule for what goes to a reader: below a confidence, a share of the cases, or what costs least.

    Args:
        kind: `below` (a confidence), `budget` (a share), `cost` (of an error and of a reading).
        value: the confidence, the share, or what an error costs.
        reading: for `cost`, what a reading costs.
    """

    kind: Way
    value: float
    reading: float = 0.0

    @property
    def learns(self) -> bool:
        """Whether its threshold is chosen by looking at errors, so that other cases must choose it."""
        return self.kind == "cost"

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}" + (f":{self.reading:g}" if self.kind == "cost" else "")

    def threshold(self, question: Question) -> float:
        """The confidence from which on a case is kept, chosen on these cases."""
        if self.kind == "below":
            return self.value
        curve = risk_coverage(question.confidence, question.wrong)
        if self.kind == "cost":
            return cost_threshold(curve, self.value, self.reading)
        return _threshold(curve, curve.referring(self.value))


def parse_deferral(text: str, where: str = "--defer") -> Deferral:
    """Read `below=0.7`, `budget=0.2` or `cost=100:2`.

    Raises:
        UsageProblem: it is none of these.
    """
    kind, _, rest = text.partition("=")
    numbers = []
    for part in rest.split(":"):
        try:
            numbers.append(float(part))
        except ValueError:
            numbers.append(math.nan)
    wanted = 2 if kind == "cost" else 1
    fine = (
        kind in get_args(Way)
        and len(numbers) == wanted
        and all(number >= 0 and math.isfinite(number) for number in numbers)
    )
    if not fine or (kind != "cost" and numbers[0] > 1) or (kind == "cost" and not numbers[0] > 0):
        raise UsageProblem(
            f"`{text}` says not what goes to a reader",
            where=where,
            hint=f"`{where} below=0.7` (confidence), `{where} budget=0.2` (share of cases), or "
            f"`{where} cost=100:2` (an error, a reading)",
            code="bad-deferral",
        )
    return Deferral(kind, *numbers)  # type: ignore[arg-type]


def cost_threshold(curve: RiskCoverage, error: float, reading: float) -> float:
    """The confidence from which on keeping a case is cheapest in all; a reader makes no errors here."""
    costs = np.append(curve.errors * error + (curve.n - curve.kept) * reading, curve.n * reading)
    # Of several equally cheap ones, that which keeps most.
    cheapest = np.flatnonzero(costs <= costs.min())
    kept = cheapest[cheapest < len(curve.kept)]
    best = int(kept[-1]) if len(kept) else len(curve.kept)
    return _threshold(curve, best if best < len(curve.kept) else -1)


@dataclass(frozen=True)
class Selective:
    """Selective prediction for one question.

    Args:
        name: the label or output, or empty.
        n: cases with a known answer.
        errors: wrong answers.
        threshold: the score at which no becomes yes; None unless it is a yes-or-no question.
        values: the areas and the correlation by name; see `CONVENTIONS`.
        auroc: the area of errors with its influence.
        table: the referral table.
        coverage_at: risk -> (share kept, its confidence threshold, bounds of the risk there).
        risk_at: coverage -> bounds of the risk there.
        curve: points for a plot.
    """

    name: str
    n: int
    errors: int
    threshold: float | None
    values: dict[str, float]
    auroc: Area
    table: tuple[Referral, ...]
    coverage_at: dict[float, tuple[float, float, Proportion]]
    risk_at: dict[float, Proportion]
    curve: list[dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        low, high = self.auroc.interval
        return {
            "name": self.name,
            "n": self.n,
            "errors": self.errors,
            "threshold": self.threshold,
            **{name: finite(value) for name, value in self.values.items()},
            "auroc_error_low": finite(low),
            "auroc_error_high": finite(high),
            "referral": [row.to_dict() for row in self.table],
            "coverage_at_risk": [
                {"risk": risk, "coverage": coverage, "threshold": finite(threshold), "bounds": bounds.to_dict()}
                for risk, (coverage, threshold, bounds) in self.coverage_at.items()
            ],
            "risk_at_coverage": [
                {"coverage": coverage, "bounds": bounds.to_dict()} for coverage, bounds in self.risk_at.items()
            ],
            "curve": self.curve,
        }


def selective(question: Question, shares: Sequence[float] = SHARES) -> Selective:
    """Everything about leaving cases of one question to a reader."""
    confidence, wrong, clusters = question.confidence, question.wrong, question.clusters
    n, errors = len(question), int(wrong.sum())
    share = errors / n
    count = int(question.owners.max()) + 1
    area = area_under_roc(-confidence, wrong, question.owners, count)
    curve = risk_coverage(confidence, wrong)
    rho, p = spearman_of_errors(confidence, wrong)
    repeated = clusters is not None and len(np.unique(clusters)) < n
    aurc = expected_aurc(curve)
    augrc = float(identity_augrc(area.value, share))
    values = {
        "risk": share,
        "augrc": augrc,
        "e_augrc": augrc - share**2 / 2,
        "aurc": aurc,
        "aurc_trapezoid": curve.aurc_trapezoid,
        "e_aurc": aurc - best_aurc(share),
        "auroc_error": area.value,
        "aupr_error": average_precision(-confidence, wrong),
        "aupr_error_by_chance": share,
        "spearman": rho,
        "spearman_p": area.chance if repeated and not math.isnan(rho) else p,
    }

    def risk_of(index: int) -> Proportion:
        kept = confidence >= _threshold(curve, index)
        return proportion(wrong[kept], None if clusters is None else clusters[kept])

    coverage_at = {}
    for risk in RISKS:
        index = curve.at_risk(risk)
        found = risk_of(index)
        coverage_at[risk] = (found.n / n, _threshold(curve, index), found)
    return Selective(
        question.name,
        n,
        errors,
        None if question.truth is None else question.threshold,
        values,
        area,
        tuple(referral_at(question, _threshold(curve, curve.referring(one)), one) for one in shares),
        coverage_at,
        {one: risk_of(curve.at_coverage(one)) for one in COVERAGES},
        curve.points(),
    )


def _threshold(curve: RiskCoverage, index: int) -> float:
    return float(curve.thresholds[index]) if index >= 0 else math.inf
