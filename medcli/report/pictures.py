"""The plots of a report: each at its natural size, small enough for a phone, with words for those who cannot see it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from medcli.evaluation import panels
from medcli.evaluation.calibration_figures import Part
from medcli.evaluation.curves import Separation
from medcli.evaluation.decision import DecisionCurve
from medcli.evaluation.figures import Evaluation
from medcli.evaluation.panels import literal
from medcli.evaluation.referral import Selective
from medcli.evaluation.render import number_text
from medcli.report.document import Picture
from medcli.report.tables import spelled

__all__ = [
    "auc_picture",
    "confusion_picture",
    "decision_picture",
    "history_pictures",
    "precision_picture",
    "reliability_picture",
    "risk_picture",
    "roc_picture",
]

SIDE = 3.5
"""Inches of a small picture; as wide as the screen of a phone."""
_LEFT, _RIGHT = 0.62, 0.12
OVERLAID = 7
"""Most curves that one picture tells apart."""


def roc_picture(curves: Sequence[Separation], title: str = "") -> Picture:
    """ROC curves of classes that belong together."""
    names = [f"{literal(one.name)}: {one.auc:.3f}" for one in curves]
    figure, axes = _square(title, names if len(curves) > 1 else ())
    panels.roc(axes, curves, names)
    if len(curves) > 1:
        _legend(figure, axes, "AUC of")
    areas = "; ".join(f"{one.name}: AUC {one.auc:.3f}, {one.positives} of {one.n} cases" for one in curves)
    what = "ROC curve" if len(curves) == 1 else "ROC curves, each class against the others"
    return Picture("roc", f"{what}. {areas}.", f"{_of(title)}{what}: {_few(curves, 'auc')}.", figure)


def precision_picture(curves: Sequence[Separation], title: str = "") -> Picture:
    """Precision-recall curves of classes that belong together."""
    names = [f"{literal(one.name)}: {one.auprc:.3f}" for one in curves]
    figure, axes = _square(title, names if len(curves) > 1 else ())
    panels.precision_recall(axes, curves, names)
    if len(curves) > 1:
        _legend(figure, axes, "average precision of")
    areas = "; ".join(
        f"{one.name}: average precision {one.auprc:.3f}, prevalence {one.positives / one.n:.3f}" for one in curves
    )
    below = f" (dotted: prevalence {curves[0].positives / curves[0].n:.3f})" if len(curves) == 1 else ""
    what = "Precision–recall"
    return Picture(
        "precision-recall", f"{what} curves. {areas}.", f"{_of(title)}{what}: {_few(curves, 'auprc')}{below}.", figure
    )


def reliability_picture(
    after: Part, before: Part | None, *, claim: str, event: str, zoom: bool, title: str = ""
) -> Picture | None:
    """Reliability with consistency band, and the histogram of scores below; None without cases.

    Args:
        after: as judged.
        before: before calibration, or None.
        claim: what the scores are of.
        event: what happens.
        zoom: whether the axes end at the largest mean score, for labels whose scores all lie close to zero.
        title: above it.
    """
    if after.curve is None or not after.curve.bars:
        return None
    curves = [(after.curve, "as judged" if before is None else "after", True)]
    if before is not None and before.curve is not None:
        curves.insert(0, (before.curve, "before", False))
    values = [value for curve, _, _ in curves for bar in curve.bars for value in (bar.confidence, bar.events)]
    top = min(1.0, 1.08 * max(values)) if zoom else 1.0
    top = top if top > 0 else 1.0
    figure = Figure(figsize=(SIDE, SIDE * 1.3))
    grid = figure.add_gridspec(
        2, 1, height_ratios=[4, 1.1], hspace=0.08, left=_LEFT / SIDE, right=1 - _RIGHT / SIDE, bottom=0.11, top=0.93
    )
    axes, below = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    panels.reliability(axes, curves, top)
    panels.histogram(below, curves, top)
    axes.tick_params(labelbottom=False)
    axes.set_ylabel(event, fontsize=9)
    below.set_ylabel("cases", fontsize=9)
    below.set_xlabel(claim, fontsize=9)
    axes.legend(frameon=False, fontsize=7, loc="upper left", handlelength=2.4)
    _title(axes, title)
    ece = after.figures["ece_width"].value
    change = "" if before is None else f"{before.figures['ece_width'].value:.4f} before, "
    now = f"ECE {change}{number_text(ece)}{' after' if before is not None else ''}"
    rows = "; ".join(f"claimed {bar.confidence:.2f}, happened {bar.events:.2f} (n {bar.n})" for bar in after.curve.bars)
    return Picture(
        "reliability",
        f"Reliability diagram of {after.n} cases. {now}. Bins: {rows}.",
        f"{_of(title)}Reliability: {now}.",
        figure,
    )


def risk_picture(questions: Sequence[Selective], title: str = "") -> Picture:
    """Errors among the cases kept when the least sure ones are left to a reader."""
    names = [literal(one.name) for one in questions]
    figure, axes = _square(title, names if len(questions) > 1 else ())
    panels.risk_coverage(axes, [one.curve for one in questions], names)
    if len(questions) > 1:
        _legend(figure, axes, "")
    parts = []
    for one in questions:
        kept = [f"{100 * share:.0f} % kept: {100 * bound.value:.1f} % errors" for share, bound in one.risk_at.items()]
        parts.append(f"{one.name + ': ' if one.name else ''}{'; '.join(kept)}")
    shown = questions[0]
    figures = f" AUGRC {number_text(shown.values['augrc'])}." if len(questions) == 1 else ""
    return Picture(
        "risk-coverage",
        f"Risk–coverage curve. {' / '.join(parts)}.",
        f"{_of(title)}Risk–coverage: errors left when the least sure cases go to a reader.{figures}",
        figure,
    )


def decision_picture(curve: DecisionCurve, title: str = "") -> Picture:
    """Net benefit of acting on the model, on everyone, on no one."""
    figure, axes = _square(title)
    panels.decision(axes, curve)
    axes.legend(frameon=False, fontsize=7, loc="upper right")
    low, high = curve.useful
    where = "nowhere" if math.isnan(low) else f"from {100 * low:.3g} % to {100 * high:.3g} %"
    text = f"better, beyond chance, than acting on everyone or on no one {where}"
    return Picture("decision-curve", f"Decision curve: {text}.", f"{_of(title)}Decision curve: {text}.", figure)


def confusion_picture(evaluation: Evaluation, title: str = "") -> Picture | None:
    """Counts of label against prediction; None for labels that do not exclude each other."""
    if evaluation.confusion is None:
        return None
    names = evaluation.target.class_names
    side = min(8.0, max(SIDE, 1.5 + 0.5 * len(names)))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    panels.confusion(axes, evaluation.confusion, names)
    _title(axes, title)
    rows = "; ".join(
        f"{label}: " + ", ".join(f"{count} as {other}" for other, count in zip(names, counts, strict=True) if count)
        for label, counts in zip(names, evaluation.confusion.tolist(), strict=True)
        if any(counts)
    )
    return Picture(
        "confusion",
        f"Confusion matrix. {rows}.",
        f"{_of(title)}Confusion matrix: rows are labels, columns predictions; the shade is the share of its row.",
        figure,
        wide=side > 1.5 * SIDE,
    )


def auc_picture(evaluation: Evaluation) -> Picture | None:
    """The AUC of every label with its interval; None where no label has one."""
    rows = [row for row in evaluation.classes if "auc" in row.figures and math.isfinite(row.figures["auc"].value)]
    if not rows:
        return None
    figure = Figure(figsize=(2 * SIDE, 1.1 + 0.27 * len(rows)), layout="constrained")
    panels.intervals(figure.subplots(), evaluation.classes)
    texts = "; ".join(f"{row.name} {row.figures['auc'].value:.3f}" for row in rows)
    return Picture("auc-by-label", f"AUC by label with 95 % intervals. {texts}.", "AUC by label.", figure, wide=True)


def history_pictures(rows: Sequence[Mapping[str, Any]], monitor: str) -> tuple[Picture, ...]:
    """Loss, and the figure that chose the best epoch, by epoch."""
    loss, losses = _square("")
    panels.loss_history(losses, rows)
    score, scores = _square("")
    panels.score_history(scores, rows, monitor)
    last = rows[-1]
    ended = ", ".join(
        f"{what} {last[key]:.4f}"
        for what, key in (("training loss", "train_loss"), ("validation loss", "val_loss"))
        if isinstance(last.get(key), int | float)
    )
    best = max((int(row["epoch"]) + 1 for row in rows if row.get("best")), default=None)
    kept = "no epoch was kept yet" if best is None else f"the weights of epoch {best} were kept"
    return (
        Picture("history-loss", f"Loss over {len(rows)} epochs; at the end {ended}.", "Loss by epoch.", loss),
        Picture(
            "history-monitor",
            f"Validation {spelled(monitor)} over {len(rows)} epochs; {kept}.",
            f"Validation {spelled(monitor)} by epoch; {kept}.",
            score,
        ),
    )


def _square(title: str, entries: Sequence[str] = ()) -> tuple[Figure, Any]:
    """A figure with one panel, a title above and room for a legend below.

    Margins are fixed: a layout that measures every text would draw each picture three times over.
    """
    rows = math.ceil(len(entries) / _legend_columns(entries)) if entries else 0
    above, below = 0.32 if title else 0.12, 0.5 + (0.2 * rows + 0.25 if rows else 0.0)
    panel = SIDE - _LEFT - _RIGHT
    height = above + panel + below
    figure = Figure(figsize=(SIDE, height))
    axes = figure.add_axes((_LEFT / SIDE, below / height, panel / SIDE, panel / height))
    _title(axes, title)
    return figure, axes


def _title(axes: Any, title: str) -> None:
    if title:
        axes.set_title(literal(title, 40), fontsize=10)


def _legend_columns(entries: Sequence[str]) -> int:
    return 1 if max(map(len, entries)) > 18 else 2


def _legend(figure: Figure, axes: Any, heading: str) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = _legend_columns(labels)
    legend = figure.legend(
        handles, labels, loc="lower center", ncols=columns, frameon=False, fontsize=7, handlelength=3, borderaxespad=0.2
    )
    if heading:
        legend.set_title(heading, prop=FontProperties(size=7))


def _few(curves: Sequence[Separation], figure: str) -> str:
    name = "AUC" if figure == "auc" else "average precision"
    if len(curves) == 1:
        return f"{name} {getattr(curves[0], figure):.4f}"
    values = [getattr(one, figure) for one in curves]
    return f"{name} {min(values):.3f} to {max(values):.3f}"


def _of(title: str) -> str:
    return f"{title}. " if title else ""
