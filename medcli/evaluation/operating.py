"""Thresholds chosen on one set of cases and applied, frozen, to another: what a score means at the bedside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from medcli.errors import UsageProblem
from medcli.evaluation.proportions import Proportion, finite, proportion
from medcli.evaluation.questions import Question

__all__ = ["AtPrevalence", "OperatingPoint", "Rule", "choose_threshold", "operating_point", "parse_rule"]

Floats = npt.NDArray[np.float64]
Kind = Literal["sens", "spec", "score"]


@dataclass(frozen=True)
class Rule:
    """How a threshold is found: the highest with this sensitivity, the lowest with this specificity, or itself.

    Args:
        kind: which of these.
        value: the sensitivity, the specificity or the threshold.
        cut: for grades, the lowest that counts as yes: its name, or its place counted from 0; else empty.
    """

    kind: Kind
    value: float
    cut: str = ""

    def __str__(self) -> str:
        return self.aim + (f"@>={self.cut}" if self.cut else "")

    @property
    def aim(self) -> str:
        """The rule without its cut, for where the grades are named beside it."""
        return f"{self.kind}={self.value:g}"


def parse_rule(text: str, where: str = "--operating-point") -> Rule:
    """Read `sens=0.95`, `spec=0.9` or `score=0.3`; for grades with a cut behind it, `sens=0.95@>=2` or `sens=0.95@2`.

    Raises:
        UsageProblem: it is none of these, or no share.
    """
    rule, at, cut = text.partition("@")
    cut = cut.removeprefix(">=").strip()
    kind, _, number = rule.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if kind not in get_args(Kind) or not 0 < value <= 1 or (at and not cut):
        raise UsageProblem(
            f"`{text}` is no operating point",
            where=where,
            hint=f"`{where} sens=0.95`, `{where} spec=0.9`, or `{where} score=0.3` for a threshold of your own; for "
            f"grades `{where} sens=0.95@2`",
            code="bad-operating-point",
        )
    return Rule(kind, value, cut)  # type: ignore[arg-type]


def choose_threshold(scores: npt.ArrayLike, truth: npt.ArrayLike, rule: Rule) -> float:
    """The threshold of a rule on cases [n]; a score of at least this much means yes.

    `sens`: the highest score that so many of the positives reach. `spec`: the lowest observed score (or the next number
    above all) that so many of the negatives stay below. NaN without positives or negatives to choose by.
    """
    if rule.kind == "score":
        return rule.value
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=bool)
    own = np.sort(values[positive] if rule.kind == "sens" else values[~positive])
    if not len(own):
        return math.nan
    # So many at least; 0.95 of 20 is 19 although its binary product is a hair more.
    needed = math.ceil(rule.value * len(own) - 1e-9)
    if rule.kind == "sens":
        return float(own[len(own) - needed])
    above = values[values > own[needed - 1]]
    return float(above.min()) if len(above) else float(np.nextafter(own[-1], math.inf))


@dataclass(frozen=True)
class AtPrevalence:
    """What an answer is worth where so many have the finding.

    Args:
        prevalence: share of those examined who have it.
        ppv: share of those called positive who have it, with the interval (value, low, high).
        npv: share of those called negative who have not.
    """

    prevalence: float
    ppv: tuple[float, float, float]
    npv: tuple[float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        return {
            "prevalence": self.prevalence,
            **{
                name: dict(zip(("value", "low", "high"), map(finite, values), strict=True))
                for name, values in (("ppv", self.ppv), ("npv", self.npv))
            },
        }


@dataclass(frozen=True)
class OperatingPoint:
    """A frozen threshold and what it achieves on cases it was not chosen on.

    Args:
        name: the label, or empty.
        rule: how it was found.
        threshold: a score of at least this means yes; NaN where the other cases could not tell.
        counts: (true positives, false positives, false negatives, true negatives).
        sensitivity: with its interval, as the others.
        specificity: share of those without the finding who are called so.
        ppv: in these cases; at their prevalence.
        npv: in these cases.
        at: what it is worth at other prevalences.
    """

    name: str
    rule: Rule
    threshold: float
    counts: tuple[int, int, int, int]
    sensitivity: Proportion
    specificity: Proportion
    ppv: Proportion
    npv: Proportion
    at: tuple[AtPrevalence, ...]

    @property
    def likelihood_ratios(self) -> tuple[float, float]:
        """(positive, negative); NaN or infinite where counts of 0 make them so."""
        sens, spec = self.sensitivity.value, self.specificity.value
        return _ratio(sens, 1 - spec), _ratio(1 - sens, spec)

    @property
    def odds_ratio(self) -> float:
        """Diagnostic odds ratio."""
        hits, false, missed, right = self.counts
        return _ratio(hits * right, false * missed)

    @property
    def alerts(self) -> float:
        """Calls of a finding per 100 cases."""
        hits, false, *_ = self.counts
        return 100 * _ratio(hits + false, sum(self.counts))

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN and infinity become None."""
        plus, minus = self.likelihood_ratios
        return {
            "name": self.name,
            "rule": str(self.rule),
            "threshold": finite(self.threshold),
            **dict(zip(("true_positives", "false_positives", "missed", "true_negatives"), self.counts, strict=True)),
            **{name: getattr(self, name).to_dict() for name in ("sensitivity", "specificity", "ppv", "npv")},
            "lr_positive": finite(plus),
            "lr_negative": finite(minus),
            "odds_ratio": finite(self.odds_ratio),
            "alerts_per_100": finite(self.alerts),
            "at_prevalence": [one.to_dict() for one in self.at],
        }


def operating_point(
    question: Question, threshold: float, rule: Rule, prevalences: Sequence[float] = ()
) -> OperatingPoint:
    """What a threshold achieves on a yes-or-no question."""
    if question.truth is None or question.scores is None:
        raise ValueError("this is no yes-or-no question")
    truth, clusters = question.truth, question.clusters
    if math.isnan(threshold):
        nothing = Proportion(math.nan, math.nan, math.nan, 0, 0)
        return OperatingPoint(question.name, rule, threshold, (0, 0, 0, 0), nothing, nothing, nothing, nothing, ())
    called = question.scores >= threshold

    def share(happened: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_], level: float = 0.95) -> Proportion:
        return proportion(happened[among], None if clusters is None else clusters[among], level)

    counts = tuple(
        int(np.count_nonzero(cell)) for cell in (called & truth, called & ~truth, ~called & truth, ~called & ~truth)
    )
    # Both shares inside their 97.5 % intervals together have at least 95 %, so what follows from them has too.
    wide = share(called, truth, 0.975), share(~called, ~truth, 0.975)
    return OperatingPoint(
        question.name,
        rule,
        threshold,
        counts,  # type: ignore[arg-type]
        share(called, truth),
        share(~called, ~truth),
        share(truth, called),
        share(~truth, ~called),
        tuple(_at_prevalence(one, *wide) for one in prevalences),
    )


def _at_prevalence(prevalence: float, sens: Proportion, spec: Proportion) -> AtPrevalence:
    def ppv(sensitivity: float, specificity: float) -> float:
        hits = sensitivity * prevalence
        return _ratio(hits, hits + (1 - specificity) * (1 - prevalence))

    def npv(sensitivity: float, specificity: float) -> float:
        right = specificity * (1 - prevalence)
        return _ratio(right, right + (1 - sensitivity) * prevalence)

    found = []
    for worth in (ppv, npv):
        # Both grow with both shares.
        pairs = ((sens.value, spec.value), (sens.low, spec.low), (sens.high, spec.high))
        found.append(tuple(worth(*pair) for pair in pairs))
    return AtPrevalence(prevalence, found[0], found[1])  # type: ignore[arg-type]


def _ratio(over: float, under: float) -> float:
    if math.isnan(over) or math.isnan(under):
        return math.nan
    return over / under if under else (math.inf if over else math.nan)
