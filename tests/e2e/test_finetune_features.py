"""`medcli finetune --strategy frozen|knn|lp-ft` as a user types it: flags act, runs are used, bad input is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from medcli.testing.command import Outcome, RunCli

TINY = (
    "--data", "synthetic/chest", "--limit", "24", "--image-size", "32", "--workers", "0", "--seed", "1",
)  # fmt: skip
ARCH = "timm/test_resnet"


def features(tmp_path: Path) -> list[Path]:
    """The files of the cache, wherever the test's own machine has it."""
    return list(tmp_path.glob("**/medcli/features/*.safetensors"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    from medcli.models.timm_backbone import TimmBackbone

    torch.manual_seed(5)
    path = tmp_path / "net.safetensors"
    save_file(TimmBackbone("test_resnet", image_size=32).net.state_dict(), path)
    return path


@pytest.fixture
def finetune(run_cli: RunCli, weights: Path, tmp_path: Path) -> Callable[..., Outcome]:
    def run(*words: object, out: str = "run", fail: bool = False) -> Outcome:
        given = ("--weights", weights, *TINY, "--out", tmp_path / out, "--strategy", *words)
        done = run_cli("finetune", ARCH, *given, in_process=True)
        assert fail or done.code == 0, done.stderr
        return done

    return run


def head(run: Path) -> dict[str, np.ndarray[Any, Any]]:
    tensors = load_file(run / "model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith("medcli_head.")}


def same(one: Path, other: Path) -> bool:
    mine, theirs = head(one), head(other)
    return all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_views_change_what_the_head_learns(finetune: Callable[..., Outcome], tmp_path: Path) -> None:
    plain = finetune("frozen", "--epochs", "2", "--lr", "1e-2", out="plain")
    assert "`--feature-views 5` learns from five augmented views" in plain.stderr
    finetune("frozen", "--epochs", "2", "--lr", "1e-2", "--augment", "none", out="none")
    finetune("frozen", "--epochs", "2", "--lr", "1e-2", "--feature-views", "1", out="one")
    two = finetune("frozen", "--epochs", "2", "--lr", "1e-2", "--feature-views", "2", out="two")
    assert same(tmp_path / "plain", tmp_path / "none")
    assert not same(tmp_path / "plain", tmp_path / "one")
    assert not same(tmp_path / "one", tmp_path / "two")
    # The first view was there already: only the second was computed.
    assert "features found in the cache: train view 1, val, test" in " ".join(two.stderr.split())


def test_the_number_of_neighbours_acts(finetune: Callable[..., Outcome], tmp_path: Path) -> None:
    figures = []
    for nearest in ("3", "9"):
        finetune("knn", "--nearest", nearest, out=nearest)
        figures.append(json.loads((tmp_path / nearest / "evaluation.json").read_text())["val"]["figures"])
    assert figures[0] != figures[1]


def test_a_run_of_neighbours_is_used_like_any_other(
    finetune: Callable[..., Outcome], run_cli: RunCli, tmp_path: Path
) -> None:
    finetune("knn")
    run = tmp_path / "run"
    assert json.loads((run / "status.json").read_text())["state"] == "completed"
    shown = run_cli("runs", "show", run, in_process=True)
    assert "1 of 1" in shown.stdout
    assert "--extend" not in shown.stderr
    Image.fromarray(np.full((32, 32), 90, dtype=np.uint8)).save(tmp_path / "one.png")
    predicted = run_cli("predict", run, tmp_path / "one.png", "--json", in_process=True)
    assert predicted.code == 0, predicted.stderr
    evaluated = run_cli("evaluate", run, in_process=True)
    assert evaluated.code == 0, evaluated.stderr
    for words in (("--resume", run), ("--resume", run, "--extend", "3")):
        refused = run_cli("finetune", *words, in_process=True)
        assert refused.code == 2
        assert "has trained nothing that could go on" in " ".join(refused.stderr.split())


def test_a_frozen_run_goes_on_longer(finetune: Callable[..., Outcome], run_cli: RunCli, tmp_path: Path) -> None:
    finetune("frozen", "--epochs", "1")
    more = run_cli("finetune", "--resume", tmp_path / "run", "--extend", "2", in_process=True)
    assert more.code == 0, more.stderr
    assert "features found in the cache: train, val, test" in " ".join(more.stderr.split())
    assert json.loads((tmp_path / "run" / "status.json").read_text())["epoch"] == 3


def test_a_probe_says_how_it_ended(finetune: Callable[..., Outcome], tmp_path: Path) -> None:
    done = finetune("lp-ft", "--epochs", "1")
    said = " ".join(done.stderr.split())
    assert "iterations of L-BFGS (gradient" in said
    assert "chosen on val" in said
    assert "probe: the head" in (tmp_path / "run" / "log.txt").read_text()


def test_a_rehearsal_writes_nothing(finetune: Callable[..., Outcome], tmp_path: Path) -> None:
    for strategy in ("frozen", "knn"):
        done = finetune(strategy, "--dry-run", "--json")
        figures = json.loads(done.stdout)["result"]
        assert (figures["loss"] is None) is (strategy == "knn")
        assert not (tmp_path / "run").exists()
        assert not features(tmp_path)


def test_a_damaged_cache_is_said(finetune: Callable[..., Outcome], tmp_path: Path) -> None:
    finetune("frozen", "--epochs", "1", out="first")
    assert len(features(tmp_path)) == 3
    for path in features(tmp_path):
        path.write_bytes(path.read_bytes()[:-9])
    again = finetune("frozen", "--epochs", "1", out="second")
    assert "cached features are damaged and were computed again" in " ".join(again.stderr.split())
    assert same(tmp_path / "first", tmp_path / "second")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("knn", "--lr", "0.1"), "`--lr` does nothing with `--strategy knn`: nothing is trained"),
        (("knn", "--epochs", "3"), "`--epochs` does nothing with `--strategy knn`"),
        (("knn", "--nearest", "25"), "25 neighbours cannot vote among 24 training images"),
        (("knn", "--nearest", "0"), "--nearest"),
        (("frozen", "--drop-path", "0.1"), "`--drop-path` does nothing with `--strategy frozen`"),
        (("frozen", "--mixup", "0.2"), "`--mixup` mixes images, and `--strategy frozen`"),
        (("frozen", "--nearest", "3"), "`--nearest` acts only with `--strategy knn`"),
        (("full", "--feature-views", "3"), "`--feature-views` acts only with `--strategy frozen`"),
        (("frozen", "--feature-views", "3", "--augment", "none"), "`--feature-views` needs an augmentation"),
        (("frozen", "--feature-views", "0"), "--feature-views"),
    ],
)
def test_what_cannot_act_is_refused_before_anything_is_written(
    finetune: Callable[..., Outcome], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = finetune(*words, fail=True)
    assert done.code == 2, done.stderr
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()
