"""A calibration from beginning to end on predictions alone: who may be fitted on whom, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medcli.errors import UsageProblem
from medcli.evaluation.calibration_figures import Assessment, assess, change
from medcli.evaluation.calibrator import Calibrator, Method, Origin, apply_calibrator
from medcli.evaluation.calibrator_file import calibrator_to_dict
from medcli.evaluation.calibrators import cross_fit, fit_calibrator, halves
from medcli.evaluation.figures import Figure
from medcli.evaluation.predictions import Predictions
from medcli.settings.groups import EvaluationSettings

if TYPE_CHECKING:
    from medcli.evaluation.conformal_report import ConformalReport

__all__ = ["SCHEMA", "CalibrationResult", "Sets", "calibrate"]

SCHEMA = "medcli-calibration/1"


@dataclass(frozen=True)
class Sets:
    """Conformal sets that are asked for.

    Args:
        method: `lac`, `aps` or `raps`.
        miscoverage: share of sets that may miss the true class.
        by_class: a threshold for every class.
    """

    method: Literal["lac", "aps", "raps"]
    miscoverage: float = 0.1
    by_class: bool = False


@dataclass(frozen=True)
class CalibrationResult:
    """A fitted calibrator and what it does to cases it was not fitted on.

    Args:
        calibrator: for use on new cases; fitted on all the cases it was given.
        predictions: the reported cases with calibrated logits.
        before: figures of the reported cases as they were.
        after: figures of the same cases calibrated.
        change: after minus before.
        parts: number of parts of the cross-fit; 0 where other predictions were reported on.
        folds: the calibrators behind a cross-fit.
        bins: bins of the calibration error.
        binning: `width` or `mass`: those of the curves and of `--max-ece`.
        resamples: resamples behind the intervals.
        notes: what the reader should know.
        conformal: sets of classes on the reported cases, or None where none were asked for.
    """

    calibrator: Calibrator
    predictions: Predictions
    before: Assessment
    after: Assessment
    change: Mapping[str, Figure]
    parts: int
    folds: tuple[Calibrator, ...]
    bins: int
    binning: str
    resamples: int
    notes: tuple[str, ...]
    conformal: ConformalReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON document (schema `medcli-calibration/1`); NaN becomes None."""
        return {
            "schema": SCHEMA,
            "calibrator": calibrator_to_dict(self.calibrator),
            "reported_on": {
                "split": self.predictions.split,
                "data": self.predictions.data_name,
                "cases": self.after.n,
                "patients": self.after.patients,
                "cross_fit": self.parts,
            },
            "fitted_on_test": self.calibrator.origin.test_allowed,
            "bins": self.bins,
            "binning": self.binning,
            "resamples": self.resamples,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "change": {name: figure.to_dict() for name, figure in self.change.items()},
            "folds": [[dict(fit.parameters) for fit in fold.fits] for fold in self.folds]
            if self.calibrator.method != "isotonic"
            else [],
            "conformal": None if self.conformal is None else self.conformal.to_dict(),
            "notes": list(self.notes),
        }


def calibrate(
    method: Method,
    fitted_on: Predictions,
    reported_on: Predictions | None = None,
    *,
    parts: int = 5,
    settings: EvaluationSettings | None = None,
    seed: int = 0,
    origin: Origin | None = None,
    allow_test: bool = False,
    sets: Sets | None = None,
) -> CalibrationResult:
    """Fit a calibrator and measure calibration before and after on cases it was not fitted on.

    Args:
        method: see `fit_calibrator`.
        fitted_on: validation predictions.
        reported_on: test predictions of the same model; None for a cross-fit by patient on `fitted_on`.
        parts: of the cross-fit.
        settings: bins, binning, number of resamples.
        seed: of the parts and of the resampling.
        origin: file and hash to be recorded.
        allow_test: fit on a test split all the same; the result is marked.
        sets: conformal sets to find as well, on half of the patients, which the calibrator then does without.

    Raises:
        UsageProblem: a test split to fit on (code `test-split`), predictions of different models (`other-target`,
            `other-members`), the same cases twice (`same-cases`), no labels, too few cases.
    """
    settings = settings or EvaluationSettings()
    forced = fitted_on.split == "test"
    if forced and not allow_test:
        raise UsageProblem(
            "these are predictions of a test split: calibrated on it, the test would no longer be one",
            where=fitted_on.data_name or None,
            hint="give predictions of the validation split; `--allow-test` does it all the same and marks the result",
            code="test-split",
        )
    base = origin or Origin()
    marked = Origin(file=base.file, sha256=base.sha256, test_allowed=forced)
    notes: list[str] = []
    if forced:
        notes.append("fitted on a test split (`--allow-test`): figures of that split are no longer those of a test")
    folds: tuple[Calibrator, ...] = ()
    conformal = None
    if reported_on is None and sets is not None:
        raise UsageProblem(
            "conformal sets are judged on cases that neither calibrator nor thresholds have seen, and there are none",
            where="--conformal",
            hint="`--apply-to TEST` names predictions to report on",
            code="no-test",
        )
    if reported_on is None:
        found = cross_fit(method, fitted_on, parts, seed=seed, origin=marked)
        calibrator, predictions, folds = found.calibrator, found.predictions, found.folds
        raw = fitted_on
        if fitted_on.patients is None:
            notes.append("no patients are known: the parts of the cross-fit take every image for a patient of its own")
        notes.append(
            f"cross-fitted in {parts} parts: every case was calibrated by a fit without its patient; the calibrator "
            "that is kept was fitted on all of them"
        )
    else:
        notes += _check_pair(fitted_on, reported_on)
        if sets is not None:
            first, second = halves(fitted_on, seed=seed)
            # These need scipy.stats, a third of a second that calibration alone does without.
            from medcli.evaluation.conformal import fit_conformal
            from medcli.evaluation.conformal_report import report_conformal

            try:
                calibrator = fit_calibrator(method, first, origin=marked)
                thresholds = fit_conformal(
                    apply_calibrator(calibrator, second),
                    method=sets.method,
                    miscoverage=sets.miscoverage,
                    by_class=sets.by_class,
                    seed=seed,
                )
            except UsageProblem as problem:
                if problem.code != "too-few-cases":
                    raise
                # The count in the message is of one half, which nobody typed.
                shared = f"of {len(fitted_on)} cases half fit the calibrator, the others the thresholds"
                hint = f"{problem.hint}; {shared}" if problem.hint else shared
                raise UsageProblem(problem.message, where=problem.where, hint=hint, code=problem.code) from problem
            conformal = report_conformal(thresholds, apply_calibrator(calibrator, reported_on))
            notes.append(
                f"the calibrator was fitted on {len(first)} of {len(fitted_on)} cases, the thresholds of the conformal "
                "sets on the others"
            )
        else:
            calibrator = fit_calibrator(method, fitted_on, origin=marked)
        predictions, raw = apply_calibrator(calibrator, reported_on), reported_on
        if not (np.isfinite(raw.labels) & (raw.labels >= 0)).any():
            raise UsageProblem(
                "none of the predictions to report on has a label",
                where=raw.data_name or None,
                hint="without `--apply-to` the report is a cross-fit",
                code="no-labels",
            )
    if settings.bootstrap and raw.patients is None:
        notes.append("no patients are known: the intervals take every image for a patient of its own")
    notes += calibrator.notes()
    before, after = assess(raw, settings, seed=seed), assess(predictions, settings, seed=seed)
    return CalibrationResult(
        calibrator,
        predictions,
        before,
        after,
        change(before, after),
        parts if reported_on is None else 0,
        folds,
        settings.bins,
        settings.binning,
        settings.bootstrap,
        tuple(notes),
        conformal,
    )


def _check_pair(fitted_on: Predictions, reported_on: Predictions) -> list[str]:
    """Whether both come from one model and from different cases; what else the reader should know."""
    if fitted_on.target != reported_on.target:
        raise UsageProblem(
            "the predictions to fit on and those to report on have different targets",
            where=reported_on.data_name or None,
            hint="both must come from one model, with the same classes in the same order",
            code="other-target",
        )
    ours, theirs = (0 if one.member_logits is None else len(one.member_logits) for one in (fitted_on, reported_on))
    if ours != theirs:
        raise UsageProblem(
            f"the predictions to fit on are the mean of {ours or 1}, those to report on of {theirs or 1} members",
            where=reported_on.data_name or None,
            hint="predict both with the same members or passes: a mean of more is less confident",
            code="other-members",
        )
    rows = {name: row for row, name in enumerate(fitted_on.ids.tolist())}
    shared = [(rows[name], row) for row, name in enumerate(reported_on.ids.tolist()) if name in rows]
    if shared:
        # Names such as `1` or `0001.png` occur everywhere; with the same scores they are the same cases.
        mine, yours = np.array(shared).T
        same = (fitted_on.logits[mine] == reported_on.logits[yours]).reshape(len(shared), -1).all(axis=1)
        if same.any():
            raise UsageProblem(
                f"{int(same.sum())} cases to report on are among those to fit on, such as "
                f"`{reported_on.ids[yours[same.argmax()]]}`",
                where=reported_on.data_name or None,
                hint="without `--apply-to` the cases are cross-fitted by patient",
                code="same-cases",
            )
    if fitted_on.patients is None or reported_on.patients is None:
        return []
    both = set(fitted_on.patients.tolist()) & set(reported_on.patients.tolist()) - {""}
    if both and fitted_on.data_name == reported_on.data_name:
        return [f"{len(both)} patients are in both sets: the report is better than new patients would have it"]
    return []
