"""The calibrator of a run: where it is kept, and whether it still belongs to the run's model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.evaluation.calibration_result import CalibrationResult
from medcli.evaluation.calibrator import Calibrator, Origin, apply_calibrator, calibrate_logits
from medcli.evaluation.calibrator_file import calibrator_to_dict, read_calibrator
from medcli.evaluation.predictions import Predictions, load_predictions
from medcli.prediction.sources import Judgement
from medcli.runs.directory import RunDirectory, replace_text, writing

__all__ = [
    "CALIBRATION",
    "Teller",
    "calibrated_judgement",
    "calibrated_scores",
    "origin_of",
    "other_members",
    "run_calibrator",
    "run_splits",
    "write_calibration",
]

CALIBRATION = "calibration.json"
"""Figures before and after, beside `calibrator.json`."""


def run_calibrator(run: RunDirectory) -> Calibrator | None:
    """The calibrator of a run, or None where it was never calibrated.

    Raises:
        UsageProblem: the file is damaged (code `bad-calibrator`), or was fitted on predictions that the run no longer
            holds, so that it belongs to other weights (code `stale-calibrator`).
    """
    path = run.calibrator_file
    if not path.is_file():
        return None
    calibrator = read_calibrator(path)
    origin = calibrator.origin
    source = run.path / origin.file
    if origin.file and source.is_file() and _hash(source) != origin.sha256:
        raise UsageProblem(
            f"the calibrator was fitted on another `{origin.file}` than the run has now: its model went on learning",
            where=str(path),
            hint=f"`medcli calibrate {run.path}` fits a new one; `--raw` does without",
            code="stale-calibrator",
        )
    return calibrator


class Teller(Protocol):
    """Whoever passes sentences on to the user."""

    def warn(self, text: str) -> None: ...


def calibrated_judgement(run: RunDirectory, judged: Judgement, teller: Teller) -> Judgement:
    """The same predictions as the run's calibrator has them; unchanged where the run has none.

    Raises:
        UsageProblem: as `run_calibrator`; predictions of another target.
    """
    calibrator = run_calibrator(run)
    if calibrator is None:
        return judged
    for one in judged.all():
        if (misfit := other_members(calibrator, one.member_logits)) is not None:
            teller.warn(misfit)
            break
    internal = None if judged.internal is None else apply_calibrator(calibrator, judged.internal)
    return Judgement(internal, tuple(apply_calibrator(calibrator, one) for one in judged.others))


def other_members(calibrator: Calibrator, member_logits: npt.NDArray[Any] | None) -> str | None:
    """A warning where a calibrator was fitted on means of another number of answers: they are sharper or flatter."""
    count = 0 if member_logits is None else len(member_logits)
    if count == calibrator.origin.members:
        return None
    return (
        f"the calibrator was fitted on the scores of {calibrator.origin.members or 1} member(s) or pass(es), "
        f"these are means of {count or 1}: it fits them less well"
    )


def calibrated_scores(run: RunDirectory, logits: npt.NDArray[Any], target: Target) -> tuple[npt.NDArray[Any], str]:
    """(logits, how they were calibrated): as they are, and `""`, where the run has no calibrator.

    Raises:
        UsageProblem: as `run_calibrator`; a calibrator of another target (code `other-target`).
    """
    calibrator = run_calibrator(run)
    if calibrator is None:
        return logits, ""
    if calibrator.target != target:
        raise UsageProblem(
            "the run's calibrator was fitted for another target than that of its model",
            where=str(run.calibrator_file),
            hint=f"`medcli calibrate {run.path}` fits a new one; `--raw` does without",
            code="other-target",
        )
    return calibrate_logits(calibrator, logits), calibrator.describe()


def run_splits(run: RunDirectory) -> tuple[Predictions, Predictions | None, Origin]:
    """(predictions to fit on, those to report on, where the first lie): val and test as far as the run stored them.

    Raises:
        UsageProblem: the run stored no predictions (code `no-predictions`), or a file is damaged.
    """
    val, test = run.predictions("val"), run.predictions("test")
    if not val.is_file() and not test.is_file():
        raise UsageProblem(
            f"run `{run.path}` has no stored predictions: its training did not finish",
            hint=f"`medcli train --resume {run.path}` finishes it",
            code="no-predictions",
        )
    source = val if val.is_file() else test
    reported = load_predictions(test) if val.is_file() and test.is_file() else None
    origin = Origin(file=source.relative_to(run.path).as_posix(), sha256=_hash(source))
    return load_predictions(source), reported, origin


def origin_of(path: str) -> Origin:
    """The name and hash of a predictions file outside any run."""
    return Origin(file=Path(path).name, sha256=_hash(Path(path)))


def write_calibration(folder: Path, result: CalibrationResult) -> None:
    """Write `calibrator.json`, `calibration.json` and `plots/reliability.png` below a run or another folder.

    The calibrator comes last: where it is, the figures and the picture are its own.

    Raises:
        RunFailure: a file cannot be written.
    """
    # Matplotlib costs half a second, which reading a calibrator must not.
    from medcli.evaluation.calibration_plot import draw_reliability

    run = RunDirectory(folder)
    replace_text(
        folder / CALIBRATION, json.dumps(result.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )
    picture = run.plots / "reliability.png"
    with writing(picture):
        draw_reliability(result, picture)
    kept = calibrator_to_dict(result.calibrator)
    if result.conformal is not None:
        kept["conformal"] = result.conformal.conformal.to_dict()
    text = json.dumps(kept, indent=1, ensure_ascii=False, allow_nan=False)
    replace_text(run.calibrator_file, text + "\n")


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
