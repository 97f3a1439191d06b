"""A map as pictures for people: laid over the later image, and beside what shows whether the alignment can be trusted.

Limits of colour are fixed, since a scale of each picture's own draws noise as findings. Vermilion and sky blue differ
for the colour-blind too, and solid and dashed contours differ in grey print.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image as Pillow

from medcli.diffmap.findings import Finding, Grid, Limits
from medcli.diffmap.prediction import Pictured
from medcli.runs.directory import writing

__all__ = ["CAUTION", "PACKING", "Drawing", "checkerboard", "draw_overlay", "draw_sheet", "painted"]

CAUTION = "RESEARCH USE ONLY"
MORE, LESS = np.array([0.902, 0.333, 0.0]), np.array([0.337, 0.706, 0.914])  # vermilion and sky blue
ALARM = "#a00000"
WINDOW = (0.5, 99.5)  # percentiles of the current image that are black and white in pictures
STRONGEST = 0.8  # opacity: the anatomy stays visible under the strongest change
SQUARES = 8  # of the checkerboard, along the longer side
MOST_NUMBERED = 20
DPI = 120
PACKING = 3  # of PNGs: half the time of the usual 6, files as large but for a few percent
Image = npt.NDArray[np.float32]
Colours = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drawing:
    """What is drawn of one pair.

    Args:
        pictured: both images.
        values: float32 [S, S] on the model's square, NaN where nothing is known.
        grid: of the follow-up.
        findings: to be outlined.
        limits: of which the dead zone is not coloured.
        colour_limit: |value| of the strongest colour.
        signed: whether the map has signs.
        name: of the pair.
        method: how the map was made, in words.
        agreement: of the aligned images, -1 to 1.
        objections: what spoke against comparing the images, where that was overruled.
    """

    pictured: Pictured
    values: Image
    grid: Grid
    findings: tuple[Finding, ...]
    limits: Limits
    colour_limit: float
    signed: bool
    name: str
    method: str
    agreement: float
    objections: tuple[str, ...] = ()


def painted(picture: Image, values: Image, *, dead_zone: float, colour_limit: float) -> Colours:
    """A grey picture with a map over it (float64 [h, w, 3] in [0, 1]); opacity and value grow together.

    Args:
        picture: float32 [h, w] in [0, 1].
        values: float32 [h, w]; NaN darkens, what stays below the dead zone is left as it is.
        dead_zone: see `Limits`.
        colour_limit: |value| of the strongest colour.
    """
    known = np.isfinite(values)
    change = np.where(known, values, 0).astype(np.float64)
    grey = np.repeat((picture * np.where(known, 1.0, 0.4)).astype(np.float64)[..., None], 3, axis=2)
    opacity = _opacity(change, dead_zone, colour_limit)[..., None]
    return np.asarray(np.clip(grey * (1 - opacity) + np.where(change[..., None] > 0, MORE, LESS) * opacity, 0, 1))


def checkerboard(first: Image, second: Image) -> Image:
    """Squares of one and the other by turns: where edges run through, the images lie over each other."""
    height, width = first.shape
    side = max(1, round(max(height, width) / SQUARES))
    row, column = np.mgrid[:height, :width] // side
    return np.where((row + column) % 2 == 0, first, second).astype(np.float32)


def draw_overlay(drawing: Drawing, path: Path) -> None:
    """Write the later image with the map, contours of the findings and a colour bar in words.

    Raises:
        RunFailure: the file cannot be written.
    """
    height, width = drawing.pictured.followup.shape
    side = 6.6
    figure = Figure(figsize=(side + 1.5, max(3.2, side * height / width) + 1.1), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    _overlay(axes, drawing, numbers=11)
    _bar(figure, axes, drawing)
    figure.suptitle(_heading(drawing, 62, "\n"), fontsize=12, color=ALARM if drawing.objections else "black")
    figure.supxlabel(_caption(drawing), fontsize=10, color="0.25")
    _save(figure, path)


def draw_sheet(drawing: Drawing, path: Path) -> None:
    """Write prior (aligned), current, overlay and checkerboard side by side.

    Raises:
        RunFailure: the file cannot be written.
    """
    prior, current = _shown(drawing)
    height, width = current.shape
    side = 4.6
    figure = Figure(figsize=(2 * side + 1.4, 2 * max(2.4, side * height / width) + 1.7), dpi=DPI, layout="constrained")
    grid = figure.subplots(2, 2)
    for axes, picture, title in (
        (grid[0, 0], prior, "prior, laid over the current image"),
        (grid[0, 1], current, "current"),
        (grid[1, 1], checkerboard(prior, current), "checkerboard: edges should run through"),
    ):
        _show(axes, np.repeat(picture[..., None], 3, axis=2).astype(np.float64))
        axes.set_title(title, fontsize=12)
    _overlay(grid[1, 0], drawing, numbers=10)
    grid[1, 0].set_title("what changed", fontsize=12, fontweight="bold")
    _bar(figure, grid[:, 1], drawing)
    figure.suptitle(_heading(drawing, 70, "  ·  "), fontsize=13, color=ALARM if drawing.objections else "black")
    figure.supxlabel(_caption(drawing), fontsize=11, color="0.25")
    _save(figure, path)


def _overlay(axes: Axes, drawing: Drawing, *, numbers: int) -> None:
    _, picture = _shown(drawing)
    shape = (picture.shape[0], picture.shape[1])
    values = drawing.grid.unfold(drawing.values, shape)
    _show(axes, painted(picture, values, dead_zone=drawing.limits.dead_zone, colour_limit=drawing.colour_limit))
    for finding in drawing.findings:
        mask = drawing.grid.unfold(finding.component.mask.astype(np.float32), shape)
        # A frame of zeros closes contours that reach the border.
        closed = np.pad(mask, 1)
        across, down = np.arange(-1, shape[1] + 1), np.arange(-1, shape[0] + 1)
        colour = tuple(0.45 + 0.55 * (MORE if finding.sign > 0 else LESS))
        dashes = "solid" if finding.sign > 0 else (0, (3, 1.5))
        for line, width, style in (("black", 2.6, "solid"), (colour, 1.4, dashes)):
            axes.contour(across, down, closed, levels=[0.5], colors=[line], linewidths=width, linestyles=[style])
        if finding.id <= MOST_NUMBERED:
            top, left, height, width = drawing.grid.inner
            row, column = finding.component.peak_at
            # Centred on the peak: it lies within the contour, whatever the shape, and the line around it is the link.
            axes.text(
                float(np.clip((column + 0.5 - left) / width, 0.03, 0.97)) * shape[1],
                float(np.clip((row + 0.5 - top) / height, 0.03, 0.97)) * shape[0],
                f"{'+' if finding.sign > 0 else '−'}{finding.id}" if drawing.signed else str(finding.id),
                color="white",
                fontsize=numbers,
                fontweight="bold",
                ha="center",
                va="center",
                path_effects=[withStroke(linewidth=2.5, foreground="black")],
                clip_on=True,
            )
    axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))


def _bar(figure: Figure, axes: Axes | npt.NDArray[np.object_], drawing: Drawing) -> None:
    limit, dead = drawing.colour_limit, drawing.limits.dead_zone
    low = -limit if drawing.signed else 0.0
    levels = np.linspace(low, limit, 512, dtype=np.float32)[None]
    over_grey = painted(np.full_like(levels, 0.45), levels, dead_zone=dead, colour_limit=limit)[0]
    scale = ScalarMappable(Normalize(low, limit), ListedColormap(over_grey))
    bar = figure.colorbar(scale, ax=axes, fraction=0.05, pad=0.02, aspect=28, extend="max" if not low else "both")
    ticks = [0.0, dead, limit] if 0.05 * limit < dead < 0.95 * limit else [0.0, limit]
    if drawing.signed:
        ticks = [-tick for tick in reversed(ticks[1:])] + ticks
        words = "gone or less dense  ←  change  →  new or denser"
    else:
        words = "no change  →  changed (no direction)"
    bar.set_ticks(ticks, labels=[f"{tick:+.2g}" if tick and drawing.signed else f"{tick:.2g}" for tick in ticks])
    bar.ax.tick_params(labelsize=10)
    bar.set_label(words, fontsize=11)


def _heading(drawing: Drawing, most: int, between: str) -> str:
    lines = [f"{_shortened(drawing.name, most)}{between}{CAUTION}"]
    lines += [f"compared all the same, but {one}" for one in drawing.objections]
    return "\n".join(lines)


def _shown(drawing: Drawing) -> tuple[Image, Image]:
    """Prior and current; one window for both, that a few bright letters cannot dim the chest."""
    both = drawing.pictured
    low, high = (float(value) for value in np.percentile(both.followup, WINDOW))
    scale = 1 / (high - low) if high - low > 0.01 else 1.0
    first, second = (
        np.clip((picture - low) * scale, 0, 1).astype(np.float32) for picture in (both.baseline, both.followup)
    )
    return np.where(both.valid, first, np.float32(0)), second


def _caption(drawing: Drawing) -> str:
    count = len(drawing.findings)
    found = f"{count} finding{'s' if count != 1 else ''} at |change| ≥ {drawing.limits.threshold:.3g}"
    if count > MOST_NUMBERED:
        found += f", {MOST_NUMBERED} numbered"
    outline = "solid: new or denser, dashed: gone or less dense" if drawing.signed else "magnitudes only"
    return (
        f"{found} ({outline})\n{drawing.method} · agreement after alignment {drawing.agreement:.2f}"
        " · darkened: not in both images"
    )


def _opacity(change: Colours, dead_zone: float, colour_limit: float) -> Colours:
    share = np.clip(np.abs(change) / colour_limit, 0, 1)
    return np.asarray(np.where(np.abs(change) >= dead_zone, STRONGEST * share, 0.0) * (change != 0))


def _show(axes: Axes, picture: Colours) -> None:
    axes.imshow(picture, interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"…{text[-most + 1 :]}"


def _save(figure: Figure, path: Path) -> None:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    with writing(path):
        Pillow.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(path, dpi=(DPI, DPI), compress_level=PACKING)
