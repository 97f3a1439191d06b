"""Several answers to one question made one: the mean of their probabilities, kept as logits like any other prediction.

Probabilities are averaged, not logits, so that a member that is sure and wrong is outvoted rather than followed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.scores import sigmoid, softmax

__all__ = ["equal_weights", "fitted_weights", "mean_logits", "member_scores", "pooled", "weights_of"]

Floats = npt.NDArray[np.float64]

ITERATIONS = 5000
SETTLED = 1e-9
"""Largest change of a weight at which they count as found."""


def equal_weights(members: int) -> Floats:
    """1 / m each."""
    return np.full(members, 1.0 / members)


def weights_of(predictions: Predictions) -> Floats:
    """The weights [m] of the members of predictions that have some; equal where none are stored."""
    members, weights = predictions.member_logits, predictions.member_weights
    if members is None:
        return np.zeros(0)
    return equal_weights(len(members)) if weights is None else weights.astype(np.float64)


def member_scores(logits: npt.NDArray[Any], target: Target) -> Floats:
    """Scores of members in the shape of their logits [m, n, ...]: per label for multilabel, else summing to one."""
    return sigmoid(logits) if target.task == "multilabel" else softmax(logits)


def mean_logits(logits: npt.NDArray[Any], target: Target, weights: npt.ArrayLike | None = None) -> Floats:
    """The logits of the mean score: its logarithm, or for multilabel its log odds. Float64, computed in log space.

    Args:
        logits: [m, n, ...] of the members, as `Predictions` has them.
        target: what is predicted.
        weights: [m], summing to one; None for equal ones.
    """
    values = np.asarray(logits, dtype=np.float64)
    shares = equal_weights(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    used = shares > 0
    values, log_weights = values[used], np.log(shares[used])
    if target.task == "multilabel":
        yes = no = np.full(values.shape[1:], -np.inf)
        for one, weight in zip(values, log_weights, strict=True):
            yes = np.logaddexp(yes, weight - np.logaddexp(0.0, -one))
            no = np.logaddexp(no, weight - np.logaddexp(0.0, one))
        result: Floats = yes - no
        return result
    mean = np.full(values.shape[1:], -np.inf)
    for one, weight in zip(values, log_weights, strict=True):
        whole = np.logaddexp.reduce(one, axis=-1, keepdims=True)
        mean = np.logaddexp(mean, weight + one - whole)
    return mean


def pooled(predictions: Predictions, weights: npt.ArrayLike | None = None) -> Predictions:
    """The same cases with the logits of their members' mean; `weights` [m] are kept where they are not equal."""
    if predictions.member_logits is None:
        return predictions
    shares = None if weights is None else np.asarray(weights, dtype=np.float64)
    if shares is not None and np.ptp(shares) < 1e-12:
        shares = None
    logits = mean_logits(predictions.member_logits, predictions.target, shares)
    return replace(predictions, logits=logits, member_weights=shares)


def fitted_weights(logits: npt.NDArray[Any], labels: npt.NDArray[Any], target: Target) -> Floats:
    """The weights [m] under which the mean score of the members makes the labels likeliest.

    The likelihood is concave in the weights, and expectation maximisation climbs it from equal ones; members that are
    the same keep the same weight, one that only harms gets none.

    Args:
        logits: [m, n, ...] of the members on cases that none of them learned from.
        labels: [n, ...] as `Predictions` has them; missing ones do not count.
        target: what is predicted.

    Raises:
        ValueError: no label is known.
    """
    likelihood = _likelihood(member_scores(logits, target), labels, target)
    if not likelihood.shape[1]:
        raise ValueError("no case has a label")
    # A case that no member thinks possible says nothing about their weights.
    likelihood = np.maximum(likelihood, 1e-15)
    weights = equal_weights(len(likelihood))
    for _ in range(ITERATIONS):
        share = weights[:, None] * likelihood
        new = (share / share.sum(axis=0)).mean(axis=1)
        moved = np.abs(new - weights).max()
        weights = new
        if moved < SETTLED:
            break
    weights[weights < 1e-6] = 0.0
    result: Floats = weights / weights.sum()
    return result


def _likelihood(scores: Floats, labels: npt.NDArray[Any], target: Target) -> Floats:
    """Each member's score of what is true, [m, known labels]."""
    if target.task == "multilabel":
        known = ~np.isnan(labels)
        own = scores[:, known]
        return np.where(labels[known] > 0.5, own, 1.0 - own)
    table = labels.reshape(len(labels), -1)
    spread = scores.reshape(len(scores), len(labels), table.shape[1], -1)
    rows, columns = np.nonzero(table >= 0)
    result: Floats = spread[:, rows, columns, table[rows, columns]]
    return result
