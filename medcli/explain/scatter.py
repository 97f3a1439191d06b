"""Features in two dimensions: what lies together looks alike to the network. A picture to ask questions with, no proof.

t-SNE keeps neighbourhoods and no distances: gaps and sizes of its clusters mean nothing. PCA is linear and says how
much of the spread it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medcli.data.target import Target
from medcli.errors import UsageProblem, nearest
from medcli.explain.embeddings import Embeddings
from medcli.runs.directory import writing

__all__ = ["MOST_POINTS", "Colouring", "Projection", "colourings", "draw_scatter", "project"]

MOST_POINTS = 5000
"""t-SNE takes minutes beyond."""

# Okabe & Ito's colours, told apart by the colour-blind; black and the pale yellow are left out.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
GREY = "#9a9a9a"
MOST_GROUPS = 12
_FIRST = 50


@dataclass(frozen=True)
class Projection:
    """Points in the plane.

    Args:
        points: float [m, 2].
        rows: which of the embeddings they are, [m].
        axes: what the axes are called.
    """

    points: npt.NDArray[np.floating[Any]]
    rows: npt.NDArray[np.int64]
    axes: tuple[str, str]


@dataclass(frozen=True)
class Colouring:
    """One way to colour points.

    Args:
        title: of the panel.
        groups: names in the order of the legend.
        of: group of every point [n], -1 for none.
        ordered: whether the groups are grades.
    """

    title: str
    groups: tuple[str, ...]
    of: npt.NDArray[np.int64]
    ordered: bool = False


def project(features: npt.NDArray[np.float32], how: Literal["tsne", "pca"], *, seed: int = 0) -> Projection:
    """Features [n, D] in two dimensions.

    t-SNE starts from PCA, looks at the 50 strongest principal components and at 30 neighbours (a third of the cases
    where they are few), and at 5,000 cases drawn by the seed where there are more.

    Raises:
        UsageProblem: fewer than four cases.
    """
    if len(features) < 4:
        raise UsageProblem(
            f"{len(features)} cases are too few for a plot", where="--plot", hint="name more data", code="too-few-cases"
        )
    from sklearn.decomposition import PCA

    rows = np.arange(len(features))
    if how == "pca":
        found = PCA(2, random_state=seed).fit(features)
        share = found.explained_variance_ratio_
        names = tuple(f"component {at + 1} ({100 * share[at]:.0f} % of the variance)" for at in range(2))
        return Projection(found.transform(features), rows, (names[0], names[1]))
    from sklearn.manifold import TSNE

    if len(rows) > MOST_POINTS:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), MOST_POINTS, replace=False))
    chosen = features[rows]
    first = min(_FIRST, *chosen.shape)
    reduced = PCA(first, random_state=seed).fit_transform(chosen)
    perplexity = min(30.0, (len(rows) - 1) / 3)
    points = TSNE(2, init="pca", perplexity=perplexity, random_state=seed).fit_transform(reduced)
    return Projection(points, rows, ("t-SNE 1 (no unit)", "t-SNE 2 (no unit)"))


def colourings(labels: npt.NDArray[Any], target: Target, wanted: Sequence[str] = ()) -> tuple[Colouring, ...]:
    """How the points are coloured: by class, by every output, by single labels.

    Labels of a multilabel target are shown as the most frequent single ones, `several` and `none`; one that is asked
    for is shown by itself.

    Args:
        labels: [n, ...] as in `Target`.
        target: what they are of.
        wanted: labels or outputs of `--target`.

    Raises:
        UsageProblem: no such label or output.
    """
    names = target.class_names if target.task == "multilabel" else tuple(output.name for output in target.outputs)
    for name in wanted:
        if not names:
            raise UsageProblem(
                "`--target` picks among several labels or outputs, and these cases have one label each",
                where="--target",
                hint="leave it out",
                code="unknown-target",
            )
        if name not in names:
            close = nearest(name, names) or names[:8]
            raise UsageProblem(
                f"there is no label or output `{name}`",
                where="--target",
                hint="one of " + ", ".join(f"`{one}`" for one in close),
                code="unknown-target",
            )
    if target.task == "multilabel":
        if wanted:
            return tuple(_one_label(labels[:, names.index(name)], name) for name in wanted)
        return (_all_labels(labels, names),)
    if target.outputs:
        return tuple(
            Colouring(output.name, output.classes, labels[:, position], output.ordinal)
            for position, output in enumerate(target.outputs)
            if not wanted or output.name in wanted
        )
    return (_merged(Colouring("", target.class_names, labels, target.task == "ordinal")),)


def draw_scatter(
    embeddings: Embeddings, projection: Projection, panels: Sequence[Colouring], heading: str, path: Path
) -> None:
    """Write a PNG with a panel per colouring.

    Raises:
        RunFailure: it cannot be written.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.6 * columns, 4.9 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for position, axes in enumerate(grid.flat):
        if position >= len(panels):
            axes.set_axis_off()
            continue
        _panel(axes, projection, panels[position])
    shown = f"{len(projection.rows)} of " if len(projection.rows) < len(embeddings) else ""
    figure.suptitle(f"{heading} · {shown}{len(embeddings)} images", fontsize=10)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=130)


def _panel(axes: Axes, projection: Projection, panel: Colouring) -> None:
    of = panel.of[projection.rows]
    size = float(np.clip(9000 / max(1, len(of)), 6, 36))
    if (of < 0).any():
        _points(axes, projection.points[of < 0], GREY, "o", size, f"not labelled ({int((of < 0).sum())})")
    for position, name in enumerate(panel.groups):
        points = projection.points[of == position]
        colour, marker = _style(position, len(panel.groups), ordered=panel.ordered)
        _points(axes, points, colour, marker, size, f"{name} ({len(points)})")
    axes.set_xlabel(projection.axes[0], fontsize=9)
    axes.set_ylabel(projection.axes[1], fontsize=9)
    axes.tick_params(labelsize=7)
    if "no unit" in projection.axes[0]:
        axes.set(xticks=[], yticks=[])
    axes.set_title(panel.title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), markerscale=1.4)


def _points(axes: Axes, points: npt.NDArray[Any], colour: Any, marker: str, size: float, label: str) -> None:
    axes.scatter(
        points[:, 0], points[:, 1], s=size, color=[colour], marker=marker, alpha=0.75, linewidths=0, label=label
    )


def _style(position: int, count: int, *, ordered: bool) -> tuple[Any, str]:
    """Colour and marker of a group: shape tells apart what colour alone may not."""
    if ordered:
        return colormaps["viridis"](0.95 * position / max(1, count - 1)), MARKERS[position % len(MARKERS)]
    return COLOURS[position % len(COLOURS)], MARKERS[(position + position // len(COLOURS)) % len(MARKERS)]


def _one_label(values: npt.NDArray[Any], name: str) -> Colouring:
    of = np.where(np.isnan(values), -1, np.nan_to_num(values, nan=-1.0)).astype(np.int64)
    return Colouring(name, ("no", "yes"), of)


def _all_labels(labels: npt.NDArray[Any], names: tuple[str, ...]) -> Colouring:
    positive = labels == 1
    counts = positive.sum(axis=1)
    alone = counts == 1
    each = np.where(alone, positive.argmax(axis=1), -1)
    frequent = [int(at) for at in np.argsort(-np.bincount(each[alone], minlength=len(names)), kind="stable")]
    shown = [at for at in frequent if (each == at).any()][: len(COLOURS)]
    groups = ["none", *(names[at] for at in shown), "another one", "several"]
    of = np.where(counts > 1, len(groups) - 1, np.where(alone, len(groups) - 2, 0))
    for place, at in enumerate(shown, start=1):
        of[each == at] = place
    of[np.isnan(labels).all(axis=1)] = -1
    present = [place for place in range(len(groups)) if (of == place).any()]
    renumbered = np.full(len(of), -1)
    for place, old in enumerate(present):
        renumbered[of == old] = place
    return Colouring("labels", tuple(groups[place] for place in present), renumbered)


def _merged(panel: Colouring) -> Colouring:
    """At most a dozen groups: the rarest become one, because no eye tells forty colours apart."""
    if len(panel.groups) <= MOST_GROUPS or panel.ordered:
        return panel
    counts = np.bincount(panel.of[panel.of >= 0], minlength=len(panel.groups))
    kept = sorted(np.argsort(-counts, kind="stable")[: MOST_GROUPS - 1].tolist())
    of = np.where(panel.of < 0, -1, len(kept))
    for place, old in enumerate(kept):
        of[panel.of == old] = place
    return Colouring(panel.title, (*(panel.groups[at] for at in kept), "other classes"), of)
