"""Whether scores can be read as probabilities: before and after, by label, with what chance alone explains."""

from __future__ import annotations

from collections.abc import Mapping

from medcli.evaluation.calibration_figures import Assessment, Part
from medcli.evaluation.calibration_text import parameter_text
from medcli.evaluation.conformal_report import ConformalReport
from medcli.evaluation.figures import Figure
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
    Text,
    cells,
)
from medcli.report.pictures import reliability_picture
from medcli.report.subject import Calibration, Subject
from medcli.report.tables import count, figure_cells, headings, spelled, value_cell

__all__ = ["calibration_section"]

_MOST_PICTURES = 30
_BY_PART = ("ece_width", "ece_mass", "mce", "slope", "intercept", "observed_expected", "brier", "nll")


def calibration_section(subject: Subject) -> Section:
    """Figures, reliability diagrams and, where there is a calibrator, the same before it."""
    if subject.judged is None:
        absent = Absent("calibration", "there are no predictions yet")
        return Section("calibration", "Calibration", (absent,))
    found = subject.judged.calibration
    blocks: list[Block] = [Facts(_facts(subject, found))]
    if found.before is None and not subject.judged.predictions.calibrated:
        blocks.append(Absent("a calibrator", "scores are shown as they are, not as probabilities", _command(subject)))
    worse = _worse(found)
    if worse:
        blocks.append(Notice(worse, "warning"))
    blocks.append(_overall(found))
    pictures = _pictures(found, bool(subject.judged.predictions.calibrated or found.parts))
    if pictures:
        text = (
            "What was claimed against what happened, in bins of equal width; small pale dots are bins of fewer than 10 "
            "cases. Where the line leaves the band, chance does not explain it. Below: cases by score, with a "
            "logarithmic axis."
        )
        blocks += [Heading("Reliability"), Text(text), Gallery(tuple(pictures))]
    blocks += _by_part(found)
    if found.conformal is not None:
        blocks += _sets(found.conformal)
    if found.notes:
        blocks.append(Bullets(found.notes))
    return Section("calibration", "Calibration", tuple(blocks))


def _command(subject: Subject) -> str:
    if subject.facts is not None:
        return f"medcli calibrate {subject.source}"
    return f"{subject.again} --method temperature"


def _facts(subject: Subject, found: Calibration) -> tuple[tuple[str, str], ...]:
    assert subject.judged is not None
    rows = []
    if found.calibrator is not None:
        fit, origin = found.calibrator, found.calibrator.origin
        where = " ".join(part for part in (origin.data_name, origin.split) if part) or "the predictions"
        patients = "" if origin.patients is None else f" of {origin.patients:,} patients"
        rows += [("method", fit.method), ("fitted on", f"{where}: {origin.cases:,} labelled cases{patients}")]
        if len(fit.fits) == 1:
            rows.append(("parameters", parameter_text(fit.fits[0], fit.method)))
        if found.parts:
            rows.append(("reported on", f"the same cases, cross-fitted in {found.parts} parts by patient"))
        if origin.test_allowed:
            rows.append(("beware", "it was fitted on a test split"))
    else:
        rows.append(("scores", subject.judged.predictions.calibrated or "the model's own"))
    return tuple(rows)


def _worse(found: Calibration) -> str:
    """A sentence where the calibrator did harm, beyond chance, to the cases that are judged."""
    moved = found.change.get("nll")
    if moved is None or not moved.low > 0:
        return ""
    by = f"NLL {moved.value:+.4f} [{moved.low:+.4f}, {moved.high:+.4f}]"
    return f"Calibration made these scores worse ({by}): the cases it was fitted on differ from those that are judged."


def _overall(found: Calibration) -> Table:
    after, before = found.after, found.before
    resampled = any(figure.low == figure.low for figure in after.figures.values())
    rows = []
    for name, figure in after.figures.items():
        row = [Cell(spelled(name))]
        for one in ([] if before is None else [before.figures.get(name)]) + [figure]:
            value, interval = figure_cells(one)
            row += [value, *([interval] if resampled else [])]
        if before is not None:
            row += _moved(found.change.get(name), resampled)
        rows.append((*row, Cell(figure.remark)))
    columns = ["figure"]
    for what in ["value"] if before is None else ["before", "after", "change"]:
        columns += [what, *(["95 % interval"] if resampled else [])]
    note = ""
    if resampled:
        note = (
            "Intervals are percentiles of the resamples; centred ones (calibration errors) are less the bias of "
            "resampling, those of slope and intercept come from the sandwich estimator."
        )
    caption = "Calibration before and after" if before is not None else "Calibration of the scores"
    return Table(caption, (*columns, "what it is"), tuple(rows), (0, len(columns)), note)


def _moved(figure: Figure | None, resampled: bool) -> list[Cell]:
    if figure is None or figure.value != figure.value:
        return [Cell("-")] * (2 if resampled else 1)
    interval = "-" if figure.low != figure.low else f"[{figure.low:+.4f}, {figure.high:+.4f}]"
    return [Cell(f"{figure.value:+.4f}", figure.value), *([Cell(interval)] if resampled else [])]


def _shown(assessment: Assessment) -> list[Part]:
    """The questions that get a picture: every label or output; otherwise the predicted class and a positive class."""
    task = assessment.target.task
    if task in {"multilabel", "multioutput"}:
        return list(assessment.parts)
    return [part for part in assessment.parts if not part.name or task == "binary"]


def _pictures(found: Calibration, calibrated: bool) -> list[Picture]:
    task = found.after.target.task
    old: Mapping[str, Part] = {} if found.before is None else {part.name: part for part in found.before.parts}
    pictures = []
    for part in _shown(found.after)[:_MOST_PICTURES]:
        label = task == "multilabel" or (task == "binary" and bool(part.name))
        what = "probability" if calibrated else "score"
        claim = f"{what} of the label" if task == "multilabel" else "confidence of the predicted class"
        picture = reliability_picture(
            part,
            old.get(part.name),
            claim=f"{what} of the positive class" if task == "binary" and part.name else claim,
            event="share of positives" if label else "share correct",
            zoom=task == "multilabel",
            title=part.name or ("predicted class" if task == "binary" else ""),
        )
        pictures += [picture] if picture is not None else []
    return pictures


def _by_part(found: Calibration) -> list[Block]:
    """A row per label, output or class."""
    parts = [part for part in found.after.parts if part.name]
    if not parts:
        return []
    task = found.after.target.task
    what = {"multilabel": "label", "multioutput": "output", "ordinal": "grade"}.get(task, "class")
    old = {} if found.before is None else {part.name: part for part in found.before.parts}
    fits = {} if found.calibrator is None else {fit.name: fit for fit in found.calibrator.fits if fit.name}
    names = [name for name in _BY_PART if any(name in part.figures for part in parts)]
    rows = []
    for part in parts:
        row: list[Cell | str] = [part.name, count(part.n), count(part.events)]
        if fits and found.calibrator is not None:
            fit = fits.get(part.name)
            row.append("-" if fit is None else parameter_text(fit, found.calibrator.method))
        for name in names:
            now = value_cell(part.figures[name].value) if name in part.figures else Cell("-")
            before = old.get(part.name)
            if before is not None and name in before.figures:
                now = Cell(f"{value_cell(before.figures[name].value).text} → {now.text}", now.value)
            row.append(now)
        rows.append(cells(*row))
    events = "correct" if task == "multioutput" else "positive"
    columns = (what, "cases", events, *(["fit"] if fits else []), *headings(names))
    change = " (before → after)" if old else ""
    caption = f"Calibration by {what}{change}"
    return [Heading(f"By {what}"), Table(caption, columns, tuple(rows))]


def _sets(report: ConformalReport) -> list[Block]:
    rows = []
    for row in report.rows:
        band = "-" if row.low != row.low else f"[{row.low:.4f}, {row.high:.4f}]"
        sizes = ", ".join(f"{held} of size {size}" for size, held in enumerate(row.sizes) if held)
        rows.append(cells(row.name or "all cases", count(row.n), value_cell(row.share), band, sizes))
    alpha = report.conformal.miscoverage
    return [
        Heading("Conformal sets of classes"),
        Table(
            f"Sets that miss the true class in at most {100 * alpha:g} % of new cases",
            ("cases of", "n", "coverage", "expected in 95 %", "sets"),
            tuple(rows),
            (0, 4),
            f"{report.conformal.convention}. The promise holds for new cases like the calibration cases, not for "
            "another site or mix of findings.",
        ),
        *([Bullets(report.conformal.notes)] if report.conformal.notes else []),
    ]
