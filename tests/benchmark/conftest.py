"""A worker without torch that plays the parts of good and bad networks, so that what a benchmark does with them is
tried in tenths of a second."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

STUB = """
import json, os, sys, time
from pathlib import Path

channel = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
request = json.loads(sys.stdin.readline())
name = request["item"]["label"]
with Path(os.environ["STUB_LOG"]).open("a") as log:
    log.write(json.dumps({"pid": os.getpid(), "task": request["task"], "name": name,
                          "sizes": request.get("batch_sizes")}) + "\\n")


def tell(**event):
    channel.write(json.dumps(event) + "\\n")
    channel.flush()


facts = {"image_size": 32, "in_channels": 3, "parameters": 1000, "backbone": 900, "macs": 5000, "weights_bytes": 4000,
         "startup_seconds": 1.0, "import_seconds": 0.8, "build_seconds": 0.1, "first_seconds": 0.1, "base_bytes": 1000,
         "device": "cpu", "precision": "fp32", "memory_format": "channels-first", "threads": 1, "runtime": "torch"}
print("a library that prints")
part = "" if (Path(os.environ["STUB_LOG"]).parent / "mended").exists() else name
if request["task"] == "learning":
    if "stubborn" in part:
        tell(failure={"state": "failed", "reason": "it learns nothing"})
    else:
        figures = {"auc": {"value": 0.8, "low": 0.7, "high": 0.9}}
        tell(learning={"split": "test", "images": 9, "figures": figures, "seconds": 1.0, "trainable": 900,
                       "split_hash": "other" if "stranger" in part else "same"})
else:
    if "sleeper" in part:
        tell(stage="sleeping")
        time.sleep(600)
    if "raiser" in part:
        tell(failure={"state": "failed", "reason": "ValueError: no such luck"})
        tell(end=True)
    if "quitter" in part:
        print("a last word", file=sys.stderr)
        os._exit(7)
    if "hog" in part:
        taken = [bytearray(b"x" * 2**24) for _ in range(64)]
        time.sleep(600)
    tell(facts=facts)
    for size in request["batch_sizes"]:
        if "large" in part and size > 1:
            tell(timing={"batch_size": size, "state": "out-of-memory", "reason": "out of memory"})
        else:
            tell(timing={"batch_size": size, "median_ms": 2.0 * size, "p90_ms": 3.0 * size,
                         "images_per_second": 500.0, "passes": 9, "warmups": 10, "peak_bytes": 10**6})
        if "halfway" in part:
            time.sleep(600)
tell(end=True)
os._exit(0)
"""


@pytest.fixture
def stub_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts the stub in the worker's place, for this process and those it starts; returns the log of its requests."""
    folder = tmp_path / "stub"
    folder.mkdir()
    (folder / "benchmark_stub.py").write_text(STUB, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr("medcli.benchmark.process.WORKER", "benchmark_stub")
    monkeypatch.setattr("medcli.benchmark.session.busy_processors", lambda: 0.0)
    log = folder / "log.jsonl"
    monkeypatch.setenv("STUB_LOG", str(log))
    assert str(folder) in sys.path
    return log
