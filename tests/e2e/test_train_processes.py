"""`medcli train --processes 2` and torchrun as a user runs them, against one process with the same batches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from medcli.testing.command import RunCli, child_environment

# 39 images in batches of 9: the last batch holds 3, and no batch is shared equally.
TINY = ("--image-size", "32", "--batch-size", "9", "--workers", "0")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    random = np.random.default_rng(3)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 39), ("val", 21), ("test", 16)):
        labels = np.arange(count) % 2
        images = random.integers(60, 180, (count, 32, 32), dtype=np.uint8)
        images[labels == 1, :16, :16] += 20
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels[:, None].astype(np.uint8)
    path = tmp_path / "two.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture
def train(run_cli: RunCli, archive: Path, tmp_path: Path) -> Callable[..., Path]:
    """Train and return the run."""
    numbers = iter(range(100))

    def call(architecture: str, *words: str) -> Path:
        out = tmp_path / f"run{next(numbers)}"
        # A thread each: sums of several threads are grouped in another way.
        done = run_cli(
            "train", architecture, "--data", archive, *TINY, *words, "--out", out, env={"OMP_NUM_THREADS": "1"}
        )
        assert done.code == 0, done.stderr
        assert done.stderr.count("epoch 1/") == 1, done.stderr
        return out

    return call


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def apart(one: Path, other: Path) -> float:
    """The largest difference of any figure of any epoch, and of any output of the validation and test images."""
    figures = [
        abs(a[name] - b[name])
        for a, b in zip(rows(one), rows(other), strict=True)
        for name in a
        if name.startswith(("train_", "val_")) or name == "lr"
    ]
    for split in ("val", "test"):
        first, second = (np.load(run / "predictions" / f"{split}.npz") for run in (one, other))
        assert first["ids"].tolist() == second["ids"].tolist()
        figures.append(float(np.abs(first["logits"] - second["logits"]).max()))
    return max(figures)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_without_batchnorm(train: Callable[..., Path]) -> None:
    words = ("--epochs", "3", "--class-weights", "1,0.3", "--accumulate", "2", "--ema", "--log-with", "tensorboard")
    one, two = (train("timm/test_vit", *words, "--processes", count) for count in ("1", "2"))
    assert apart(one, two) < 1e-4
    assert json.loads((two / "status.json").read_text())["state"] == "completed"
    assert any((two / "tracking" / "tensorboard").iterdir())


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_with_batchnorm_frozen_and_nearly_with_it_learning(
    train: Callable[..., Path],
) -> None:
    frozen = [train("timm/test_resnet", "--epochs", "2", "--freeze-backbone", "--processes", n) for n in ("1", "2")]
    assert apart(*frozen) < 1e-5
    learning = [train("timm/test_resnet", "--epochs", "2", "--processes", n) for n in ("1", "2")]
    assert 1e-5 < apart(*learning) < 0.5
    assert "BatchNorm normalises over the 5 images of each process" in (learning[1] / "log.txt").read_text()
    assert "BatchNorm" not in (frozen[1] / "log.txt").read_text()


def begin(archive: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    command = ["train", "timm/test_vit", "--data", str(archive), *TINY, "--dropout", "0.3", "--ema", *words]
    return subprocess.Popen(
        [sys.executable, "-m", "medcli", *command, "--processes", "2", "--patience", "0", "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_environment({"OMP_NUM_THREADS": "1"}),
    )  # fmt: skip


def wait_for_epoch(run: Path, epoch: int) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if (run / "metrics.jsonl").is_file() and len(rows(run)) >= epoch:
            return
        time.sleep(0.02)
    raise AssertionError("the training does not get on")


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_signal_to_one_process_stops_both_after_the_same_step_and_resuming_is_exact(
    archive: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    epochs = ("--epochs", "12")
    whole = begin(archive, tmp_path / "whole", *epochs)
    _, err = whole.communicate(timeout=300)
    assert whole.returncode == 0, err
    parted = begin(archive, tmp_path / "parted", *epochs)
    wait_for_epoch(tmp_path / "parted", 2)
    second = [child for child in children_of(parted.pid) if "RANK=1" in environment_of(child)]
    os.kill(second[0], signal.SIGTERM)
    out, err = parted.communicate(timeout=200)
    assert parted.returncode == 143, err
    assert "--resume" in err
    assert not out
    assert json.loads((tmp_path / "parted" / "status.json").read_text())["state"] == "interrupted"
    done = run_cli("train", "--resume", tmp_path / "parted", env={"OMP_NUM_THREADS": "1"})
    assert done.code == 0, done.stderr
    assert "exact only" not in done.stderr
    for file in ("model.safetensors", "checkpoints/last.safetensors"):
        one, other = load_file(tmp_path / "whole" / file), load_file(tmp_path / "parted" / file)
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def environment_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_process_that_dies_takes_the_others_with_it_and_is_named(archive: Path, tmp_path: Path) -> None:
    parent = begin(archive, tmp_path / "run", "--epochs", "400")
    wait_for_epoch(tmp_path / "run", 1)
    children = children_of(parent.pid)
    os.kill(next(child for child in children if "RANK=1" in environment_of(child)), signal.SIGKILL)
    _, err = parent.communicate(timeout=120)
    assert parent.returncode == 1
    assert "another process of this training has ended" in err
    assert err.count("process 2 of 2 was killed by signal 9") == 1
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


@pytest.mark.slow
def test_torchrun_starts_the_same_training(train: Callable[..., Path], archive: Path, tmp_path: Path) -> None:
    one = train("timm/test_vit", "--epochs", "1")
    words = ["timm/test_vit", "--data", str(archive), *TINY, "--epochs", "1", "--out", str(tmp_path / "torchrun")]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "medcli", "train"]
    done = subprocess.run(
        [*launcher, *words], capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
        env=child_environment({"OMP_NUM_THREADS": "1"}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best epoch") == 1
    assert apart(one, tmp_path / "torchrun") < 1e-4


@pytest.mark.parametrize(
    ("words", "env", "message"),
    [
        (("--processes", "4096"), {}, "cores"),
        (("--processes", "2", "--batch-size", "1"), {}, "no image for each of 2 processes"),
        (("--processes", "2"), {"WORLD_SIZE": "2"}, "`RANK` names no process"),
        (("--log-with", "tensorbord"), {}, "no such tracker"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    run_cli: RunCli, archive: Path, tmp_path: Path, words: tuple[str, ...], env: dict[str, str], message: str
) -> None:
    done = run_cli(
        "train", "timm/test_vit", "--data", archive, *TINY, *words, "--device", "cpu", "--out", tmp_path / "no",
        env=env, in_process=True,
    )  # fmt: skip
    assert done.code == 2
    assert message in done.stderr
    assert not (tmp_path / "no").exists()
