"""Areas under curves over pixels as functions of patient weights: each pair's pixels are counted into one set of bins.

Sorting millions of pixels for each of a thousand resamples would take hours; the estimate itself is exact, and only how
far it moves between resamples is taken from the bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["PixelRanks"]

BINS = 512
Floats = npt.NDArray[np.float64]
Map = npt.NDArray[np.floating]


class PixelRanks:
    """Average precision and area under the ROC curve of pixels.

    Args:
        scores: [pixels of a pair] for each pair that counts, empty for others.
        wanted: bool, likewise: which pixels have changed.
    """

    def __init__(self, scores: Sequence[Map], wanted: Sequence[npt.NDArray[np.bool_]]) -> None:
        pixels, labels = np.concatenate(list(scores)), np.concatenate(list(wanted))
        self.average_precision = self.area = float("nan")
        self._hits = self._others = np.zeros((0, len(scores)))
        if not labels.any():
            return
        steps = np.linspace(0, 1, BINS)
        edges = np.unique(np.concatenate([np.quantile(pixels[labels], steps), np.quantile(pixels, steps)]))
        self._hits, self._others = (
            np.stack(
                [
                    np.bincount(np.searchsorted(edges, one[kind == which], side="right"), minlength=len(edges) + 1)
                    for one, kind in zip(scores, wanted, strict=True)
                ],
                axis=1,
            )[::-1].astype(np.float64)
            for which in (True, False)
        )
        from sklearn.metrics import average_precision_score, roc_auc_score

        self.average_precision = float(average_precision_score(labels, pixels))
        if not labels.all():
            self.area = float(roc_auc_score(labels, pixels))
        own = self._binned(np.ones((len(scores), 1)))
        self._shift = (self.average_precision - float(own[0][0]), self.area - float(own[1][0]))

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """(average precision, area under the ROC curve), each [r], for weights of pairs [n, r]; NaN where undefined."""
        if not len(self._hits):
            nothing = np.full(weights.shape[1], np.nan)
            return nothing, nothing
        precision, area = self._binned(weights)
        return np.clip(precision + self._shift[0], 0, 1), np.clip(area + self._shift[1], 0, 1)

    def curve(self) -> tuple[Floats, Floats]:
        """(recall, precision) at every bin's lower edge, the highest scores first, all pairs alike."""
        hits, others = np.cumsum(self._hits.sum(axis=1)), np.cumsum(self._others.sum(axis=1))
        called = hits + others
        kept = called > 0
        return hits[kept] / max(1.0, float(hits[-1]) if len(hits) else 1.0), hits[kept] / called[kept]

    def _binned(self, weights: Floats) -> tuple[Floats, Floats]:
        hits, others = self._hits @ weights, self._others @ weights
        above, beside = np.cumsum(hits, axis=0), np.cumsum(others, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.divide(above, above + beside, out=np.zeros_like(above), where=above + beside > 0)
            average = (hits * precision).sum(axis=0) / above[-1]
            area = (others * (above - hits / 2)).sum(axis=0) / (above[-1] * beside[-1])
        return average, area
