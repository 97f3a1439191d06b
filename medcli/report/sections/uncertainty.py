"""How far the members of an ensemble, or the passes of MC dropout, agree, and whether they disagree where they err."""

from __future__ import annotations

import math

from medcli.evaluation.delong import Area
from medcli.evaluation.uncertainty import CONVENTIONS
from medcli.evaluation.uncertainty_section import QuestionDoubt, UncertaintySection
from medcli.report.document import Absent, Block, Cell, Facts, Section, Table, cells
from medcli.report.subject import Subject
from medcli.report.tables import number_cell, value_cell

__all__ = ["uncertainty_section"]


def uncertainty_section(subject: Subject) -> Section:
    """The measures of predictions that hold several answers per case; named as absent otherwise."""
    judged = subject.judged
    found = None if judged is None else judged.section("uncertainty")
    if not isinstance(found, UncertaintySection):
        why = "there is one answer per case: no members of an ensemble, no passes of dropout"
        absent = Absent("uncertainty by disagreement", why, _command(subject) if judged is not None else "")
        return Section("uncertainty", "Uncertainty", (absent,))
    counts = "weighted" if found.weighted else "counting alike"
    facts = [("answers per case", f"{found.members} members, passes or views, {counts}")]
    if found.calibrated:
        facts.append(("of", "the members' own scores, which calibration leaves as they are"))
    blocks: list[Block] = [Facts(tuple(facts))]
    blocks += [_measures(one) for one in found.questions] if len(found.questions) == 1 else [_labels(found.questions)]
    return Section("uncertainty", "Uncertainty", tuple(blocks))


def _command(subject: Subject) -> str:
    if subject.facts is not None and subject.facts.summary.architecture:
        return f"medcli ensemble {subject.facts.summary.architecture} --members 5"
    return ""


def _measures(one: QuestionDoubt) -> Table:
    rows = tuple(
        cells(
            name.replace("_", " "),
            *(number_cell(value, 4) for value in (doubt.mean, doubt.right, doubt.wrong)),
            _area(doubt.area),
            value_cell(doubt.augrc),
            CONVENTIONS.get(name, "what a single model offers"),
        )
        for name, doubt in one.measures.items()
    )
    note = ""
    if one.grades:
        total, own, between = (one.grades[kind] for kind in ("total", "aleatoric", "epistemic"))
        note = (
            f"In grades: standard deviation {total:.2f} (every member's own {own:.2f}, between members {between:.2f})."
        )
    columns = ("measure", "mean", "of right answers", "of wrong answers", "AUROC of errors", "AUGRC", "what it is")
    caption = f"Uncertainty of {one.n:,} cases, {one.errors:,} of them answered wrongly"
    return Table(caption, columns, rows, (0, 6), note)


def _labels(questions: tuple[QuestionDoubt, ...]) -> Table:
    rows = []
    for one in questions:
        total, between = one.measures["total"], one.measures["epistemic"]
        share = 100 * between.mean / total.mean if total.mean else 0.0
        areas = [_area(one.measures[name].area) for name in ("1 - confidence", "total", "epistemic")]
        parts = (number_cell(total.mean, 4), Cell(f"{share:.1f} %", share / 100))
        rows.append(cells(one.name, *parts, number_cell(one.measures["disagreement"].mean, 4), *areas))
    columns = ("", "total", "of it epistemic", "disagreement", "AUROC of errors: 1 - confidence", "total", "epistemic")
    note = "; ".join(f"{name}: {CONVENTIONS[name]}" for name in ("total", "epistemic", "disagreement")) + "."
    return Table("Mean uncertainty, and how well it finds errors", columns, tuple(rows), (0,), note)


def _area(area: Area) -> Cell:
    low, high = area.interval
    if math.isnan(area.value):
        return Cell("-")
    return Cell(f"{area.value:.3f}" + ("" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]"), area.value)
