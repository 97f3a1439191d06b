"""The self-test of `doctor`: the program's own commands, one after the other on twenty-four tiny phantoms.

It runs in a process of its own, so that a crash anywhere below is an answer and not an end.
"""

from __future__ import annotations

import contextlib
import csv
import io
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medcli.cli.app import run
from medcli.registry.children import serve

__all__ = ["selftest"]

SMALL = ["--batch-size", "8", "--workers", "0", "--device", "cpu", "-q"]
# Exported and original may differ in the last bits of their scores.
TOLERANCE = 1e-4


def _draw(folder: Path) -> list[str]:
    return ["data", "synth", "--images", "24", "--size", "32", "--out", str(folder / "images"), "--workers", "0", "-q"]


def _train(folder: Path) -> list[str]:
    columns = [f"--{name}-column={name}" for name in ("image", "label", "patient", "split")]
    data = ["--data", str(folder / "images" / "labels.csv"), "--image-size", "32", "--epochs", "1", *columns]
    return ["train", "custom1", *data, "--out", str(folder / "run"), *SMALL]


def _export(folder: Path) -> list[str]:
    return ["export", str(folder / "run"), "--format", "onnx", "--out", str(folder / "bundle"), "-q"]


def _predict(folder: Path, model: str) -> list[str]:
    table = str(folder / f"{model}.csv")
    return ["predict", str(folder / model), str(folder / "images" / "images"), "--out", table, "-q"]


def selftest(folder: Path, *, with_export: bool) -> dict[str, Any]:
    """Seconds per step, and the step that failed with its reason, if any.

    Args:
        folder: an empty folder.
        with_export: whether the extra for exporting is installed.
    """
    steps = [("draw", [_draw(folder)]), ("train", [_train(folder)])]
    if with_export:
        steps += [("export", [_export(folder)]), ("compare", [_predict(folder, "run"), _predict(folder, "bundle")])]
    seconds: dict[str, float] = {}
    for name, lines in steps:
        begun = time.monotonic()
        for words in lines:
            said = io.StringIO()
            with contextlib.redirect_stderr(said):
                status = run(words, {})
            if status:
                return {"failed": name, "reason": _reason(status, said.getvalue()), "seconds": seconds}
        seconds[name] = time.monotonic() - begun
    difference = _difference(folder / "run.csv", folder / "bundle.csv") if with_export else None
    if difference is not None and not difference <= TOLERANCE:
        return {"failed": "compare", "reason": f"the exported model differs by {difference:.2g}", "seconds": seconds}
    return {"failed": "", "reason": "", "seconds": seconds, "difference": difference}


def _reason(status: int, said: str) -> str:
    """The first line of the error a command ended with."""
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    return errors[0].removeprefix("error: ") if errors else f"it ended with status {status}"


def _difference(first: Path, second: Path) -> float:
    """The largest difference between two tables of scores with the same cases."""
    tables = [list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) for path in (first, second)]
    return max(
        abs(float(one[column]) - float(other[column]))
        for one, other in zip(*tables, strict=True)
        for column in one
        if column.startswith(("prob_", "score_"))
    )


def _do(_job: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return selftest(Path(folder), with_export=request["with_export"])


if __name__ == "__main__":
    serve(_do)
