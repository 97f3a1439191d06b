"""The order in which batch sizes are measured: all of them once, then all again, then again.

So the turns of a batch size lie apart, and a spell in which others use the machine does not catch all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from medcli.benchmark.clock import APART, FEWEST, MOST, TURNS, WARMUPS, Sample, share, time_turn, warm_up
from medcli.benchmark.memory import peak_resident, reset_peak
from medcli.benchmark.rows import Timing
from medcli.benchmark.worker import Tell, describe_failure

__all__ = ["Bench", "measure_in_turns"]


@dataclass(frozen=True)
class Bench:
    """What is measured, and on what.

    Args:
        prepare: for a batch size, a function that makes one pass.
        synchronise: waits until the device has finished.
        clear: frees what is unused on the device and sets its peak back; called before the first pass of a batch size.
        device_bytes: most that was allocated on the device since then; None on a CPU.
        compiled: whether the first pass of a batch size compiles.
        clock: seconds from some point in time on.
        sleep: waits so many seconds.
    """

    prepare: Callable[[int], Callable[[], object]]
    synchronise: Callable[[], object] = lambda: None
    clear: Callable[[], object] = lambda: None
    device_bytes: Callable[[], int | None] = lambda: None
    compiled: bool = False
    clock: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], object] = time.sleep


@dataclass
class _Course:
    """What is known of one batch size by now."""

    size: int
    turns: list[tuple[float, ...]] = field(default_factory=list)
    first: float = 0.0
    warmups: int = 0
    warmed: bool = False
    ended: float = 0.0
    peak: int | None = None
    peak_of: str = "batch"
    device: int | None = None
    lost: bool = False


def measure_in_turns(sizes: Sequence[int], bench: Bench, tell: Tell, *, box: float, repeats: int | None) -> None:
    """Measure batch sizes, smallest first, in three turns each.

    Memory is that of the first turn: the peak is set back before it, and later ones need no more.

    Args:
        sizes: of batches.
        bench: what is measured.
        tell: receives `stage` and `timing` events: one after each turn, so that a process that is ended says what it
            knew, and with `repeats` one after the last.
        box: seconds for the timed passes of a batch size, all turns together.
        repeats: exactly that many passes instead.
    """
    courses = [_Course(size) for size in sorted(sizes)]
    too_large = 0
    for turn in range(TURNS):
        for course in courses:
            if course.lost or (repeats is not None and not share(repeats, turn)):
                continue
            if too_large and not turn:
                course.lost = True
                reason = f"not tried: a batch of {too_large} did not fit"
                tell({"timing": asdict(Timing(course.size, "out-of-memory", reason))})
                continue
            tell({"stage": f"batches of {course.size}" + (f", turn {turn + 1} of {TURNS}" if turn else "")})
            try:
                _take_turn(course, bench, turn, box, repeats)
            except Exception as error:
                course.lost = True
                state, reason = describe_failure(error)
                lost = Timing(course.size, "out-of-memory" if state == "out-of-memory" else "failed", reason)
                too_large = course.size if lost.state == "out-of-memory" else 0
                tell({"timing": asdict(lost)})
                continue
            if repeats is None or sum(map(len, course.turns)) == repeats:
                tell({"timing": asdict(_timing(course, compiled=bench.compiled))})


def _take_turn(course: _Course, bench: Bench, turn: int, box: float, repeats: int | None) -> None:
    timing: dict[str, Any] = {"box": box / TURNS, "clock": bench.clock}
    timing["fewest"] = share(FEWEST if repeats is None else repeats, turn)
    timing["most"] = share(MOST if repeats is None else repeats, turn)
    if turn:
        bench.sleep(max(0.0, course.ended + min(APART, box) - bench.clock()))
        run = bench.prepare(course.size)
        # What the pause and other batch sizes drove from the caches comes back, where passes are short enough to care.
        if course.warmed:
            course.warmups += warm_up(run, bench.synchronise, box=box, most=1, clock=bench.clock)
    else:
        bench.clear()
        course.peak_of = "batch" if reset_peak() else "process"
        run = bench.prepare(course.size)
        began = bench.clock()
        run()
        bench.synchronise()
        course.first = bench.clock() - began
        warmups = warm_up(run, bench.synchronise, box=box, clock=bench.clock)
        course.warmups, course.warmed = 1 + warmups, warmups == WARMUPS
    course.turns.append(time_turn(run, bench.synchronise, **timing))
    course.ended = bench.clock()
    if not turn:
        course.peak, course.device = peak_resident(), bench.device_bytes()


def _timing(course: _Course, *, compiled: bool) -> Timing:
    sample = Sample(tuple(course.turns), course.warmups)
    return Timing(
        course.size,
        median_ms=sample.median * 1e3,
        p90_ms=sample.p90 * 1e3,
        images_per_second=course.size / sample.median,
        passes=sample.passes,
        warmups=sample.warmups,
        compile_seconds=course.first if compiled else None,
        peak_bytes=course.peak,
        peak_of=course.peak_of,
        device_bytes=course.device,
        turns_ms=tuple(median * 1e3 for median in sample.medians),
    )
