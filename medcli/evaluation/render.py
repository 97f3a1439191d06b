"""An evaluation as plain aligned text. Works on `Evaluation` alone and imports nothing heavy."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medcli.evaluation.figures import Evaluation, Figure

__all__ = ["INTERVAL", "aligned", "headline", "interval_text", "number_text", "render", "wrapped"]

INTERVAL = "95 % interval"
"""The heading of a column that says how sure the column before it is."""

_WIDEST_CONFUSION = 16
# A remark broken into shorter lines than this is harder to read than one that the terminal wraps.
_LEAST_REMARK = 24


def render(evaluation: Evaluation, *, verbose: bool = False, width: int | None = None) -> str:
    """Heading, headline figures with intervals and conventions, figures per class, confusion matrix, notes.

    Args:
        evaluation: what to show.
        verbose: whether the figures behind the headline are listed too.
        width: columns there are; None where the text may be as wide as it is.
    """
    parts = [_heading(evaluation), _figure_table(evaluation, verbose, width)]
    if evaluation.classes:
        parts.append(_class_table(evaluation, width))
    if evaluation.confusion is not None:
        parts.append(_confusion(evaluation, width))
    for name, output in evaluation.outputs.items():
        title = f"output {name}: {output.n} labelled cases" + (
            f", {output.excluded} without" if output.excluded else ""
        )
        body = [_figure_table(output, verbose, width), _class_table(output, width)]
        if output.confusion is not None:
            body.append(_confusion(output, width))
        body += [f"note: {note}" for note in output.notes]
        parts.append("\n\n".join([title, *body]))
    parts += [text for section in evaluation.sections if (text := section.text(verbose=verbose, width=width))]
    if evaluation.notes:
        parts.append("\n".join(f"note: {note}" for note in evaluation.notes))
    return wrapped("\n\n".join(parts), width)


def wrapped(text: str, width: int | None) -> str:
    """Text whose sentences are broken between words where they are wider than the terminal; rows of tables stay whole.

    Args:
        text: lines; two spaces side by side mark a row of a table.
        width: columns there are; None leaves the text as it is.
    """
    if width is None:
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        prose = len(line) > width and "  " not in line
        lines += textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) if prose else [line]
    return "\n".join(lines)


def headline(evaluation: Evaluation) -> str:
    """The first two headline figures in one line; where one is undefined, for which classes, and what stands in."""
    shown = []
    for figure in [figure for figure in evaluation.figures.values() if figure.headline][:2]:
        if not math.isnan(figure.value):
            shown.append(f"{figure.name} {_with_interval(figure)}")
            continue
        rows = [row.name for row in evaluation.classes if math.isnan(row.figures[figure.name].value)]
        text = f"{figure.name} undefined" + (f" (no {' / '.join(rows)} to tell from others)" if rows else "")
        present = evaluation.figures.get(f"{figure.name}_present")
        if present is not None and not math.isnan(present.value):
            text += f", of the others {_with_interval(present)}"
        shown.append(text)
    return ", ".join(shown)


def _with_interval(figure: Figure) -> str:
    return number_text(figure.value) + ("" if math.isnan(figure.low) else f" {interval_text(figure)}")


def number_text(value: float) -> str:
    """Four decimals, or `-` where undefined."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def interval_text(figure: Figure) -> str:
    """`[low, high]`, or `-` where there is none."""
    return "-" if math.isnan(figure.low) else f"[{figure.low:.4f}, {figure.high:.4f}]"


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, width: int | None = None) -> str:
    """Text cells under a heading: the first `left` columns to the left, the others to the right.

    Args:
        columns: the heading.
        rows: cells.
        left: columns that name a row; they (the first at least) are repeated where the table is parted.
        width: columns of the terminal, for a table that is parted where it is wider; None never parts.
    """
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]
    parts = _parted(columns, widths, max(left, 1), width) if width is not None else []
    if len(parts) > 1:
        tables = [[[row[index] for index in part] for row in [columns, *rows]] for part in parts]
        return "\n\n".join(aligned(head, body, left) for head, *body in tables)

    def line(cells: Sequence[str]) -> str:
        placed = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(placed).rstrip()

    return "\n".join(line(cells) for cells in [columns, *rows])


def _parted(columns: Sequence[str], widths: Sequence[int], left: int, width: int) -> list[list[int]]:
    """Indices of the columns of each part, every part with the first `left`; an interval stays behind its figure."""
    named = list(range(left))
    groups: list[list[int]] = []
    for index in range(left, len(widths)):
        if groups and columns[index] == INTERVAL:
            groups[-1].append(index)
        else:
            groups.append([index])
    parts: list[list[int]] = [[*named]]
    for group in groups:
        taken = sum(widths[one] + 2 for one in [*parts[-1], *group]) - 2
        if taken > width and len(parts[-1]) > left:
            parts.append([*named])
        parts[-1] += group
    return parts


def _heading(evaluation: Evaluation) -> str:
    target = evaluation.target
    where = f"data set `{evaluation.data_name}`" if evaluation.data_name else "predictions"
    if evaluation.split:
        where += f", split {evaluation.split}"
    counts = f"{evaluation.n} labelled cases"
    if evaluation.patients is not None:
        counts += f" of {evaluation.patients} patients"
    if evaluation.excluded:
        counts += f"; {evaluation.excluded} without a label left out"
    lines = [f"{where}: {counts}"]
    if target.task == "binary":
        other = target.class_names[1 - target.positive]
        lines.append(f"binary; positive class: {target.class_names[target.positive]}, other: {other}")
    elif target.task == "multioutput":
        lines.append(f"multioutput: {', '.join(output.name for output in target.outputs)}")
    else:
        what = {"multiclass": "classes", "ordinal": "grades", "multilabel": "labels"}[target.task]
        lines.append(f"{target.task}, {len(target.class_names)} {what}: {', '.join(target.class_names)}")
    lines.append(
        f"calibrated: {evaluation.calibrated}"
        if evaluation.calibrated
        else "scores as they are, not calibrated by medcli"
    )
    if evaluation.resamples:
        unit = "patients" if evaluation.patients is not None else "images"
        lines.append(
            f"95 % intervals: percentiles of {evaluation.resamples} resamples of {unit}; centred ones (calibration "
            "errors) less the bias of resampling"
        )
    return "\n".join(lines)


def _figure_table(evaluation: Evaluation, verbose: bool, width: int | None) -> str:
    rows = []
    for figure in evaluation.figures.values():
        # What stands in for an undefined headline, and the guard beside a flattering accuracy, are always shown.
        always = figure.name.endswith("_present") or (
            evaluation.target.task == "multilabel" and figure.name in {"accuracy", "all_negative"}
        )
        if not (verbose or figure.headline or always or figure.name.startswith("top_")):
            continue
        remark = figure.remark
        if figure.failed:
            remark += f" ({figure.failed} resample{'s' if figure.failed != 1 else ''} without a class left out)"
        rows.append([figure.name, remark, number_text(figure.value), interval_text(figure)])
    cells = [[name, value, interval, remark] for name, remark, value, interval in rows]
    if not evaluation.resamples:
        cells = [[name, value, remark] for name, value, _, remark in cells]
        return _with_remarks(["figure", "value", "what it is"], cells, width)
    return _with_remarks(["figure", "value", INTERVAL, "what it is"], cells, width)


def _with_remarks(columns: list[str], rows: list[list[str]], width: int | None) -> str:
    """Aligned cells; a remark that is too long for the terminal goes on under itself, or below where that is narrow."""
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns) - 1)]
    lines = []
    for row in [columns, *rows]:
        placed = [row[0].ljust(widths[0])]
        placed += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True)]
        cells = "  ".join(placed)
        whole = f"{cells}  {row[-1]}".rstrip()
        if width is None or len(whole) <= width:
            lines.append(whole)
            continue
        room = width - len(cells) - 2
        below = room < _LEAST_REMARK
        pieces = textwrap.wrap(row[-1], width - 4 if below else room, break_on_hyphens=False)
        indent = " " * (4 if below else len(cells) + 2)
        lines += (
            [cells.rstrip(), *(indent + piece for piece in pieces)]
            if below
            else [f"{cells}  {pieces[0]}", *(indent + piece for piece in pieces[1:])]
        )
    return "\n".join(lines)


def _class_table(evaluation: Evaluation, width: int | None) -> str:
    multilabel = evaluation.target.task == "multilabel"
    what = {"multilabel": "label", "ordinal": "grade"}.get(evaluation.target.task, "class")
    names = list(evaluation.classes[0].figures) if evaluation.classes else []
    columns = [what, "cases", *(["observed"] if multilabel else [])]
    for name in names:
        columns.append(name)
        if name == "auc" and evaluation.resamples:
            columns.append(INTERVAL)
    rows = []
    for row in evaluation.classes:
        cells = [row.name, str(row.positives), *([str(row.n)] if multilabel else [])]
        for name in names:
            figure = row.figures[name]
            cells.append(number_text(figure.value))
            if name == "auc" and evaluation.resamples:
                cells.append(interval_text(figure))
        rows.append(cells)
    return aligned(columns, rows, width=width)


def _confusion(evaluation: Evaluation, width: int | None) -> str:
    matrix, names = evaluation.confusion, evaluation.target.class_names
    if matrix is None:
        return ""
    if len(names) > _WIDEST_CONFUSION:
        return f"confusion matrix: {len(names)} x {len(names)}, in the JSON document (`--json`)"
    rows = [[name, *(str(count) for count in counts)] for name, counts in zip(names, matrix.tolist(), strict=True)]
    return "confusion matrix (rows: label, columns: prediction)\n" + aligned(["", *names], rows, width=width)
