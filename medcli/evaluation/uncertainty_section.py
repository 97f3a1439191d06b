"""What the members of predictions say about doubt: how much there is, of which kind, and which kind finds errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.evaluation.clinical_text import number
from medcli.evaluation.delong import Area, area_under_roc
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.proportions import finite
from medcli.evaluation.questions import Question, questions_of
from medcli.evaluation.render import aligned
from medcli.evaluation.selective import identity_augrc
from medcli.evaluation.uncertainty import CONVENTIONS, MEASURES, Uncertainty, uncertainties

__all__ = ["QuestionDoubt", "UncertaintySection", "uncertainty_section"]

Floats = npt.NDArray[np.float64]

CONFIDENCE = "1 - confidence"
"""What any single model offers: the measures of members are worth their cost where they find more errors than this."""

_MOST_LABELS = 20


@dataclass(frozen=True)
class Doubt:
    """One measure on the cases of one question.

    Args:
        mean: over all of them.
        right: over those answered rightly; NaN without any.
        wrong: over the others.
        area: area under the ROC curve of the measure for finding errors.
        augrc: of the answers, the doubtful ones left out first.
    """

    mean: float
    right: float
    wrong: float
    area: Area
    augrc: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        low, high = self.area.interval
        return {
            "mean": finite(self.mean),
            "mean_right": finite(self.right),
            "mean_wrong": finite(self.wrong),
            "auroc_error": finite(self.area.value),
            "auroc_error_low": finite(low),
            "auroc_error_high": finite(high),
            "augrc": finite(self.augrc),
        }


@dataclass(frozen=True)
class QuestionDoubt:
    """The measures of one question, on its labelled cases.

    Args:
        name: the label or output, or empty.
        n: labelled cases.
        errors: wrong answers.
        measures: `1 - confidence`, then each of `MEASURES`.
        grades: mean standard deviations in grades (total, aleatoric, epistemic); empty unless the classes are ordered.
    """

    name: str
    n: int
    errors: int
    measures: Mapping[str, Doubt]
    grades: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        return {
            "name": self.name,
            "n": self.n,
            "errors": self.errors,
            "measures": {name: doubt.to_dict() for name, doubt in self.measures.items()},
            "grades": dict(self.grades) or None,
        }


@dataclass(frozen=True)
class UncertaintySection:
    """Uncertainty by members, of every question.

    Args:
        members: how many answers each case has.
        weighted: whether they count differently.
        calibrated: how the pooled scores were calibrated; empty for none.
        questions: one per label or output, or one.
    """

    members: int
    weighted: bool
    calibrated: str
    questions: tuple[QuestionDoubt, ...]

    name = "uncertainty"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "members": self.members,
            "weighted": self.weighted,
            "conventions": CONVENTIONS,
            "questions": [one.to_dict() for one in self.questions],
        }

    def text(self, *, verbose: bool, width: int | None = None) -> str:
        """A row per measure; for many labels a row per label."""
        if not self.questions:
            return ""
        own = ", of the members' own scores, which calibration leaves as they are" if self.calibrated else ""
        counts = ", weighted" if self.weighted else ""
        title = f"uncertainty by {self.members} members, passes or views{counts} (natural logarithm{own})"
        if len(self.questions) == 1:
            return f"{title}\n{_measures_table(self.questions[0], width)}"
        text = f"{title}\n{_labels_table(self.questions, width)}"
        if verbose:
            text += "".join(f"\n\n{one.name}\n{_measures_table(one, width)}" for one in self.questions)
        return text


def uncertainty_section(predictions: Predictions) -> UncertaintySection | None:
    """What there is to say about predictions with members; None where they have none or no case is labelled."""
    if predictions.member_logits is None:
        return None
    asked = {one.name: one for one in questions_of(predictions)}
    found = [_doubts(asked[one.name], one) for one in uncertainties(predictions) if one.name in asked]
    if not found:
        return None
    return UncertaintySection(
        len(predictions.member_logits), predictions.member_weights is not None, predictions.calibrated, tuple(found)
    )


def _doubts(question: Question, doubt: Uncertainty) -> QuestionDoubt:
    rows, wrong = question.rows, question.wrong
    count = int(question.owners.max()) + 1
    share = float(wrong.mean())

    def judged(values: Floats) -> Doubt:
        area = area_under_roc(values, wrong, question.owners, count)
        right = float(values[~wrong].mean()) if (~wrong).any() else math.nan
        mistaken = float(values[wrong].mean()) if wrong.any() else math.nan
        return Doubt(float(values.mean()), right, mistaken, area, float(identity_augrc(area.value, share)))

    measures = {CONFIDENCE: judged(1.0 - question.confidence)}
    measures |= {name: judged(doubt.measure(name)[rows]) for name in MEASURES}
    grades = {}
    if doubt.grades is not None:
        kinds = ("total", "aleatoric", "epistemic")
        grades = {kind: float(getattr(doubt.grades, kind)[rows].mean()) for kind in kinds}
    return QuestionDoubt(question.name, len(question), int(wrong.sum()), measures, grades)


def _measures_table(one: QuestionDoubt, width: int | None) -> str:
    rows = [
        [
            name.replace("_", " "),
            number(doubt.mean),
            number(doubt.right),
            number(doubt.wrong),
            _area_text(doubt.area),
            number(doubt.augrc, 4),
        ]
        for name, doubt in one.measures.items()
    ]
    text = aligned(["measure", "mean", "right answers", "wrong answers", "AUROC of errors", "AUGRC"], rows, width=width)
    if one.grades:
        total, own, between = (one.grades[kind] for kind in ("total", "aleatoric", "epistemic"))
        text += (
            f"\nin grades: standard deviation {total:.2f} (every member's own {own:.2f}, between members {between:.2f})"
        )
    return text


def _labels_table(questions: tuple[QuestionDoubt, ...], width: int | None) -> str:
    rows = []
    for one in questions[:_MOST_LABELS]:
        total, between = one.measures["total"], one.measures["epistemic"]
        share = 100 * between.mean / total.mean if total.mean else 0.0
        rows.append(
            [
                one.name,
                number(total.mean),
                f"{share:.1f} %",
                number(one.measures["disagreement"].mean),
                *(_area_text(one.measures[name].area) for name in (CONFIDENCE, "total", "epistemic")),
            ]
        )
    columns = ["", "total", "of it epistemic", "disagreement", "AUROC of errors: confidence", "total", "epistemic"]
    text = aligned(columns, rows, width=width)
    if len(questions) > _MOST_LABELS:
        text += f"\n{len(questions) - _MOST_LABELS} more in the JSON document (`--json`)"
    return text


def _area_text(area: Area) -> str:
    low, high = area.interval
    if math.isnan(area.value):
        return "-"
    return number(area.value) + ("" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]")
