"""Logits to probabilities in float64, the one place where that is defined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target
from medcli.evaluation.predictions import Predictions

__all__ = ["Column", "columns_of", "probabilities", "sigmoid", "softmax"]

Floats = npt.NDArray[np.float64]


def softmax(logits: npt.ArrayLike) -> Floats:
    """Softmax over the last axis in float64; -inf gives exactly 0."""
    values = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def sigmoid(logits: npt.ArrayLike) -> Floats:
    """Logistic function in float64 without overflow; infinite logits give exactly 0 and 1."""
    values = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(values))
    result: Floats = np.where(values >= 0, 1.0, small) / (1.0 + small)
    return result


def probabilities(predictions: Predictions) -> Floats:
    """Scores in the shape of the logits: per label for multilabel, summing to one over the last axis otherwise.

    These are the network's own scores; whether they may be called probabilities is for calibration to say.
    """
    return sigmoid(predictions.logits) if predictions.target.task == "multilabel" else softmax(predictions.logits)


@dataclass(frozen=True)
class Column:
    """One single-label question.

    Args:
        name: the output's name, empty where the target is not multioutput.
        target: a binary, multiclass or ordinal target.
        labels: int64 [n], -1 where unknown.
        scores: float64 [n, K], rows summing to one.
    """

    name: str
    target: Target
    labels: npt.NDArray[Any]
    scores: Floats


def columns_of(predictions: Predictions) -> tuple[Column, ...]:
    """The single-label questions in these predictions: one, or one per output of a multioutput target.

    A multioutput column becomes an ordinal or multiclass target of its own; its padding is cut off.
    """
    scores = probabilities(predictions)
    if not predictions.target.outputs:
        return (Column("", predictions.target, predictions.labels, scores),)
    return tuple(
        Column(
            output.name,
            Target("ordinal" if output.ordinal else "multiclass", output.classes),
            predictions.labels[:, index],
            scores[:, index, : len(output.classes)],
        )
        for index, output in enumerate(predictions.target.outputs)
    )
