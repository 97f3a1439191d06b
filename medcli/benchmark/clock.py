"""How passes are timed: warm-up, then passes one by one until a time box is spent, with the device synchronised."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["FEWEST", "MOST", "WARMUPS", "Sample", "quantile", "time_passes"]

WARMUPS, FEWEST, MOST = 10, 5, 1000


@dataclass(frozen=True)
class Sample:
    """Timed passes.

    Args:
        seconds: of each pass, in order.
        warmups: passes before them.
    """

    seconds: tuple[float, ...]
    warmups: int

    @property
    def median(self) -> float:
        """Seconds."""
        return quantile(self.seconds, 0.5)

    @property
    def p90(self) -> float:
        """Seconds."""
        return quantile(self.seconds, 0.9)


def time_passes(
    run: Callable[[], object],
    synchronise: Callable[[], object],
    *,
    box: float,
    repeats: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Sample:
    """Time a pass again and again.

    There are 10 warm-up passes, fewer (at least 1) where these fill the time box. Then passes are timed until the box
    is spent, at least 5 and at most 1000. Python's garbage collector rests meanwhile.

    Args:
        run: one pass.
        synchronise: waits until the device has finished; called before and after each pass.
        box: seconds.
        repeats: exactly that many passes instead.
        clock: seconds from some point in time on.
    """
    began = clock()
    warmups = 0
    while warmups < WARMUPS and (not warmups or clock() - began < box):
        run()
        synchronise()
        warmups += 1
    seconds: list[float] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        began = clock()
        while True:
            synchronise()
            start = clock()
            run()
            synchronise()
            end = clock()
            seconds.append(end - start)
            enough = len(seconds) >= FEWEST and end - began >= box
            if len(seconds) >= (repeats or MOST) or (enough and repeats is None):
                return Sample(tuple(seconds), warmups)
    finally:
        if collecting:
            gc.enable()


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies, between two of them by linear interpolation."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
