"""The solvers behind the calibrators: each is small, convex, and checked at its solution instead of trusted.

A published recipe for temperature scaling takes a fixed number of gradient steps and stops wherever it is; here the
one-dimensional problem is solved to the last digit, and a solution on a bound is reported as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, isotonic_regression, minimize

from medcli.errors import RunFailure
from medcli.evaluation.scores import sigmoid, softmax

__all__ = [
    "COLDEST",
    "HOTTEST",
    "LARGEST_LOGIT",
    "Isotonic",
    "Solved",
    "beta_features",
    "fit_beta",
    "fit_isotonic",
    "fit_platt",
    "fit_temperature",
    "fit_vector",
    "tame",
]

Floats = npt.NDArray[np.float64]

COLDEST, HOTTEST = 0.01, 100.0
"""Bounds of the temperature. At either, the logits carry no scale: all are right, or none knows anything."""

LARGEST_LOGIT = float(-np.log(1e-15))
"""What a probability of exactly 0 or 1 counts as (34.5), so that a table's rounding cannot decide a fit."""

_STEPS = 200
_SOLVED = 1e-7
"""Largest gradient, per case and in units of the logits' spread, at which a fit counts as solved."""


@dataclass(frozen=True)
class Solved:
    """Parameters at the smallest negative log-likelihood.

    Args:
        values: the parameters.
        note: what the reader should know, such as a bound that was hit; or empty.
    """

    values: Floats
    note: str = ""


@dataclass(frozen=True)
class Isotonic:
    """A step-wise rising map from logits to probabilities, linear in between.

    Args:
        logits: [m], rising.
        probabilities: [m], not falling, strictly inside 0 and 1.
    """

    logits: Floats
    probabilities: Floats


def tame(logits: npt.ArrayLike) -> Floats:
    """Logits in float64 without infinities: an impossible class (-inf) stands 34.5 below the likeliest one.

    One column per class over the last axis. Rows keep their order of classes wherever it was defined.
    """
    values = np.asarray(logits, dtype=np.float64)
    floor = values.max(axis=-1, keepdims=True) - LARGEST_LOGIT
    result: Floats = np.where(np.isneginf(values), np.minimum(floor, _lowest(values)), values)
    return result


def _lowest(values: Floats) -> Floats:
    finite = np.where(np.isneginf(values), np.inf, values)
    result: Floats = finite.min(axis=-1, keepdims=True)
    return result


def fit_temperature(logits: Floats, labels: npt.NDArray[np.int64]) -> Solved:
    """The temperature T that minimises the negative log-likelihood of softmax(logits / T).

    The loss is convex in 1/T, so its derivative has one root at most. It is found in log T between `COLDEST` and
    `HOTTEST` by bracketing, without steps or starting points; T < 1 (under-confident logits) is as welcome as T > 1.

    Args:
        logits: finite, [n, K].
        labels: int64 [n].

    Raises:
        RunFailure: the derivative at the solution is not zero (code `not-solved`).
    """
    if logits.shape[1] == 2:
        # Two classes are one margin: half the work of the general case, and labels are many.
        margin = logits[:, 1] - logits[:, 0]
        scale = float(np.abs(margin).mean()) or 1.0
        own = float((margin * labels).mean())

        def slope(log_temperature: float) -> float:
            return (float((margin * sigmoid(margin * np.exp(-log_temperature))).mean()) - own) / scale
    else:
        shifted = logits - logits.max(axis=1, keepdims=True)
        # Without a scale of its own the derivative of large logits would look steep everywhere.
        scale = float(np.abs(shifted).mean()) or 1.0
        own = float(np.take_along_axis(shifted, labels[:, None], axis=1).mean())

        def slope(log_temperature: float) -> float:
            chances = softmax(shifted * np.exp(-log_temperature))
            return (float((chances * shifted).sum(axis=1).mean()) - own) / scale

    low, high = np.log(COLDEST), np.log(HOTTEST)
    # The derivative falls with T: more heat pulls the expected logit towards the mean of all.
    if slope(low) <= 0:
        return Solved(np.array([COLDEST]), f"T is at its lower bound {COLDEST:g}: colder still would fit better")
    if slope(high) >= 0:
        return Solved(np.array([HOTTEST]), f"T is at its upper bound {HOTTEST:g}: the scores say nothing of the labels")
    root = float(brentq(slope, low, high, xtol=1e-13, rtol=1e-14, maxiter=_STEPS))
    _check_solved("temperature", abs(slope(root)) * np.exp(-root) * scale)
    return Solved(np.array([np.exp(root)]))


def fit_vector(logits: Floats, labels: npt.NDArray[np.int64]) -> Solved:
    """Weights w and offsets b, [2 K], that minimise the negative log-likelihood of softmax(w * logits + b).

    Convex; begun at the best temperature. The offsets add up to zero, since only their differences act.

    Args:
        logits: finite, [n, K].
        labels: int64 [n].

    Raises:
        RunFailure: no solution was found (code `not-solved`).
    """
    classes = logits.shape[1]
    shifted = logits - logits.mean(axis=1, keepdims=True)
    start = 1.0 / fit_temperature(logits, labels).values[0]
    truth = labels[:, None] == np.arange(classes)
    # In units of the coldest fit that does not hit a bound, all parameters are of the order of one.
    unit = max(start, 1.0 / HOTTEST)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weights, offsets = parameters[:classes] * unit, parameters[classes:]
        moved = shifted * weights + offsets
        peak = moved.max(axis=1, keepdims=True)
        total = np.log(np.exp(moved - peak).sum(axis=1)) + peak[:, 0]
        error = np.exp(moved - total[:, None]) - truth
        gradient = np.concatenate([(error * shifted).mean(axis=0) * unit, error.mean(axis=0)])
        return float((total - moved[truth]).mean()), gradient

    bounds = [(1.0 / HOTTEST / unit, 1.0 / COLDEST / unit)] * classes + [(-LARGEST_LOGIT, LARGEST_LOGIT)] * classes
    found = minimize(
        loss,
        np.concatenate([np.full(classes, start / unit), np.zeros(classes)]),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 5000, "maxfun": 20000, "ftol": 1e-16, "gtol": 1e-9, "maxcor": 20},
    )
    values = np.asarray(found.x, dtype=np.float64)
    low, high = np.array(bounds).T
    gradient = loss(values)[1]
    inside = np.where((values <= low) & (gradient > 0) | (values >= high) & (gradient < 0), 0.0, gradient)
    _check_solved("vector", float(np.abs(inside).max()), limit=1e-4)
    at_bound = ((values <= low) | (values >= high)).any()
    weights, offsets = values[:classes] * unit, values[classes:]
    note = "a parameter is at its bound: some classes are told apart without a single error" if at_bound else ""
    return Solved(np.concatenate([weights, offsets - offsets.mean()]), note)


def fit_platt(logits: Floats, labels: npt.NDArray[np.bool_]) -> Solved:
    """(slope, offset) of sigmoid(slope * logit + offset), after Platt 1999.

    The labels are drawn in to (N₊+1)/(N₊+2) and 1/(N₋+2), as he does: that keeps the fit finite where the logits tell
    all cases apart.

    Args:
        logits: finite, [n].
        labels: bool [n], both values present.
    """
    return Solved(_logistic(np.stack([logits, np.ones_like(logits)], axis=1), _soft(labels)))


def beta_features(logits: Floats) -> Floats:
    """[n, 3]: log p, -log(1 - p) and 1 for p = sigmoid(logits)."""
    return np.stack([-np.logaddexp(0.0, -logits), np.logaddexp(0.0, logits), np.ones_like(logits)], axis=1)


def fit_beta(logits: Floats, labels: npt.NDArray[np.bool_]) -> Solved:
    """(a, b, c) of sigmoid(a log p - b log(1-p) + c) with a, b >= 0, after Kull, Silva Filho and Flach 2017.

    A negative a or b would turn the order of the cases round. The problem is convex, so its constrained solution is the
    best of those with a, b or both at zero. Labels are drawn in as for Platt's map.

    Args:
        logits: finite, [n].
        labels: bool [n], both values present.
    """
    features, soft = beta_features(logits), _soft(labels)
    best, best_loss = np.zeros(3), np.inf
    for kept in product((True, False), repeat=2):
        columns = np.flatnonzero([*kept, True])
        values = np.zeros(3)
        values[columns] = _logistic(features[:, columns], soft)
        if (values[:2] < 0).any():
            continue
        loss = _logistic_loss(features @ values, soft)
        if loss < best_loss:
            best, best_loss = values, loss
        if all(kept):
            break
    note = "a and b are both zero: the scores say nothing of the labels" if not best[:2].any() else ""
    return Solved(best, note)


def fit_isotonic(logits: Floats, labels: npt.NDArray[np.bool_]) -> Isotonic:
    """The rising map with the smallest squared error; equal logits share a value.

    Its ends would be 0 and 1, which no finite sample can vouch for: they are kept 1/(n+2) away.

    Args:
        logits: finite, [n].
        labels: bool [n].
    """
    values, place, counts = np.unique(logits, return_inverse=True, return_counts=True)
    shares = np.bincount(place.reshape(-1), weights=labels.astype(np.float64)) / counts
    fitted = np.asarray(isotonic_regression(shares, weights=counts).x, dtype=np.float64)
    edge = 1.0 / (len(logits) + 2)
    # Between two ends of a step nothing changes, so those in the middle need not be kept.
    same = np.concatenate([[False], fitted[1:] == fitted[:-1]])
    inner = same & np.append(same[1:], False)
    return Isotonic(values[~inner], np.clip(fitted[~inner], edge, 1.0 - edge))


def _soft(labels: npt.NDArray[np.bool_]) -> Floats:
    positives = int(labels.sum())
    negatives = len(labels) - positives
    result: Floats = np.where(labels, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))
    return result


def _logistic_loss(logits: Floats, soft: Floats) -> float:
    return float((np.logaddexp(0.0, logits) - soft * logits).mean())


def _logistic(features: Floats, soft: Floats) -> Floats:
    """Newton's method with halved steps on the convex loss; targets strictly inside 0 and 1 make its minimum finite."""
    spread = np.abs(features).max(axis=0)
    scaled = features / np.where(spread > 0, spread, 1.0)
    values = np.zeros(features.shape[1])
    moved = scaled @ values
    loss = _logistic_loss(moved, soft)
    for _ in range(_STEPS):
        chances = sigmoid(moved)
        gradient = scaled.T @ (chances - soft) / len(soft)
        if np.abs(gradient).max() < 1e-13:
            break
        curvature = (scaled * (chances * (1.0 - chances))[:, None]).T @ scaled / len(soft)
        step = np.linalg.lstsq(curvature, gradient, rcond=1e-14)[0]
        size = 1.0
        # Close to the minimum rounding alone decides whether the loss falls; the gradient then ends the search.
        while size > 1e-3:
            moved = scaled @ (values - size * step)
            trial = _logistic_loss(moved, soft)
            if trial <= loss + 1e-14:
                break
            size /= 2
        values, done = values - size * step, np.abs(size * step).max() < 1e-12 * max(1.0, np.abs(values).max())
        loss = trial
        if done:
            break
    chances = sigmoid(scaled @ values)
    _check_solved("logistic", float(np.abs(scaled.T @ (chances - soft) / len(soft)).max()))
    result: Floats = values / np.where(spread > 0, spread, 1.0)
    return result


def _check_solved(what: str, gradient: float, limit: float = _SOLVED) -> None:
    if not gradient <= limit:
        raise RunFailure(
            f"the {what} fit did not converge: its gradient is still {gradient:.2g}",
            hint="look at the logits: are they all finite and of one scale?",
            code="not-solved",
        )
