"""`medcli runs list`: what was trained and how it stands. How runs are written in tables is shared by all of `runs`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from medcli.cli.options import Flags, OptionalFolder
from medcli.cli.output import Output
from medcli.errors import UsageProblem
from medcli.runs import listing
from medcli.runs.directory import MANIFEST
from medcli.runs.listing import Summary

__all__ = ["list_runs", "number_text", "summary_facts", "time_text"]

ROOT = "runs"


def list_runs(folder: OptionalFolder, flags: Flags) -> None:
    """List the runs of a folder, newest first.

    A run whose process is gone without a word counts as failed, one whose files cannot be read as broken.

    Examples:
        medcli runs list
        medcli runs list experiments/runs --json
    """
    output = Output(flags.output(), "runs list")
    if folder is not None and (Path(folder) / MANIFEST).is_file():
        raise UsageProblem(f"`{folder}` is itself a run", hint=f"medcli runs show {folder}", code="one-run")
    found = () if folder is None and not Path(ROOT).exists() else listing.list_runs(folder or ROOT)
    result = {"runs": [summary_facts(one) for one in found]}
    output.answer(result, lambda: _listing(output, found), identifier="\n".join(str(one.path) for one in found))
    if not found:
        output.note(f"there are no runs in `{folder or ROOT}`")
        output.hint("`medcli train ARCH --data PATH` makes one")


def summary_facts(one: Summary) -> dict[str, Any]:
    """A run as JSON tells it."""
    return {
        "run": str(one.path),
        "state": one.state,
        "command": one.command,
        "architecture": one.architecture,
        "started": one.started,
        "updated": one.updated,
        "epoch": one.epoch,
        "epochs": one.epochs,
        "monitor": one.monitor,
        "value": one.value,
        "best_epoch": one.best_epoch,
        "data": one.data,
        "test": {"auc": one.auc, "accuracy": one.accuracy},
        "problem": one.problem,
    }


def _listing(output: Output, found: Sequence[Summary]) -> str:
    if not found:
        return ""
    rows = [
        (
            str(one.path),
            one.state,
            one.architecture or "-",
            one.data or "-",
            f"{one.epoch}/{one.epochs}" if one.epochs else "-",
            f"{one.monitor} {number_text(one.value)}" if one.monitor else "-",
            number_text(one.auc),
            number_text(one.accuracy),
            time_text(one.started),
        )
        for one in found
    ]
    columns = ("run", "state", "architecture", "data", "epochs", "best on val", "test auc", "test acc", "started (UTC)")
    text = output.table(columns, rows)
    reasons = [f"{one.path}: {one.problem}" for one in found if one.problem]
    return "\n".join([text, *(["", *reasons] if reasons else [])])


def time_text(time: str) -> str:
    """A stored time as a person reads it, to the minute; `-` for none."""
    try:
        return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return "-"


def number_text(value: float) -> str:
    """A figure with four decimals; `-` where it is undefined."""
    return f"{value:.4f}" if math.isfinite(value) else "-"
