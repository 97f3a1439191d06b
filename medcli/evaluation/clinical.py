"""What a ward asks of predictions: thresholds, what to refer, whether acting helps, and for whom it works less well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medcli.errors import UsageProblem
from medcli.evaluation.clinical_text import deferral_text, operating_text, subgroup_text
from medcli.evaluation.decision import CONVENTION, DecisionCurve, decision_curve
from medcli.evaluation.decision_text import decision_text
from medcli.evaluation.figures import Section
from medcli.evaluation.operating import OperatingPoint, Rule, choose_threshold, operating_point
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.proportions import finite
from medcli.evaluation.questions import Question, cut_question, grade_of, questions_of, yes_or_no
from medcli.evaluation.referral import CONVENTIONS, Deferral, Referral, Selective, referral_at, selective
from medcli.evaluation.subgroups import Subgroups, subgroups

__all__ = [
    "DecisionSection",
    "Deferred",
    "OperatingSection",
    "Reference",
    "Request",
    "SelectiveSection",
    "SubgroupSection",
    "clinical_sections",
]


@dataclass(frozen=True)
class Reference:
    """The cases thresholds are chosen on.

    Args:
        predictions: of the same model.
        name: how they are called in sentences, such as `val`.
        same: whether they are the very cases that are judged, so that figures are too good.
    """

    predictions: Predictions
    name: str
    same: bool = False


@dataclass(frozen=True)
class Request:
    """What is asked for beyond the referral table.

    Args:
        rules: operating points; the first also decides the answers that are referred and compared.
        reference: the cases thresholds are chosen on; None where no rule needs any.
        prevalences: shares of positives for which PPV and NPV are given.
        deferrals: rules for what goes to a reader.
        groups: column -> its cell for each case.
        frozen: thresholds that are known already, by (label, rule as typed); they need no reference.
        frozen_on: the cases that chose those, for sentences.
    """

    rules: tuple[Rule, ...] = ()
    reference: Reference | None = None
    prevalences: tuple[float, ...] = ()
    deferrals: tuple[Deferral, ...] = ()
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    frozen: Mapping[tuple[str, str], float] = field(default_factory=dict)
    frozen_on: str = ""

    def knows(self, rule: Rule) -> bool:
        """Whether the threshold of a rule needs no other cases."""
        return rule.kind == "score" or any(text == str(rule) for _, text in self.frozen)


@dataclass(frozen=True)
class OperatingSection:
    """Frozen thresholds and what they achieve.

    Args:
        points: one per label and rule.
        chosen_on: the cases that chose the thresholds, or empty where they were given.
        same: whether those are the cases judged.
    """

    points: tuple[OperatingPoint, ...]
    chosen_on: str
    same: bool

    name = "operating_points"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "chosen_on": self.chosen_on or None,
            "chosen_on_these_cases": self.same,
            "points": [point.to_dict() for point in self.points],
        }

    def text(self, *, verbose: bool, width: int | None = None) -> str:
        """A row per label and rule."""
        return operating_text(self.points, self.chosen_on, self.same, verbose=verbose, width=width)


@dataclass(frozen=True)
class Deferred:
    """A rule for what goes to a reader, applied to one question."""

    rule: Deferral
    name: str
    result: Referral

    def cost(self) -> float:
        """Errors kept and readings, in the units of a `cost` rule; NaN for the others."""
        if self.rule.kind != "cost":
            return math.nan
        return self.result.risk.count * self.rule.value + (self.result.n - self.result.risk.n) * self.rule.reading

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"rule": str(self.rule), "name": self.name, "cost": finite(self.cost()), **self.result.to_dict()}


@dataclass(frozen=True)
class SelectiveSection:
    """Selective prediction of every question, and the deferral rules asked for.

    Args:
        questions: one per label or output, or one.
        deferred: per rule and question.
        chosen_on: the cases that chose the deferral thresholds.
        decided: how answers came about, where they are yes or no.
    """

    questions: tuple[Selective, ...]
    deferred: tuple[Deferred, ...] = ()
    chosen_on: str = ""
    decided: str = ""

    name = "selective"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "answers": self.decided,
            "conventions": CONVENTIONS,
            "questions": [one.to_dict() for one in self.questions],
            "deferral_chosen_on": self.chosen_on or None,
            "deferral": [one.to_dict() for one in self.deferred],
        }

    def text(self, *, verbose: bool, width: int | None = None) -> str:
        """The referral table; for many labels one row each."""
        return deferral_text(self, verbose=verbose, width=width)


@dataclass(frozen=True)
class DecisionSection:
    """Decision curves, or why there are none.

    Args:
        curves: one per label, or one.
        calibrated: how the scores became probabilities; empty where they are the model's own, and then no curves.
    """

    curves: tuple[DecisionCurve, ...]
    calibrated: str

    name = "decision_curves"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "convention": CONVENTION,
            "calibrated": self.calibrated or None,
            "refused": None if self.calibrated else "the scores are not calibrated",
            "curves": [curve.to_dict() for curve in self.curves],
        }

    def text(self, *, verbose: bool, width: int | None = None) -> str:
        """Net benefits at a few thresholds; for many labels where each is useful."""
        return decision_text(self.curves, self.calibrated, verbose=verbose, width=width)


@dataclass(frozen=True)
class SubgroupSection:
    """Figures per subgroup, one entry per column."""

    columns: tuple[Subgroups, ...]

    name = "subgroups"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"columns": [one.to_dict() for one in self.columns]}

    def text(self, *, verbose: bool, width: int | None = None) -> str:
        """A table per column."""
        return "\n\n".join(subgroup_text(one, verbose=verbose, width=width) for one in self.columns)


def clinical_sections(predictions: Predictions, request: Request | None = None) -> tuple[Section, ...]:
    """Operating points, selective prediction, decision curves and subgroups, as far as asked and as the target allows.

    Raises:
        UsageProblem: operating points for a target without yes-or-no questions (code `not-for-this-target`; grades need
            a cut, code `no-cut`), a rule that needs other cases and has none (`no-reference`), or cases of another
            target (`other-target`).
    """
    request = request or Request()
    _check(predictions, request)
    asked = yes_or_no(predictions.target)
    plain = questions_of(predictions)
    held = {rule: _asked_by(rule, predictions) for rule in request.rules}
    thresholds: dict[tuple[str, Rule], float] = {}
    for rule, own in held.items():
        other = own if request.reference is None else _asked_by(rule, request.reference.predictions)
        found = {one.name: one for one in other}
        for question in own:
            known = request.frozen.get((question.name, str(rule)))
            thresholds[question.name, rule] = _chosen(found.get(question.name), rule) if known is None else known
    # A cut of grades leaves the answers themselves, which are grades, as they are.
    first = {
        name: value
        for (name, rule), value in thresholds.items()
        if asked and rule == request.rules[0] and not math.isnan(value)
    }
    questions = questions_of(predictions, first) if first else plain
    sections: list[Section] = []
    if request.rules and any(held.values()):
        points = tuple(
            operating_point(question, thresholds[question.name, rule], rule, request.prevalences)
            for rule, own in held.items()
            for question in own
        )
        on = request.reference
        learned = on is not None and any(rule.kind != "score" for rule in request.rules)
        frozen = request.frozen_on if any(rule.kind != "score" for rule in request.rules) else ""
        chosen_on = frozen or (on.name if on and learned else "")
        sections.append(OperatingSection(points, chosen_on, bool(on and on.same and learned and not frozen)))
    if questions:
        sections.append(_selective_section(questions, first, request, asked))
    cuts = {one.name: one for rule, own in held.items() if rule.cut for one in own}
    weighed = plain if asked else tuple(cuts.values())
    if weighed:
        curves = tuple(decision_curve(one) for one in weighed) if predictions.calibrated else ()
        sections.append(DecisionSection(curves, predictions.calibrated))
    if request.groups and questions:
        columns = tuple(subgroups(column, values, questions) for column, values in request.groups.items())
        sections.append(SubgroupSection(columns))
    return tuple(sections)


def _selective_section(
    questions: Sequence[Question], thresholds: Mapping[str, float], request: Request, asked: bool
) -> SelectiveSection:
    deferred = []
    on = request.reference
    if request.deferrals:
        reference = {} if on is None else {one.name: one for one in questions_of(on.predictions, thresholds)}
        for rule in request.deferrals:
            for question in questions:
                chosen = rule.threshold(reference.get(question.name, question))
                deferred.append(Deferred(rule, question.name, referral_at(question, chosen)))
    decided = ""
    if asked:
        decided = "yes above a score of 0.5" if not thresholds else f"yes from the threshold of {request.rules[0]} on"
    where = ""
    if any(rule.kind != "below" for rule in request.deferrals):
        where = "these cases" if on is None or on.same else on.name
    return SelectiveSection(tuple(selective(one) for one in questions), tuple(deferred), where, decided)


def _asked_by(rule: Rule, predictions: Predictions) -> tuple[Question, ...]:
    """The yes-or-no questions a rule sets a threshold for, as far as any case has an answer."""
    if not rule.cut:
        return questions_of(predictions)
    one = cut_question(predictions, rule.cut)
    return (one,) if len(one) else ()


def _chosen(question: Question | None, rule: Rule) -> float:
    if rule.kind == "score":
        return rule.value
    if question is None or question.truth is None or question.scores is None:
        return math.nan
    return choose_threshold(question.scores, question.truth, rule)


def _check(predictions: Predictions, request: Request) -> None:
    target = predictions.target
    for rule in request.rules:
        if rule.cut:
            grade_of(target, rule.cut)
        elif target.task == "ordinal":
            raise UsageProblem(
                f"`{rule}` needs the grade from which on the answer is yes, and none is named",
                where="--operating-point",
                hint=f"`--operating-point {rule}@{target.class_names[len(target.class_names) // 2]}` asks for that "
                f"grade or a higher one; grades: {', '.join(target.class_names)}",
                code="no-cut",
            )
    if request.rules and not (yes_or_no(target) or target.task == "ordinal"):
        raise UsageProblem(
            f"an operating point is a threshold of a yes-or-no answer, and this target is {predictions.target.task}",
            where="--operating-point",
            hint="the referral table shows what leaving unsure cases to a reader changes",
            code="not-for-this-target",
        )
    needing = [f"--operating-point {rule}" for rule in request.rules if not request.knows(rule)]
    needing += [f"--defer {rule}" for rule in request.deferrals if rule.learns]
    if needing and request.reference is None:
        raise UsageProblem(
            f"`{needing[0]}` is chosen on other cases than those it is judged on, and there are none",
            where=needing[0].split(" ")[0],
            hint="`--choose-on VAL.npz` names predictions of the same model; the judged file itself may be named, "
            "and its figures are then marked as too good",
            code="no-reference",
        )
    if request.reference is not None and request.reference.predictions.target != predictions.target:
        raise UsageProblem(
            f"the cases of `{request.reference.name}` have another target than those that are judged",
            where="--choose-on",
            code="other-target",
        )
    if request.reference is not None and request.reference.predictions.calibrated != predictions.calibrated:
        raise UsageProblem(
            f"the scores of `{request.reference.name}` and of the judged cases are not calibrated alike, so a "
            "threshold of the one means nothing for the other",
            where="--choose-on",
            code="other-calibration",
        )
