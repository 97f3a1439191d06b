"""How well a map finds what changed, and how much it finds where nothing did. numpy and scikit-learn alone.

Whole-image measures reward maps of zeros, since about one pixel in a hundred changes; these two do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["CHANGED", "ChangePrecision", "best_threshold", "change_precision", "false_area", "is_changed"]

CHANGED = 0.02
"""A pixel has changed where the true map is further from 0 than this."""

Map = npt.NDArray[np.floating]
STEPS = 200


@dataclass(frozen=True)
class ChangePrecision:
    """Area under the precision-recall curve over the valid pixels of changed pairs, by the sign of the change.

    Args:
        positive: of new or increased opacity; NaN where no pair has any.
        negative: of vanished or decreased opacity; NaN likewise. Of a map of magnitudes both signs count as one.
        mean: of both; of one where the other is NaN.
        pairs: changed pairs it was measured on.
    """

    positive: float
    negative: float
    mean: float
    pairs: int


def is_changed(truth: Map, above: float = CHANGED) -> bool:
    """Whether a true map [H, W] holds any change; NaN is no truth."""
    return bool((np.abs(np.nan_to_num(truth)) > above).any())


def change_precision(
    maps: Sequence[Map], truths: Sequence[Map], *, signed: bool = True, above: float = CHANGED
) -> ChangePrecision:
    """Average precision of the pixels of all changed pairs together, so that one scale must serve them all.

    Args:
        maps: [H, W] each, in [-1, 1], or in [0, 1] for magnitudes.
        truths: the same, NaN where nothing is known.
        signed: whether the maps have signs.
        above: a pixel has changed where the truth is further from 0.
    """
    chosen = [number for number, truth in enumerate(truths) if is_changed(truth, above)]
    if not chosen:
        return ChangePrecision(np.nan, np.nan, np.nan, 0)
    valid = [~np.isnan(truths[number]) for number in chosen]
    truth = np.concatenate([truths[number][keep] for number, keep in zip(chosen, valid, strict=True)])
    found = np.concatenate([maps[number][keep] for number, keep in zip(chosen, valid, strict=True)])
    if not signed:
        one = _average_precision(np.abs(truth) > above, np.abs(found))
        return ChangePrecision(one, one, one, len(chosen))
    positive = _average_precision(truth > above, found)
    negative = _average_precision(truth < -above, -found)
    both = [value for value in (positive, negative) if not np.isnan(value)]
    return ChangePrecision(positive, negative, float(np.mean(both)) if both else float("nan"), len(chosen))


def best_threshold(maps: Sequence[Map], truths: Sequence[Map], *, above: float = CHANGED) -> float:
    """The threshold on |map| with the largest Dice over all changed pairs, to be chosen on validation pairs.

    Args:
        maps: [H, W] each.
        truths: the same, NaN where nothing is known.
        above: a pixel has changed where the truth is further from 0.
    """
    tries = np.linspace(0, 1, STEPS + 1)[1:]
    hits, found, wanted = np.zeros(STEPS), np.zeros(STEPS), 0
    for one, truth in zip(maps, truths, strict=True):
        if not is_changed(truth, above):
            continue
        valid = ~np.isnan(truth)
        strength, changed = np.abs(one[valid]), np.abs(truth[valid]) > above
        found += len(strength) - np.searchsorted(np.sort(strength), tries, side="left")
        hits += int(changed.sum()) - np.searchsorted(np.sort(strength[changed]), tries, side="left")
        wanted += int(changed.sum())
    dice = 2 * hits / np.maximum(found + wanted, 1)
    return float(tries[int(dice.argmax())])


def false_area(maps: Sequence[Map], truths: Sequence[Map], threshold: float, *, above: float = CHANGED) -> float:
    """Mean share of the valid pixels at or above `threshold` in pairs where nothing changed; NaN without such pairs."""
    shares = [
        float((np.abs(one[~np.isnan(truth)]) >= threshold).mean())
        for one, truth in zip(maps, truths, strict=True)
        if not is_changed(truth, above) and not np.isnan(truth).all()
    ]
    return float(np.mean(shares)) if shares else float("nan")


def _average_precision(labels: npt.NDArray[np.bool_], scores: Map) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores)) if labels.any() else float("nan")
