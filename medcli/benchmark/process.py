"""One measurement in a fresh interpreter with limits: whatever it does there costs its own row and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from medcli.benchmark.memory import resident
from medcli.benchmark.rows import State
from medcli.registry.children import child_environment, end_family, how_it_died

__all__ = ["WORKER", "Ending", "Limits", "measure_apart"]

WORKER = "medcli.benchmark.worker"
_TICK = 0.05
"""Seconds between two looks at the child's memory; one costs the parent some ten microseconds."""


@dataclass(frozen=True)
class Limits:
    """What one process may take.

    Args:
        seconds: by the clock, its start included.
        resident: bytes; None for no limit.
    """

    seconds: float
    resident: int | None


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Args:
        state: `measured` where it came to its end by itself.
        reason: why it did not; one sentence.
        stopped: whether it was ended because the user wished it.
        seconds: by the clock.
    """

    state: State
    reason: str
    stopped: bool
    seconds: float


def measure_apart(
    request: Mapping[str, Any],
    limits: Limits,
    told: Callable[[Mapping[str, Any]], None],
    *,
    asked: Callable[[], bool] = lambda: False,
    env: Mapping[str, str] | None = None,
) -> Ending:
    """Run the worker on one request and hand on what it tells, until it ends or a limit does it.

    Args:
        request: plain JSON.
        limits: what it may take.
        told: receives each of its events.
        asked: whether the user wants everything to stop.
        env: variables to add.
    """
    begun = time.monotonic()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=child_environment(env),
            text=True,
            encoding="utf-8",
            start_new_session=os.name == "posix",
        )
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(child, lines), daemon=True)
        reader.start()
        try:
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                # The pipe stays open: it breaks when this process dies, and then the child ends itself.
                child.stdin.write(json.dumps({**request, "spawned": begun, "memory": limits.resident}) + "\n")
                child.stdin.flush()
            state, reason, stopped = _follow(child, lines, limits, begun, told, asked, lambda: _died(child, said))
            return Ending(state, reason, stopped, time.monotonic() - begun)
        finally:
            end_family(child)
            reader.join(timeout=5)
            if child.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.close()


def _follow(
    child: subprocess.Popen[str],
    lines: queue.Queue[str | None],
    limits: Limits,
    begun: float,
    told: Callable[[Mapping[str, Any]], None],
    asked: Callable[[], bool],
    died: Callable[[], tuple[State, str]],
) -> tuple[State, str, bool]:
    while True:
        if asked():
            return "failed", "stopped", True
        if time.monotonic() - begun > limits.seconds:
            return "timed-out", f"it did not end within {limits.seconds:g} s (`--time-limit`)", False
        taken = resident(child.pid)
        if limits.resident is not None and taken > limits.resident:
            return "out-of-memory", beyond(limits.resident), False
        try:
            line = lines.get(timeout=_TICK)
        except queue.Empty:
            continue
        if line is None:
            state, reason = died()
            return state, reason, False
        event = json.loads(line)
        if "end" in event:
            return "measured", "", False
        told(event)


def beyond(limit: int) -> str:
    """The sentence for a process that took too much."""
    return f"it took more than {limit / 2**30:.3g} GiB of memory (`--memory-limit`)"


def _died(child: subprocess.Popen[str], said: Any) -> tuple[State, str]:
    status = child.wait()
    sentence = how_it_died(status, said)
    if status == -9:
        # Nobody else kills by force here; where memory is short, the system does.
        return "out-of-memory", f"{sentence}; the system does so where memory is short"
    return "failed", sentence


def _read(child: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert child.stdout is not None
    with child.stdout as stream:
        for line in stream:
            lines.put(line)
    lines.put(None)
