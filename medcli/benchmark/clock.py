"""How passes are timed: warm-up, then passes one by one, in turns apart from each other, with the device synchronised.

A machine that others use too is slow for seconds at a time; turns that lie apart are not all caught by one slow spell.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = [
    "APART",
    "FEWEST",
    "MOST",
    "QUIET",
    "TURNS",
    "WARMUPS",
    "Sample",
    "quantile",
    "share",
    "time_turn",
    "warm_up",
]

WARMUPS, FEWEST, MOST = 10, 5, 1000
TURNS = 3
APART = 0.5
"""Seconds between two turns of a batch size, at least; as long as the time box where that is shorter."""
QUIET = 1.1
"""A turn counts whose median is at most so many times that of the quietest one."""


@dataclass(frozen=True)
class Sample:
    """Timed passes.

    What disturbs a pass makes it longer, never shorter; so the figures are those of the turns that agree with the
    quietest one, and the medians of all turns show whether the machine was steady.

    Args:
        turns: seconds of each pass, in order, turn by turn.
        warmups: passes that were not timed.
    """

    turns: tuple[tuple[float, ...], ...]
    warmups: int

    @property
    def passes(self) -> int:
        """Timed ones, of all turns."""
        return sum(map(len, self.turns))

    @property
    def medians(self) -> tuple[float, ...]:
        """Seconds, of each turn."""
        return tuple(quantile(turn, 0.5) for turn in self.turns)

    @property
    def quiet(self) -> tuple[float, ...]:
        """The passes of the turns that count."""
        most = QUIET * min(self.medians)
        turns = zip(self.turns, self.medians, strict=True)
        return tuple(seconds for turn, median in turns if median <= most for seconds in turn)

    @property
    def median(self) -> float:
        """Seconds."""
        return quantile(self.quiet, 0.5)

    @property
    def p90(self) -> float:
        """Seconds."""
        return quantile(self.quiet, 0.9)


def share(total: int, turn: int) -> int:
    """How many of so many passes fall to a turn, counted from 0; the first ones take what is left over."""
    return (total + TURNS - 1 - turn) // TURNS


def warm_up(
    run: Callable[[], object],
    synchronise: Callable[[], object],
    *,
    box: float,
    most: int = WARMUPS,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Make passes that are not timed: `most`, or fewer (at least 1) where these fill the time box; returns how many."""
    began = clock()
    made = 0
    while made < most and (not made or clock() - began < box):
        run()
        synchronise()
        made += 1
    return made


def time_turn(
    run: Callable[[], object],
    synchronise: Callable[[], object],
    *,
    box: float,
    fewest: int,
    most: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, ...]:
    """Time a pass again and again until the box is spent; Python's garbage collector rests meanwhile.

    Args:
        run: one pass.
        synchronise: waits until the device has finished; called before and after each pass.
        box: seconds.
        fewest: passes, however long they take.
        most: passes, however short they are.
        clock: seconds from some point in time on.

    Returns:
        seconds of each pass.
    """
    seconds: list[float] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        began = end = clock()
        while len(seconds) < fewest or (len(seconds) < most and end - began < box):
            synchronise()
            start = clock()
            run()
            synchronise()
            end = clock()
            seconds.append(end - start)
    finally:
        if collecting:
            gc.enable()
    return tuple(seconds)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies, between two of them by linear interpolation."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
