"""The points of ROC and precision-recall curves, thinned to what a picture can show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.evaluation.discrimination import average_precision, rank_auc
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.scores import columns_of, probabilities

__all__ = ["Separation", "separation", "separations"]

Floats = npt.NDArray[np.float64]

_MOST = 300
"""Points kept of a curve; a picture of 300 pixels shows no more."""


@dataclass(frozen=True)
class Separation:
    """How the scores of one class, label or grade separate its cases from the others.

    Args:
        name: of the class or label.
        group: the output it belongs to; empty unless the target is multioutput.
        n: cases with a known answer.
        positives: cases of the class.
        false_rate: 1 - specificity of the ROC curve, rising from 0 to 1.
        hit_rate: sensitivity there.
        recall: of the precision-recall curve, falling.
        precision: there; as a step function it holds from its recall down to the next lower one.
        auc: area under the ROC curve.
        auprc: average precision.
    """

    name: str
    group: str
    n: int
    positives: int
    false_rate: Floats
    hit_rate: Floats
    recall: Floats
    precision: Floats
    auc: float
    auprc: float


def separation(scores: npt.ArrayLike, positive: npt.ArrayLike, name: str = "", group: str = "") -> Separation | None:
    """The curves of scores [n] against truth (bool [n]); None unless both kinds of cases occur."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    count, others = int(truth.sum()), int((~truth).sum())
    if not count or not others:
        return None
    order = np.argsort(-values, kind="stable")
    values, ordered = values[order], truth[order]
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    hits = np.cumsum(ordered)[last].astype(np.float64)
    called = (last + 1).astype(np.float64)
    kept = _thinned(hits / count, (called - hits) / others)
    return Separation(
        name,
        group,
        len(truth),
        count,
        np.append(0.0, ((called - hits) / others)[kept]),
        np.append(0.0, (hits / count)[kept]),
        (hits / count)[kept],
        (hits / called)[kept],
        rank_auc(scores, truth),
        average_precision(scores, truth),
    )


def separations(predictions: Predictions) -> tuple[Separation, ...]:
    """One per label; the positive class of a binary target; every class against the rest otherwise.

    Classes and labels without cases of both kinds are left out.
    """
    target = predictions.target
    found: list[Separation | None] = []
    if target.task == "multilabel":
        scores = probabilities(predictions)
        for index, name in enumerate(target.class_names):
            known = ~np.isnan(predictions.labels[:, index])
            found.append(separation(scores[known, index], predictions.labels[known, index] > 0.5, name))
    else:
        for column in columns_of(predictions):
            known = column.labels >= 0
            wanted = range(column.target.num_classes) if target.task != "binary" else [target.positive]
            for index in wanted:
                truth = column.labels[known] == index
                found.append(
                    separation(column.scores[known, index], truth, column.target.class_names[index], column.name)
                )
    return tuple(one for one in found if one is not None)


def _thinned(*coordinates: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Indices of points evenly spread over the length of the curve, first and last among them."""
    size = len(coordinates[0])
    if size <= _MOST:
        return np.arange(size)
    steps = sum(np.abs(np.diff(one)) for one in coordinates)
    length = np.append(0.0, np.cumsum(steps))
    wanted = np.searchsorted(length, np.linspace(0.0, length[-1], _MOST))
    return np.unique(np.append(np.minimum(wanted, size - 1), [0, size - 1]))
