"""Several adapter runs on one loaded base, applied to the same files: one table, its columns named by run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.models.adapted import is_adapted, load_together
from medcli.models.build import LoadedModel
from medcli.prediction.conformal_sets import run_conformal, set_columns, set_rows
from medcli.prediction.files import FilePredictions, list_inputs, predict_files
from medcli.prediction.run_calibration import calibrated_scores
from medcli.prediction.score_table import score_columns, score_rows
from medcli.runs.directory import open_run
from medcli.settings.groups import ComputeSettings

if TYPE_CHECKING:
    from medcli.evaluation.conformal import Conformal

__all__ = ["RunPredictions", "calibrated_runs", "load_runs", "predict_with_each", "split_runs", "wide_table"]


@dataclass(frozen=True)
class RunPredictions:
    """What one run says.

    Args:
        run: its name in the table.
        target: what it predicts.
        found: its predictions.
        calibrated: how their scores became probabilities; empty for the model's own.
        conformal: thresholds of conformal sets, or None.
    """

    run: str
    target: Target
    found: FilePredictions
    calibrated: str = ""
    conformal: Conformal | None = None


def split_runs(run: str, inputs: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Adapter runs at the head of a command line, and the images after them.

    Raises:
        UsageProblem: runs alone.
    """
    if not is_adapted(Path(run)):
        return (run,), tuple(inputs)
    more = 0
    while more < len(inputs) and is_adapted(Path(inputs[more])):
        more += 1
    if more == len(inputs):
        raise UsageProblem("runs are named, and no images", hint="medcli predict RUN RUN IMAGES", code="no-inputs")
    return (run, *inputs[:more]), tuple(inputs[more:])


def load_runs(runs: Sequence[str], *, weights: str | None = None) -> dict[str, LoadedModel]:
    """Models of adapter runs that share one base, by name: the directory's own, or its whole path where two agree.

    Raises:
        UsageProblem: a run named twice, another base, a damaged adapter.
    """
    paths = [open_run(run).path for run in runs]
    short = [path.resolve().name for path in paths]
    names = [str(path) if short.count(name) > 1 else name for path, name in zip(paths, short, strict=True)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageProblem(f"the run `{twice}` is named twice", code="several-runs")
    return load_together(dict(zip(names, paths, strict=True)), weights=weights)


def predict_with_each(
    models: Mapping[str, LoadedModel],
    inputs: Sequence[str],
    compute: ComputeSettings,
    *,
    window: str | None,
    prepare: Callable[[LoadedModel], LoadedModel] = lambda loaded: loaded,
    progress: Callable[[str, int], Callable[[int], None]],
) -> list[RunPredictions]:
    """Predict every input with every run.

    Args:
        models: from `load_runs`.
        inputs: files, folders, archives.
        compute: device, precision, batch size, workers.
        window: of DICOM files; None for each run's own.
        prepare: changes how a model is asked (several views of a picture).
        progress: given a run's name and the number of images, gives what is told the images done.
    """
    found = []
    for name, loaded in models.items():
        loaded.classifier.set_adapter(name)
        entries = list_inputs(inputs, window or loaded.preprocessing.window)
        asked = prepare(loaded)
        predictions = predict_files(asked, entries, compute, progress=progress(name, len(entries)))
        found.append(RunPredictions(name, loaded.spec.target, predictions))
    return found


def calibrated_runs(runs: Sequence[str], found: Sequence[RunPredictions]) -> list[RunPredictions]:
    """The same predictions as the calibrator of each run has them, where it has one.

    Args:
        runs: the run directories, in the order of `found`.
        found: from `predict_with_each`.
    """
    result = []
    for path, one in zip(runs, found, strict=True):
        logits, calibrated = calibrated_scores(open_run(path), one.found.logits, one.target)
        held = run_conformal(open_run(path))
        result.append(replace(one, found=replace(one.found, logits=logits), calibrated=calibrated, conformal=held))
    return result


def wide_table(found: Sequence[RunPredictions]) -> tuple[tuple[str, ...], list[tuple[str | float, ...]]]:
    """One row per image, a column `RUN/COLUMN` for every column of every run."""
    columns = ["image"]
    rows: list[tuple[str | float, ...]] = [(name,) for name in found[0].found.names]
    for one in found:
        columns += [f"{one.run}/{column}" for column in score_columns(one.target, calibrated=bool(one.calibrated))[1:]]
        own = score_rows(one.found.names, one.found.logits, one.target)
        rows = [(*row, *cells[1:]) for row, cells in zip(rows, own, strict=True)]
        if one.conformal is not None:
            columns += [f"{one.run}/{column}" for column in set_columns(one.target)]
            sets = set_rows(one.conformal, one.found.names, one.found.logits)
            rows = [(*row, *cells) for row, cells in zip(rows, sets, strict=True)]
    return tuple(columns), rows
