"""One picture of a judgement: precision against recall by sign, findings against false ones, and the threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medcli.diffmap.froc import RATES
from medcli.diffmap.judgement import Judgement, Side
from medcli.diffmap.scores import Scores

__all__ = ["draw_judgement"]

MODEL, PLAIN = "#1f4e79", "#b8860b"
TITLES = {"positive": "new or denser", "negative": "gone or less dense", "any": "any change"}
STEPS = 120


def draw_judgement(judged: Judgement, path: Path) -> None:
    """Draw model and subtraction in the same panels.

    Args:
        judged: with true maps.
        path: the PNG to write.
    """
    signs = list(judged.model.scores.ranks)
    figure = Figure(figsize=(3.7 * (len(signs) + 2), 3.7), layout="constrained")
    panels = list(figure.subplots(1, len(signs) + 2))
    sides = ((judged.model, MODEL, "-"), (judged.plain, PLAIN, "--"))
    for sign, axes in zip(signs, panels, strict=False):
        for side, colour, style in sides:
            recall, precision = side.scores.ranks[sign].curve()
            value = side.scores.ranks[sign].average_precision
            axes.plot(recall, precision, style, color=colour, label=f"{side.name} {value:.2f}")
        axes.set(xlabel="recall (pixels)", ylabel="precision (pixels)", xlim=(0, 1), ylim=(0, 1.02))
        axes.set_title(TITLES[sign], fontsize=9)
    _froc(panels[-2], sides)
    _thresholds(panels[-1], sides)
    for axes in panels:
        axes.legend(frameon=False, fontsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    scores = judged.model.scores
    what = " ".join(part for part in (judged.data, judged.split) if part)
    figure.suptitle(
        f"{what} · {int(scores.changed.sum())} changed and {int(scores.quiet.sum())} unchanged pairs · "
        "precision over the pixels of changed pairs alone",
        fontsize=9,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110)


def _froc(axes: Axes, sides: tuple[tuple[Side, str, str], ...]) -> None:
    for side, colour, style in sides:
        curve = side.scores.froc.curve()
        # Drawn on to the last rate: where no further candidate exists, more false ones cannot come.
        false = np.append(np.maximum(curve.false, RATES[0] / 2), RATES[-1] * 1.5)
        found = np.append(curve.sensitivity, curve.sensitivity[-1])
        label = f"{side.name} (CPM {side.figures['cpm'].value:.2f})"
        axes.step(false, found, style, where="post", color=colour, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    axes.minorticks_off()
    axes.set(xlabel="false findings per image", ylabel="share of true findings hit", ylim=(0, 1.02))
    axes.set_xlim(RATES[0] / 2, RATES[-1] * 1.5)
    axes.set_title("findings (FROC)", fontsize=9)


def _thresholds(axes: Axes, sides: tuple[tuple[Side, str, str], ...]) -> None:
    for side, colour, style in sides:
        tries, dice, false = _curve(side.scores)
        axes.plot(tries, dice, style, color=colour, label=f"{side.name}: Dice, changed pairs")
        if not np.isnan(false).all():
            axes.plot(tries, false, style, color=colour, alpha=0.45, label=f"{side.name}: false area, unchanged")
        axes.axvline(side.threshold.value, color=colour, linewidth=0.8, linestyle=":")
    axes.set(xlabel="threshold of |map|", ylabel="share", ylim=(0, 1.02))
    axes.set_title("threshold (dotted: the one used)", fontsize=9)


def _curve(scores: Scores) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(thresholds, mean Dice of changed pairs, mean false share of unchanged ones)."""
    maps, truths = np.abs(scores.maps.maps), scores.maps.truths
    valid = ~np.isnan(truths)
    top = max(2 * scores.threshold, float(np.quantile(maps[valid], 0.999))) if valid.any() else 1.0
    tries = np.linspace(0, min(1.0, top), STEPS + 1)[1:]
    overlap: list[npt.NDArray[np.float64]] = []
    false: list[npt.NDArray[np.float64]] = []
    for number in np.flatnonzero(scores.known).tolist():
        strength = maps[number][valid[number]]
        found = len(strength) - np.searchsorted(np.sort(strength), tries, side="left")
        if not scores.changed[number]:
            false.append(found / len(strength))
            continue
        wanted = np.abs(truths[number][valid[number]]) > scores.above
        hits = int(wanted.sum()) - np.searchsorted(np.sort(strength[wanted]), tries, side="left")
        overlap.append(2 * hits / (found + int(wanted.sum())))
    empty = np.full(STEPS, np.nan)
    return tries, np.mean(overlap, axis=0) if overlap else empty, np.mean(false, axis=0) if false else empty
