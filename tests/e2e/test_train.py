"""`medcli train` as a user runs it: what it writes, how it stops, goes on and refuses."""

from __future__ import annotations

import json
import shutil
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

from medcli.testing.command import RunCli

TINY = ("timm/test_resnet", "--image-size", "32", "--batch-size", "8", "--augment", "none", "--workers", "0")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    random = np.random.default_rng(3)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 32), ("val", 16), ("test", 16)):
        labels = np.arange(count) % 2
        images = random.integers(60, 180, (count, 32, 32), dtype=np.uint8)
        images[labels == 1, :16, :16] += 50
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels[:, None].astype(np.uint8)
    path = tmp_path / "two.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture
def train(run_cli: RunCli, archive: Path) -> Callable[..., Any]:
    def call(*arguments: str | Path, **options: Any) -> Any:
        return run_cli("train", *TINY, "--data", archive, *arguments, in_process=True, **options)

    return call


def weights(run: Path) -> dict[str, np.ndarray[Any, Any]]:
    return load_file(run / "model.safetensors")


def equal(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_a_run_holds_everything(train: Callable[..., Any], tmp_path: Path) -> None:
    done = train("--epochs", "2", "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "medcli/train/1"
    assert document["run_dir"] == str(tmp_path / "run")
    assert set(document["result"]["evaluation"]) == {"val", "test"}
    for name in (
        "config.toml",
        "environment.json",
        "data.json",
        "status.json",
        "metrics.jsonl",
        "model.safetensors",
        "evaluation.json",
        "evaluation.txt",
        "checkpoints/last.safetensors",
        "predictions/val.npz",
        "predictions/test.npz",
        "plots/curves.png",
        "plots/test.png",
    ):
        assert (tmp_path / "run" / name).is_file(), name
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert {"train_loss", "val_loss", "val_auc", "val_ece", "lr"} <= set(rows[0])
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "weights: random" in log
    assert "epoch 2: " in log
    assert "completed" in log
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert any("medcli" in plugin for plugin in environment["plugins"])


def test_lines_go_to_stderr_and_the_answer_to_stdout(train: Callable[..., Any], tmp_path: Path) -> None:
    done = train("--epochs", "2", "--out", tmp_path / "run")
    assert "epoch 1/2" in done.stderr
    assert "epoch" not in done.stdout.splitlines()[-1]
    assert "weights: random" in done.stderr
    quiet = train("--epochs", "1", "--out", tmp_path / "quiet", "-q")
    assert quiet.stdout.strip() == str(tmp_path / "quiet")


def test_the_saved_settings_reproduce_the_run(train: Callable[..., Any], run_cli: RunCli, tmp_path: Path) -> None:
    assert train("--epochs", "2", "--lr", "0.003", "--out", tmp_path / "one").code == 0
    again = run_cli("train", "--config", tmp_path / "one" / "config.toml", "--out", tmp_path / "two", in_process=True)
    assert again.code == 0, again.stderr
    assert equal(tmp_path / "one", tmp_path / "two")


def test_the_best_epoch_is_what_is_evaluated(train: Callable[..., Any], tmp_path: Path) -> None:
    done = train("--epochs", "6", "--lr", "0.02", "--out", tmp_path / "run", "--monitor", "loss", "--json")
    result = json.loads(done.stdout)["result"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    best = min(rows, key=lambda row: row["val_loss"])
    assert result["best_epoch"] == best["epoch"] + 1
    shown = result["evaluation"]["val"]["figures"]["auc"]["value"]
    assert shown == pytest.approx(best["val_auc"], abs=1e-6)


def started(archive: Path, out: Path, directory: Path) -> subprocess.Popen[str]:
    """A long training in a child process, returned when its second epoch has begun."""
    words = [sys.executable, "-m", "medcli", "train", *TINY, "--data", str(archive), "--epochs", "400"]
    words += ["--scheduler", "constant", "--out", str(out), "--patience", "0"]
    child = subprocess.Popen(words, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (out / "metrics.jsonl").is_file() and (out / "metrics.jsonl").stat().st_size:
            return child
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    child.kill()
    raise AssertionError("the training did not begin")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_prints_how_to_go_on(
    archive: Path, tmp_path: Path, run_cli: RunCli, number: signal.Signals, code: int
) -> None:
    child = started(archive, tmp_path / "run", tmp_path)
    child.send_signal(number)
    _, said = child.communicate(timeout=120)
    assert child.returncode == code, said
    assert f"medcli train --resume {tmp_path / 'run'}" in said
    assert "Traceback" not in said
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "interrupted"
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").is_file()
    assert not (tmp_path / "run" / "lock").exists()


def test_resume_finishes_what_was_stopped(train: Callable[..., Any], run_cli: RunCli, tmp_path: Path) -> None:
    from medcli.training import loop

    whole = train("--epochs", "4", "--out", tmp_path / "whole")
    assert whole.code == 0
    original = loop.learn_epoch

    def stop_in_the_third(parts: Any, position: Any, interruption: Any, watch: Any) -> Any:
        if position.epoch == 2:
            interruption.signal = signal.SIGINT
        return original(parts, position, interruption, watch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "learn_epoch", stop_in_the_third)
        stopped = train("--epochs", "4", "--out", tmp_path / "run")
    assert stopped.code == 130, stopped.stderr
    resumed = run_cli("train", "--resume", tmp_path / "run", in_process=True)
    assert resumed.code == 0, resumed.stderr
    assert equal(tmp_path / "whole", tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if "epoch" in row] == [0, 1, 2, 3]
    assert [row["event"] for row in rows if "event" in row] == ["resumed"]


def test_resume_of_a_finished_run_says_so(train: Callable[..., Any], run_cli: RunCli, tmp_path: Path) -> None:
    assert train("--epochs", "1", "--out", tmp_path / "run").code == 0
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    done = run_cli("train", "--resume", tmp_path / "run", in_process=True)
    assert done.code == 0
    assert "--extend" in done.stderr
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_extend_trains_longer(train: Callable[..., Any], run_cli: RunCli, tmp_path: Path) -> None:
    assert train("--epochs", "2", "--out", tmp_path / "run").code == 0
    done = run_cli("train", "--resume", tmp_path / "run", "--extend", "2", in_process=True)
    assert done.code == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    learnt = [row for row in rows if "epoch" in row]
    assert [row["epoch"] for row in learnt] == [0, 1, 2, 3]
    assert learnt[-1]["lr"] == pytest.approx(1e-4)


def test_resume_takes_no_other_settings(train: Callable[..., Any], run_cli: RunCli, tmp_path: Path) -> None:
    assert train("--epochs", "1", "--out", tmp_path / "run").code == 0
    done = run_cli("train", "--resume", tmp_path / "run", "--lr", "0.5", "--extend", "1", in_process=True)
    assert done.code == 2
    assert "--lr" in done.stderr
    assert "saved: 0.001" in done.stderr
    assert "given: 0.5" in done.stderr
    other = run_cli("train", "resnet18", "--resume", tmp_path / "run", in_process=True)
    assert other.code == 2
    assert "timm/test_resnet" in other.stderr
    leak = run_cli("train", "--resume", tmp_path / "run", "--extend", "1", in_process=True, env={"MEDCLI_LR": "0.5"})
    assert leak.code == 0, leak.stderr
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["lr"] == pytest.approx(1e-4)


def test_changed_data_stops_a_resume(train: Callable[..., Any], run_cli: RunCli, tmp_path: Path, archive: Path) -> None:
    assert train("--epochs", "1", "--out", tmp_path / "run").code == 0
    with np.load(archive) as arrays:
        changed = dict(arrays)
    changed["train_labels"][0] = 1 - changed["train_labels"][0]
    np.savez(archive, **changed)
    refused = run_cli("train", "--resume", tmp_path / "run", "--extend", "1", in_process=True)
    assert refused.code == 2
    assert "--accept-data-change" in refused.stderr
    accepted = run_cli("train", "--resume", tmp_path / "run", "--extend", "1", "--accept-data-change", in_process=True)
    assert accepted.code == 0, accepted.stderr
    assert json.loads((tmp_path / "run" / "data.json").read_text())["accepted_changes"]


def test_what_cannot_be_resumed(run_cli: RunCli, tmp_path: Path, train: Callable[..., Any]) -> None:
    missing = run_cli("train", "--resume", tmp_path / "nothing", in_process=True)
    assert missing.code == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    foreign = run_cli("train", "--resume", tmp_path / "other", in_process=True)
    assert foreign.code == 2
    assert train("--epochs", "1", "--out", tmp_path / "run").code == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    empty = run_cli("train", "--resume", tmp_path / "run", "--extend", "1", in_process=True)
    assert empty.code == 2
    assert "no checkpoint" in empty.stderr


def test_an_occupied_directory_is_refused_and_only_our_files_are_replaced(
    train: Callable[..., Any], tmp_path: Path
) -> None:
    assert train("--epochs", "1", "--out", tmp_path / "run").code == 0
    (tmp_path / "run" / "my-notes.txt").write_text("mine")
    again = train("--epochs", "1", "--out", tmp_path / "run")
    assert again.code == 2
    assert "--resume" in again.stderr
    assert "--overwrite" in again.stderr
    unasked = train("--epochs", "1", "--out", tmp_path / "run", "--overwrite")
    assert unasked.code == 2
    assert "--yes" in unasked.stderr
    replaced = train("--epochs", "1", "--seed", "5", "--out", tmp_path / "run", "--overwrite", "--yes")
    assert replaced.code == 0, replaced.stderr
    assert (tmp_path / "run" / "my-notes.txt").read_text() == "mine"
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "a.txt").write_text("x")
    assert train("--out", tmp_path / "foreign", "--overwrite", "--yes").code == 2


def test_init_from_starts_at_the_best_weights(train: Callable[..., Any], tmp_path: Path) -> None:
    assert train("--epochs", "2", "--out", tmp_path / "one").code == 0
    frozen = ("--epochs", "1", "--lr", "1e-12", "--min-lr", "0", "--weight-decay", "0", "--freeze-backbone")
    assert train(*frozen, "--init-from", tmp_path / "one", "--out", tmp_path / "two").code == 0
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(np.allclose(first[name], second[name], atol=1e-7) for name in first)


def test_dry_run_and_one_batch_write_nothing(train: Callable[..., Any], tmp_path: Path, run_cli: RunCli) -> None:
    before = {path for path in run_cli.directory.rglob("*") if path.is_file()}
    dry = train("--dry-run", "--json", "--epochs", "7")
    assert dry.code == 0, dry.stderr
    figures = json.loads(dry.stdout)["result"]
    assert figures["steps_per_epoch"] == 4
    assert figures["epochs"] == 7
    assert figures["peak_memory_gib"] > 0
    one = train("--overfit-batch", "--lr", "0.01", "--json")
    assert one.code == 0, one.stdout + one.stderr
    result = json.loads(one.stdout)["result"]
    assert result["learnt"]
    assert result["last"] < result["first"] / 10
    hopeless = train("--overfit-batch", "--lr", "1e-9")
    assert hopeless.code == 4
    assert {path for path in run_cli.directory.rglob("*") if path.is_file()} == before


def test_a_failing_run_says_so_and_keeps_the_traceback(train: Callable[..., Any], tmp_path: Path) -> None:
    done = train("--epochs", "3", "--lr", "1e30", "--clip-grad", "0", "--optimizer", "sgd", "--out", tmp_path / "run")
    assert done.code == 1, done.stdout
    assert "loss became" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"
    assert "RunFailure" in (tmp_path / "run" / "log.txt").read_text()


def test_a_busy_run_is_left_alone(archive: Path, tmp_path: Path, run_cli: RunCli) -> None:
    child = started(archive, tmp_path / "run", tmp_path)
    try:
        busy = run_cli("train", "--resume", tmp_path / "run", "--extend", "1")
        assert busy.code == 2
        assert str(child.pid) in busy.stderr
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=120)
