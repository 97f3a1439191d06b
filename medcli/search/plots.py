"""Pictures of a search: how the best figure rose from trial to trial, and which settings it hung on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import optuna
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.study import Study

from medcli.search.plan import SearchPlan
from medcli.search.space import Choices, Dimension
from medcli.search.table import TrialRow, value_text

__all__ = ["draw_search", "importances"]

INK, BEST, SOFT, FAILED = "#1f4e79", "#c0392b", "#8fb3d9", "#7f7f7f"
ENOUGH, RELIABLE = 4, 20
"""Completed trials below which nothing can be said about which setting matters, and below which little."""


def draw_search(study: Study, rows: Sequence[TrialRow], plan: SearchPlan, folder: Path) -> None:
    """Draw `history.png`, `settings.png` and, from enough completed trials, `importance.png`.

    Args:
        study: for the importances, which Optuna computes.
        rows: the trials.
        plan: names the figure and the space.
        folder: where the pictures go.
    """
    monitor = plan.identity.monitor
    architecture = plan.identity.architecture.removeprefix("medcli/")
    title = f"{architecture} · {plan.identity.strategy} · {plan.start.plan.data.name} (validation)"
    if any(math.isfinite(row.value) for row in rows):
        _history(rows, monitor, title, folder / "history.png")
        _settings(rows, plan.space, monitor, title, folder / "settings.png")
    shares = importances(study, rows)
    if shares:
        _importance(shares, sum(row.state == "completed" for row in rows), monitor, title, folder / "importance.png")


def importances(study: Study, rows: Sequence[TrialRow]) -> dict[str, float]:
    """Share of the spread of the figure that each setting explains (fANOVA), largest first.

    Empty where too few trials were completed, or all of them reached the same figure.
    """
    done = [row.value for row in rows if row.state == "completed"]
    if len(done) < ENOUGH or max(done) == min(done):
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a forest of few trees on few trials complains about both
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _history(rows: Sequence[TrialRow], monitor: str, title: str, path: Path) -> None:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    lower = monitor == "loss"
    best, steps = math.nan, []
    for row in rows:
        if row.state == "completed" and math.isfinite(row.value):
            better = math.isnan(best) or (row.value < best if lower else row.value > best)
            best = row.value if better else best
        steps.append(best)
    axes.plot([row.trial for row in rows], steps, color=INK, linewidth=1, drawstyle="steps-post", label="best so far")
    for state, colour, marker in (("completed", INK, "o"), ("pruned", SOFT, "v")):
        shown = [row for row in rows if row.state == state and math.isfinite(row.value)]
        if shown:
            name = state if state == "completed" else "pruned (its best until then)"
            at, figures = [row.trial for row in shown], [row.value for row in shown]
            axes.scatter(at, figures, s=28, c=colour, marker=marker, label=name)
    failed = [row.trial for row in rows if row.state in ("failed", "interrupted")]
    if failed:
        bottom = axes.get_ylim()[0]
        floor = [bottom] * len(failed)
        axes.scatter(failed, floor, s=32, c=FAILED, marker="x", label="failed or interrupted", clip_on=False)
        axes.set_ylim(bottom=bottom)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=f"best {_name(monitor)} of the trial{' (lower is better)' if lower else ''}")
    axes.legend(frameon=False, fontsize=8, loc="best")
    _finish(figure, [axes], title, path)


def _importance(shares: dict[str, float], trials: int, monitor: str, title: str, path: Path) -> None:
    figure = Figure(figsize=(8, 1.4 + 0.45 * len(shares)), layout="constrained")
    axes = figure.subplots()
    names = list(reversed(shares))
    rough = "; rough" if trials < RELIABLE else ""
    bars = axes.barh(names, [shares[name] for name in names], color=INK, height=0.6)
    axes.bar_label(bars, [f"{shares[name]:.2f}" for name in names], padding=4, fontsize=9)
    axes.set(
        xlim=(0, 1.08), xlabel=f"share of the spread of {_name(monitor)} (fANOVA, {trials} completed trials{rough})"
    )
    _finish(figure, [axes], title, path)


def _settings(rows: Sequence[TrialRow], space: Sequence[Dimension], monitor: str, title: str, path: Path) -> None:
    """The figure of every trial against each setting."""
    columns = 2 if len(space) == 4 else min(3, len(space))
    lines = -(-len(space) // columns)
    figure = Figure(figsize=(max(4.5, 3.2 * columns), 0.6 + 2.6 * lines), layout="constrained")
    panels: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, one in zip(panels, space, strict=False):
        for state, colour, marker in (("completed", INK, "o"), ("pruned", SOFT, "v")):
            shown = [row for row in rows if row.state == state and one.name in row.settings]
            values = [row.settings[one.name] for row in shown]
            if isinstance(one, Choices):
                values = [one.values.index(value) for value in values]
            axes.scatter(values, [row.value for row in shown], s=24, c=colour, marker=marker)
        if isinstance(one, Choices):
            axes.set_xticks(range(len(one.values)), [value_text(value) for value in one.values])
            axes.set_xlim(-0.5, len(one.values) - 0.5)
        elif one.log:
            axes.set_xscale("log")
            axes.set_xlim(one.low, one.high)
        axes.set(xlabel=one.name, ylabel=_name(monitor))
    for axes in panels[len(space) :]:
        axes.set_visible(False)
    _finish(figure, panels, f"{title}; triangles: pruned", path)


def _name(monitor: str) -> str:
    return f"val {monitor.replace('_', ' ')}"


def _finish(figure: Figure, panels: Sequence[Axes], title: str, path: Path) -> None:
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=120)
