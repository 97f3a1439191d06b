"""How well it answers: every figure with interval and convention, curves, classes, confusion."""

from __future__ import annotations

from collections.abc import Sequence

from medcli.evaluation.curves import Separation, separations
from medcli.evaluation.figures import Evaluation, Figure
from medcli.evaluation.predictions import Predictions
from medcli.report.document import (
    Absent,
    Block,
    Bullets,
    Cell,
    Facts,
    Gallery,
    Heading,
    Notice,
    Picture,
    Section,
    Table,
)
from medcli.report.document import cells as row_of
from medcli.report.pictures import OVERLAID, auc_picture, confusion_picture, precision_picture, roc_picture
from medcli.report.subject import Judged, Subject
from medcli.report.tables import count, figure_cells, headings, spelled

__all__ = ["results_section"]

_MOST_SETS = 30
_WIDEST_CONFUSION = 40


def results_section(subject: Subject) -> Section:
    """The figures of `medcli evaluate`, or what would bring them."""
    if subject.judged is None:
        path = subject.source
        command = f"medcli {_command(subject)} --resume {path}"
        why = "the run has stored no predictions yet: its training did not finish"
        return Section("results", "Results", (Absent("the results", why, command),))
    return Section("results", "Results", tuple(_blocks(subject.judged)))


def _command(subject: Subject) -> str:
    return (subject.facts.summary.command if subject.facts else "") or "train"


def _blocks(judged: Judged) -> list[Block]:
    evaluation, predictions = judged.evaluation, judged.predictions
    blocks: list[Block] = [Facts(_heading(evaluation))]
    if judged.on_val:
        blocks.append(
            Notice(
                f"These are cases of `{evaluation.split or 'a split that is not test'}`, which chose the best epoch: "
                "the figures are better than those of new cases.",
                "warning",
            )
        )
    blocks.append(
        _figure_table("Headline figures", [one for one in evaluation.figures.values() if one.headline], evaluation)
    )
    blocks += _curves(evaluation, predictions)
    blocks += _classes(evaluation)
    for name, output in evaluation.outputs.items():
        blocks.append(Heading(f"Output {name}"))
        blocks.append(Facts((("labelled cases", f"{output.n:,}"),)))
        blocks.append(
            _figure_table(f"Headline figures of {name}", [f for f in output.figures.values() if f.headline], output)
        )
        blocks += _classes(output, name)
        if output.notes:
            blocks.append(Bullets(output.notes))
    further = [one for one in evaluation.figures.values() if not one.headline]
    if further:
        blocks += [Heading("Further figures"), _figure_table("All other figures", further, evaluation)]
    if evaluation.notes:
        blocks += [Heading("Notes"), Bullets(evaluation.notes)]
    return blocks


def _heading(evaluation: Evaluation) -> tuple[tuple[str, str], ...]:
    where = " ".join(part for part in (evaluation.data_name, evaluation.split) if part)
    patients = "" if evaluation.patients is None else f" of {evaluation.patients:,} patients"
    unit = "images" if evaluation.patients is None else "patients"
    target = evaluation.target
    rows = [
        ("cases", f"{where + ': ' if where else ''}{evaluation.n:,} labelled cases{patients}"),
        ("scores", evaluation.calibrated or "the model's own, not calibrated by medcli"),
    ]
    if target.task == "binary":
        rows.append(("positive class", target.class_names[target.positive]))
    if evaluation.resamples:
        rows.append(
            (
                "intervals",
                f"95 %, percentiles of {evaluation.resamples:,} resamples of {unit}; centred ones (calibration errors) "
                "less the bias of resampling",
            )
        )
    else:
        rows.append(("intervals", "none (`--bootstrap 0`)"))
    return tuple(rows)


def _headlines(caption: str, evaluation: Evaluation) -> Table:
    return _figure_table(caption, [one for one in evaluation.figures.values() if one.headline], evaluation)


def _figure_table(caption: str, figures: Sequence[Figure], evaluation: Evaluation) -> Table:
    rows = []
    for figure in figures:
        value, interval = figure_cells(figure)
        remark = figure.remark
        if figure.failed:
            remark += f" ({figure.failed} resample{'s' if figure.failed != 1 else ''} without a class left out)"
        row = [Cell(spelled(figure.name)), value, *([interval] if evaluation.resamples else []), Cell(remark)]
        rows.append(tuple(row))
    columns = ("figure", "value", *(["95 % interval"] if evaluation.resamples else []), "what it is")
    return Table(caption, columns, tuple(rows), (0, len(columns) - 1))


def _curves(evaluation: Evaluation, predictions: Predictions) -> list[Block]:
    """ROC, precision–recall and confusion side by side; of labels a gallery for each kind."""
    found = separations(predictions)
    labels = predictions.target.task == "multilabel"
    blocks: list[Block] = []
    if not found:
        blocks.append(Absent("ROC and precision–recall curves", "no class has cases both with and without it"))
    sets = _together(found, labels)
    shown = sets[:_MOST_SETS]
    if labels and found:
        whole = auc_picture(evaluation)
        blocks += [Gallery((whole,))] if whole is not None else []
        blocks += [Heading("ROC curves"), Gallery(tuple(roc_picture(*one) for one in shown))]
        blocks += [Heading("Precision–recall curves"), Gallery(tuple(precision_picture(*one) for one in shown))]
    else:
        pictures = [draw(*one) for one in shown for draw in (roc_picture, precision_picture)]
        confusion = _confusion(evaluation)
        pictures += [confusion] if confusion is not None else []
        blocks += [Heading("Curves"), Gallery(tuple(pictures))] if pictures else []
    if len(sets) > _MOST_SETS:
        blocks.append(Notice(f"The curves of the first {_MOST_SETS} of {len(sets)} are shown; the tables hold all."))
    return blocks


def _confusion(evaluation: Evaluation, title: str = "") -> Picture | None:
    if len(evaluation.target.class_names) > _WIDEST_CONFUSION:
        return None
    return confusion_picture(evaluation, title)


def _together(curves: Sequence[Separation], labels: bool) -> list[tuple[tuple[Separation, ...], str]]:
    """Which curves share a picture, and its title: classes of a question that can be told apart do, labels never."""
    sets: list[tuple[tuple[Separation, ...], str]] = []
    for group in dict.fromkeys(one.group for one in curves):
        own = tuple(one for one in curves if one.group == group)
        if len(own) > 1 and (labels or len(own) > OVERLAID):
            sets += [((one,), f"{group}: {one.name}" if group else one.name) for one in own]
        else:
            sets.append((own, group or (own[0].name if labels else "")))
    return sets


def _classes(evaluation: Evaluation, output: str = "") -> list[Block]:
    blocks: list[Block] = []
    task = evaluation.target.task
    what = {"multilabel": "label", "ordinal": "grade"}.get(task, "class")
    picture = _confusion(evaluation, output) if output else None
    if picture is not None:
        blocks.append(Gallery((picture,)))
    if not evaluation.classes:
        return blocks
    names = [name for name in evaluation.classes[0].figures if any(name in row.figures for row in evaluation.classes)]
    columns = [what, "cases", *(["observed"] if task == "multilabel" else [])]
    for name in names:
        columns.append(headings([name])[0])
        if name == "auc" and evaluation.resamples:
            columns.append("95 % interval of the AUC")
    rows = []
    for one in evaluation.classes:
        cells: list[Cell | str] = [one.name, count(one.positives)]
        cells += [count(one.n)] if task == "multilabel" else []
        for name in names:
            value, interval = figure_cells(one.figures.get(name))
            cells.append(value)
            if name == "auc" and evaluation.resamples:
                cells.append(interval)
        rows.append(row_of(*cells))
    heading = f"By {what}" if not output else f"By {what} of {output}"
    return [
        *blocks,
        Heading(heading),
        Table(f"Figures by {what}, each against the others", tuple(columns), tuple(rows)),
    ]
