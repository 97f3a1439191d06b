"""Every calibration figure of a set of predictions, overall and by label, class or output, with patient-wise intervals.

Before and after are measured on the same resampled patients, so that the change has an interval of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target
from medcli.evaluation.calibration import assign_bins, brier_terms, nll_terms, smooth_ece
from medcli.evaluation.calibrator import margin_of
from medcli.evaluation.calibrator_fits import LARGEST_LOGIT
from medcli.evaluation.conventions import convention
from medcli.evaluation.figures import Figure
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.reliability import Curve, chance_ece, reliability_curve
from medcli.evaluation.resampling import (
    Binned,
    Clusters,
    Interval,
    Sums,
    bootstrap_interval,
    clusters_of,
    resample_weights,
)
from medcli.evaluation.scores import columns_of, sigmoid
from medcli.evaluation.weak_calibration import Slope, weak_calibration
from medcli.settings.groups import EvaluationSettings

__all__ = ["Assessment", "Part", "assess", "change"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_SMALLEST_BIN = 10
_BINNINGS = ("width", "mass")
_RESAMPLED = (
    "ece_width",
    "ece_mass",
    "ece_average",
    "ece_classwise",
    "ece_debiased",
    "mce",
    "mce_unfiltered",
    "brier",
    "brier_half",
    "nll",
    "observed_expected",
)


@dataclass(frozen=True)
class Part:
    """The figures of one label, output or class.

    Args:
        name: the label, output or class; empty for a single-label target as a whole.
        n: labelled cases.
        events: positives of a label or class; correct predictions where the question has several classes.
        figures: by name.
        curve: its reliability, or None for a class.
        draws: figure -> bootstrap draws [r].
    """

    name: str
    n: int
    events: int
    figures: Mapping[str, Figure]
    curve: Curve | None = None
    draws: Mapping[str, Floats] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "n": self.n,
            "events": self.events,
            "figures": {name: figure.to_dict() for name, figure in self.figures.items()},
            "reliability": None if self.curve is None else self.curve.to_dict(),
        }


@dataclass(frozen=True)
class Assessment:
    """How well calibrated a set of predictions is.

    Args:
        target: what was predicted.
        n: cases with any label.
        patients: their number, or None where unknown.
        figures: overall; for labels and outputs, their unweighted mean.
        parts: labels, outputs, or (for classes that exclude each other) one question and then its classes.
        draws: figure -> bootstrap draws [r] of the overall figures.
    """

    target: Target
    n: int
    patients: int | None
    figures: Mapping[str, Figure]
    parts: tuple[Part, ...]
    draws: Mapping[str, Floats] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        return {
            "n": self.n,
            "patients": self.patients,
            "figures": {name: figure.to_dict() for name, figure in self.figures.items()},
            "parts": [part.to_dict() for part in self.parts],
        }


def assess(predictions: Predictions, settings: EvaluationSettings | None = None, *, seed: int = 0) -> Assessment:
    """Compute every calibration figure.

    Classes that exclude each other are judged by the confidence of the predicted class; labels, the positive class of a
    binary target and single classes by the score of the positive. Unlabelled entries are left out. Bins are those of
    the whole sample in every resample.

    Args:
        predictions: at least one case has a label.
        settings: bins, binning and number of resamples; None for the defaults.
        seed: of the resampling.
    """
    settings = settings or EvaluationSettings()
    clusters = clusters_of(predictions.patients, len(predictions))
    questions = _questions(predictions)
    measured = [_Measured(question, clusters, settings) for question in questions]
    whole = [one(np.ones((clusters.count, 1))) for one in measured]
    blocks = [[one(weights) for one in measured] for weights in resample_weights(clusters, settings.bootstrap, seed)]
    task = predictions.target.task
    parts = []
    for index, question in enumerate(questions):
        draws = {
            name: np.concatenate([block[index][name] for block in blocks] or [np.zeros(0)]) for name in whole[index]
        }
        estimates = {name: float(values[0]) for name, values in whole[index].items()}
        parts.append(_part(question, estimates, draws, clusters, settings, seed))
    known = np.isfinite(predictions.labels) & (predictions.labels >= 0)
    seen = known.any(axis=1) if known.ndim == 2 else known
    patients = len(np.unique(clusters.index[seen])) if clusters.known else None
    if task in {"multilabel", "multioutput"}:
        figures, means = _means([part for part in parts if part.n], task)
    else:
        figures, means = dict(parts[0].figures), dict(parts[0].draws)
    return Assessment(predictions.target, int(seen.sum()), patients, figures, tuple(parts), means)


def change(before: Assessment, after: Assessment) -> dict[str, Figure]:
    """After minus before for every overall figure that both have, from the same resampled patients."""
    result = {}
    for name, old in before.figures.items():
        if name not in after.figures or name in {"slope", "intercept", "observed_expected", "ece_by_chance"}:
            continue
        moved = after.figures[name].value - old.value
        draws = np.zeros(0)
        if len(before.draws.get(name, ())) and name in after.draws:
            draws = after.draws[name] - before.draws[name]
        result[name] = Figure.of(name, moved, bootstrap_interval(name, moved, draws, difference=True))
    return result


@dataclass(frozen=True)
class _Question:
    """Confidences [n] and events [n] of one question, and the rows of `Sums` behind its other figures.

    `margin` [n] and `positive` [n] belong to a yes-or-no question and are empty otherwise; `kind` is `top` (predicted
    class), `label` (a score of its own) or `class` (one of several).
    """

    name: str
    kind: str
    confidence: Floats
    event: Flags
    kept: Flags
    brier: Floats
    nll: Floats
    classes: tuple[tuple[Floats, Flags], ...] = ()
    margin: Floats = field(default_factory=lambda: np.zeros(0))
    positive: Flags = field(default_factory=lambda: np.zeros(0, bool))
    target: Target | None = None


def _questions(predictions: Predictions) -> list[_Question]:
    target, labels = predictions.target, predictions.labels
    questions = []
    if target.task == "multilabel":
        for index, name in enumerate(target.class_names):
            kept = ~np.isnan(labels[:, index])
            logits = predictions.logits[kept, index]
            scores, truth = sigmoid(logits), labels[kept, index] > 0.5
            surprise, _ = nll_terms(np.where(truth, scores, 1.0 - scores))
            margin = np.clip(margin_of(logits), -LARGEST_LOGIT, LARGEST_LOGIT)
            questions.append(
                _Question(name, "label", scores, truth, kept, (scores - truth) ** 2, surprise, (), margin, truth)
            )
        return questions
    for column in columns_of(predictions):
        kept = column.labels >= 0
        scores, own = column.scores[kept], column.labels[kept].astype(np.int64)
        predicted = scores.argmax(axis=1)
        surprise, _ = nll_terms(np.take_along_axis(scores, own[:, None], axis=1)[:, 0])
        each = tuple((scores[:, index], own == index) for index in range(scores.shape[1]))
        top = scores.max(axis=1)
        binary = column.target.task == "binary"
        margin, positive = _logit(each[column.target.positive]) if binary else (np.zeros(0), np.zeros(0, bool))
        questions.append(
            _Question(
                column.name,
                "top",
                top,
                predicted == own,
                kept,
                brier_terms(scores, own),
                surprise,
                each,
                margin,
                positive,
                column.target,
            )
        )
        if target.task == "multioutput":
            continue
        for index, (score, truth) in enumerate(each):
            if binary and index != column.target.positive:
                continue
            miss, _ = nll_terms(np.where(truth, score, 1.0 - score))
            margin, positive = _logit((score, truth))
            name = column.target.class_names[index]
            questions.append(
                _Question(name, "class", score, truth, kept, (score - truth) ** 2, miss, (), margin, positive)
            )
    return questions


def _logit(scored: tuple[Floats, Flags]) -> tuple[Floats, Flags]:
    chances = np.clip(scored[0], 1e-15, 1.0 - 1e-15)
    return np.log(chances) - np.log1p(-chances), scored[1]


class _Measured:
    """The resampled figures of one question for weights [patients, r]."""

    def __init__(self, question: _Question, clusters: Clusters, settings: EvaluationSettings) -> None:
        self._question, self._settings = question, settings
        event = question.event
        rows: dict[str, npt.NDArray[Any] | Binned] = {
            "n": np.ones(len(event)),
            "brier": question.brier,
            "nll": question.nll,
        }
        if len(question.margin):
            rows |= {"observed": question.positive, "expected": sigmoid(question.margin)}
        ones = np.ones(len(event))
        for binning in _BINNINGS:
            index = assign_bins(question.confidence, settings.bins, "mass" if binning == "mass" else "width")
            rows[f"{binning} count"] = Binned(settings.bins, index, ones)
            rows[f"{binning} excess"] = Binned(settings.bins, index, question.confidence - event)
            if binning == "mass":
                rows["mass events"] = Binned(settings.bins, index, event.astype(np.float64))
        for number, (score, truth) in enumerate(question.classes):
            index = assign_bins(score, settings.bins, settings.binning)
            rows[f"class {number}"] = Binned(settings.bins, index, score - truth)
        self._sums = Sums(rows, clusters.index[question.kept], clusters.count)

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        sums = self._sums(weights)
        n = sums["n"]
        result: dict[str, Floats] = {}
        with np.errstate(invalid="ignore", divide="ignore"):
            distance = {binning: np.abs(sums[f"{binning} excess"]) for binning in _BINNINGS}
            for binning in _BINNINGS:
                result[f"ece_{binning}"] = distance[binning].sum(axis=0) / n
            chosen = self._settings.binning
            count = sums[f"{chosen} count"]
            gaps = np.where(count > 0, distance[chosen] / count, 0.0)
            result["ece_average"] = gaps.sum(axis=0) / (count > 0).sum(axis=0)
            if self._question.classes:
                errors = [np.abs(sums[f"class {index}"]).sum(axis=0) for index in range(len(self._question.classes))]
                result["ece_classwise"] = np.mean(errors, axis=0) / n
            result["ece_debiased"] = _debiased(sums["mass count"], sums["mass excess"], sums["mass events"])
            result["mce"] = _largest(gaps, count >= _SMALLEST_BIN)
            result["mce_unfiltered"] = _largest(gaps, count > 0)
            result["brier"] = sums["brier"] / n
            if self._question.kind == "top":
                result["brier_half"] = result["brier"] / 2
            result["nll"] = sums["nll"] / n
            if "observed" in sums:
                result["observed_expected"] = np.where(
                    sums["expected"] > 0, sums["observed"] / sums["expected"], np.nan
                )
        return result


def _debiased(count: Floats, excess: Floats, events: Floats) -> Floats:
    share = events / count
    squares = (excess / count) ** 2 - share * (1.0 - share) / (count - 1.0)
    weighted = np.where(count > 1, count * squares, 0.0).sum(axis=0) / count.sum(axis=0)
    result: Floats = np.sqrt(np.maximum(weighted, 0.0))
    return result


def _largest(gaps: Floats, kept: Flags) -> Floats:
    found = np.where(kept, gaps, -1.0).max(axis=0)
    result: Floats = np.where(found >= 0, found, np.nan)
    return result


def _part(
    question: _Question,
    estimates: Mapping[str, float],
    draws: Mapping[str, Floats],
    clusters: Clusters,
    settings: EvaluationSettings,
    seed: int,
) -> Part:
    figures: dict[str, Figure] = {}
    n = len(question.event)

    def put(name: str, value: float, found: Interval | None = None) -> None:
        none = Interval(math.nan, math.nan, 0, "percentile")
        figures[name] = Figure.of(name, value, found or none, _phrase(name, question.kind, settings))

    for name in _RESAMPLED:
        if name not in estimates:
            continue
        value = estimates[name] if n else math.nan
        put(name, value, bootstrap_interval(name, value, draws[name]))
    put("ece_smooth", smooth_ece(question.confidence, question.event))
    put("ece_by_chance", chance_ece(question.confidence, settings.bins, settings.binning, seed=seed))
    if len(question.margin) or question.kind != "top":
        intercept, slope = weak_calibration(question.margin, question.positive, clusters.index[question.kept])
        for name, found in (("intercept", intercept), ("slope", slope)):
            shown = found if settings.bootstrap else Slope(found.value)
            put(name, shown.value, Interval(shown.low, shown.high, 0, "sandwich"))
    curve = None
    if question.kind != "class" or n:
        curve = reliability_curve(question.confidence, question.event, settings.bins, settings.binning)
    return Part(question.name, n, int(question.event.sum()), figures, curve, draws)


def _phrase(name: str, kind: str, settings: EvaluationSettings) -> str:
    task = "multiclass" if kind == "top" else "multilabel"
    binning = name.removeprefix("ece_") if name in {"ece_width", "ece_mass"} else settings.binning
    known = "ece" if name in {"ece_width", "ece_mass"} else name
    return convention(known, task, bins=settings.bins, binning=binning)  # type: ignore[arg-type]


def _means(parts: Sequence[Part], task: str) -> tuple[dict[str, Figure], dict[str, Floats]]:
    """Unweighted means over labels or outputs, of the figures for which a mean says something."""
    what = "labels" if task == "multilabel" else "outputs"
    figures, means = {}, {}
    names = [*_RESAMPLED, "ece_smooth"]
    for name in (name for name in names if name != "observed_expected"):
        having = [part for part in parts if name in part.figures]
        if not having:
            continue
        value = float(np.mean([part.figures[name].value for part in having]))
        draws = np.zeros(0)
        if all(name in part.draws and len(part.draws[name]) for part in having):
            draws = means[name] = np.mean([part.draws[name] for part in having], axis=0)
        phrase = (
            having[0].figures[name].convention.removeprefix("mean over labels").removeprefix(" of ").removeprefix(", ")
        )
        found = bootstrap_interval(name, value, draws)
        figures[name] = Figure.of(name, value, found, f"mean over {len(having)} {what}: {phrase}")
    return figures, means
