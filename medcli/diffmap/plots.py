"""How a difference model learnt, and what its maps of some validation pairs look like beside the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["draw_course", "draw_maps", "draw_pictures"]

INK, BEST, SOFT, OTHER = "#1f4e79", "#c0392b", "#8fb3d9", "#b8860b"
LIMIT = 0.3  # of the maps' colours: fixed, lest noise be drawn as findings
SCORES = (
    ("auprc_positive", "new or denser", BEST),
    ("auprc_negative", "gone or less dense", INK),
    ("auprc", "both", SOFT),
)
Images = npt.NDArray[np.float32]


def draw_course(rows: Sequence[Mapping[str, Any]], monitor: str, path: Path) -> None:
    """Losses and figures by epoch, with the epoch whose weights were kept.

    Args:
        rows: rows of `metrics.jsonl` that describe epochs.
        monitor: the figure that chose the best epoch.
        path: the PNG to write.
    """
    epochs = [int(row["epoch"]) + 1 for row in rows]
    best = max((int(row["epoch"]) + 1 for row in rows if row.get("best")), default=None)
    shown = [entry for entry in SCORES if any(f"val_{entry[0]}" in row for row in rows)]
    rivals = any("train_discriminator" in row for row in rows)
    columns = 1 + bool(shown) + rivals
    figure = Figure(figsize=(4.5 * columns, 3.4), layout="constrained")
    panels = list(figure.subplots(1, columns, squeeze=False)[0])
    losses = panels.pop(0)
    losses.plot(epochs, _column(rows, "train_loss"), color=SOFT, label="train")
    losses.plot(epochs, _column(rows, "val_loss"), color=INK, label="validation")
    losses.set(xlabel="epoch", ylabel="loss")
    used = [losses]
    if shown:
        scores = panels.pop(0)
        for name, label, colour in shown:
            scores.plot(epochs, _column(rows, f"val_{name}"), color=colour, label=label)
        scores.set(xlabel="epoch", ylabel="AUPRC of changed pixels (validation)")
        used.append(scores)
    if rivals:
        both = panels.pop(0)
        both.plot(epochs, _column(rows, "train_discriminator"), color=OTHER, label="discriminator")
        both.plot(epochs, _column(rows, "train_adversarial"), color=INK, label="deceiving it")
        both.set(xlabel="epoch", ylabel="cross-entropy (nats)")
        used.append(both)
    for axes in used:
        if best is not None:
            axes.axvline(best, color="grey", linewidth=1, linestyle="--")
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    if best is not None:
        figure.suptitle(f"best epoch {best} by {monitor}", fontsize=9)
    _save(figure, path)


def draw_maps(pairs: Images, maps: Images, names: Sequence[str], path: Path, *, signed: bool) -> None:
    """A row per pair: baseline laid over the follow-up, follow-up, true map, map found, on one fixed scale.

    Args:
        pairs: float32 [n, 3, H, W]: baseline, follow-up, true map.
        maps: float32 [n, H, W].
        names: of the pairs.
        path: the PNG to write.
        signed: whether maps have signs.
    """
    titles = ("earlier (registered)", "later", "true change", "map")
    figure = Figure(figsize=(9.4, 1.75 * len(maps) + 0.5), layout="constrained")
    grid = figure.subplots(len(maps), 4, squeeze=False)
    colours, low = ("RdBu_r", -LIMIT) if signed else ("viridis", 0.0)
    drawn = None
    for row, (pair, found, name) in enumerate(zip(pairs, maps, names, strict=True)):
        for column, picture in enumerate((*pair, found)):
            axes: Axes = grid[row, column]
            axes.set(xticks=[], yticks=[])
            if column < 2:
                axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
            else:
                hidden = np.ma.masked_invalid(np.where(np.isnan(pair[2]), np.nan, picture))
                axes.set_facecolor("0.6")
                drawn = axes.imshow(hidden, cmap=colours, vmin=low, vmax=LIMIT)
            if row == 0:
                axes.set_title(titles[column], fontsize=9)
        grid[row, 0].set_ylabel(name, fontsize=7)
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=grid, shrink=0.6 / len(maps) ** 0.5, aspect=30)
        bar.set_label("less dense ← change → denser" if signed else "change", fontsize=8)
    figure.suptitle("validation pairs, research use only; grey: not shown by both images", fontsize=8)
    _save(figure, path)


def draw_pictures(pictures: Images, shown: Images, filled: Images, names: Sequence[str], path: Path) -> None:
    """A row per picture: as it is, with its hidden parts, filled in; each float32 [n, H, W] in [0, 1]."""
    figure = Figure(figsize=(7, 2.35 * len(pictures) + 0.3), layout="constrained")
    grid = figure.subplots(len(pictures), 3, squeeze=False)
    for row, name in enumerate(names):
        for column, (picture, title) in enumerate(
            ((pictures[row], "picture"), (shown[row], "what was shown"), (filled[row], "filled in"))
        ):
            axes: Axes = grid[row, column]
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title(title, fontsize=9)
        grid[row, 0].set_ylabel(name, fontsize=7)
    _save(figure, path)


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [math.nan if row.get(name) is None else float(row[name]) for row in rows]


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110)
