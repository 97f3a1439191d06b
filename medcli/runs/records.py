"""What a run remembers: settings, environment, data and figures. Everything is checked when it is read back."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import medcli
from medcli.errors import UsageProblem
from medcli.runs.directory import RunDirectory, replace_text, writing
from medcli.runs.status import now
from medcli.settings.resolve import Resolved
from medcli.settings.saved import SavedConfig, parse_saved, render_saved
from medcli.settings.toml_files import read_toml

__all__ = [
    "append_log",
    "append_metrics",
    "read_config",
    "read_data",
    "read_metrics",
    "truncate_metrics",
    "write_config",
    "write_data",
    "write_environment",
]

LIBRARIES = ("torch", "torchvision", "timm", "transformers", "peft", "accelerate", "numpy", "scikit-learn", "pydicom")


def write_config(run: RunDirectory, resolved: Resolved) -> None:
    """Write `config.toml`: every setting with its origin."""
    replace_text(run.config_file, render_saved(resolved, version=medcli.__version__))


def read_config(run: RunDirectory) -> SavedConfig:
    """The settings a run was started with.

    Raises:
        UsageProblem: missing, or not as medcli wrote it; file and line are named.
    """
    if not run.config_file.is_file():
        raise _missing(run, run.config_file)
    return parse_saved(read_toml(run.config_file))


def write_environment(run: RunDirectory, *, plugins: Sequence[str], facts: Mapping[str, Any] | None = None) -> None:
    """Write `environment.json`: what this run's figures depend on besides its settings.

    Args:
        run: the run.
        plugins: every plugin used, as `distribution==version (entry)`.
        facts: what only the caller knows, such as device, precision and threads.
    """
    document = {
        "schema": "medcli-environment/1",
        "medcli": medcli.__version__,
        "written": now(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "plugins": list(plugins),
        "command_line": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "git": _git_commit(),
        **dict(facts or {}),
    }
    replace_text(run.environment_file, json.dumps(document, indent=2, allow_nan=False) + "\n")


def write_data(run: RunDirectory, record: Mapping[str, Any]) -> None:
    """Write `data.json`."""
    replace_text(run.data_file, json.dumps(record, indent=1, allow_nan=False) + "\n")


def read_data(run: RunDirectory) -> dict[str, Any]:
    """The record of the data a run began with.

    Raises:
        UsageProblem: missing or damaged.
    """
    if not run.data_file.is_file():
        raise _missing(run, run.data_file)
    try:
        document = json.loads(run.data_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageProblem(f"not JSON: {error}", where=str(run.data_file), code="bad-run-file") from error
    if not isinstance(document, dict):
        raise UsageProblem("not a JSON object", where=str(run.data_file), code="bad-run-file")
    return document


def append_log(run: RunDirectory, text: str) -> None:
    """Add what was said to `log.txt`, with the time."""
    with writing(run.log_file), run.log_file.open("a", encoding="utf-8") as handle:
        handle.write(f"{now()} {text}\n")


def append_metrics(run: RunDirectory, row: Mapping[str, Any]) -> None:
    """Add one line to `metrics.jsonl`; figures that are not finite become null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
    with writing(run.metrics_file), run.metrics_file.open("a+b") as handle:
        # A process that ended in the middle of a line must not spoil the next one.
        handle.seek(0)
        written = handle.read()
        if not written.endswith(b"\n"):
            handle.truncate(written.rfind(b"\n") + 1)
        handle.write(json.dumps(finite).encode() + b"\n")


def read_metrics(run: RunDirectory) -> list[dict[str, Any]]:
    """Every line of `metrics.jsonl`, epochs and markers; an unfinished last line is left out.

    Raises:
        UsageProblem: a line that is no JSON object, with its number.
    """
    if not run.metrics_file.is_file():
        return []
    rows: list[dict[str, Any]] = []
    lines = run.metrics_file.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines):  # the process ended in the middle of this line
                break
            raise UsageProblem(
                f"not JSON: {error}", where=f"{run.metrics_file}:{number}", code="bad-run-file"
            ) from error
        if not isinstance(row, dict):
            raise UsageProblem("not a JSON object", where=f"{run.metrics_file}:{number}", code="bad-run-file")
        rows.append(row)
    return rows


def truncate_metrics(run: RunDirectory, epochs: int) -> None:
    """Drop the rows of epochs that the checkpoint does not know, so that a continued run has each epoch once."""
    rows = [row for row in read_metrics(run) if row.get("epoch", -1) < epochs]
    replace_text(run.metrics_file, "".join(json.dumps(row) + "\n" for row in rows))


def _missing(run: RunDirectory, file: Path) -> UsageProblem:
    return UsageProblem(
        f"`{run.path}` has no `{file.name}`: its start did not finish, or it was written by something else",
        hint="`medcli runs list` shows the runs here",
        code="not-a-run",
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the working directory, if it is a git checkout and git is there."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
