"""The order of an epoch, from seed and epoch alone: a resumed run, or another process, draws what would have come."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["earlier", "epoch_order"]

Rows = npt.NDArray[np.int64]


def epoch_order(count: int, seed: int, epoch: int, chances: npt.NDArray[np.float64] | None = None) -> Rows:
    """A permutation of 0..count-1, or as many draws with repetition by `chances` [count], which add up to 1."""
    sequence = np.random.SeedSequence([seed, epoch])
    random = np.random.Generator(np.random.PCG64(sequence))
    if chances is not None:
        return random.choice(count, size=count, p=chances).astype(np.int64, copy=False)
    return random.permutation(count).astype(np.int64, copy=False)


def earlier(order: Rows) -> Rows:
    """For each draw, how often the same case was drawn before it."""
    places = np.argsort(order, kind="stable")
    cases = order[places]
    first = np.flatnonzero(np.r_[True, cases[1:] != cases[:-1]])
    times = np.empty(len(order), dtype=np.int64)
    times[places] = np.arange(len(order)) - np.repeat(first, np.diff(np.r_[first, len(order)]))
    return times
