"""Calibrators fitted on labelled predictions: which method suits which target, how few cases are too few.

Where there is no other split to report on, every case is calibrated by a map that never saw its patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medcli.errors import UsageProblem
from medcli.evaluation.calibrator import (
    METHODS,
    Calibrator,
    Fit,
    Method,
    Origin,
    calibrate_logits,
    calibrated_already,
    margin_of,
)
from medcli.evaluation.calibrator_fits import (
    fit_beta,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    fit_vector,
    tame,
)
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.resampling import clusters_of

__all__ = [
    "FEWEST_CASES",
    "FEWEST_EACH",
    "FEWEST_ISOTONIC",
    "CrossFitted",
    "cross_fit",
    "fit_calibrator",
    "halves",
]

Floats = npt.NDArray[np.float64]

FEWEST_CASES = 20
"""Labelled cases below which nothing is fitted."""

FEWEST_EACH = 5
"""Cases of either answer that a question of two answers needs, and of every class that `vector` needs."""

FEWEST_ISOTONIC = 1000
"""Labelled cases below which an isotonic map, with as many parameters as steps, follows the noise."""


@dataclass(frozen=True)
class CrossFitted:
    """Predictions calibrated by maps that never saw their patient.

    Args:
        predictions: all cases with calibrated logits; those without any label keep the map of all cases.
        calibrator: fitted on all cases, for use on new ones.
        folds: one calibrator per part, each fitted on the other parts.
        part: int64 [n], the part each case was held out in.
    """

    predictions: Predictions
    calibrator: Calibrator
    folds: tuple[Calibrator, ...]
    part: npt.NDArray[np.int64]


def fit_calibrator(method: Method, predictions: Predictions, *, origin: Origin | None = None) -> Calibrator:
    """Fit a calibrator on labelled predictions.

    Labels of a multilabel target and outputs of a multioutput one are fitted each by itself, on their observed entries;
    one with too few keeps its scores, and its `Fit` says so.

    Args:
        method: `temperature` and `vector` suit every target with one answer per question; `platt`, `beta` and
            `isotonic` two answers (binary) or labels.
        predictions: see `Predictions`.
        origin: recorded; split, data, counts and members are filled in here.

    Raises:
        UsageProblem: the method does not suit the target (code `other-method`), no labels (`no-labels`), too few cases
            (`too-few-cases`), scores that are calibrated already (`calibrated-already`).
    """
    _refuse(method, predictions)
    fits = tuple(_fit(method, question) for question in _questions(predictions))
    if not any(fit.parameters for fit in fits):
        reasons = sorted({fit.note for fit in fits})
        raise UsageProblem(
            f"too few cases to calibrate: {'; '.join(reasons)}",
            where=predictions.data_name or None,
            hint=_HINTS_TOO_FEW[method],
            code="too-few-cases",
        )
    known = _labelled(predictions)
    patients = None
    if predictions.patients is not None:
        patients = clusters_of(predictions.patients[known], int(known.sum())).count
    base = origin or Origin()
    members = 0 if predictions.member_logits is None else len(predictions.member_logits)
    complete = replace(
        base,
        split=predictions.split,
        data_name=predictions.data_name,
        cases=int(known.sum()),
        patients=patients,
        members=members,
    )
    return Calibrator(method, predictions.target, fits, complete)


def cross_fit(
    method: Method, predictions: Predictions, parts: int, *, seed: int = 0, origin: Origin | None = None
) -> CrossFitted:
    """Calibrate every case by a map fitted without its patient, where there is no other split to report on.

    Patients are dealt into parts of about equal numbers of patients, at random. A question is calibrated where it can
    be fitted without each of the parts; otherwise it keeps its scores throughout.

    Raises:
        UsageProblem: as `fit_calibrator`; fewer patients than parts (code `too-few-cases`).
    """
    whole = fit_calibrator(method, predictions, origin=origin)
    clusters = clusters_of(predictions.patients, len(predictions))
    if clusters.count < parts:
        unit = "patients" if clusters.known else "cases"
        raise UsageProblem(
            f"{clusters.count} {unit} cannot be dealt into {parts} parts",
            where="--cross-fit",
            hint="fewer parts, or `--apply-to TEST` to report on other predictions",
            code="too-few-cases",
        )
    order = np.random.default_rng(seed).permutation(clusters.count)
    dealt = np.empty(clusters.count, dtype=np.int64)
    dealt[order] = np.arange(clusters.count) % parts
    part = dealt[clusters.index]
    folds = [fit_calibrator(method, _rows(predictions, part != held), origin=origin) for held in range(parts)]
    fitted = [all(fold.fits[index].parameters for fold in folds) for index in range(len(whole.fits))]
    folds = [_only(fold, fitted) for fold in folds]
    logits = np.array(predictions.logits, dtype=np.float64)
    for held, fold in enumerate(folds):
        logits[part == held] = calibrate_logits(fold, predictions.logits[part == held])
    by = "patient" if clusters.known else "case"
    text = f"{method}, cross-fitted by {by} in {parts} parts"
    return CrossFitted(replace(predictions, logits=logits, calibrated=text), _only(whole, fitted), tuple(folds), part)


def halves(predictions: Predictions, *, seed: int = 0) -> tuple[Predictions, Predictions]:
    """The cases of one half of the patients, drawn at random, and those of the other half."""
    clusters = clusters_of(predictions.patients, len(predictions))
    order = np.random.default_rng(seed).permutation(clusters.count)
    first = np.zeros(clusters.count, dtype=bool)
    first[order[: (clusters.count + 1) // 2]] = True
    chosen = first[clusters.index]
    return _rows(predictions, chosen), _rows(predictions, ~chosen)


def _only(calibrator: Calibrator, fitted: list[bool]) -> Calibrator:
    """The calibrator without the questions that some part could not fit."""
    note = "too few cases in one of the parts; its scores stay as they are"
    fits = tuple(
        fit if good or not fit.parameters else replace(fit, parameters={}, note=note)
        for fit, good in zip(calibrator.fits, fitted, strict=True)
    )
    return replace(calibrator, fits=fits)


_HINTS_TOO_FEW: Mapping[Method, str] = {
    "temperature": "label more validation cases",
    "vector": "`--method temperature` needs fewer cases",
    "platt": "label more validation cases",
    "beta": "label more validation cases",
    "isotonic": "`--method beta` or `--method platt` need fewer cases",
}


@dataclass(frozen=True)
class _Question:
    """Labelled cases of one question: logits [n, K] with labels int64 [n], or a label's margin as K = 1."""

    name: str
    logits: Floats
    labels: npt.NDArray[np.int64]
    classes: int
    positive: int


def _questions(predictions: Predictions) -> Iterator[_Question]:
    target, labels = predictions.target, predictions.labels
    if target.task == "multilabel":
        for index, name in enumerate(target.class_names):
            seen = ~np.isnan(labels[:, index])
            margin = margin_of(predictions.logits[seen, index])
            yield _Question(name, margin[:, None], (labels[seen, index] > 0.5).astype(np.int64), 2, 1)
        return
    for index, output in enumerate(target.outputs):
        seen = labels[:, index] >= 0
        classes = len(output.classes)
        own = tame(predictions.logits[seen, index, :classes])
        yield _Question(output.name, own, labels[seen, index].astype(np.int64), classes, 1)
    if not target.outputs:
        seen = labels >= 0
        own = tame(predictions.logits[seen])
        yield _Question("", own, labels[seen].astype(np.int64), target.num_classes, target.positive)


def _fit(method: Method, question: _Question) -> Fit:
    counts = np.bincount(question.labels, minlength=question.classes)
    sizes = tuple(int(count) for count in counts)
    cases = sum(sizes)
    blank = Fit(question.name, {}, cases, sizes)
    reason = _too_few(method, cases, sizes)
    if reason:
        return replace(blank, note=f"{reason}; its scores stay as they are" if question.name else reason)
    logits = question.logits
    if method in {"temperature", "vector"}:
        if logits.shape[1] == 1:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        solved = (fit_temperature if method == "temperature" else fit_vector)(logits, question.labels)
        parts = np.split(solved.values, len(METHODS[method]))
        found = {name: tuple(part.tolist()) for name, part in zip(METHODS[method], parts, strict=True)}
        return replace(blank, parameters=found, note=solved.note)
    positive = question.labels == question.positive
    margin = (
        logits[:, 0]
        if logits.shape[1] == 1
        else margin_of(logits[:, question.positive] - logits[:, 1 - question.positive])
    )
    if method == "isotonic":
        steps = fit_isotonic(margin, positive)
        table = {"logits": tuple(steps.logits.tolist()), "probabilities": tuple(steps.probabilities.tolist())}
        return replace(blank, parameters=table)
    solved = fit_platt(margin, positive) if method == "platt" else fit_beta(margin, positive)
    found = {name: (float(value),) for name, value in zip(METHODS[method], solved.values, strict=True)}
    return replace(blank, parameters=found, note=solved.note)


def _too_few(method: Method, cases: int, sizes: tuple[int, ...]) -> str:
    fewest = FEWEST_ISOTONIC if method == "isotonic" else FEWEST_CASES
    if cases < fewest:
        return f"{cases} labelled cases, {method} needs {fewest}"
    if sum(size > 0 for size in sizes) < 2:
        return f"all {cases} labels are of one class"
    rarest = min(sizes)
    if (len(sizes) == 2 or method == "vector") and rarest < FEWEST_EACH:
        return f"{rarest} cases of the rarest class, {method} needs {FEWEST_EACH}"
    return ""


def _refuse(method: Method, predictions: Predictions) -> None:
    task = predictions.target.task
    two = task in {"binary", "multilabel"}
    if method in {"platt", "beta", "isotonic"} and not two:
        raise UsageProblem(
            f"`{method}` maps a question of two answers, and this target is {task}",
            where="--method",
            hint="`--method temperature` or `--method vector`",
            code="other-method",
        )
    if method == "vector" and task == "multilabel":
        raise UsageProblem(
            "`vector` is for classes that exclude each other; for labels, `platt` has both",
            where="--method",
            hint="`--method platt`",
            code="other-method",
        )
    if predictions.calibrated:
        raise calibrated_already(predictions)
    if not _labelled(predictions).any():
        raise UsageProblem(
            "none of the predictions has a label, so there is nothing to calibrate against",
            where=predictions.data_name or None,
            hint="calibrate with the predictions of labelled validation cases",
            code="no-labels",
        )


def _labelled(predictions: Predictions) -> npt.NDArray[np.bool_]:
    labels = predictions.labels
    known: npt.NDArray[np.bool_] = np.isfinite(labels) & (labels >= 0)
    return np.asarray(known.any(axis=1)) if known.ndim == 2 else known


def _rows(predictions: Predictions, kept: npt.NDArray[np.bool_]) -> Predictions:
    members = predictions.member_logits
    return replace(
        predictions,
        ids=predictions.ids[kept],
        labels=predictions.labels[kept],
        logits=predictions.logits[kept],
        patients=None if predictions.patients is None else predictions.patients[kept],
        member_logits=None if members is None else members[:, kept],
        features=None,
    )
