"""How well scores separate cases, from ranks and counts.

Written with numpy because the same figures are needed every epoch and for thousands of labels at once; the tests hold
them to scikit-learn. Everything returns NaN where a figure is undefined (a class without cases), never an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["average_precision", "confusion_matrix", "kappa", "rank_auc", "top_k_accuracy"]

Floats = npt.NDArray[np.float64]


def rank_auc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """Area under the ROC curve; tied scores count half. NaN unless both classes occur and all scores are numbers.

    Args:
        scores: [n], higher means more likely positive; infinite values are fine.
        positive: bool [n].
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    count = int(truth.sum())
    others = len(truth) - count
    if not count or not others or np.isnan(values).any():
        return float("nan")
    # Equal scores share the mean of their places. scipy.stats has this too, for a third of a second of imports.
    _, place, tied = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(tied) - (tied - 1) / 2)[place.reshape(-1)]
    return float((ranks[truth].sum() - count * (count + 1) / 2) / (count * others))


def average_precision(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """Area under the precision-recall curve as a step function (no interpolation). NaN without positives or negatives.

    Args:
        scores: [n].
        positive: bool [n].
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if not truth.any() or truth.all():
        return float("nan")
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    hits = np.cumsum(truth)[last].astype(np.float64)
    precision = hits / (last + 1)
    return float(np.sum(np.diff(hits, prepend=0.0) * precision) / truth.sum())


def confusion_matrix(labels: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: int) -> npt.NDArray[np.int64]:
    """Counts [K, K]: row = label, column = prediction, over 0..K-1 whether or not each class occurs."""
    cells = np.asarray(labels, dtype=np.int64) * classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def kappa(confusion: npt.ArrayLike, *, quadratic: bool) -> float:
    """Cohen's kappa of a confusion matrix [K, K]; quadratic weights are (i - j)² / (K - 1)².

    NaN when chance agreement is already perfect (one class only, always predicted).
    """
    counts = np.asarray(confusion, dtype=np.float64)
    total, classes = counts.sum(), len(counts)
    if not total:
        return float("nan")
    grades = np.arange(classes)
    if quadratic:
        disagreement = (grades[:, None] - grades[None, :]) ** 2.0
    else:
        disagreement = (grades[:, None] != grades[None, :]).astype(np.float64)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / total
    chance = float((disagreement * expected).sum())
    return float(1.0 - (disagreement * counts).sum() / chance) if chance else float("nan")


def top_k_accuracy(scores: Floats, labels: npt.NDArray[Any], k: int) -> npt.NDArray[np.bool_]:
    """Whether each label [n] is among the k highest scores [n, K]; among equal scores the lower class comes first."""
    own = np.take_along_axis(scores, np.asarray(labels)[:, None].astype(np.int64), axis=1)
    earlier = np.arange(scores.shape[1])[None, :] < np.asarray(labels)[:, None]
    ahead = (scores > own) | ((scores == own) & earlier)
    result: npt.NDArray[np.bool_] = ahead.sum(axis=1) < k
    return result
