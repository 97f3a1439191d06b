"""Latency against what is had for it, every model a point, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from medcli.benchmark.rows import Row
from medcli.benchmark.table import HEADLINE, conditions_text, front_of, value_of

__all__ = ["draw_latency"]

INK, FRONT, SOFT = "#1f4e79", "#d55e00", "#8fb3d9"
MARKERS = {"architecture": "o", "difference": "D", "run": "s", "bundle": "^"}
FEW = 14
"""Points up to which all are named; of more, those on the front alone."""


def draw_latency(rows: Sequence[Row], batch_size: int, path: Path) -> bool:
    """Draw one batch size: median latency against AUC where it is known, else against the number of parameters.

    Args:
        rows: those without the figures are left out.
        batch_size: whose median is drawn.
        path: the PNG to write.

    Returns:
        whether there was anything to draw.
    """
    against, front = front_of(rows, batch_size)
    points = []
    for row in rows:
        timing = row.timing(batch_size)
        value = value_of(row, against)
        if timing is not None and timing.median_ms is not None and value is not None:
            points.append((timing.median_ms, value if against == HEADLINE else value / 1e6, row))
    if not points:
        return False
    figure = Figure(figsize=(8.5, 5.5), layout="constrained")
    axes = figure.subplots()
    for kind, marker in MARKERS.items():
        for on_front in (False, True):
            shown = [one for one in points if _kind(one[2]) == kind and (one[2].item.key in front) is on_front]
            if shown:
                axes.scatter(
                    [one[0] for one in shown],
                    [one[1] for one in shown],
                    s=46 if on_front else 30,
                    c=FRONT if on_front else SOFT,
                    edgecolors=INK,
                    linewidths=0.6,
                    marker=marker,
                    zorder=3 if on_front else 2,
                    label=f"{_KINDS[kind]}{', on the front' if on_front else ''}",
                )
    if against == HEADLINE:
        _intervals(axes, points)
    edge = sorted((one for one in points if one[2].item.key in front), key=lambda one: one[0])
    axes.step([one[0] for one in edge], [one[1] for one in edge], where="post", color=FRONT, linewidth=1, zorder=1)
    axes.set_xscale("log")
    _plain_numbers(axes.xaxis)
    axes.tick_params(axis="x", labelrotation=30)
    if against != HEADLINE:
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis)
    _names(axes, points, front)
    unit = "pass" if batch_size > 1 else "image"
    axes.set_xlabel(f"median latency of one {unit}, ms (batch {batch_size}, logarithmic)")
    what = "parameters, millions (logarithmic; fewer is better)"
    if against == HEADLINE:
        split = next((one[2].learning.split for one in points if one[2].learning is not None), "test")
        what = f"AUC, {split} images (95 % intervals)"
    axes.set_ylabel(what)
    axes.grid(visible=True, which="major", color="0.92", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.suptitle(conditions_text([one[2] for one in points]), fontsize=8.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=130)
    return True


_KINDS = {
    "architecture": "architecture",
    "difference": "difference model (pairs)",
    "run": "run",
    "bundle": "bundle",
}


def _kind(row: Row) -> str:
    """Its marker: what takes pairs is no rival of the others, trained or not."""
    return "difference" if row.item.compares else row.item.kind


def _plain_numbers(axis: Axis) -> None:
    """No powers of ten beside a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _intervals(axes: Axes, points: Sequence[tuple[float, float, Row]]) -> None:
    for latency, _, row in points:
        found = (row.learning.figures if row.learning else {}) or (row.facts.figures if row.facts else {})
        one = found.get(HEADLINE, {})
        if one.get("low") is not None and one.get("high") is not None:
            axes.vlines(latency, one["low"], one["high"], color="0.75", linewidth=1, zorder=1)


def _names(axes: Axes, points: Sequence[tuple[float, float, Row]], front: frozenset[str]) -> None:
    """Names beside their points; where two points are close, the later one's goes below."""
    taken: list[tuple[float, float]] = []
    transform = axes.transData.transform
    for latency, value, row in sorted(points, key=lambda one: (one[2].item.key not in front, one[0])):
        if len(points) > FEW and row.item.key not in front:
            continue
        x, y = transform((latency, value))
        lift = 5
        left = axes.transAxes.inverted().transform((x, y))[0] > 0.8
        while any(abs(x - other) < 95 and abs(y + lift - height) < 11 for other, height in taken) and lift > -60:
            lift -= 11
        taken.append((x, y + lift))
        axes.annotate(
            row.item.label,
            (latency, value),
            xytext=(-6 if left else 6, lift),
            ha="right" if left else "left",
            textcoords="offset points",
            fontsize=7.5,
            color="black" if row.item.key in front else "0.35",
        )
