"""Several processes for one training: start them, pass signals on, end as they end. Without torch: it only waits."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any

from medcli.errors import ExitCode, RunFailure, UsageProblem

__all__ = ["Ended", "Place", "place", "refuse_more_than_cores", "run_processes"]

GRACE = 15.0
"""Seconds that the others have to notice that one process has failed, before they are killed."""

POLL = 0.05
LAST_WORDS = 8000


@dataclass(frozen=True)
class Place:
    """Which process of a training this is, by the variables that torchrun, `accelerate launch` and medcli itself set.

    Args:
        rank: among all, 0-based.
        of: how many there are.
        local_rank: among those of this machine.
        local_of: how many this machine has.
    """

    rank: int = 0
    of: int = 1
    local_rank: int = 0
    local_of: int = 1


def place(environ: Mapping[str, str] | None = None) -> Place:
    """Read the place of this process from its environment.

    Raises:
        UsageProblem: variables that no launcher would set.
    """
    variables = os.environ if environ is None else environ
    try:
        of = int(variables.get("WORLD_SIZE") or 1)
        rank = int(variables.get("RANK") or 0)
        local_rank = int(variables.get("LOCAL_RANK") or 0)
        local_of = int(variables.get("LOCAL_WORLD_SIZE") or of)
    except ValueError as error:
        raise UsageProblem(
            f"the launcher's variables are not numbers: {error}",
            where="RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE",
            code="bad-launcher",
        ) from error
    if of > 1 and not (0 <= rank < of and "RANK" in variables):
        raise UsageProblem(
            f"`WORLD_SIZE` is {of}, but `RANK` names no process of it",
            where="the environment",
            hint="start with `--processes`, torchrun or `accelerate launch`, or unset `WORLD_SIZE`",
            code="bad-launcher",
        )
    return Place(rank, of, local_rank, local_of) if of > 1 else Place()


@dataclass(frozen=True)
class Ended:
    """How the processes ended.

    Args:
        code: the exit status of all together.
        words: what a process other than the first said as it failed; the first one has spoken for itself.
    """

    code: int
    words: str


def cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def refuse_more_than_cores(count: int) -> None:
    """No device count is needed to see that a process without a core of its own helps nobody.

    Raises:
        UsageProblem: more processes than cores.
    """
    if count > cores():
        raise UsageProblem(
            f"`--processes {count}` is more than the {cores()} cores of this machine",
            where="--processes",
            hint=f"`--processes {cores()}` or fewer; on GPUs one for each",
            code="too-many-processes",
        )


def run_processes(count: int, command: Sequence[str] | None = None) -> Ended:
    """Start this command line (or another command) `count` times as one training and wait for the end.

    The first process has this one's terminal and speaks for all; of the others only the words of the one that failed
    are kept. SIGINT and SIGTERM are passed on, and a process that fails takes the others with it.

    Raises:
        RunFailure: a process was killed, or they lost each other.
    """
    refuse_more_than_cores(count)
    command = [sys.executable, "-P", "-m", "medcli", *sys.argv[1:]] if command is None else command
    shared = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(part for part in sys.path if part),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    # Every process would take all cores for itself.
    shared.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    heard: list[IO[bytes] | None] = [None, *(tempfile.TemporaryFile() for _ in range(count - 1))]  # noqa: SIM115 (closed below)
    children: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the signal protocol)
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    previous: dict[int, Any] = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for rank, ear in enumerate(heard):
            children.append(
                subprocess.Popen(
                    command,
                    env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "STARTED_BY_MEDCLI": str(os.getpid())},
                    stdin=None if rank == 0 else subprocess.DEVNULL,
                    stdout=None if rank == 0 else subprocess.DEVNULL,
                    stderr=ear,
                    # A session of their own: Ctrl-C reaches them once, through `forward`.
                    start_new_session=True,
                )
            )
        codes, culprit = _wait(children)
        return _verdict(codes, culprit, heard)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)
        for ear in heard:
            if ear is not None:
                ear.close()


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> tuple[list[int], int | None]:
    """Exit statuses, and which process was the first to fail by itself."""
    culprit: int | None = None
    since: float | None = None
    while None in (codes := [child.poll() for child in children]):
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed and since is None:
            since = time.monotonic()
        if culprit is None:
            culprit = next((rank for rank in failed if codes[rank] != ExitCode.LOST), None)
        if since is not None and time.monotonic() - since > GRACE:
            for child in children:
                if child.poll() is None:
                    child.kill()
        time.sleep(POLL)
    ended = [child.wait() for child in children]
    if culprit is None:
        culprit = next((rank for rank, code in enumerate(ended) if code not in (0, ExitCode.LOST)), None)
    return ended, culprit


def _verdict(codes: Sequence[int], culprit: int | None, heard: Sequence[IO[bytes] | None]) -> Ended:
    # The first process has said what it met itself; with the others it only lost touch, or was killed for waiting.
    if codes[0] >= 0 and codes[0] != ExitCode.LOST and (codes[0] != 0 or culprit is None):
        return Ended(codes[0], "")
    if culprit is None:
        raise RunFailure(
            "the processes of this training lost each other",
            hint="look into the run's `log.txt`",
            code="process-lost",
        )
    code, ear = codes[culprit], heard[culprit]
    if code in (-signal.SIGINT, -signal.SIGTERM):
        return Ended(128 - code, "")
    if code < 0:
        raise RunFailure(
            f"process {culprit + 1} of {len(codes)} was killed by signal {-code}",
            hint="a kill without a word is most often the machine's memory: fewer `--processes`, `--cache disk`, a "
            "smaller `--batch-size`"
            if -code == signal.SIGKILL
            else None,
            code="process-killed",
        )
    words = ""
    if ear is not None:
        ear.seek(0)
        words = ear.read().decode("utf-8", "replace")[-LAST_WORDS:].rstrip()
    return Ended(code, words)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
