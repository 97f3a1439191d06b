"""How a run stands, written atomically, and the lock that keeps two processes out of one directory."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from medcli.errors import UsageProblem
from medcli.runs.directory import RunDirectory, replace_text

__all__ = ["STATES", "State", "Status", "held", "now", "read_status", "refuse_busy", "write_status"]

State = Literal["running", "completed", "interrupted", "failed"]
STATES: tuple[State, ...] = get_args(State)
SCHEMA = "medcli-status/1"


def now() -> str:
    """UTC time to the second, as every record of a run writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Status:
    """How a run stands.

    Args:
        state: one of `STATES`.
        command: such as `train`.
        started: UTC time of the first start.
        updated: UTC time of this state.
        epoch: epochs finished.
        epochs: epochs planned.
        best: the best epoch (1-based), its figure and its value; empty before the first epoch.
        error: the sentence that ended a failed run.
    """

    state: State
    command: str
    started: str
    updated: str
    epoch: int = 0
    epochs: int = 0
    best: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


_TYPES = {"command": str, "started": str, "updated": str, "epoch": int, "epochs": int, "best": dict, "error": str}


def write_status(run: RunDirectory, status: Status) -> None:
    """Replace the status."""
    replace_text(run.status_file, json.dumps({"schema": SCHEMA, **asdict(status)}, indent=2) + "\n")


def read_status(run: RunDirectory) -> Status:
    """The status; a run that says it is running although its process is gone counts as failed.

    Raises:
        UsageProblem: the file is missing or not as medcli wrote it.
    """
    try:
        document = json.loads(run.status_file.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
        if document.pop("schema") != SCHEMA or document["state"] not in STATES:
            raise ValueError("another format")
        status = Status(**document)
        for name, kind in _TYPES.items():
            if not isinstance(getattr(status, name), kind):
                raise ValueError(f"`{name}` has another type")
    except FileNotFoundError:
        raise UsageProblem(
            f"`{run.path}` has no `status.json`: its start did not finish",
            hint="start anew with `--out` and `--overwrite`",
            code="not-a-run",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageProblem(
            f"the status cannot be read: {error}", where=str(run.status_file), code="bad-run-file"
        ) from error
    if status.state == "running" and _owner(run) is None:
        return Status(
            **{**asdict(status), "state": "failed", "error": status.error or "the process ended unexpectedly"}
        )
    return status


def refuse_busy(run: RunDirectory) -> None:
    """Check that nobody works in this directory.

    Raises:
        UsageProblem: another process does; it is named.
    """
    lock = run.path / "lock"
    owner = _owner(run)
    if owner is not None:
        raise UsageProblem(
            f"process {owner.pid} on {owner.host} works in `{run.path}`",
            where=str(lock),
            hint="wait for it, or stop it"
            if owner.host == socket.gethostname()
            else f"wait for it, or stop it; if it is gone, remove `{lock}`",
            code="run-busy",
        )


@contextmanager
def held(run: RunDirectory) -> Iterator[None]:
    """Hold the run's lock; a lock whose process no longer lives is taken over.

    Raises:
        UsageProblem: another process works in this directory.
    """
    refuse_busy(run)
    lock = run.path / "lock"
    lock.unlink(missing_ok=True)
    try:
        handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        raise UsageProblem(
            f"another process has just begun to work in `{run.path}`", where=str(lock), code="run-busy"
        ) from None
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(_Owner(os.getpid(), socket.gethostname(), _began(os.getpid())))))
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Owner:
    """Who holds a lock.

    Args:
        pid: process number.
        host: its machine.
        began: when the process began, as the system counts it; empty where that cannot be known.
    """

    pid: int
    host: str
    began: str = ""


def _owner(run: RunDirectory) -> _Owner | None:
    """The living process that holds the lock. A lock of another host counts as living: it cannot be asked."""
    try:
        document = json.loads((run.path / "lock").read_text(encoding="utf-8"))
        owner = _Owner(int(document["pid"]), str(document["host"]), str(document.get("began", "")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if owner.host != socket.gethostname():
        return owner
    try:
        os.kill(owner.pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass
    # Numbers are used again, above all in containers, where a restarted training often has the number it had before.
    return None if owner.began and owner.began != _began(owner.pid) else owner


def _began(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # proc(5): the 22nd field; the second is a name in parentheses that may hold anything.
    return stat.rpartition(")")[2].split()[19]
