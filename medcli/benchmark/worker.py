"""The child's side of a measurement: reads one request, tells events on a channel that no library can print into.

Events are JSON lines with one key: `stage` (what is done now), `facts`, `timing`, `learning`, `failure`, `end`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from medcli.errors import MedcliError

__all__ = ["Tell", "describe_failure"]

Tell = Callable[[Mapping[str, Any]], None]

_TASKS = {
    "speed": "medcli.benchmark.speed:measure",
    "learning": "medcli.benchmark.learning:learn",
    "export": "medcli.benchmark.graphs:write_graph",
    "onnx": "medcli.benchmark.graphs:measure_graph",
    "onnx-bundle": "medcli.benchmark.graphs:measure_bundle",
}


def describe_failure(error: BaseException) -> tuple[str, str]:
    """(state, reason) of a row for what went wrong; the reason is one line."""
    if isinstance(error, MedcliError):
        hint = f"; {error.hint}" if error.hint else ""
        state = "out-of-memory" if error.code == "out-of-memory" else "failed"
        return state, " ".join(f"{error.message}{hint}".split())
    text = " ".join(str(error).split())
    short = (type(error).__name__ in {"OutOfMemoryError", "MemoryError"}) or any(
        words in text.lower() for words in ("not enough memory", "allocate memory", "out of memory", "bad_alloc")
    )
    if short:
        return "out-of-memory", f"out of memory: {text[:160]}" if text else "out of memory"
    return "failed", f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def main() -> None:
    """Serve the one request on stdin."""
    # From here on whatever writes to stdout, C code included, writes to stderr; the parent alone reads the old one.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(event: Mapping[str, Any]) -> None:
        channel.write(json.dumps(event) + "\n")
        channel.flush()

    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        module, _, name = _TASKS[request["task"]].partition(":")
        getattr(import_module(module), name)(request, tell)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        state, reason = describe_failure(error)
        tell({"failure": {"state": state, "reason": reason}})
    tell({"end": True})
    # Threads and exit handlers of libraries may wait for each other; everything has been said.
    os._exit(0)


def _end_with_parent() -> None:
    """Nobody reads the answer of an orphan, and it would slow the next measurement down."""
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
