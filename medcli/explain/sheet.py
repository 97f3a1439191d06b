"""The sheet of a sanity check: every picture's map as more and more of the network is destroyed, and the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medcli.data.dataset import Picture
from medcli.explain.geometry import displayed
from medcli.explain.overlay import PALETTE, show_picture, strengths
from medcli.explain.sanity import LIMIT, SanityCheck

__all__ = ["draw_sheet"]

_ROWS = 4
RANK, ALIKE = "#1f4e79", "#b35806"


def draw_sheet(check: SanityCheck, pictures: Sequence[Picture], title: str, path: Path) -> None:
    """Write a PNG: a row per picture (at most four), a column per step, and below them both figures by step.

    Args:
        check: the outcome.
        pictures: those that were checked, in order.
        title: of the method.
        path: the file; its folder is made.
    """
    rows, columns = min(_ROWS, len(pictures)), len(check.steps) + 2
    figure = Figure(figsize=(1.25 * columns + 0.8, 1.35 * rows + 3.4), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.35 * rows + 0.7, 2.5])[:, 0]
    grid = above.subplots(rows, columns, squeeze=False)
    names = ["picture", "trained", *(step.name for step in check.steps)]
    for row in range(rows):
        show_picture(grid[row][0], displayed(pictures[row]))
        for column, values in enumerate(check.maps[row], start=1):
            axes = grid[row][column]
            axes.imshow(strengths(values.clamp_min(0).numpy()), cmap=PALETTE, vmin=0, vmax=1, interpolation="bilinear")
            axes.set(xticks=[], yticks=[])
    for column, name in enumerate(names):
        grid[0][column].set_title(_broken(name), fontsize=7)
    figure.suptitle(f"{title}: weights shuffled from the answer down to …", fontsize=10)
    axes = below.subplots()
    steps = range(len(check.steps))
    axes.plot(steps, [step.rank for step in check.steps], "o-", color=RANK, label="rank correlation")
    axes.plot(steps, [step.ssim for step in check.steps], "s--", color=ALIKE, label="SSIM")
    axes.axhline(LIMIT, color="0.5", linewidth=0.8, linestyle=":", label=f"limit {LIMIT:g}")
    axes.set_xticks(list(steps), [_broken(step.name) for step in check.steps], fontsize=7)
    axes.set_ylim(min(-0.15, *(step.rank - 0.05 for step in check.steps)), 1.05)
    axes.set_ylabel("likeness to the trained map", fontsize=8)
    axes.set_xlabel("shuffled down to this stage (the last column: no learned weight is left)", fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, ncols=3, loc="upper right")
    below.suptitle(f"{check.outcome} · {check.pictures} picture{'s' if check.pictures != 1 else ''}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=120)


def _broken(name: str, most: int = 14) -> str:
    return name if len(name) <= most else f"…{name[-most + 1 :]}"
