"""Files of predictions beside runs in `runs compare`: a run brings stored figures, a file is measured on the spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from medcli.errors import UsageProblem, nearest
from medcli.evaluation.predictions import Predictions, load_predictions
from medcli.evaluation.report import evaluate
from medcli.prediction.foreign import Columns
from medcli.prediction.tables import read_any
from medcli.runs.directory import open_run
from medcli.runs.listing import StoredFigure
from medcli.settings.groups import EvaluationSettings

__all__ = ["figure_of_file", "read_files", "run_split"]


def read_files(items: Sequence[str], columns: Columns, teller: Callable[[str], None]) -> dict[str, Predictions]:
    """The predictions of those items that are files, by item.

    Args:
        items: run directories and files, as typed.
        columns: how the columns of tables are called.
        teller: told what reading brought to light.

    Raises:
        UsageProblem: as `read_any`.
    """
    found: dict[str, Predictions] = {}
    for item in dict.fromkeys(items):
        if Path(item).is_file():
            read = read_any(item, columns)
            for note in read.notes:
                teller(f"{item}: {note}")
            found[item] = read.predictions
    return found


def figure_of_file(path: str, predictions: Predictions, metric: str, resamples: int, seed: int) -> StoredFigure:
    """One figure of a file of predictions, as `evaluate` gives it.

    Raises:
        UsageProblem: no labels, or no such figure (code `unknown-metric`).
    """
    found = evaluate(predictions, EvaluationSettings(bootstrap=resamples), seed=seed)
    if metric not in found.figures:
        close = nearest(metric, found.figures)
        raise UsageProblem(
            f"predictions like those of `{path}` have no figure `{metric}`",
            where="--metric",
            hint=f"did you mean `{close[0]}`?"
            if close
            else f"they have {', '.join(f'`{one}`' for one in found.figures)}",
            code="unknown-metric",
        )
    figure = found.figures[metric]
    return StoredFigure(Path(path), "", figure.value, figure.low, figure.high, found.n, figure.convention)


def run_split(run: str, on: str) -> Predictions:
    """The predictions a run stored of one split.

    Raises:
        UsageProblem: it stored none (code `not-pairable`).
    """
    file = open_run(run).predictions(on)
    if not file.is_file():
        raise UsageProblem(
            f"`{run}` has no stored predictions of `{on}`, so its cases cannot be paired",
            where=str(file),
            hint="leave `--paired` out",
            code="not-pairable",
        )
    return load_predictions(file)
