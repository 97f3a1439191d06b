"""Which part of the work one of several processes does, such that all parts together are exactly the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Share"]

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """One process of several.

    Args:
        rank: which one, 0-based.
        of: how many there are.
    """

    rank: int = 0
    of: int = 1

    def counts(self, images: int) -> list[int]:
        """How many images of a batch each process takes: as equal as can be, the first ones one more."""
        return [images // self.of + (rank < images % self.of) for rank in range(self.of)]

    def width(self, images: int, batch_size: int) -> int:
        """How many images every process sends through the network, repetitions included.

        All processes must take the same number of steps and exchange outputs of one shape. A process never holds a
        single image where whole batches give it more: normalisation over the batch could not learn from it.
        """
        return max(self.counts(images)[0], min(2, -(-batch_size // self.of)))

    def own(self, images: int, batch_size: int) -> Rows:
        """Positions in a batch of `images` that this process takes; behind its own ones, repetitions up to `width`."""
        counts = self.counts(images)
        first = sum(counts[: self.rank])
        mine = np.arange(first, first + counts[self.rank]) if counts[self.rank] else np.arange(images)
        return np.resize(mine, self.width(images, batch_size)).astype(np.int64)

    def block(self, batches: int) -> tuple[int, int, int]:
        """Of the batches of a pass: (first computed, first that counts, first that no longer does).

        Every process computes equally many; where they do not come out even, the last ones repeat batches that count
        elsewhere.
        """
        each = -(-batches // self.of)
        start, stop = min(self.rank * each, batches), min((self.rank + 1) * each, batches)
        return max(0, min(start, batches - each)), start, stop
