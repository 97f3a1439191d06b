"""The reliability diagram: what was claimed against what happened, before and after, with what chance would explain."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medcli.evaluation.calibration_figures import Part
from medcli.evaluation.calibration_result import CalibrationResult
from medcli.evaluation.panels import histogram, literal, reliability

__all__ = ["draw_reliability"]

_COLUMNS = 4


def draw_reliability(result: CalibrationResult, path: Path) -> None:
    """One panel per question with both curves, the consistency band of the calibrated one, and its histogram below.

    The axes of a label end at its largest mean score, because the scores of a rare finding all lie close to zero.

    Args:
        result: what to draw; questions without cases are left out.
        path: the PNG to write.
    """
    several = result.after.target.task in {"multilabel", "multioutput"}
    positive = result.after.target.task == "binary"
    pairs = [
        (old, new)
        for old, new in zip(result.before.parts, result.after.parts, strict=True)
        if new.curve is not None and new.curve.bars and (several or not new.name or positive)
    ]
    columns = min(_COLUMNS, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    side = 2.9 if len(pairs) > 2 else 4.2
    figure = Figure(figsize=(side * columns + 0.4, (side + 0.75) * rows + 1.0), layout="constrained")
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[4, 1] * rows)
    for index, (old, new) in enumerate(pairs):
        row, column = divmod(index, columns)
        axes = figure.add_subplot(grid[2 * row, column])
        below = figure.add_subplot(grid[2 * row + 1, column])
        first, last = column == 0, index + columns >= len(pairs)
        _panel(axes, old, new, result, several)
        _histogram(below, old, new, axes.get_xlim()[1])
        if first or not several:
            axes.set_ylabel(_event(result, new), fontsize=9)
        if first:
            below.set_ylabel("cases", fontsize=8)
        if last:
            below.set_xlabel(_claim(result, new), fontsize=9)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    what = " ".join(part for part in (result.predictions.data_name, result.predictions.split) if part)
    how = f"cross-fitted in {result.parts} parts" if result.parts else f"fitted on {result.calibrator.origin.split}"
    marked = ", FITTED ON A TEST SPLIT" if result.calibrator.origin.test_allowed else ""
    heading = f"{what} · {result.after.n} cases · {result.calibrator.method}, {how}{marked}".removeprefix(" · ")
    figure.suptitle(literal(heading, 200), fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=120)


def _panel(axes: Axes, old: Part, new: Part, result: CalibrationResult, several: bool) -> None:
    assert old.curve is not None
    assert new.curve is not None
    values = [value for curve in (old.curve, new.curve) for bar in curve.bars for value in (bar.confidence, bar.events)]
    top = min(1.0, 1.08 * max(values)) if result.after.target.task == "multilabel" else 1.0
    reliability(axes, [(old.curve, "before", False), (new.curve, "after", True)], top)
    axes.tick_params(labelsize=7, labelbottom=False)
    name = f"ece_{result.binning}"
    title = f"ECE {old.figures[name].value:.4f} → {new.figures[name].value:.4f}"
    shown = literal(new.name, 40)
    label = f"{shown} ({new.events} of {new.n})\n" if several else f"{shown}: " if new.name else ""
    axes.set_title(f"{label}{title}", fontsize=9)


def _histogram(axes: Axes, old: Part, new: Part, top: float) -> None:
    assert old.curve is not None
    assert new.curve is not None
    histogram(axes, [(new.curve, "after", True), (old.curve, "before", False)], top)
    axes.tick_params(labelsize=7)


def _event(result: CalibrationResult, part: Part) -> str:
    one = result.after.target.task == "multilabel" or bool(part.name and result.after.target.task == "binary")
    return "share of positives" if one else "share correct"


def _claim(result: CalibrationResult, part: Part) -> str:
    task = result.after.target.task
    if task == "multilabel":
        return "probability of the label"
    return (
        f"probability of {literal(part.name)}"
        if part.name and task == "binary"
        else "confidence of the predicted class"
    )
