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

__all__ = ["draw_curves", "draw_evaluation"]

INK, BEST, SOFT = "#1f4e79", "#c0392b", "#8fb3d9"


def draw_curves(rows: Sequence[Mapping[str, Any]], monitor: str, path: Path) -> None:
    """Loss and monitored figure by epoch, with the epoch whose weights were kept.

    Args:
        rows: rows of `metrics.jsonl` that describe epochs.
        monitor: the figure that chose the best epoch.
        path: the PNG to write.
    """
    epochs = [int(row["epoch"]) + 1 for row in rows]
    best = max((int(row["epoch"]) + 1 for row in rows if row.get("best")), default=None)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    loss, score = figure.subplots(1, 2)
    loss.plot(epochs, _column(rows, "train_loss"), color=SOFT, label="train")
    loss.plot(epochs, _column(rows, "val_loss"), color=INK, label="validation")
    loss.set(xlabel="epoch", ylabel="loss")
    loss.legend(frameon=False)
    name = f"val_{monitor}" if monitor != "loss" else "val_accuracy"
    score.plot(epochs, _column(rows, name), color=INK)
    score.set(xlabel="epoch", ylabel=name.removeprefix("val_").replace("_", " "))
    for axes in (loss, score):
        if best is not None:
            axes.axvline(best, color=BEST, linewidth=1, linestyle="--")
        _bare(axes)
    if best is not None:
        score.set_title(f"best epoch {best}", fontsize=9, color=BEST)
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
        _confusion(left, evaluation)
        _reliability(right, evaluation)
    elif evaluation.classes:
        figure = Figure(figsize=(7, 1 + 0.32 * len(evaluation.classes)), layout="constrained")
        _per_label(figure.subplots(), evaluation)
    else:
        return
    figure.suptitle(f"{evaluation.data_name} · {evaluation.split} · {evaluation.n} cases", fontsize=10)
    _save(figure, path)


def _confusion(axes: Axes, evaluation: Evaluation) -> None:
    counts = evaluation.confusion
    assert counts is not None
    names = evaluation.target.class_names
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(counts)):
        for column in range(len(counts)):
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="label")


def _reliability(axes: Axes, evaluation: Evaluation) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle=":")
    if evaluation.reliability:
        counts, confidence, accuracy = zip(*evaluation.reliability, strict=True)
        axes.plot(confidence, accuracy, color=INK, linewidth=1)
        largest = max(counts)
        axes.scatter(confidence, accuracy, s=[10 + 90 * count / largest for count in counts], color=INK)
    ece = evaluation.figures.get("ece")
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    if ece is not None and math.isfinite(ece.value):
        axes.set_title(f"ECE {ece.value:.3f} ({evaluation.bins} bins; dot size = cases)", fontsize=9)
    _bare(axes)


def _per_label(axes: Axes, evaluation: Evaluation) -> None:
    rows = [row for row in evaluation.classes if "auc" in row.figures and math.isfinite(row.figures["auc"].value)]
    for place, row in enumerate(reversed(rows)):
        auc = row.figures["auc"]
        axes.plot([auc.value], [place], "o", color=INK)
        if math.isfinite(auc.low) and math.isfinite(auc.high):
            axes.plot([auc.low, auc.high], [place, place], color=INK, linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row.name} ({row.positives})" for row in reversed(rows)], fontsize=8)
    axes.axvline(0.5, color="grey", linewidth=1, linestyle=":")
    axes.set(xlabel="AUC with 95 % interval (positives in brackets)")
    _bare(axes)


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [math.nan if row.get(name) is None else float(row[name]) for row in rows]


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=120)
