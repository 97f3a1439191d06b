"""`medcli benchmark` as a user types it, with real networks, each in a process of its own."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medcli.benchmark.items import Item, item_to_json
from medcli.registry.children import child_environment
from medcli.testing.command import RunCli
from medcli.testing.imports import HEAVY, NoHeavyImports
from medcli.testing.plugins import FakePlugin

QUICK = ("--seconds", "0.05", "--batch-sizes", "1,2", "--image-size", "32", "--threads", "1", "--device", "cpu")

NETWORK = """
import os
import sys
import torch
from torch import nn

print("a plugin that prints to stdout")


class Net(nn.Module):
    feature_dim = 8

    def __init__(self, in_channels):
        super().__init__()
        self.linear = nn.Linear(in_channels, 8)

    def forward(self, images):
        {forward}
        return self.linear(images.mean(dim=(2, 3)))

    def layer_groups(self):
        from medcli.plugin import LayerGroup

        return (LayerGroup("linear", 0, ("linear.weight", "linear.bias"), ("linear",)),)


def build(*, in_channels, image_size, pretrained=False, weights=None, drop_path=0.0):
    {build}
    return Net(in_channels)
"""


def network(*, forward: str = "pass", build: str = "pass") -> str:
    return NETWORK.replace("{forward}", forward).replace("{build}", build)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(3)
    arrays = {}
    for split, count in (("train", 24), ("val", 12), ("test", 16)):
        arrays[f"{split}_images"] = random.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    path = tmp_path_factory.mktemp("archive") / "small.npz"
    np.savez(path, **arrays)
    return path


def test_all_is_listed_without_torch(no_heavy_imports: NoHeavyImports, tmp_path: Path) -> None:
    outcome = no_heavy_imports.cli("benchmark", "--all", "--list", "--json", blocked=HEAVY, cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    kinds = {item["label"]: item["kind"] for item in outcome.json()["result"]["items"]}
    assert kinds["vit_huge_patch14_224"] == "architecture"
    assert "difference" in kinds.values()
    assert not list(tmp_path.iterdir())


def test_networks_are_measured_by_a_parent_without_torch_and_bad_ones_cost_their_own_row(
    isolated_plugins: FakePlugin, no_heavy_imports: NoHeavyImports, tmp_path: Path
) -> None:
    isolated_plugins("raises", distribution="medcli-raises", module=network(build='raise ValueError("no such luck")'))
    isolated_plugins("exits", distribution="medcli-exits", module=network(forward="os._exit(5)"))
    # Far more than the limit and its reserve, all at once.
    hog = "images = torch.zeros(2**33, dtype=torch.uint8) if len(images) > 1 else images"
    isolated_plugins("hogs", distribution="medcli-hogs", module=network(forward=hog))
    words = ("benchmark", "custom1", "raises", "exits", "hogs", *QUICK, "--memory-limit", "4")
    outcome = no_heavy_imports.cli(*words, "--out", "b", "--json", blocked=HEAVY, cwd=tmp_path)
    assert outcome.code == 3, outcome.stderr
    document = outcome.json()
    assert document["schema"] == "medcli/benchmark/1"
    assert document["status"] == "partial"
    rows = {row["item"]["label"]: row for row in document["result"]["rows"]}
    states = {label: [one["state"] for one in row["timings"]] for label, row in rows.items()}
    assert states == {
        "custom1": ["measured"] * 2,
        "raises": ["failed"] * 2,
        "exits": ["failed"] * 2,
        "hogs": ["measured", "out-of-memory"],
    }
    assert "ValueError: no such luck" in rows["raises"]["timings"][0]["reason"]
    assert "status 5" in rows["exits"]["timings"][0]["reason"]
    facts = rows["custom1"]["facts"]
    assert facts["backbone"] == 979_360
    assert facts["parameters"] > facts["backbone"]
    assert facts["weights_bytes"] >= 4 * facts["parameters"]
    assert facts["image_size"] == 32
    assert facts["macs"] > 0
    assert 0 < facts["import_seconds"] < facts["startup_seconds"]
    for one in rows["custom1"]["timings"]:
        assert 0 < one["median_ms"] <= one["p90_ms"]
        assert one["images_per_second"] == pytest.approx(one["batch_size"] / one["median_ms"] * 1e3)
        assert one["passes"] >= 5
        assert one["peak_bytes"] > facts["base_bytes"] * 0.5
    lines = list(csv.DictReader(io.StringIO((tmp_path / "b/results.csv").read_text(encoding="utf-8"))))
    assert len(lines) == 8
    assert {path.name for path in (tmp_path / "b/plots").iterdir()} == {"latency-batch1.png", "latency-batch2.png"}
    # The same results stand in the file that `--compare-to` reads.
    stored = json.loads((tmp_path / "b/results.json").read_text(encoding="utf-8"))
    assert [row["item"]["label"] for row in stored["rows"]] == list(rows)


def test_the_same_short_training_for_every_architecture(run_cli: RunCli, archive: Path) -> None:
    more = ("--data", archive, "--epochs", "1", "--workers", "0", "--bootstrap", "20", "--batch-size", "8")
    words = ("benchmark", "echo", "subtraction", *QUICK[:2], "--batch-sizes", "1", "--image-size", "32")
    outcome = run_cli(*words, *more, "--out", "b", "--json", in_process=True)
    assert outcome.code == 0, outcome.stderr
    rows = {row["item"]["label"]: row for row in outcome.json()["result"]["rows"]}
    learning = rows["echo"]["learning"]
    assert (learning["state"], learning["split"], learning["images"], learning["epochs"]) == ("measured", "test", 16, 1)
    assert {"auc", "accuracy"} <= set(learning["figures"])
    assert (
        learning["figures"]["auc"]["low"] <= learning["figures"]["auc"]["value"] <= learning["figures"]["auc"]["high"]
    )
    assert learning["trainable"] == rows["echo"]["facts"]["parameters"]
    assert learning["seconds"] > 0
    assert learning["peak_bytes"] > 0
    # From the card: what is the same for everyone is the budget.
    assert learning["lr"] == "0.05 (recipe)"
    # Weights are large and the figures say what they are worth; predictions stay.
    folder = run_cli.directory / learning["run"]
    assert (folder / "predictions/test.npz").is_file()
    assert not (folder / "model.safetensors").exists()
    # What is given pairs learns nothing from single images.
    assert rows["subtraction"]["learning"] is None
    assert rows["subtraction"]["timings"][0]["state"] == "measured"
    assert rows["subtraction"]["facts"]["image_size"] == 32

    # Once more, compared with itself: nothing is measured again, and nothing can be worse.
    again = run_cli("benchmark", "--resume", "b", "--compare-to", "b/results.json", in_process=True)
    assert again.code == 0, again.stderr
    assert "figures within the tolerance" in again.stdout
    stored = json.loads((run_cli.directory / "b/results.json").read_text(encoding="utf-8"))
    for row in stored["rows"]:
        for timing in row["timings"]:
            timing["median_ms"] /= 10
    (run_cli.directory / "fast.json").write_text(json.dumps(stored), encoding="utf-8")
    slower = run_cli("benchmark", "--resume", "b", "--compare-to", "fast.json", in_process=True)
    assert slower.code == 4
    assert "worse: echo, batch 1: median" in slower.stdout
    assert run_cli("benchmark", "--resume", "b", "--compare-to", "fast.json", "--max-slowdown", "99").code == 0


def test_a_worker_without_its_parent_ends(isolated_plugins: FakePlugin) -> None:
    sleepy = network(build="import time; time.sleep(600)")
    isolated_plugins("sleeps", module=sleepy)
    words = [sys.executable, "-P", "-m", "medcli.benchmark.worker"]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment(), text=True)
    item = item_to_json(Item("architecture", "medcli-fake/sleeps", "sleeps"))
    request = {"task": "speed", "item": item, "device": "cpu", "precision": "fp32", "threads": 1, "memory": None}
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps({**request, "in_channels": 3, "image_size": 32, "classes": 2}) + "\n")
    child.stdin.flush()
    assert json.loads(child.stdout.readline()) == {"stage": "building"}
    child.stdin.close()
    assert child.wait(timeout=30) == 1
    child.stdout.close()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), "nothing-named"),
        (("resnet81",), "unknown-architecture"),
        (("custom1", "--epochs", "3"), "idle-flag"),
        (("siamese-unet", "--data", "x.npz"), "no-classifier"),
        (("custom1", "--compare-to", "absent.json"), "no-results"),
        (("--resume", "absent"), "not-a-run"),
        (("custom1", "--batch-sizes", "0"), "bad-value"),
        (("custom1", "--runtime", "onnx", "--compile"), "contradiction"),
        (("custom1", "--runtime", "onnx", "--precision", "bf16"), "contradiction"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(run_cli: RunCli, words: tuple[str, ...], code: str) -> None:
    outcome = run_cli("benchmark", *words, "--json", in_process=True)
    assert outcome.code == 2
    assert outcome.stdout == ""
    assert json.loads(outcome.stderr)["code"] == code
    assert not list(run_cli.directory.glob("runs/*"))


@pytest.mark.slow
def test_runs_graphs_and_strategies(run_cli: RunCli, archive: Path) -> None:
    small = ("--image-size", "32", "--workers", "0", "--batch-size", "8", "--epochs", "1")
    trained = run_cli("train", "timm/test_resnet", "--data", archive, *small, "--out", "r", in_process=True)
    assert trained.code == 0, trained.stderr
    exported = run_cli("export", "r", "--out", "e", in_process=True)
    assert exported.code == 0, exported.stderr
    quick = ("--seconds", "0.05", "--batch-sizes", "1,3")
    outcome = run_cli("benchmark", "r", "e", *quick, "--out", "b", "--json")
    assert outcome.code == 0, outcome.stderr
    run, bundle = outcome.json()["result"]["rows"]
    assert set(run["facts"]["figures"]) == {"auc", "accuracy"}
    assert bundle["facts"]["runtime"].startswith("onnxruntime")
    assert bundle["facts"]["parameters"] is None
    graph = run_cli("benchmark", "timm/test_resnet", "r", *quick, "--runtime", "onnx", "--out", "g", "--json")
    assert graph.code == 0, graph.stderr
    for row in graph.json()["result"]["rows"]:
        # The process that runs the graph has no torch in it, which alone takes more than this.
        assert row["timings"][0]["peak_bytes"] < 300 * 2**20
        assert row["facts"]["macs"] > 0
    assert not (run_cli.directory / "g/graphs").exists()
    for strategy in ("frozen", "knn", "lora", "full"):
        more = (
            "--data",
            archive,
            "--strategy",
            strategy,
            "--random-weights",
            *(small if strategy != "knn" else small[:-2]),
        )
        words = ("benchmark", "timm/test_vit" if strategy == "lora" else "timm/test_resnet", *quick, *more)
        outcome = run_cli(*words, "--bootstrap", "20", "--out", strategy, "--json")
        assert outcome.code == 0, outcome.stderr
        (row,) = outcome.json()["result"]["rows"]
        total, trainable = row["facts"]["parameters"], row["learning"]["trainable"]
        assert {"frozen": 0 < trainable < total / 50, "knn": trainable == 0, "full": trainable == total}.get(
            strategy, 0 < trainable < total / 2
        )
    # Pretrained weights that are not on this machine are a reason, not a download.
    words = ("benchmark", "timm/test_resnet", *quick, "--data", archive, "--strategy", "full", *small, "--out", "w")
    outcome = run_cli(*words, "--json")
    assert outcome.code == 3
    assert "models fetch" in outcome.json()["result"]["rows"][0]["learning"]["reason"]


@pytest.mark.slow
def test_compiled_and_other_layouts(run_cli: RunCli) -> None:
    for number, more in enumerate((("--compile",), ("--memory-format", "channels-first"), ("--precision", "bf16"))):
        outcome = run_cli("benchmark", "timm/test_resnet", *QUICK, *more, "--out", f"b{number}", "--json")
        assert outcome.code == 0, outcome.stderr
        (row,) = outcome.json()["result"]["rows"]
        if number == 0:
            assert row["timings"][0]["compile_seconds"] > 0
            assert row["facts"]["runtime"].endswith("compiled")
        assert row["facts"]["memory_format"] == ("channels-first" if number == 1 else "channels-last")
        assert row["facts"]["precision"] == ("bf16" if number == 2 else "fp32")
