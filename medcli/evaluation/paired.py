"""The difference of two models on the same cases: both are judged on the same resampled patients."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.errors import UsageProblem
from medcli.evaluation.delong import Area, AreaDifference, area_under_roc, compare_areas, holm, mean_area
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.proportions import finite
from medcli.evaluation.report import evaluate
from medcli.evaluation.resampling import bootstrap_interval, clusters_of
from medcli.evaluation.scores import probabilities
from medcli.settings.groups import EvaluationSettings

__all__ = ["AreaComparison", "Difference", "paired_areas", "paired_difference"]


@dataclass(frozen=True)
class AreaComparison:
    """Areas under the ROC curve of two models on the same cases, compared as DeLong does, by patient.

    Args:
        overall: of the positive class, or of the mean over the classes or labels that can be judged.
        classes: class or label -> its difference; empty for a binary target.
        adjusted: their p values, adjusted for being many (Holm).
    """

    overall: AreaDifference
    classes: dict[str, AreaDifference]
    adjusted: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        return {
            **self.overall.to_dict(),
            "classes": [
                {"name": name, **one.to_dict(), "p_holm": finite(self.adjusted[name])}
                for name, one in self.classes.items()
            ],
        }


def paired_areas(first: Predictions, second: Predictions) -> AreaComparison | None:
    """Compare areas of predictions of the same cases in the same order; None for several outputs or unjudgeable data.

    Where patients repeat, the variance is that of patients, not of cases.
    """
    if first.target.task == "multioutput":
        return None
    differences: dict[str, AreaDifference] = {}
    ones, others = _areas(first), _areas(second)
    names = [name for name in ones if not math.isnan(ones[name].value)]
    if not names:
        return None
    for name in names:
        differences[name] = compare_areas(ones[name], others[name])
    overall = compare_areas(mean_area([ones[name] for name in names]), mean_area([others[name] for name in names]))
    if len(ones) == 1:
        return AreaComparison(overall, {}, {})
    adjusted = holm([one.p for one in differences.values()])
    return AreaComparison(overall, differences, dict(zip(differences, adjusted, strict=True)))


def _areas(predictions: Predictions) -> dict[str, Area]:
    target, labels, scores = predictions.target, predictions.labels, probabilities(predictions)
    clusters = clusters_of(predictions.patients, len(predictions))
    columns = (target.positive,) if target.task == "binary" else range(target.num_classes)
    found = {}
    for index in columns:
        column = labels[:, index] if target.task == "multilabel" else labels
        known = ~np.isnan(column) if target.task == "multilabel" else column >= 0
        truth = column[known] > 0.5 if target.task == "multilabel" else column[known] == index
        found[target.class_names[index]] = area_under_roc(
            scores[known, index], truth, clusters.index[known], clusters.count
        )
    return found


@dataclass(frozen=True)
class Difference:
    """A figure of two models on their common cases.

    Args:
        first: the figure of the first.
        second: the figure of the second.
        low: lower end of the 95 % interval of second minus first; NaN where there is none.
        high: upper end.
        n: common labelled cases.
        left_out: cases that only one of the two has.
        patients: number of patients, or None when none are known.
        failed: resamples in which the figure was undefined for either.
        areas: for `auc`, DeLong's comparison; else None.
    """

    first: float
    second: float
    low: float
    high: float
    n: int
    left_out: int
    patients: int | None
    failed: int
    areas: AreaComparison | None = None

    @property
    def value(self) -> float:
        """Second minus first."""
        return self.second - self.first


def paired_difference(
    first: Predictions, second: Predictions, metric: str, settings: EvaluationSettings, *, seed: int = 0
) -> Difference:
    """Second minus first, with an interval over patients drawn once for both; see `interval_kind`.

    Args:
        first: the reference.
        second: what is compared with it; its cases may stand in another order.
        metric: a figure of `Evaluation.figures`.
        settings: number of resamples, bins.
        seed: of the resampling.

    Raises:
        UsageProblem: other target, no common case, other labels for a case, or no such figure.
    """
    if first.target != second.target:
        raise UsageProblem(
            "the two predict different targets, so their cases cannot be paired",
            hint="leave `--paired` out",
            code="not-pairable",
        )
    ids, left, right = np.intersect1d(first.ids, second.ids, assume_unique=True, return_indices=True)
    if not len(ids):
        raise UsageProblem(
            "the two share no case",
            hint="runs share those of the same data with the same split, files those of the same names (`--id-column`)",
            code="not-pairable",
        )
    # The first run's order is kept, so that a run compared with itself draws as its own evaluation does.
    order = np.argsort(left)
    one, other = _take(first, left[order]), _take(second, right[order])
    if not np.array_equal(one.labels, other.labels, equal_nan=one.labels.dtype.kind == "f"):
        raise UsageProblem(
            "the two have different labels for the same cases",
            hint="only answers to the same question can be paired",
            code="not-pairable",
        )
    a, b = evaluate(one, settings, seed=seed), evaluate(other, settings, seed=seed)
    if metric not in a.figures or metric not in b.figures:
        raise UsageProblem(f"there is no figure `{metric}` for this target", where="--metric", code="unknown-metric")
    low, high, failed = math.nan, math.nan, 0
    if settings.bootstrap and math.isfinite(b.value(metric) - a.value(metric)):
        moved = b.value(metric) - a.value(metric)
        low, high, failed, _ = bootstrap_interval(metric, moved, b.draws[metric] - a.draws[metric], difference=True)
    everyone = len(np.union1d(first.ids, second.ids))
    return Difference(
        a.value(metric),
        b.value(metric),
        low,
        high,
        a.n,
        everyone - len(ids),
        a.patients,
        failed,
        paired_areas(one, other) if metric in {"auc", "auc_present"} else None,
    )


def _take(predictions: Predictions, index: npt.NDArray[np.int64]) -> Predictions:
    return replace(
        predictions,
        ids=predictions.ids[index],
        labels=predictions.labels[index],
        logits=predictions.logits[index],
        patients=None if predictions.patients is None else predictions.patients[index],
        member_logits=None,
        features=None,
    )
