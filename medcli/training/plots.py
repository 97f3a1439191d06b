"""The pictures one looks at first: how it learnt, what it confuses, whether its confidence can be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medcli.evaluation.figures import Evaluation
from medcli.evaluation.panels import PALETTE, bare, confusion, intervals, literal, loss_history, score_history

__all__ = ["draw_curves", "draw_evaluation"]


def draw_curves(rows: Sequence[Mapping[str, Any]], monitor: str, path: Path) -> None:
    """Loss and monitored figure by epoch, with the epoch whose weights were kept.

    Args:
        rows: rows of `metrics.jsonl` that describe epochs.
        monitor: the figure that chose the best epoch.
        path: the PNG to write.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    loss, score = figure.subplots(1, 2)
    loss_history(loss, rows)
    score_history(score, rows, monitor)
    _save(figure, path)


def draw_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Confusion matrix and reliability of a single-label target; AUC per label with intervals of a multilabel one.

    Args:
        evaluation: of one split; for multioutput nothing is drawn.
        path: the PNG to write.
    """
    if evaluation.confusion is not None:
        figure = Figure(figsize=(9, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        confusion(left, evaluation.confusion, evaluation.target.class_names)
        _reliability(right, evaluation)
    elif evaluation.classes:
        figure = Figure(figsize=(7, 1 + 0.32 * len(evaluation.classes)), layout="constrained")
        intervals(figure.subplots(), evaluation.classes)
    else:
        return
    heading = f"{evaluation.data_name} · {evaluation.split} · {evaluation.n} cases"
    figure.suptitle(literal(heading, 200), fontsize=10)
    _save(figure, path)


def _reliability(axes: Axes, evaluation: Evaluation) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle=":")
    if evaluation.reliability:
        counts, confidence, accuracy = zip(*evaluation.reliability, strict=True)
        axes.plot(confidence, accuracy, color=PALETTE[0], linewidth=1)
        largest = max(counts)
        axes.scatter(confidence, accuracy, s=[10 + 90 * count / largest for count in counts], color=PALETTE[0])
    ece = evaluation.figures.get("ece")
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    if ece is not None and math.isfinite(ece.value):
        axes.set_title(f"ECE {ece.value:.3f} ({evaluation.bins} bins; dot size = cases)", fontsize=9)
    bare(axes)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=120)
