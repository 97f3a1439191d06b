"""One explanation as a picture: the original, and beside it the same with what mattered laid over it.

Colour and opacity both grow with strength, so that a weak place shows the anatomy and not the dark end of a palette;
a line at half of the strongest value survives printing in grey. The palette is perceptually uniform and safe for the
colour-blind. Below the map a coloured picture loses most of its colour, lest a yellow lesion pass for a strong place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from medcli.explain.geometry import Placed

__all__ = ["PALETTE", "Caption", "draw_overlay", "paint_map", "strengths"]

Floats = npt.NDArray[np.float32]

PALETTE = "viridis"
STRONGEST_ALPHA = 0.75
KEPT_COLOUR = 0.3
_HEIGHT = 4.2
_WIDEST = 5.6


@dataclass(frozen=True)
class Caption:
    """The words of a picture.

    Args:
        name: of the image.
        question: the class that is explained, and its score.
        truth: the label, or empty.
        method: and its layer.
        note: such as that another class has the same map, or empty.
    """

    name: str
    question: str
    truth: str
    method: str
    note: str = ""


def strengths(values: Floats, *, pixelwise: bool = False) -> Floats:
    """Values >= 0 as shares of the strongest, in [0, 1]; all 0 where nothing is positive.

    Args:
        values: [h, w].
        pixelwise: take the 99.5th percentile for the strongest, because single pixels stand out by chance.
    """
    top = float(np.quantile(values, 0.995)) if pixelwise else float(values.max(initial=0))
    if not top > 0:
        top = float(values.max(initial=0))
    return np.zeros_like(values) if not top > 0 else np.clip(values / top, 0, 1).astype(np.float32)


def draw_overlay(picture: Floats, placed: Placed, caption: Caption, path: Path, *, pixelwise: bool = False) -> None:
    """Write a PNG with the original, the overlay, and a colour bar.

    Args:
        picture: [H, W] or [H, W, 3] in [0, 1].
        placed: the map in the picture's proportions.
        caption: the words.
        path: the file; its folder is made.
        pixelwise: see `strengths`.
    """
    height, width = picture.shape[:2]
    side = min(_WIDEST, max(2.4, _HEIGHT * width / height))
    figure = Figure(figsize=(2 * side + 1.0, side * height / width + 0.85), layout="constrained")
    left, right = figure.subplots(1, 2)
    show_picture(left, picture)
    paint_map(right, picture, placed, pixelwise=pixelwise)
    left.set_title(_shortened(caption.truth or "picture"), fontsize=10)
    right.set_title(_shortened(caption.question), fontsize=10, fontweight="bold")
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), _bar_colours()), ax=right, fraction=0.045, pad=0.03)
    bar.set_label("share of the strongest place", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(_shortened(caption.name, 90), fontsize=9, color="0.35")
    below = caption.method + (f" · {caption.note}" if caption.note else "")
    figure.supxlabel(below, fontsize=8, color="0.35")
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110)


def show_picture(axes: Axes, picture: Floats) -> None:
    """A picture without ticks, grey where it has one channel."""
    height, width = picture.shape[:2]
    # Palette and limits concern pictures of one channel; matplotlib passes them over for the others.
    extent = (0, width, height, 0)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="antialiased")
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))


def paint_map(axes: Axes, picture: Floats, placed: Placed, *, pixelwise: bool = False) -> None:
    """A picture with a map over it; what the network did not see is hatched."""
    show_picture(axes, _paled(picture))
    height, width = picture.shape[:2]
    extent = (0, width, height, 0)
    share = strengths(placed.values, pixelwise=pixelwise)
    colours = colormaps[PALETTE](share)
    colours[..., 3] = STRONGEST_ALPHA * share * placed.seen
    axes.imshow(colours, extent=extent, interpolation="bilinear")
    if share.max(initial=0) > 0 and not pixelwise:
        axes.contour(share, levels=[0.5], colors="white", linewidths=0.8, extent=extent, origin="upper")
    if not placed.seen.all():
        hidden = np.zeros((*placed.seen.shape, 4))
        hidden[..., 3] = np.where(placed.seen, 0, 0.55)
        axes.imshow(hidden, extent=extent, interpolation="nearest")


def _paled(picture: Floats) -> Floats:
    if picture.ndim == 2:
        return picture
    grey = (picture @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[:, :, None]
    return np.asarray(KEPT_COLOUR * picture + (1 - KEPT_COLOUR) * grey, dtype=np.float32)


def _bar_colours() -> ListedColormap:
    """The palette as it looks over mid-grey at the opacity that each strength has."""
    share = np.linspace(0, 1, 256)
    alpha = (STRONGEST_ALPHA * share)[:, None]
    return ListedColormap(np.asarray(colormaps[PALETTE](share))[:, :3] * alpha + 0.5 * (1 - alpha))


def _shortened(text: str, most: int = 48) -> str:
    return text if len(text) <= most else f"…{text[-most + 1 :]}"
