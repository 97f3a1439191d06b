"""Predictions as questions with an answer that is right or wrong: what referral, thresholds and subgroups work on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.resampling import clusters_of
from medcli.evaluation.scores import columns_of, probabilities
from medcli.evaluation.selective import decision_confidence

__all__ = ["Question", "cut_question", "grade_of", "questions_of", "yes_or_no"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """One question on the cases whose answer is known.

    Args:
        name: the label or output; empty where the target is one question.
        rows: int64 [n], which cases of the predictions these are.
        owners: int64 [n], the patient of each case, numbered over all predictions.
        known: whether patients are known; otherwise every case is its own.
        wrong: bool [n], whether the answer is wrong.
        confidence: float64 [n], how sure the answer is.
        truth: bool [n] where it is a yes-or-no question, else None.
        scores: float64 [n], of yes; None where `truth` is.
        threshold: the score at which no becomes yes.
    """

    name: str
    rows: npt.NDArray[np.int64]
    owners: npt.NDArray[np.int64]
    known: bool
    wrong: npt.NDArray[np.bool_]
    confidence: Floats
    truth: npt.NDArray[np.bool_] | None = None
    scores: Floats | None = None
    threshold: float = 0.5

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def clusters(self) -> npt.NDArray[np.int64] | None:
        """`owners`, or None where no patients are known."""
        return self.owners if self.known else None


def yes_or_no(target: Target) -> bool:
    """Whether the target asks yes-or-no questions, so that a threshold on a score answers them."""
    return target.task in {"binary", "multilabel"}


def grade_of(target: Target, cut: str, where: str = "--operating-point") -> int:
    """The place of the grade a cut names, counted from 0: by its name, else by its number.

    Raises:
        UsageProblem: no grades (code `not-for-this-target`), no such grade, or the lowest (code `unknown-class`).
    """
    if target.task != "ordinal":
        raise UsageProblem(
            f"`@>={cut}` cuts grades in two, and this target is {target.task}",
            where=where,
            hint="leave the part from `@` on out" if yes_or_no(target) else None,
            code="not-for-this-target",
        )
    names = target.class_names
    grade = names.index(cut) if cut in names else int(cut) if cut.isascii() and cut.isdigit() else -1
    if not 0 < grade < len(names):
        all_of_them = "all grades are at least that" if grade == 0 else "there is no such grade"
        raise UsageProblem(
            f"`>={cut}` parts no grades: {all_of_them}",
            where=where,
            # Without the sign, which a shell would take for a redirection.
            hint=f"one of {', '.join(f'`@{name}`' for name in names[1:])}",
            code="unknown-class",
        )
    return grade


def cut_question(predictions: Predictions, cut: str) -> Question:
    """Whether the grade is at least that of the cut, as a yes-or-no question; its score is that of all such grades.

    Args:
        predictions: of grades.
        cut: see `grade_of`.

    Raises:
        UsageProblem: as `grade_of`.
    """
    grade = grade_of(predictions.target, cut)
    clusters = clusters_of(predictions.patients, len(predictions))
    known = predictions.labels >= 0
    scores = probabilities(predictions)[known, grade:].sum(axis=1).clip(max=1.0)
    truth = predictions.labels[known] >= grade
    return Question(
        f">={predictions.target.class_names[grade]}",
        np.flatnonzero(known),
        clusters.index[known],
        clusters.known,
        (scores > 0.5) != truth,
        decision_confidence(scores),
        truth,
        scores,
    )


def questions_of(predictions: Predictions, thresholds: Mapping[str, float] | None = None) -> tuple[Question, ...]:
    """Every question with at least one known answer.

    Args:
        predictions: labels and scores.
        thresholds: by label (`""` for a binary target), the score from which on the answer is yes. Without one it is
            yes strictly above 0.5, as everywhere.
    """
    target = predictions.target
    clusters = clusters_of(predictions.patients, len(predictions))
    given = thresholds or {}

    def asked(name: str, known: npt.NDArray[np.bool_], scores: Floats, truth: npt.NDArray[np.bool_]) -> Question:
        edge = given.get(name, 0.5)
        called = scores >= edge if name in given else scores > 0.5
        return Question(
            name,
            np.flatnonzero(known),
            clusters.index[known],
            clusters.known,
            called != truth,
            decision_confidence(scores, edge),
            truth,
            scores,
            edge,
        )

    found = []
    if target.task == "multilabel":
        scores = probabilities(predictions)
        for index, name in enumerate(target.class_names):
            known = ~np.isnan(predictions.labels[:, index])
            truth = predictions.labels[known, index] > 0.5
            found.append(asked(name, known, scores[known, index], truth))
    else:
        for column in columns_of(predictions):
            known = column.labels >= 0
            scores, labels = column.scores[known], column.labels[known]
            if target.task == "binary":
                positive = target.positive
                found.append(asked("", known, scores[:, positive], labels == positive))
                continue
            found.append(
                Question(
                    column.name,
                    np.flatnonzero(known),
                    clusters.index[known],
                    clusters.known,
                    scores.argmax(axis=1) != labels,
                    scores.max(axis=1),
                )
            )
    return tuple(one for one in found if len(one))
