"""How busy the machine is with other things: times taken beside them are not those of a quiet machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["busy_processors"]

_WATCHED = 0.25
"""Seconds; the kernel counts in hundredths, so that a processor's use is known to some 5 %."""


def busy_processors() -> float | None:
    """How many processors others kept busy during a quarter of a second; None where the system does not tell."""
    before = _used()
    if before is None:
        return None
    mine, begun = sum(os.times()[:2]), time.monotonic()
    time.sleep(_WATCHED)
    after, own = _used(), sum(os.times()[:2]) - mine
    if after is None:
        return None
    return max(0.0, (after - before - own) / (time.monotonic() - begun))


def _used() -> float | None:
    """Seconds of work of all processors since the machine began; waiting for disks is no work."""
    try:
        numbers = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]]
    except (OSError, ValueError, IndexError):
        return None
    idle = sum(numbers[3:5])
    # The last two fields, guests, are counted in the first two already.
    return (sum(numbers[:8]) - idle) / os.sysconf("SC_CLK_TCK")
