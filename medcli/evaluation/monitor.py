"""The few figures a training run computes after every epoch: no intervals, no tables, milliseconds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medcli.evaluation.calibration import nll_terms, reliability
from medcli.evaluation.discrimination import confusion_matrix, kappa, rank_auc
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.scores import Column, columns_of, probabilities

__all__ = ["monitor_metrics"]

_BINS = 15


def monitor_metrics(predictions: Predictions) -> dict[str, float]:
    """Figures of one split for `--monitor`, the progress line and `metrics.jsonl`.

    Means run over the classes, labels or outputs that can be judged here: a rare finding that the validation split
    happens to lack must not make every epoch incomparable. `evaluate` is stricter (its `auc` is NaN then).

    Returns:
        `auc`, `accuracy`, `balanced_accuracy`, `f1`, `ece`, `nll`, and `qwk` for ordinal targets (or ordinal outputs).
        A figure that no class allows is NaN. Never raises.
    """
    if predictions.target.task == "multilabel":
        return _multilabel(predictions)
    columns = [_single(column) for column in columns_of(predictions)]
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: _mean([column[name] for column in columns if name in column]) for name in names}


def _single(column: Column) -> dict[str, float]:
    known = column.labels >= 0
    labels, scores = column.labels[known].astype(np.int64), column.scores[known]
    classes = column.scores.shape[1]
    names = ["auc", "accuracy", "balanced_accuracy", "f1", "ece", "nll"]
    if column.target.task == "ordinal":
        names.append("qwk")
    if not len(labels):
        return dict.fromkeys(names, float("nan"))
    predicted = scores.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, classes)
    support, called, hits = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    present = support > 0
    aucs = [rank_auc(scores[:, index], labels == index) for index in _judged(column)]
    own = np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
    result = {
        "auc": _mean(aucs),
        "accuracy": float(hits.sum() / len(labels)),
        "balanced_accuracy": float((hits[present] / support[present]).mean()),
        "f1": float((2 * hits[present] / (support + called)[present]).mean()),
        "ece": reliability(scores.max(axis=1), predicted == labels, _BINS).ece,
        "nll": float(nll_terms(own)[0].mean()),
    }
    if column.target.task == "ordinal":
        result["qwk"] = kappa(confusion, quadratic=True)
    return result


def _judged(column: Column) -> range | tuple[int]:
    return (column.target.positive,) if column.target.task == "binary" else range(column.scores.shape[1])


def _multilabel(predictions: Predictions) -> dict[str, float]:
    scores = probabilities(predictions)
    rows = [_label(scores[:, index], predictions.labels[:, index]) for index in range(scores.shape[1])]
    return {name: _mean([row[name] for row in rows]) for name in rows[0]}


def _label(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.floating]) -> dict[str, float]:
    known = ~np.isnan(labels)
    values, truth = scores[known], labels[known] > 0.5
    names = ("auc", "accuracy", "balanced_accuracy", "f1", "ece", "nll")
    if not len(values):
        return dict.fromkeys(names, float("nan"))
    called = values > 0.5
    hits, positives = int((called & truth).sum()), int(truth.sum())
    rejected = int((~called & ~truth).sum())
    negatives = len(truth) - positives
    recalls = [hits / positives] if positives else []
    recalls += [rejected / negatives] if negatives else []
    return {
        "auc": rank_auc(values, truth),
        "accuracy": float((called == truth).mean()),
        "balanced_accuracy": _mean(recalls),
        "f1": 2 * hits / (positives + int(called.sum())) if positives else float("nan"),
        "ece": reliability(values, truth, _BINS).ece,
        "nll": float(nll_terms(np.where(truth, values, 1.0 - values))[0].mean()),
    }


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
