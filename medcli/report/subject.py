"""What a report is about, measured once: every section reads the same figures, which are those of `medcli evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from medcli.errors import UsageProblem
from medcli.evaluation.calibration_figures import Assessment, assess, change
from medcli.evaluation.calibration_result import calibrate
from medcli.evaluation.calibrator import Calibrator, Method
from medcli.evaluation.clinical import Reference, Request, clinical_sections
from medcli.evaluation.conformal_report import ConformalReport, report_conformal
from medcli.evaluation.figures import Evaluation, Figure, Section
from medcli.evaluation.operating import Rule
from medcli.evaluation.predictions import Predictions, load_predictions
from medcli.evaluation.questions import yes_or_no
from medcli.evaluation.report import evaluate
from medcli.evaluation.uncertainty_section import uncertainty_section
from medcli.prediction.conformal_sets import run_conformal
from medcli.prediction.run_calibration import Teller, calibrated_judgement, origin_of, run_calibrator
from medcli.prediction.sources import Judgement, stored_predictions
from medcli.report.explained import Explained, read_explanations
from medcli.report.facts import RunFacts, read_run_facts
from medcli.runs.directory import open_run
from medcli.settings.groups import EvaluationSettings

__all__ = ["Calibration", "Judged", "Subject", "Way", "run_predictions", "subject_of_file", "subject_of_run"]

CUSTOMARY = (Rule("sens", 0.9), Rule("spec", 0.9))
"""Operating points shown where the run has validation cases to choose them on, and nobody asked for others."""


@dataclass(frozen=True)
class Way:
    """How predictions are measured.

    Args:
        evaluation: bins, resamples, raw scores.
        request: operating points, deferrals, subgroups.
        seed: of resampling and cross-fit.
        method: calibrator to cross-fit on predictions that come from no run; None for none.
        parts: of that cross-fit.
    """

    evaluation: EvaluationSettings
    request: Request
    seed: int = 0
    method: Method | None = None
    parts: int = 5


@dataclass(frozen=True)
class Calibration:
    """How far scores are probabilities.

    Args:
        after: of the scores as they are judged; cross-fitted ones where `parts` is not 0.
        before: of the same cases before a calibrator; None where there is none.
        change: after minus before.
        calibrator: what was fitted, or None.
        parts: of a cross-fit, else 0.
        predictions: cross-fitted predictions, or None.
        conformal: sets of classes, where thresholds for them were found.
        notes: what the reader should know.
    """

    after: Assessment
    before: Assessment | None = None
    change: Mapping[str, Figure] = field(default_factory=dict)
    calibrator: Calibrator | None = None
    parts: int = 0
    predictions: Predictions | None = None
    conformal: ConformalReport | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """Predictions with everything that was measured on them.

    Args:
        predictions: as `evaluate` judges them.
        evaluation: as `evaluate` gives it, with its sections.
        calibration: see there.
        customary: operating points that nobody asked for, chosen on validation cases; None where there are none.
        decision: decision curves of cross-fitted probabilities; None where `evaluation` has its own or none are due.
        on_val: whether these are the validation cases that chose the best epoch.
    """

    predictions: Predictions
    evaluation: Evaluation
    calibration: Calibration
    customary: Section | None = None
    decision: Section | None = None
    on_val: bool = False

    def section(self, name: str) -> Section | None:
        """A part of the evaluation by its name."""
        return next((one for one in self.evaluation.sections if one.name == name), None)


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Args:
        source: run or file as typed.
        facts: of the run, or None.
        judged: None where the run has no predictions yet.
        explained: pictures that `explain --save` left in the run.
        file: the predictions file, or None.
        raw: whether a run's calibrator was left aside.
        notes: what reading a table brought to light.
        again: the command that would make this report, with the flags that say how the source is read.
    """

    source: str
    facts: RunFacts | None
    judged: Judged | None
    explained: Explained
    file: Path | None
    raw: bool = False
    notes: tuple[str, ...] = ()
    again: str = ""


def subject_of_run(source: str, way: Way, stored: Predictions | None, teller: Teller) -> Subject:
    """Measure a run on the predictions it stored.

    Args:
        source: the run directory.
        way: how.
        stored: its predictions as `evaluate` would judge them, of `run_predictions`; None where it has none.
        teller: told what the user should know.

    Raises:
        UsageProblem: as `medcli evaluate RUN`.
    """
    facts = read_run_facts(source)
    explained = read_explanations(facts.run)
    if stored is None:
        return Subject(source, facts, None, explained, None, way.evaluation.raw)
    file = facts.run.predictions(stored.split)
    calibration = _of_run(facts, stored, way)
    judged = _judged(stored, way, calibration, on_val=stored.split != "test")
    if not way.request.rules and yes_or_no(stored.target):
        judged = replace(judged, customary=_customary(facts, stored, way, teller))
    return Subject(source, facts, judged, explained, file, way.evaluation.raw)


def subject_of_file(source: str, predictions: Predictions, way: Way, notes: tuple[str, ...] = ()) -> Subject:
    """Measure predictions of any tool.

    Args:
        source: the file.
        predictions: what it holds.
        way: how.
        notes: what reading it brought to light.

    Raises:
        UsageProblem: no labels, a test split to calibrate on (code `test-split`), or a cross-fit that is not possible.
    """
    if way.method is None:
        calibration = Calibration(assess(predictions, way.evaluation, seed=way.seed))
    elif predictions.split == "test":
        raise UsageProblem(
            "`--method` calibrates on the cases of the report, and these are a test split",
            where="--method",
            hint=f"`medcli calibrate VAL --apply-to {source} --save-predictions FILE` calibrates them by validation "
            "cases; report FILE",
            code="test-split",
        )
    else:
        result = calibrate(
            way.method,
            predictions,
            parts=way.parts,
            settings=way.evaluation,
            seed=way.seed,
            origin=origin_of(source),
        )
        calibration = Calibration(
            result.after,
            result.before,
            result.change,
            result.calibrator,
            result.parts,
            result.predictions,
            notes=result.notes,
        )
    return Subject(source, None, _judged(predictions, way, calibration), Explained(), Path(source), notes=notes)


def run_predictions(source: str, *, raw: bool, on: str | None, teller: Teller) -> Predictions | None:
    """The predictions of a run as `evaluate` judges them; None where its training has not come so far.

    Raises:
        UsageProblem: a damaged file, or a calibrator that belongs to other weights.
    """
    run = open_run(source)
    try:
        stored = stored_predictions(run, on)
    except UsageProblem as problem:
        if problem.code == "no-predictions" and on is None:
            return None
        raise
    if raw:
        return stored
    (found,) = calibrated_judgement(run, Judgement(None, (stored,)), teller).others
    return found


def _judged(predictions: Predictions, way: Way, calibration: Calibration, *, on_val: bool = False) -> Judged:
    evaluation = evaluate(predictions, way.evaluation, seed=way.seed)
    doubt = uncertainty_section(predictions)
    sections = clinical_sections(predictions, way.request) + (() if doubt is None else (doubt,))
    evaluation = replace(evaluation, sections=sections)
    decision = None
    if calibration.predictions is not None and not predictions.calibrated:
        found = clinical_sections(calibration.predictions)
        decision = next((one for one in found if one.name == "decision_curves"), None)
    return Judged(predictions, evaluation, calibration, None, decision, on_val)


def _of_run(facts: RunFacts, judged: Predictions, way: Way) -> Calibration:
    """Before and after on the judged cases; where those fitted the calibrator, cross-fitted as `calibrate` does."""
    after = assess(judged, way.evaluation, seed=way.seed)
    calibrator = None if way.evaluation.raw else run_calibrator(facts.run)
    if calibrator is None:
        return Calibration(after)
    raw = load_predictions(facts.run.predictions(judged.split))
    if calibrator.origin.file == f"predictions/{judged.split}.npz":
        result = calibrate(
            calibrator.method,
            raw,
            parts=way.parts,
            settings=way.evaluation,
            seed=way.seed,
            allow_test=calibrator.origin.test_allowed,
        )
        return Calibration(
            result.after,
            result.before,
            result.change,
            calibrator,
            result.parts,
            notes=("the judged cases are those the calibrator was fitted on; only the figures here are cross-fitted",),
        )
    before = assess(raw, way.evaluation, seed=way.seed)
    return Calibration(
        after,
        before,
        change(before, after),
        calibrator,
        conformal=_conformal(facts, judged),
        notes=tuple(calibrator.notes()),
    )


def _conformal(facts: RunFacts, judged: Predictions) -> ConformalReport | None:
    """Sets on the judged cases, where `calibrate --conformal` left thresholds in the calibrator's file."""
    held = run_conformal(facts.run)
    return None if held is None else report_conformal(held, judged)


def _customary(facts: RunFacts, judged: Predictions, way: Way, teller: Teller) -> Section | None:
    """The customary operating points, frozen on the run's validation cases; None where those are what is judged."""
    path = facts.run.predictions("val")
    if judged.split == "val" or not path.is_file():
        return None
    val = Judgement(None, (load_predictions(path),))
    (chosen,) = (val if way.evaluation.raw else calibrated_judgement(facts.run, val, teller)).others
    request = Request(CUSTOMARY, Reference(chosen, "the run's val cases"))
    found = clinical_sections(judged, request)
    return next((one for one in found if one.name == "operating_points"), None)
