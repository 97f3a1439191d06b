"""The images that look most like one image to a network, with their distances and labels, on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medcli.data.dataset import Picture
from medcli.explain.embeddings import Embeddings, label_columns
from medcli.explain.geometry import displayed
from medcli.explain.overlay import show_picture
from medcli.runs.directory import writing

__all__ = ["SHOWN", "Neighbour", "draw_neighbours", "nearest_images"]

SHOWN = 11
_COLUMNS = 4


@dataclass(frozen=True)
class Neighbour:
    """One image near another.

    Args:
        row: in the embeddings.
        id: of the image.
        split: its split.
        label: in words.
        distance: 1 - cosine of the angle between the features, 0 (same direction) to 2.
    """

    row: int
    id: str
    split: str
    label: str
    distance: float


def nearest_images(query: npt.NDArray[np.float32], embeddings: Embeddings, count: int = SHOWN) -> tuple[Neighbour, ...]:
    """The nearest images by cosine distance, nearest first; equal ones in the order of the set.

    Args:
        query: features [D].
        embeddings: to search.
        count: how many.
    """
    table = embeddings.features.astype(np.float64)
    lengths = np.linalg.norm(table, axis=1) * np.linalg.norm(query.astype(np.float64))
    # Features of a picture in which nothing is seen have no direction; they are as far as unrelated ones.
    cosine = np.divide(table @ query, lengths, out=np.zeros(len(table)), where=lengths > 0)
    distance = np.clip(1 - cosine, 0, 2)
    order = np.argsort(distance, kind="stable")[:count]
    words = _words(embeddings)
    return tuple(
        Neighbour(int(row), str(embeddings.ids[row]), str(embeddings.splits[row]), words[row], float(distance[row]))
        for row in order
    )


def draw_neighbours(
    name: str, query: Picture, found: Sequence[Neighbour], pictures: Sequence[Picture], heading: str, path: Path
) -> None:
    """Write a PNG: the image that was asked about, then its neighbours with distance, label and split.

    Raises:
        RunFailure: it cannot be written.
    """
    cells = 1 + len(found)
    columns = min(_COLUMNS, cells)
    rows = -(-cells // columns)
    figure = Figure(figsize=(2.6 * columns, 3.05 * rows + 0.4), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[cells:]:
        axes.set_axis_off()
    show_picture(grid[0], displayed(query))
    grid[0].set_title(f"asked about\n{_short(name)}", fontsize=8, fontweight="bold")
    for spine in grid[0].spines.values():
        spine.set(color="#d55e00", linewidth=2.5)
    for axes, one, picture in zip(grid[1:], found, pictures, strict=False):
        show_picture(axes, displayed(picture))
        where = f" · {one.split}" if one.split else ""
        axes.set_title(f"{one.distance:.3f} · {_short(one.label, 24)}{where}\n{_short(one.id)}", fontsize=8)
    figure.suptitle(f"{heading} · cosine distance (0: same direction)", fontsize=9)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=110)


def _words(embeddings: Embeddings) -> list[str]:
    columns = label_columns(embeddings.labels, embeddings.target)
    if embeddings.target.task == "multilabel":
        return [
            ", ".join(name for name, cells in columns.items() if cells[row] == "1") or "none"
            for row in range(len(embeddings))
        ]
    if embeddings.target.outputs:
        return [", ".join(f"{name} {cells[row]}" for name, cells in columns.items()) for row in range(len(embeddings))]
    return [word or "not labelled" for word in columns["label"]]


def _short(text: str, most: int = 30) -> str:
    return text if len(text) <= most else f"…{text[-most + 1 :]}"
