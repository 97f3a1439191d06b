"""One directory with everything about one training: where its files are, who may write to it, and what is ours."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from medcli.errors import RunFailure, UsageProblem

__all__ = ["BUNDLE", "MANIFEST", "RunDirectory", "claim_run", "no_run", "open_run", "plan_run", "writing"]

MANIFEST = ".medcli-run.json"
BUNDLE = "bundle.json"
"""What an exported model, which is no run, holds instead."""

SCHEMA = "medcli-run/1"

OWN = (
    MANIFEST,
    "config.toml",
    "environment.json",
    "data.json",
    "split.csv",
    "groups.json",
    "status.json",
    "metrics.jsonl",
    "model.safetensors",
    "adapter",
    "ensemble.json",
    "members",
    "checkpoints",
    "predictions",
    "evaluation.json",
    "evaluation.txt",
    "calibrator.json",
    "calibration.json",
    "explanations",
    "report.html",
    "report.md",
    "report-pictures",
    "trials",
    "trials.csv",
    "trials.txt",
    "trials.json",
    "study.db",
    "space.toml",
    "trial.toml",
    "best.toml",
    "plan.json",
    "results.jsonl",
    "results.json",
    "results.csv",
    "results.md",
    "trainings",
    "graphs",
    "plots",
    "tracking",
    "log.txt",
    "lock",
)
"""Everything medcli ever writes into a run; `--overwrite` removes these names and nothing else."""


@dataclass(frozen=True)
class RunDirectory:
    """The files of a run.

    Args:
        path: the directory.
    """

    path: Path

    @property
    def config_file(self) -> Path:
        """Resolved settings with their origins."""
        return self.path / "config.toml"

    @property
    def environment_file(self) -> Path:
        """Versions, plugins, hardware, git."""
        return self.path / "environment.json"

    @property
    def data_file(self) -> Path:
        """Hashes and counts of files, splits and classes."""
        return self.path / "data.json"

    @property
    def split_file(self) -> Path:
        """Which case is in which split."""
        return self.path / "split.csv"

    @property
    def status_file(self) -> Path:
        """Running, completed, interrupted or failed."""
        return self.path / "status.json"

    @property
    def metrics_file(self) -> Path:
        """One line per epoch."""
        return self.path / "metrics.jsonl"

    @property
    def model_file(self) -> Path:
        """The best weights."""
        return self.path / "model.safetensors"

    @property
    def adapter(self) -> Path:
        """The best adapter, in PEFT's layout, where the run keeps that instead of a whole model."""
        return self.path / "adapter"

    @property
    def holds_model(self) -> bool:
        """Whether there are best weights already, of either kind."""
        return self.model_file.is_file() or (self.adapter / "adapter_model.safetensors").is_file()

    @property
    def checkpoint_file(self) -> Path:
        """The last state, for `--resume`."""
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def evaluation_file(self) -> Path:
        """Figures of each split, as `evaluate` computes them."""
        return self.path / "evaluation.json"

    @property
    def calibrator_file(self) -> Path:
        """The map from the model's scores to probabilities, where one was fitted."""
        return self.path / "calibrator.json"

    @property
    def log_file(self) -> Path:
        """What was said, and tracebacks."""
        return self.path / "log.txt"

    @property
    def plots(self) -> Path:
        """Pictures."""
        return self.path / "plots"

    @property
    def tracking(self) -> Path:
        """Where experiment trackers write, unless their own variables say otherwise."""
        return self.path / "tracking"

    def predictions(self, split: str) -> Path:
        """Stored predictions of one split."""
        return self.path / "predictions" / f"{split}.npz"


def plan_run(command: str, architecture: str, *, out: str | None, root: str = "runs") -> RunDirectory:
    """Where a new run will be; nothing is written.

    Args:
        command: such as `train`.
        architecture: as typed or qualified; only its last part names the directory, `timm/x` becomes `timm--x`.
        out: exactly this directory, or None for a name below `root` made of UTC time, command, architecture and 4 hex.
    """
    if out is not None:
        return RunDirectory(Path(out))
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = architecture.removeprefix("medcli/").replace("/", "--")
    return RunDirectory(Path(root) / f"{stamp}-{command}-{name}-{secrets.token_hex(2)}")


def claim_run(
    run: RunDirectory, *, command: str, overwrite: bool = False, confirm: Callable[[str], bool] = lambda question: True
) -> None:
    """Create the directory and mark it as ours.

    Args:
        run: from `plan_run`.
        command: recorded in the mark.
        overwrite: whether a run that is already there may be replaced; only files medcli writes are removed.
        confirm: asked before anything is removed.

    Raises:
        UsageProblem: the directory is not empty, or cannot be written.
    """
    refuse_occupied(run, overwrite=overwrite)
    path = run.path
    if path.is_dir() and any(path.iterdir()):
        if not confirm(f"replace the run in `{path}`?"):
            raise UsageProblem("not replaced, as you asked", where="--overwrite", code="not-confirmed")
        for name in OWN:
            found = path / name
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink(missing_ok=True)
    made = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        mark = {"schema": SCHEMA, "command": command, "created": datetime.now(UTC).isoformat(timespec="seconds")}
        (path / MANIFEST).write_text(json.dumps(mark) + "\n", encoding="utf-8")
    except OSError as error:
        # An empty mark would make the next attempt believe that a run is here.
        with contextlib.suppress(OSError):
            (path / MANIFEST).unlink(missing_ok=True)
            if made:
                path.rmdir()
        raise UsageProblem(
            f"`{path}` cannot be written: {(error.strerror or str(error)).lower()}",
            where="--out",
            hint="choose another place with `--out DIR`",
            code="cannot-write",
        ) from error


def refuse_occupied(run: RunDirectory, *, overwrite: bool) -> None:
    """Check that a new run may go here, without touching anything.

    Raises:
        UsageProblem: it is a file, a place that cannot be written, or a directory that holds something (with
            `overwrite`: something not ours).
    """
    path = run.path
    if path.exists() and not path.is_dir():
        raise UsageProblem(f"`{path}` is a file", where="--out", hint="name a directory", code="out-occupied")
    nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageProblem(
            f"`{path}` cannot be made: `{nearest}` is not a directory one may write to",
            where="--out",
            hint="choose another place with `--out DIR`",
            code="cannot-write",
        )
    if not path.is_dir() or not any(path.iterdir()):
        return
    ours = (path / MANIFEST).is_file()
    if not overwrite:
        raise UsageProblem(
            f"`{path}` is not empty",
            where="--out",
            hint=f"continue it with `--resume {path}`, or replace it with `--overwrite`"
            if ours
            else "name a new directory",
            code="out-occupied",
        )
    if not ours:
        raise UsageProblem(
            f"`{path}` was not written by medcli, so `--overwrite` leaves it alone",
            where="--overwrite",
            hint="name a new directory, or remove this one yourself",
            code="not-a-run",
        )


def open_run(path: str | Path) -> RunDirectory:
    """An existing run.

    Raises:
        UsageProblem: there is nothing, or it is no run of medcli.
    """
    run = RunDirectory(Path(path))
    if not (run.path / MANIFEST).is_file():
        raise no_run(path)
    return run


def no_run(path: str | Path) -> UsageProblem:
    """The error for something that is no run: it says what it is instead."""
    way = "`medcli runs list` shows the runs here"
    if (Path(path) / BUNDLE).is_file():
        return UsageProblem(
            f"`{path}` is a bundle that `medcli export` wrote, and a run is asked for here", hint=way, code="not-a-run"
        )
    folder = Path(path).parent
    whole = next((kind for mark, kind in ((MANIFEST, "run"), (BUNDLE, "bundle")) if (folder / mark).is_file()), None)
    if Path(path).is_file() and whole is not None:
        return UsageProblem(
            f"`{path}` is one file of the {whole} `{folder}`", hint=f"name the folder: `{folder}`", code="not-a-run"
        )
    if Path(path).exists():
        return UsageProblem(f"`{path}` is not a run directory of medcli", hint=way, code="not-a-run")
    from medcli.registry.unknown import named_for_a_run

    return named_for_a_run(str(path)) or UsageProblem(f"there is no run `{path}`", hint=way, code="not-a-run")


class writing:  # noqa: N801 (reads as a statement)
    """`with writing(path):` turns a full disk or a lost permission into a sentence.

    Raises:
        RunFailure: naming the file and the reason.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        reason = "no space is left" if full else (error.strerror or str(error)).lower()
        raise RunFailure(
            f"`{self.path}` cannot be written: {reason}",
            hint=self._way_on() if full else None,
            code="no-space" if full else "cannot-write",
        ) from error

    def _way_on(self) -> str:
        folder = self.path.parent
        run = RunDirectory(folder if (folder / MANIFEST).is_file() else folder.parent)
        if run.checkpoint_file.is_file():
            return f"free some space, then `--resume {run.path}`"
        return "free some space and try again, or write to another disk"


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never half of it.

    Raises:
        RunFailure: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("w", encoding="utf-8") as handle:
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
