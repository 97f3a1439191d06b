"""`medcli search` as a user types it: what it says, what it writes, and how it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from medcli.registry.children import child_environment
from medcli.testing.command import RunCli

pytest.importorskip("optuna", reason="the extra `search` is not installed")

TINY = ("--image-size", "16", "--epochs", "1", "--workers", "0", "--device", "cpu", "--augment", "none")
CHEST = ("search", "timm/test_resnet", "--data", "synthetic/chest", "--limit", "12", *TINY)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_a_search_says_what_it_does_and_what_its_figure_is_worth(run_cli: RunCli) -> None:
    done = run_cli(*CHEST, "--trials", "2", "--lr", "0.001", "--out", "found", in_process=True)
    assert done.code == 0, done.stderr
    assert "each trial: medcli train timm/test_resnet, 1 epochs" in done.stderr
    assert "searched by val auc: batch_size, dropout, weight_decay" in done.stderr
    assert "fixed, as you asked: lr 0.001" in done.stderr
    assert "12 test images of synthetic-chest are kept for afterwards: no trial reads or predicts them" in done.stderr
    assert "is optimistic: it is the best of 2 on the very images that chose it" in done.stderr
    assert "hint: `medcli train --config found/best.toml` trains with these settings" in done.stderr
    assert "2 trials: 2 completed" in done.stdout
    assert "settings: found/best.toml" in done.stdout
    assert "Trial" not in done.stderr  # Optuna's own log


def test_the_best_settings_can_be_trained_as_the_hint_says(run_cli: RunCli) -> None:
    assert run_cli(*CHEST, "--trials", "2", "--out", "found", "-q", in_process=True).stdout == "found\n"
    done = run_cli("train", "--config", "found/best.toml", "--out", "final", "--json", in_process=True)
    assert done.code == 0, done.stderr
    best = json.loads((run_cli.directory / "found/status.json").read_text())["best"]
    assert done.json()["result"]["value"] == best["value"]
    assert "test" in done.json()["result"]["evaluation"]


def test_json_is_one_document(run_cli: RunCli) -> None:
    done = run_cli(*CHEST, "--trials", "2", "--out", "found", "--json", in_process=True)
    document = done.json()
    assert document["schema"] == "medcli/search/1"
    result = document["result"]
    assert result["best"]["value"] == max(row["value"] for row in result["trials"])
    assert result["optimistic"] is True
    assert result["test_images_kept"] == 12
    assert result["states"] == {"completed": 2}


def test_a_dry_run_shows_the_space_and_a_trial_and_writes_nothing(run_cli: RunCli) -> None:
    done = run_cli(*CHEST, "--dry-run", in_process=True)
    assert done.code == 0, done.stderr
    assert "lr            1e-05 to 0.001, logarithmic" in done.stdout
    assert "batch_size    one of 16, 32, 64" in done.stdout
    assert "a first trial: lr " in done.stdout
    assert "as flags: --lr " in done.stdout
    assert not (run_cli.directory / "runs").exists()
    first = run_cli(*CHEST, "--dry-run", "--json", in_process=True).json()["result"]["sample"]
    second = run_cli(*CHEST, "--trials", "1", "--json", in_process=True).json()["result"]["trials"][0]["settings"]
    assert first == second


def test_going_on_and_looking_at_it(run_cli: RunCli) -> None:
    run_cli(*CHEST, "--trials", "1", "--out", "found", in_process=True)
    again = run_cli("search", "--resume", "found", in_process=True)
    assert again.code == 0
    assert "has already finished its 1 trials" in again.stdout
    assert "--trials 2` tries 1 more" in again.stderr
    more = run_cli("search", "--resume", "found", "--trials", "2", in_process=True)
    assert more.code == 0, more.stderr
    assert "2 trials: 2 completed" in more.stdout
    shown = run_cli("runs", "show", "found", in_process=True)
    assert "trials        2 of 2" in shown.stdout
    assert "`medcli train --config found/best.toml` trains with the best settings" in shown.stderr
    same = run_cli("search", "--config", "found/config.toml", "--out", "same", "--json", in_process=True)
    assert same.code == 0, same.stderr
    first = json.loads((run_cli.directory / "found/trials.json").read_text())["trials"][0]
    assert same.json()["result"]["trials"][0]["settings"] == first["settings"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--strategy", "knn"), "`strategy` must be one of `scratch`"),
        (("--space", "nowhere.toml"), "there is no file `nowhere.toml`"),
        (("--space", "bad.toml"), "bad.toml:2"),
        (("--search-sampler", "grid"), "a grid needs a list for every setting"),
        (("--storage", "nowhere/x.db"), "there is no folder"),
        (("--storage", "study"), "neither a URL nor a file whose ending"),
        (("--trials", "0"), "must be a whole number of at least 1"),
        (("--rank", "4"), "`--rank` does nothing with `--strategy scratch`"),
        (("--layer-decay", "0.5"), "`--layer-decay` acts only with `--strategy layerwise`"),
        (("--lr", "1e-4", "--batch-size", "8", "--dropout", "0", "--weight-decay", "0"), "nothing is left to search"),
        (("--resume", "nowhere"), "there is no run `nowhere`"),
        (("--strategy", "full"), "models fetch"),
        (("--processes", "2"), "--processes"),
    ],
)
def test_bad_input_exits_2_and_writes_nothing(words: tuple[str, ...], message: str, run_cli: RunCli) -> None:
    (run_cli.directory / "bad.toml").write_text("[space]\nlrr = [1e-4]\n")
    done = run_cli(*CHEST, *words, in_process=True)
    assert done.code == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in run_cli.directory.iterdir() if not path.name.startswith(".")) == ["bad.toml"]


def test_a_study_of_other_data_is_refused_before_anything_is_written(run_cli: RunCli) -> None:
    assert run_cli(*CHEST, "--trials", "1", "--storage", "x.log", "--out", "one", in_process=True).code == 0
    other = run_cli(*CHEST, "--split-seed", "3", "--storage", "x.log", "--out", "two", in_process=True)
    assert other.code == 2
    assert "was made with other things" in other.stderr
    assert not (run_cli.directory / "two").exists()


def test_ctrl_c_ends_after_the_step_and_says_how_to_go_on(run_cli: RunCli) -> None:
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 64), ("val", 16)):
        arrays[f"{split}_images"] = random.integers(0, 255, (count, 16, 16), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    np.savez(run_cli.directory / "tiny.npz", **arrays)
    words = ["search", "timm/test_resnet", "--data", "tiny.npz", *TINY, "--epochs", "2000", "--patience", "0"]
    words += ["--out", "found", "--trials", "4", "--batch-size", "8"]
    child = subprocess.Popen(
        [sys.executable, "-m", "medcli", *words],
        cwd=run_cli.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment({"OMP_NUM_THREADS": "1"}),
    )
    metrics = run_cli.directory / "found/trials/0001/metrics.jsonl"
    limit = time.monotonic() + 120
    while not metrics.exists() and child.poll() is None and time.monotonic() < limit:
        time.sleep(0.1)
    os.kill(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert out == ""
    assert "hint: continue with `medcli search --resume found`" in err
    assert json.loads((run_cli.directory / "found/status.json").read_text())["state"] == "interrupted"
    assert not list((run_cli.directory / "found").rglob("*.safetensors"))
    assert Path(run_cli.directory / "found/trials.txt").read_text().splitlines()[1].split()[1] == "interrupted"
