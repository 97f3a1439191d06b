"""Resident memory of a process: what it takes now, its peak, and how that peak is set back before each measurement."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import sys
from pathlib import Path

__all__ = ["free_memory", "peak_resident", "reset_peak", "resident", "watchable"]

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def watchable() -> bool:
    """Whether this system tells how much memory another process takes (Linux does, through /proc)."""
    return Path("/proc/self/statm").is_file()


def resident(pid: int) -> int:
    """Bytes that a process keeps in memory now; 0 where it is gone or the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def reset_peak() -> bool:
    """Give back what is unused and set this process's peak to what it takes now; False where that cannot be done."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library keeps its own counsel
        ctypes.CDLL(None).malloc_trim(0)
    try:
        # proc(5): 5 resets the peak resident set size ("high water mark").
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_resident() -> int:
    """Bytes of this process's peak, since the last `reset_peak` that worked or else since it began."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else most * 1024)


def free_memory() -> int | None:
    """Bytes that new processes may still take, the limit of a container included; None where nobody tells."""
    free: list[int] = []
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        return None
    try:
        folder = Path("/sys/fs/cgroup")
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            free.append(int(limit) - int((folder / "memory.current").read_text(encoding="ascii")))
    except (OSError, ValueError):
        pass
    return min(free) if free else None
