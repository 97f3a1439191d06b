"""Single cases: explained pictures that the run holds, and the answers that were most surely wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medcli.evaluation.predictions import Predictions
from medcli.evaluation.questions import Question, questions_of
from medcli.evaluation.scores import columns_of
from medcli.report.document import (
    Absent,
    Block,
    Bullets,
    Gallery,
    Heading,
    Notice,
    Picture,
    Section,
    Table,
    Text,
    cells,
)
from medcli.report.explained import Explanation
from medcli.report.subject import Subject
from medcli.report.tables import number_cell
from medcli.runs.directory import RunDirectory
from medcli.runs.members import Ensemble

__all__ = ["examples_section"]

_WORST = 12


def examples_section(subject: Subject) -> Section:
    """Examples with explanations, and the worst errors with and without pictures."""
    explained = subject.explained
    blocks: list[Block] = []
    for heading, cases in (
        ("Examples with explanations", [case for case in explained.cases if not case.worst]),
        ("Worst errors with explanations", [case for case in explained.cases if case.worst]),
    ):
        if cases:
            blocks += [Heading(heading), Gallery(tuple(_picture(case) for case in cases), broad=True)]
    if explained.cases:
        text = "A heat map shows where a score reacts to the picture; it does not show that the reason is sound."
        blocks.append(Notice(text))
        if subject.judged is not None and explained.calibrator != subject.judged.predictions.calibrated:
            own = explained.calibrator or "the network's own scores, not calibrated"
            text = f"The numbers at these pictures are of another calibration than those of this report: {own}"
            blocks.append(Notice(f"{text}. `medcli explain {subject.source} --save 12` makes them anew."))
    elif subject.facts is not None and subject.facts.ensemble is not None:
        blocks.append(Absent("explanations", _of_members(subject.facts.run, subject.facts.ensemble)))
    elif subject.facts is not None:
        why = "no explained pictures are in the run"
        blocks.append(Absent("explanations", why, f"medcli explain {subject.source} --save 12"))
    else:
        blocks.append(Absent("explanations", "they need the model and the images, and predictions have neither"))
    if explained.problems:
        blocks.append(Bullets(explained.problems))
    if subject.judged is not None:
        blocks += _worst(subject.judged.predictions)
    return Section("examples", "Examples and errors", tuple(blocks))


def _of_members(run: RunDirectory, ensemble: Ensemble) -> str:
    """Why an ensemble shows none, and which of its members can."""
    if ensemble.kind == "predictions":
        return "its members are predictions, and explanations need a model and the images"
    why = "an explanation is of one network, and this is an ensemble"
    # A member that was moved away is no reason for a report to fail.
    member = next((path for one in ensemble.ready if (path := run.path / one.place).is_dir()), None)
    if member is None:
        return why
    return f"{why}; `medcli explain {member} --save 12`, then `medcli report {member}`, show those of a member"


def _picture(case: Explanation) -> Picture:
    chance = "" if case.probability != case.probability else f" {case.probability:.3f}"
    label = f", label {case.label}" if case.label else ""
    text = f"{case.identifier}: {case.target_class}{chance}{label}"
    how = f" ({case.method})" if case.method else ""
    kind = "Worst error" if case.worst else "Example"
    return Picture("explanation", f"{kind}, explained picture of {text}{how}.", f"{text}{how}", png=case.png)


def _worst(predictions: Predictions) -> list[Block]:
    """The wrong answers the model was surest of, over all questions."""
    found: list[tuple[float, Question, int]] = []
    for question in questions_of(predictions):
        wrong = np.flatnonzero(question.wrong)
        surest = wrong[np.argsort(-question.confidence[wrong], kind="stable")][:_WORST]
        found += [(float(question.confidence[at]), question, int(at)) for at in surest]
    found.sort(key=lambda one: -one[0])
    heading = Heading("Surest wrong answers")
    if not found:
        return [heading, Text("No answer is wrong.")]
    named = any(question.name for _, question, _ in found)
    rows = []
    for confidence, question, at in found[:_WORST]:
        label, answer = _words(predictions, question, at)
        case = str(predictions.ids[question.rows[at]])
        rows.append(cells(case, *([question.name] if named else []), label, answer, number_cell(confidence)))
    columns = ("case", *(["question"] if named else []), "label", "answer", "confidence")
    note = "Case names are those of the data; look at these images first. A wrong label looks like this too."
    texts = tuple(range(len(columns) - 1))
    return [heading, Table("Wrong answers with the highest confidence", columns, tuple(rows), texts, note)]


def _words(predictions: Predictions, question: Question, at: int) -> tuple[str, str]:
    """(label, answer) of one case."""
    target, row = predictions.target, question.rows[at]
    if target.task == "multilabel":
        assert question.truth is not None
        return ("yes", "no") if question.truth[at] else ("no", "yes")
    column = next(one for one in columns_of(predictions) if one.name == question.name)
    names: Sequence[str] = column.target.class_names
    return names[int(column.labels[row])], names[int(column.scores[row].argmax())]
