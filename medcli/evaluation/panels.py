"""What every picture of figures is put together from: one palette, and a function for each kind of panel.

Colours are those of Okabe and Ito, which people with any common colour blindness tell apart; lines differ in dashes and
markers too, so that a grey print still reads. Names from data are drawn as they are, never as formulas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from medcli.evaluation.curves import Separation
from medcli.evaluation.figures import ClassRow
from medcli.evaluation.reliability import Curve

if TYPE_CHECKING:
    # It needs scipy.stats, a third of a second that pictures without such curves do without.
    from medcli.evaluation.decision import DecisionCurve

__all__ = [
    "AFTER",
    "BEFORE",
    "DASHES",
    "PALETTE",
    "bare",
    "confusion",
    "decision",
    "histogram",
    "intervals",
    "literal",
    "loss_history",
    "precision_recall",
    "reliability",
    "risk_coverage",
    "roc",
    "score_history",
]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1)), (0, (3, 3)), (0, (1, 3)))
BEFORE, AFTER, BAND = "#D55E00", "#0072B2", "#56B4E9"
GUIDE = "#767676"

_FEW = 10
_WIDEST = 22


def literal(text: str, most: int = _WIDEST) -> str:
    """A name from data as matplotlib should draw it: no formula, no line break, cut where it is very long."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    short = plain if len(plain) <= most else f"{plain[: most - 1]}…"
    return short.replace("$", r"\$")


def bare(axes: Axes) -> None:
    """No frame above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def roc(axes: Axes, curves: Sequence[Separation], labels: Sequence[str]) -> None:
    """Sensitivity against 1 - specificity, a line per curve; the diagonal is chance."""
    axes.plot([0, 1], [0, 1], color=GUIDE, linewidth=1, linestyle=":")
    for index, (one, label) in enumerate(zip(curves, labels, strict=True)):
        axes.plot(one.false_rate, one.hit_rate, label=label, **_style(index))
    axes.set(xlim=(0, 1), ylim=(0, 1.005), aspect="equal")
    axes.set_xlabel("1 - specificity (false alarms)", fontsize=9)
    axes.set_ylabel("sensitivity", fontsize=9)
    bare(axes)


def precision_recall(axes: Axes, curves: Sequence[Separation], labels: Sequence[str]) -> None:
    """Precision against sensitivity as steps; where there is one curve, its prevalence is drawn as chance."""
    for index, (one, label) in enumerate(zip(curves, labels, strict=True)):
        recall, precision = np.append(0.0, one.recall), np.append(one.precision[:1], one.precision)
        axes.plot(recall, precision, label=label, drawstyle="steps-pre", **_style(index))
        if len(curves) == 1:
            axes.axhline(one.positives / one.n, color=GUIDE, linewidth=1, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(0, 1.005), aspect="equal")
    axes.set_xlabel("sensitivity (recall)", fontsize=9)
    axes.set_ylabel("precision (PPV)", fontsize=9)
    bare(axes)


def reliability(axes: Axes, curves: Sequence[tuple[Curve, str, bool]], top: float = 1.0) -> None:
    """Share of events against what was claimed, with the consistency band of the last curve.

    Args:
        axes: where it is drawn.
        curves: (curve, label, whether it is the calibrated one of two), drawn in this order.
        top: end of both axes.
    """
    axes.plot([0, top], [0, top], color=GUIDE, linewidth=1, linestyle=":", label="perfect")
    x, low, high = ([getattr(bar, name) for bar in curves[-1][0].bars] for name in ("confidence", "low", "high"))
    if len(x) > 1:
        axes.fill_between(x, low, high, color=BAND, alpha=0.35, linewidth=0, label="95 % consistency band")
    else:
        axes.vlines(x, low, high, color=BAND, alpha=0.6, linewidth=6, label="95 % consistency band")
    for curve, label, calibrated in curves:
        _reliability_line(axes, curve, label, calibrated)
    axes.set(xlim=(0, top), ylim=(0, top))
    bare(axes)


def histogram(axes: Axes, curves: Sequence[tuple[Curve, str, bool]], top: float = 1.0) -> None:
    """Cases by score below a reliability diagram; the count axis is logarithmic above 1.

    Most scores of a rare finding share one column; a logarithmic axis keeps the others visible.
    """
    for curve, _, calibrated in curves:
        count = len(curve.histogram)
        edges = [column / count for column in range(count + 1)]
        if calibrated:
            axes.stairs(curve.histogram, edges, fill=True, color=AFTER, alpha=0.55)
        else:
            axes.stairs(curve.histogram, edges, color=BEFORE, linewidth=1, linestyle="--")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, top)
    axes.minorticks_off()
    bare(axes)


def risk_coverage(axes: Axes, curves: Sequence[Sequence[dict[str, float]]], labels: Sequence[str]) -> None:
    """Share of errors among the cases kept against the share kept, least sure cases leaving first."""
    for index, (points, label) in enumerate(zip(curves, labels, strict=True)):
        coverage, risk = ([point[name] for point in points] for name in ("coverage", "risk"))
        marker = "o" if len(points) == 1 else ""
        across, up = [100 * one for one in coverage], [100 * one for one in risk]
        axes.plot(across, up, label=label, marker=marker, **_style(index))
    axes.set(xlim=(0, 100))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("cases kept, surest first (%)", fontsize=9)
    axes.set_ylabel("errors among those kept (%)", fontsize=9)
    bare(axes)


def decision(axes: Axes, curve: DecisionCurve) -> None:
    """Net benefit per 1000 cases against the probability at which one acts; below zero is cut off."""
    at = 100 * curve.thresholds
    axes.fill_between(
        at,
        1000 * (curve.model - 1.96 * curve.error),
        1000 * (curve.model + 1.96 * curve.error),
        color=PALETTE[0],
        alpha=0.2,
        linewidth=0,
    )
    axes.plot(at, 1000 * curve.model, color=PALETTE[0], linewidth=1.6, label="model, 95 % interval")
    axes.plot(at, 1000 * curve.treat_all, color=PALETTE[1], linestyle="--", linewidth=1.2, label="act on everyone")
    axes.axhline(0, color=GUIDE, linestyle=":", linewidth=1, label="act on no one")
    best = max(1000 * curve.prevalence, 1.0)
    # What happens far above the prevalence is nothing but zero for every strategy.
    last = float(at[curve.model > 0].max()) if (curve.model > 0).any() else 100.0
    axes.set(xlim=(0, min(100.0, max(1.25 * last, 5.0))), ylim=(-0.15 * best, 1.1 * best))
    axes.set_xlabel("probability from which one acts (%)", fontsize=9)
    axes.set_ylabel("net benefit per 1000 cases", fontsize=9)
    bare(axes)


def confusion(axes: Axes, counts: npt.NDArray[np.int64], names: Sequence[str]) -> None:
    """Counts, shaded by the share of their row."""
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    edges = np.arange(len(counts) + 1) - 0.5
    # A mesh stays sharp in print, which the one-pixel cells of an image do not.
    axes.pcolormesh(edges, edges, shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(aspect="equal")
    axes.invert_yaxis()
    size = 9 if len(names) <= 8 else 7
    for row in range(len(counts)):
        for column in range(len(counts)):
            colour = "white" if shares[row, column] > 0.55 else "black"
            text = f"{counts[row, column]}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
    shown = [literal(name, 18) for name in names]
    slanted = max(map(len, shown)) * len(names) > 24
    axes.set_xticks(range(len(names)), shown, rotation=45 if slanted else 0, ha="right" if slanted else "center")
    axes.set_yticks(range(len(names)), shown)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("label", fontsize=9)


def intervals(axes: Axes, rows: Sequence[ClassRow], name: str = "auc") -> None:
    """One figure of every class or label with its 95 % interval; rows without one are left out."""
    shown = [row for row in rows if name in row.figures and math.isfinite(row.figures[name].value)]
    for place, row in enumerate(reversed(shown)):
        figure = row.figures[name]
        axes.plot([figure.value], [place], "o", color=PALETTE[0], markersize=5)
        if math.isfinite(figure.low) and math.isfinite(figure.high):
            axes.plot([figure.low, figure.high], [place, place], color=PALETTE[0], linewidth=1.4)
    axes.set_yticks(range(len(shown)), [f"{literal(row.name)} ({row.positives})" for row in reversed(shown)])
    axes.axvline(0.5, color=GUIDE, linewidth=1, linestyle=":")
    axes.set_xlabel("AUC with 95 % interval (positives in brackets)", fontsize=9)
    axes.set_ylim(-0.6, max(len(shown), 1) - 0.4)
    bare(axes)


def loss_history(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Loss of training and validation by epoch, from the rows of `metrics.jsonl` that describe epochs."""
    at = [int(row["epoch"]) + 1 for row in rows]
    axes.plot(at, _column(rows, "train_loss"), label="train", marker=_marker(at), **_style(1))
    axes.plot(at, _column(rows, "val_loss"), label="validation", marker=_marker(at), **_style(0))
    axes.set_ylabel("loss", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    _epochs(axes, at, rows)


def score_history(axes: Axes, rows: Sequence[Mapping[str, Any]], monitor: str) -> None:
    """The figure that chose the best epoch, on validation cases, by epoch; that epoch is marked."""
    at = [int(row["epoch"]) + 1 for row in rows]
    name = f"val_{monitor}" if monitor != "loss" else "val_accuracy"
    axes.plot(at, _column(rows, name), marker=_marker(at), **_style(0))
    what = name.removeprefix("val_").replace("_", " ")
    axes.set_ylabel(f"validation {what.upper() if what in {'auc', 'qwk'} else what}", fontsize=9)
    best = _epochs(axes, at, rows)
    if best is not None:
        # Inside the panel, on the side that has room: a title would need space above that a report does not leave.
        late = best > (at[0] + at[-1]) / 2
        axes.annotate(
            f"best epoch {best}",
            (best, 0.02),
            xytext=(-4 if late else 4, 0),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            ha="right" if late else "left",
            fontsize=9,
            color=PALETTE[1],
        )


def _epochs(axes: Axes, at: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> int | None:
    """Whole numbers below, the kept epoch marked; that epoch."""
    best = max((int(row["epoch"]) + 1 for row in rows if row.get("best")), default=None)
    if best is not None:
        axes.axvline(best, color=PALETTE[1], linewidth=1, linestyle=":")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(at) == 1:
        axes.set_xlim(at[0] - 1, at[0] + 1)
    axes.set_xlabel("epoch", fontsize=9)
    bare(axes)
    return best


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [math.nan if row.get(name) is None else float(row[name]) for row in rows]


def _marker(at: Sequence[int]) -> str:
    return "o" if len(at) < 4 else ""


def _style(index: int) -> dict[str, Any]:
    return {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": DASHES[index % len(DASHES)],
        "linewidth": 1.6,
    }


def _reliability_line(axes: Axes, curve: Curve, label: str, calibrated: bool) -> None:
    colour = AFTER if calibrated else BEFORE
    # A share of two cases is no point of a curve: bins of a few stand alone, small and pale.
    many = [bar for bar in curve.bars if bar.n >= _FEW]
    few = [bar for bar in curve.bars if bar.n < _FEW]
    marker = "o" if calibrated else "s"
    x, y = [bar.confidence for bar in few], [bar.events for bar in few]
    axes.plot(x, y, marker, color=colour, markersize=2.5, alpha=0.5, linestyle="")
    axes.plot(
        [bar.confidence for bar in many],
        [bar.events for bar in many],
        color=colour,
        linewidth=1.2,
        linestyle="-" if calibrated else "--",
        marker=marker,
        markersize=4,
        markerfacecolor=colour if calibrated else "white",
        label=label,
    )
