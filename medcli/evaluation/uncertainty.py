"""How unsure several answers to one question are, and how much of that is their disagreement.

Depeweg et al. (ICML 2018): the entropy of the mean score (total) is the mean of the members' own entropies (aleatoric:
every member finds the case hard) plus the mutual information of answer and member (epistemic: they differ). Natural
logarithms throughout. It works on any predictions that hold `member_logits`, whatever made them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.evaluation.members import member_scores, weights_of
from medcli.evaluation.predictions import Predictions

__all__ = ["CONVENTIONS", "MEASURES", "Grades", "Uncertainty", "doubts_of", "uncertainties", "uncertainty_of"]

Floats = npt.NDArray[np.float64]

MEASURES = ("total", "aleatoric", "epistemic", "std", "variation_ratio", "disagreement")
"""Measures by which cases can be ranked, each an attribute of `Uncertainty`."""

CONVENTIONS = {
    "total": "entropy of the mean score, natural logarithm",
    "aleatoric": "mean entropy of the members' own scores",
    "epistemic": "total minus aleatoric: mutual information of the answer and the member; 0 where all agree",
    "std": "standard deviation over the members of the score of the answer given, divided by m, not by m - 1",
    "variance": "square of std",
    "variation_ratio": "share of the votes that the most frequent answer does not have",
    "disagreement": "chance that two different members answer differently",
    "grade": "standard deviation in grades: of the mean score (total), of the members' own scores (aleatoric, root of "
    "the mean variance), of the members' expected grades (epistemic); their squares add up",
}

TINY = 1e-12
CELLS = 4_000_000
"""Most scores that are looked at together, so that memory does not grow with the number of cases."""


@dataclass(frozen=True)
class Grades:
    """Standard deviations in grades, float64 [n] each; total² = aleatoric² + epistemic² (law of total variance)."""

    total: Floats
    aleatoric: Floats
    epistemic: Floats


@dataclass(frozen=True)
class Uncertainty:
    """The uncertainty of one question, for every case [n], labelled or not.

    Args:
        name: the label or output; empty where the target is one question.
        members: how many answers each case has.
        mean: [n, K] mean scores; of a label [n, 2], no and yes.
        class_variance: [n, K] variance of the scores over the members.
        total, aleatoric, epistemic, std, variation_ratio, disagreement: see `CONVENTIONS`.
        grades: the same in grades; None unless the classes are ordered.
    """

    name: str
    members: int
    mean: Floats
    class_variance: Floats
    total: Floats
    aleatoric: Floats
    epistemic: Floats
    std: Floats
    variation_ratio: Floats
    disagreement: Floats
    grades: Grades | None = None

    @property
    def variance(self) -> Floats:
        """[n], of the score of the answer given."""
        result: Floats = self.std**2
        return result

    def measure(self, name: str) -> Floats:
        """One of `MEASURES`."""
        values: Floats = getattr(self, name)
        return values


def uncertainty_of(
    scores: npt.ArrayLike, weights: npt.ArrayLike | None = None, *, name: str = "", ordinal: bool = False
) -> Uncertainty:
    """The uncertainty of members' scores.

    Args:
        scores: [m, n, K], summing to one over the last axis.
        weights: [m], summing to one; None for equal ones.
        name: kept.
        ordinal: whether the classes are grades.

    Raises:
        ValueError: a decomposition that is negative beyond rounding: the scores do not sum to one.
    """
    table = np.asarray(scores, dtype=np.float64)
    members, cases, classes = table.shape
    shares = np.full(members, 1.0 / members) if weights is None else np.asarray(weights, dtype=np.float64)
    step = max(1, CELLS // max(1, members * classes))
    parts = [_some(table[:, first : first + step], shares, ordinal) for first in range(0, cases, step)]
    parts = parts or [_some(table, shares, ordinal)]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    grades = None
    if ordinal:
        grades = Grades(*(joined.pop(f"grade_{kind}") for kind in ("total", "aleatoric", "epistemic")))
    return Uncertainty(name=name, members=members, grades=grades, **joined)


def uncertainties(predictions: Predictions) -> tuple[Uncertainty, ...]:
    """The uncertainty of every question of predictions: one, or one per label or output, in the target's order.

    Calibrated predictions too are looked at through their members' own scores, because a calibrator knows their mean
    alone.

    Raises:
        UsageProblem: there are no members (code `no-members`).
    """
    target, logits = predictions.target, predictions.member_logits
    if logits is None:
        raise UsageProblem(
            "these predictions hold one answer per case, and uncertainty by disagreement needs several",
            where=predictions.data_name or None,
            hint="an ensemble (`medcli ensemble`), `--mc-dropout 30` or `--tta` gives some",
            code="no-members",
        )
    return doubts_of(logits, target, weights_of(predictions))


def doubts_of(
    logits: npt.NDArray[Any], target: Target, weights: npt.ArrayLike | None = None
) -> tuple[Uncertainty, ...]:
    """The uncertainty of every question of a target.

    Args:
        logits: of the members, [m, n, ...] as `Predictions` has them.
        target: what is predicted.
        weights: [m], summing to one; None for equal ones.
    """
    if target.task == "multilabel":
        found = []
        for index, name in enumerate(target.class_names):
            yes = member_scores(logits[..., index], target)
            found.append(uncertainty_of(np.stack([1.0 - yes, yes], axis=-1), weights, name=name))
        return tuple(found)
    if target.task == "multioutput":
        return tuple(
            uncertainty_of(
                member_scores(logits[:, :, index, : len(output.classes)], target),
                weights,
                name=output.name,
                ordinal=output.ordinal,
            )
            for index, output in enumerate(target.outputs)
        )
    return (uncertainty_of(member_scores(logits, target), weights, ordinal=target.task == "ordinal"),)


def _some(table: Floats, weights: Floats, ordinal: bool) -> dict[str, Any]:
    """The fields of `Uncertainty` for some cases [m, n, K]."""
    _, cases, classes = table.shape
    mean: Floats = np.tensordot(weights, table, axes=1)
    total = entr(mean).sum(axis=-1)
    aleatoric = np.tensordot(weights, entr(table).sum(axis=-1), axes=1)
    epistemic = total - aleatoric
    if cases and epistemic.min() < -1e-6:
        raise ValueError("the members' scores do not sum to one")
    # Members that agree leave rounding, of either sign.
    epistemic = np.where(epistemic < TINY, 0.0, epistemic)
    variance = np.tensordot(weights, (table - mean) ** 2, axes=1)
    answer = mean.argmax(axis=-1)
    votes = np.zeros((cases, classes))
    rows = np.arange(cases)
    for one, weight in zip(table.argmax(axis=-1), weights, strict=True):
        votes[rows, one] += weight
    # Of all pairs of different members, weighted by the product of their weights, those that agree.
    pairs = 1.0 - float((weights**2).sum())
    agreeing = (votes**2).sum(axis=1) - float((weights**2).sum())
    disagreement = np.zeros(cases) if pairs < TINY else np.clip(1.0 - agreeing / pairs, 0.0, 1.0)
    found = {
        "mean": mean,
        "class_variance": variance,
        "total": total,
        "aleatoric": aleatoric,
        "epistemic": epistemic,
        "std": np.sqrt(variance[rows, answer]),
        "variation_ratio": np.clip(1.0 - votes.max(axis=1, initial=0.0), 0.0, 1.0),
        "disagreement": np.where(disagreement < TINY, 0.0, disagreement),
    }
    if ordinal:
        found |= _grades(table, weights)
    return found


def _grades(table: Floats, weights: Floats) -> dict[str, Floats]:
    grades = np.arange(table.shape[-1], dtype=np.float64)
    expected = table @ grades
    own = np.maximum(table @ grades**2 - expected**2, 0.0)
    middle = np.tensordot(weights, expected, axes=1)
    between = np.tensordot(weights, (expected - middle) ** 2, axes=1)
    within = np.tensordot(weights, own, axes=1)
    return {
        "grade_total": np.sqrt(within + between),
        "grade_aleatoric": np.sqrt(within),
        "grade_epistemic": np.sqrt(between),
    }
