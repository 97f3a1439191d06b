"""Predictions to an evaluation: every figure with its interval, its counts and the convention behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.evaluation.calibration import reliability
from medcli.evaluation.conventions import HEADLINES, PER_CLASS, convention
from medcli.evaluation.discrimination import confusion_matrix
from medcli.evaluation.figures import ClassRow, Evaluation, Figure
from medcli.evaluation.predictions import Predictions, check_predictions
from medcli.evaluation.resampling import Clusters, bootstrap_interval, clusters_of, resample_weights
from medcli.evaluation.scores import Column, columns_of, probabilities
from medcli.evaluation.statistics import Figures, LabelStatistics, SingleStatistics
from medcli.settings.groups import EvaluationSettings

__all__ = ["evaluate"]


Floats = npt.NDArray[np.float64]


def evaluate(predictions: Predictions, settings: EvaluationSettings | None = None, *, seed: int = 0) -> Evaluation:
    """Compute every figure the target allows.

    Intervals are 95 % intervals over resamples of patients, of the kind `interval_kind` gives each figure; a resample
    that lacks a class leaves the figures that need it undefined, which is counted. Calibration bins are those of the
    whole sample throughout.

    Args:
        predictions: labelled cases; unlabelled ones are counted and left out.
        settings: bins, binning, top-k and number of resamples; None for the defaults.
        seed: of the resampling.

    Raises:
        UsageProblem: when no case has a label (code `no-labels`) or the arrays disagree (code `bad-predictions`).
    """
    settings = settings or EvaluationSettings()
    try:
        check_predictions(predictions)
    except ValueError as problem:
        raise UsageProblem(f"the predictions are inconsistent: {problem}", code="bad-predictions") from problem
    kept = _labelled(predictions)
    excluded = len(predictions) - len(kept)
    if not len(kept):
        raise UsageProblem(
            "none of the predictions has a label, so there is nothing to compare them with",
            where=predictions.data_name or None,
            hint="`medcli predict` is for images without labels",
            code="no-labels",
        )
    task = kept.target.task
    clusters = clusters_of(kept.patients, len(kept))
    if task == "multilabel":
        result = _evaluate_labels(kept, clusters, settings, seed)
    elif task == "multioutput":
        result = _evaluate_outputs(kept, clusters, settings, seed)
    else:
        (column,) = columns_of(kept)
        result = _evaluate_column(column, clusters, settings, seed, _blank(kept, clusters, settings))
    return replace(result, excluded=excluded)


def _labelled(predictions: Predictions) -> Predictions:
    labels = predictions.labels
    if predictions.target.task == "multilabel":
        known = ~np.isnan(labels).all(axis=1)
    else:
        known = labels >= 0
        known = known.any(axis=1) if known.ndim == 2 else known
    if known.all():
        return predictions
    return replace(
        predictions,
        ids=predictions.ids[known],
        labels=labels[known],
        logits=predictions.logits[known],
        patients=None if predictions.patients is None else predictions.patients[known],
        member_logits=None,
        features=None,
    )


def _blank(predictions: Predictions, clusters: Clusters, settings: EvaluationSettings) -> Evaluation:
    notes: tuple[str, ...] = ()
    if settings.bootstrap and not clusters.known:
        notes = ("no patients are known: the intervals take every image for a patient of its own",)
    return Evaluation(
        data_name=predictions.data_name,
        split=predictions.split,
        target=predictions.target,
        n=len(predictions),
        excluded=0,
        patients=clusters.count if clusters.known else None,
        resamples=settings.bootstrap,
        bins=settings.bins,
        binning=settings.binning,
        figures={},
        notes=notes,
        calibrated=predictions.calibrated,
    )


def _bootstrap(
    statistics: Callable[[Floats], Figures], clusters: Clusters, settings: EvaluationSettings, seed: int
) -> tuple[Figures, Figures]:
    """(estimates with r = 1, draws with r = number of resamples)."""
    estimate = statistics(np.ones((clusters.count, 1)))
    blocks = [statistics(weights) for weights in resample_weights(clusters, settings.bootstrap, seed)]
    if not blocks:
        nothing = {name: values[..., :0] for name, values in estimate.overall.items()}
        return estimate, Figures(nothing, {name: values[..., :0] for name, values in estimate.classes.items()})
    overall = {name: np.concatenate([block.overall[name] for block in blocks]) for name in estimate.overall}
    classes = {name: np.concatenate([block.classes[name] for block in blocks], axis=1) for name in estimate.classes}
    return estimate, Figures(overall, classes)


def _figures(
    estimates: Mapping[str, Floats], draws: Mapping[str, Floats], target: Target, settings: EvaluationSettings
) -> dict[str, Figure]:
    positive = target.class_names[target.positive] if target.task == "binary" else ""
    headlines = HEADLINES[target.task]
    ordered = [name for name in headlines if name in estimates] + [name for name in estimates if name not in headlines]
    result = {}
    for name in ordered:
        value = float(estimates[name].reshape(-1)[0])
        found = bootstrap_interval(name, value, draws[name])
        phrase = convention(
            name,
            target.task,
            bins=settings.bins,
            binning=settings.binning,
            classes=target.num_classes,
            positive=positive,
        )
        result[name] = Figure.of(name, value, found, phrase, headline=name in headlines)
    return result


def _class_rows(
    names: tuple[str, ...],
    n: npt.NDArray[Any],
    positives: npt.NDArray[Any],
    estimates: Mapping[str, Floats],
    draws: Mapping[str, Floats],
) -> tuple[ClassRow, ...]:
    rows = []
    for index, name in enumerate(names):
        figures = {}
        for metric in (metric for metric in PER_CLASS if metric in estimates):
            value = float(estimates[metric][index, 0])
            figures[metric] = Figure.of(metric, value, bootstrap_interval(metric, value, draws[metric][index]))
        rows.append(ClassRow(name, int(n[index]), int(positives[index]), figures))
    return tuple(rows)


def _evaluate_column(
    column: Column, clusters: Clusters, settings: EvaluationSettings, seed: int, blank: Evaluation
) -> Evaluation:
    statistics = SingleStatistics(column, clusters.index, clusters.count, settings)
    estimate, draws = _bootstrap(statistics, clusters, settings, seed)
    target, labels = column.target, column.labels
    predicted = column.scores.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, target.num_classes)
    support = confusion.sum(axis=1)
    table = reliability(column.scores.max(axis=1), predicted == labels, settings.bins, settings.binning)
    notes = list(blank.notes)
    absent = [name for name, count in zip(target.class_names, support, strict=True) if not count]
    if absent:
        notes.append(f"absent from the labels, so without figures of their own: {', '.join(absent)}")
    notes += _clip_note(statistics.clipped)
    notes += _single_patient_note(clusters, settings)
    return replace(
        blank,
        figures=_figures(estimate.overall, draws.overall, target, settings),
        classes=_class_rows(
            target.class_names, support.sum().repeat(len(support)), support, estimate.classes, draws.classes
        ),
        confusion=confusion,
        reliability=tuple(
            (int(count), float(confidence), float(accuracy))
            for count, confidence, accuracy in zip(table.count, table.confidence, table.accuracy, strict=True)
        ),
        notes=tuple(notes),
        draws=draws.overall,
    )


def _evaluate_labels(
    predictions: Predictions, clusters: Clusters, settings: EvaluationSettings, seed: int
) -> Evaluation:
    labels, names = predictions.labels, predictions.target.class_names
    statistics = LabelStatistics(labels, probabilities(predictions), clusters.index, clusters.count, settings)
    estimate, draws = _bootstrap(statistics, clusters, settings, seed)
    blank = _blank(predictions, clusters, settings)
    seen, positives = (~np.isnan(labels)).sum(axis=0), (labels > 0.5).sum(axis=0)
    notes = list(blank.notes)
    for what, missing in (
        ("no observed entry", seen == 0),
        ("no positive case", (seen > 0) & (positives == 0)),
        ("no negative case", (seen > 0) & (positives == seen)),
    ):
        if missing.any():
            who = ", ".join(name for name, lacks in zip(names, missing, strict=True) if lacks)
            notes.append(f"{what}, so without an AUC: {who}")
    accuracy, nothing = (float(estimate.overall[name][0]) for name in ("accuracy", "all_negative"))
    notes.append(f"accuracy is {accuracy:.4f}; never predicting any label would have {nothing:.4f}")
    if (seen < len(labels)).any():
        notes.append(f"{int((len(labels) - seen).sum())} of {labels.size} entries are missing and were left out")
    notes += _clip_note(statistics.clipped)
    notes += _single_patient_note(clusters, settings)
    return replace(
        blank,
        figures=_figures(estimate.overall, draws.overall, predictions.target, settings),
        classes=_class_rows(names, seen, positives, estimate.classes, draws.classes),
        notes=tuple(notes),
        draws=draws.overall,
    )


def _evaluate_outputs(
    predictions: Predictions, clusters: Clusters, settings: EvaluationSettings, seed: int
) -> Evaluation:
    blank = _blank(predictions, clusters, settings)
    outputs: dict[str, Evaluation] = {}
    notes = list(blank.notes)
    for column in columns_of(predictions):
        known = column.labels >= 0
        if not known.any():
            notes.append(f"output `{column.name}` has no label at all and is left out")
            continue
        # Every output is resampled with the same draws of patients, so that their mean has an interval too.
        own = replace(clusters, index=clusters.index[known])
        part = replace(
            blank,
            target=column.target,
            n=int(known.sum()),
            excluded=int((~known).sum()),
            patients=len(np.unique(own.index)) if clusters.known else None,
            notes=(),
        )
        kept = replace(column, labels=column.labels[known], scores=column.scores[known])
        outputs[column.name] = _evaluate_column(kept, own, settings, seed, part)
    names = list(dict.fromkeys(name for one in outputs.values() for name in one.figures))
    estimates, draws = {}, {}
    for name in names:
        having = [one for one in outputs.values() if name in one.figures]
        if len(having) == len(outputs) or name.startswith(("qwk", "mae", "off_by_2")):
            estimates[name] = np.array([np.mean([one.value(name) for one in having])])
            draws[name] = np.mean([one.draws[name] for one in having], axis=0)
    return replace(
        blank,
        figures=_figures(estimates, draws, predictions.target, settings),
        outputs=outputs,
        notes=tuple(notes),
        draws=draws,
    )


def _clip_note(clipped: int) -> list[str]:
    if not clipped:
        return []
    what = "true class" if clipped == 1 else "true classes"
    return [f"{clipped} {what} had a score below 1e-15, raised to that for the nll"]


def _single_patient_note(clusters: Clusters, settings: EvaluationSettings) -> list[str]:
    if settings.bootstrap and clusters.count == 1:
        return ["there is one patient only: the intervals have no width and mean nothing"]
    return []
