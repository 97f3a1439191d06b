"""Work on plugins in a process of its own: one that crashes, hangs, prints or exits there harms nobody else.

A child is a module run with `python -m`. It gets a JSON request on stdin and answers with one JSON line per event on a
channel that a plugin's own output cannot reach; `serve` is its side, `run_jobs` the parent's.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

__all__ = ["Ended", "child_environment", "end_family", "how_it_died", "run_jobs", "serve"]


@dataclass(frozen=True)
class Ended:
    """How one job ended.

    Args:
        job: its name.
        result: what the child said, or None where the child did not survive it.
        death: how the child ended then: by a signal, a status, or because its time was up.
        seconds: by the clock.
    """

    job: str
    result: Mapping[str, Any] | None
    death: str
    seconds: float


def child_environment(env: Mapping[str, str] | None = None, path: Sequence[str] = ()) -> dict[str, str]:
    """The variables of this process with its import path handed on, so that a child finds what this process finds.

    Args:
        env: variables to add.
        path: folders put before the child's import path.
    """
    own = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))
    added = [*path, *(place for place in sys.path if place and not place.startswith(own))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(added), **(env or {})}


def run_jobs(
    module: str,
    jobs: Sequence[str],
    *,
    request: Mapping[str, Any],
    timeout: float,
    env: Mapping[str, str] | None = None,
    path: Sequence[str] = (),
) -> Iterator[Ended]:
    """Do the jobs one after the other in one child; if it dies, a fresh one goes on with the job after the fatal one.

    Args:
        module: the child, which calls `serve`.
        jobs: their names, unique.
        request: what else the child needs to know, as JSON can hold it.
        timeout: seconds that one job, the child's start included, may take.
        env: variables to add.
        path: folders put before the child's import path.
    """
    left = list(jobs)
    while left:
        for ended in _one_child(module, left, request, timeout, child_environment(env, path)):
            left.remove(ended.job)
            yield ended


def serve(do: Callable[[str, Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """The child's side: do each job of the request and say so; `do` gets the job and the request."""
    # From here on whatever writes to stdout, C code included, writes to stderr; the parent alone reads the old one.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    for job in request["jobs"]:
        _say(channel, {"started": job})
        _say(channel, {"ended": job, "result": do(job, request)})


def _say(channel: IO[str], event: Mapping[str, Any]) -> None:
    channel.write(json.dumps(event) + "\n")
    channel.flush()


def _one_child(
    module: str, jobs: Sequence[str], request: Mapping[str, Any], timeout: float, env: Mapping[str, str]
) -> Iterator[Ended]:
    """Until all jobs are done or the child is dead; then the job it was at is the last one given."""
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=env,
            text=True,
            encoding="utf-8",
            start_new_session=os.name == "posix",
        )
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(child, lines), daemon=True)
        reader.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                assert child.stdin is not None
                child.stdin.write(json.dumps({**request, "jobs": list(jobs)}))
                child.stdin.close()
            waiting = list(jobs)
            begun = time.monotonic()
            while waiting:
                try:
                    line = lines.get(timeout=max(0.0, begun + timeout - time.monotonic()))
                except queue.Empty:
                    yield Ended(waiting[0], None, f"it did not end within {timeout:g} s", time.monotonic() - begun)
                    return
                if line is None:
                    death = how_it_died(child.wait(), said)
                    yield Ended(waiting[0], None, death, time.monotonic() - begun)
                    return
                event = json.loads(line)
                if "ended" in event:
                    yield Ended(waiting.pop(0), event["result"], "", time.monotonic() - begun)
                    begun = time.monotonic()
        finally:
            end_family(child)
            reader.join(timeout=5)


def _read(child: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert child.stdout is not None
    with child.stdout as stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def end_family(child: subprocess.Popen[str]) -> None:
    """Kill a child that leads its own session, and whatever it started."""
    if child.poll() is None or os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()
    child.wait()


def how_it_died(status: int, said: IO[bytes]) -> str:
    """One sentence from a child's exit status and the last line of what it `said` on stderr."""
    said.seek(0)
    lines = [line.strip() for line in said.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if status < 0:
        try:
            ended = f"the process was killed by {signal.Signals(-status).name}"
        except ValueError:
            ended = f"the process was killed by signal {-status}"
    else:
        ended = f"the process ended with status {status}"
    return f"{ended}, having said: {lines[-1][:200]}" if lines else ended
