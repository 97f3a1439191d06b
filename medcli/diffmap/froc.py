"""Findings found against false ones: the free-response curve of connected areas, as a function of patient weights.

A map's areas at its threshold are candidates, ranked by their peak; the true map's areas are what is to be found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medcli.diffmap.components import Component, components

__all__ = ["LEAST_OVERLAP", "RATES", "Froc", "FrocCurve", "overlap", "same_place"]

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
LEAST_OVERLAP = 0.1
Floats = npt.NDArray[np.float64]
Map = npt.NDArray[np.floating]
MISSED = -np.inf


def overlap(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """Intersection over union of two masks [H, W]; 0 where both are empty."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0


def same_place(found: Component, wanted: Component) -> bool:
    """Whether a candidate hits: the same sign, and its centroid lies inside, or the two overlap by `LEAST_OVERLAP`."""
    if found.sign != wanted.sign:
        return False
    row, column = (round(value) for value in found.centroid)
    return bool(wanted.mask[row, column]) or overlap(found.mask, wanted.mask) >= LEAST_OVERLAP


@dataclass(frozen=True)
class FrocCurve:
    """Of all pairs alike.

    Args:
        false: false candidates per image, ascending.
        sensitivity: share of the true findings hit at that cut.
    """

    false: Floats
    sensitivity: Floats


class Froc:
    """What every pair adds to the curve.

    A finding hit several times counts once, by its strongest candidate; the others are not false. A candidate on
    changed pixels too few to be a finding counts neither way. Between two cuts the curve is a step, never a line.

    Args:
        maps: [H, W] each.
        truths: the same, NaN where nothing is known; a pair of which nothing is known takes no part.
        threshold: of |map|, for candidates.
        above: a pixel has changed where the truth is further from 0.
        min_area: of candidates and of true findings, in pixels.
    """

    def __init__(
        self, maps: Sequence[Map], truths: Sequence[Map], *, threshold: float, above: float, min_area: int
    ) -> None:
        hits: list[tuple[float, int]] = []
        false: list[tuple[float, int]] = []
        self.images = np.array([not np.isnan(truth).all() for truth in truths], dtype=np.bool_)
        self.counts = np.zeros(len(maps))
        for number, (one, truth) in enumerate(zip(maps, truths, strict=True)):
            if not self.images[number]:
                continue
            known = np.where(np.isnan(truth), np.nan, one)
            candidates = components(known, threshold, min_area)
            wanted = components(truth, float(np.nextafter(above, 1)), min_area)
            self.counts[number] = len(candidates)
            best = [MISSED] * len(wanted)
            for candidate in candidates:
                where = [place for place, finding in enumerate(wanted) if same_place(candidate, finding)]
                for place in where:
                    best[place] = max(best[place], abs(candidate.peak))
                row, column = (round(value) for value in candidate.centroid)
                if not where and not candidate.sign * np.nan_to_num(truth[row, column]) > above:
                    false.append((abs(candidate.peak), number))
            hits += [(score, number) for score in best]
        self._hits, self._of_hits = _ordered(hits)
        self._false, self._of_false = _ordered(false)

    @property
    def findings(self) -> int:
        """True findings in all pairs together."""
        return len(self._hits)

    def of(self, rows: npt.NDArray[np.bool_]) -> tuple[int, int]:
        """(hit at the threshold itself, true findings) of some of the pairs."""
        mine = rows[self._of_hits]
        return int((self._hits[mine] > MISSED).sum()), int(mine.sum())

    def __call__(self, weights: Floats) -> Floats:
        """Sensitivity at each of `RATES` false candidates per image, [7, r], for weights of pairs [n, r].

        The largest one whose false candidates do not exceed the rate; NaN without true findings.
        """
        images = weights[self.images].sum(axis=0)
        found = np.cumsum(weights[self._of_hits], axis=0)
        total = found[-1] if len(found) else np.zeros_like(images)
        found = np.concatenate([np.zeros((1, len(images))), found])
        false = np.cumsum(weights[self._of_false], axis=0)
        everything = int((self._hits > MISSED).sum())
        # How many findings have a higher score than each false candidate.
        stronger = np.searchsorted(-self._hits, -self._false, side="left")
        draws = np.arange(len(images))
        out = np.zeros((len(RATES), len(images)))
        for row, rate in enumerate(RATES):
            last = np.full(len(images), everything)
            if len(self._false):
                over = false > rate * images + 1e-9
                last = np.where(over.any(axis=0), stronger[over.argmax(axis=0)], everything)
            with np.errstate(invalid="ignore", divide="ignore"):
                out[row] = found[last, draws] / total
        return out

    def curve(self) -> FrocCurve:
        """Every step of the curve, all pairs alike."""
        cuts = np.unique(np.concatenate([self._false, self._hits[self._hits > MISSED]]))[::-1]
        images = max(1, int(self.images.sum()))
        false = np.array([0, *[(self._false >= cut).sum() for cut in cuts]]) / images
        hit = np.array([0, *[(self._hits >= cut).sum() for cut in cuts]]) / max(1, len(self._hits))
        return FrocCurve(false.astype(np.float64), hit.astype(np.float64))


def _ordered(events: Sequence[tuple[float, int]]) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Scores and their pairs, the largest score first."""
    scores = np.array([score for score, _ in events], dtype=np.float64)
    owners = np.array([owner for _, owner in events], dtype=np.int64)
    order = np.argsort(-scores, kind="stable")
    return scores[order], owners[order]
