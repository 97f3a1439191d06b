"""Calibration as clinical prediction studies report it: intercept, slope, and observed over expected events.

Intercept and slope are small logistic regressions, too dear to repeat for every resample; their intervals come from the
sandwich estimator with patients as clusters instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medcli.evaluation.scores import sigmoid

__all__ = ["Slope", "weak_calibration"]

Floats = npt.NDArray[np.float64]

_FARTHEST = 1e3
"""A coefficient beyond this is on its way to infinity: the scores separate the cases, and there is no slope."""

_NORMAL = 1.959963984540054


@dataclass(frozen=True)
class Slope:
    """A coefficient with its 95 % interval; all NaN where it is undefined.

    Args:
        value: the estimate.
        low: lower end.
        high: upper end.
    """

    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")


def weak_calibration(
    logits: npt.ArrayLike, positive: npt.ArrayLike, clusters: npt.NDArray[np.int64]
) -> tuple[Slope, Slope]:
    """(intercept, slope) of a logistic regression of the events on the logits of their probabilities.

    The intercept is that of a model with the logits as offset (calibration in the large: 0 is perfect, below 0 means
    too high probabilities); the slope is that of a model with both (1 is perfect, below 1 means too extreme). Undefined
    with fewer than two patients, where only one answer occurs, and, for the slope, where the logits separate the
    answers or do not vary.

    Args:
        logits: finite, [n].
        positive: bool [n].
        clusters: int64 [n], the patient of each case.
    """
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(positive, dtype=np.float64)
    if not len(y) or y.min() == y.max() or len(np.unique(clusters)) < 2:
        return Slope(), Slope()
    ones = np.ones((len(z), 1))
    intercept = _coefficient(ones, y, z, clusters)
    events, others = z[y > 0.5], z[y < 0.5]
    # A threshold that makes no error lets the slope grow without end; logits that never vary have none.
    if np.ptp(z) == 0 or events.min() >= others.max() or events.max() <= others.min():
        return intercept, Slope()
    return intercept, _coefficient(np.stack([z, np.ones_like(z)], axis=1), y, np.zeros_like(z), clusters)


def _coefficient(features: Floats, y: Floats, offset: Floats, clusters: npt.NDArray[np.int64]) -> Slope:
    """The first coefficient."""
    values = np.zeros(features.shape[1])
    loss = np.inf
    for _ in range(100):
        moved = features @ values + offset
        now = float((np.logaddexp(0.0, moved) - y * moved).mean())
        chances = sigmoid(moved)
        gradient = features.T @ (chances - y)
        curvature = (features * (chances * (1.0 - chances))[:, None]).T @ features
        if np.abs(gradient).max() < 1e-9 * len(y) or loss - now < 0:
            break
        try:
            step = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError:
            return Slope()
        # Far from the solution a whole step can overshoot; one that makes the loss grow is halved.
        size = 1.0
        while size > 1e-6 and _loss(features @ (values - size * step) + offset, y) > now:
            size /= 2
        values = values - size * step
        loss = now
        if not np.abs(values).max() < _FARTHEST:
            return Slope()
    scores = features * (chances - y)[:, None]
    names, place = np.unique(clusters, return_inverse=True)
    sums = np.stack([np.bincount(place.reshape(-1), weights=column) for column in scores.T], axis=1)
    try:
        bread = np.linalg.inv(curvature)
    except np.linalg.LinAlgError:
        return Slope()
    variance = bread @ (sums.T @ sums) @ bread * len(names) / (len(names) - 1)
    reach = _NORMAL * float(np.sqrt(variance[0, 0]))
    return Slope(float(values[0]), float(values[0]) - reach, float(values[0]) + reach)


def _loss(moved: Floats, y: Floats) -> float:
    return float((np.logaddexp(0.0, moved) - y * moved).mean())
