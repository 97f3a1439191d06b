"""Training maps of change and pretraining encoders, as typed: what a run holds, and that it goes on exactly."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medcli.data.augment.strengths import Flip
from medcli.diffmap import prepared
from medcli.diffmap.augment import PairAugmentation
from medcli.diffmap.pairs import synthetic_pairs
from medcli.diffmap.prepared import PairPictures, prepared_pair
from medcli.diffmap.run import load_difference_run
from medcli.errors import UsageProblem
from medcli.testing.command import RunCli, forget_user_settings
from medcli.training import loop

TINY = ("--arch-opt", "encoder=test_resnet", "--arch-opt", "width=4", "--image-size", "32", "--workers", "0")
PAIRS = ("--data", "synthetic/chest-pairs", "--limit", "9", "--batch-size", "3", "--register", "none", *TINY)
TRAIN = ("diffmap", "train", *PAIRS, "--epochs", "2", "--accumulate", "2", "--adversarial", "--ema")
PRETRAIN = ("diffmap", "pretrain", "--data", "synthetic/chest", "--limit", "8", "--batch-size", "4", *TINY)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`plain` without interruption, `pre` a pretraining."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("runs")
    cli = RunCli(root)
    with pytest.MonkeyPatch.context() as patch:
        forget_user_settings(patch, root)
        for words in ((*TRAIN, "--out", "plain"), (*PRETRAIN, "--epochs", "1", "--adversarial", "--out", "pre")):
            done = cli(*words, in_process=True)
            assert done.code == 0, done.stderr
    return root


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def rows(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if "epoch" in row]


def test_a_run_holds_what_every_run_holds(runs: Path, run_cli: RunCli) -> None:
    run = runs / "plain"
    for name in ("config.toml", "environment.json", "data.json", "status.json", "evaluation.json", "log.txt"):
        assert (run / name).is_file(), name
    for name in ("checkpoints/last.safetensors", "plots/curves.png", "plots/examples.png"):
        assert (run / name).is_file(), name
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["command"], status["epoch"]) == ("completed", "diffmap train", 2)
    assert status["best"]["monitor"] == "auprc"
    assert "order_swap" in (run / "config.toml").read_text()
    shown = run_cli("runs", "show", run, in_process=True)
    assert shown.code == 0
    assert "signed map of change; train 9" in shown.stdout
    assert "subtraction_auprc" in shown.stdout
    figures = json.loads((run / "evaluation.json").read_text())["val"]["figures"]
    assert 0 <= figures["auprc"]["value"] <= 1


def test_the_discriminator_learns_and_is_logged(runs: Path) -> None:
    first, second = rows(runs / "plain")
    for row in (first, second):
        assert row["train_discriminator"] > 0
        assert row["train_adversarial"] > 0
    assert first["train_discriminator"] != second["train_discriminator"]
    held = load_file(runs / "plain/checkpoints/last.safetensors")
    assert any(name.startswith("model/discriminator.") for name in held)
    assert not any("discriminator" in name for name in tensors(runs / "plain"))


def test_an_interrupted_run_ends_as_if_it_had_not_been(runs: Path, run_cli: RunCli) -> None:
    real, calls = loop.learn_epoch, []

    def stopped(parts: Any, position: Any, interruption: Any, watch: Any) -> Any:
        # After its first step, in the middle of the second epoch.
        calls.append(position.epoch)
        if position.epoch == 1:
            interruption.signal = signal.SIGINT
        return real(parts, position, interruption, watch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "learn_epoch", stopped)
        halted = run_cli(*TRAIN, "--out", "halted", in_process=True)
    assert halted.code == 130, halted.stderr
    assert calls == [0, 1]
    assert "medcli diffmap train --resume halted" in halted.stderr
    resumed = run_cli("diffmap", "train", "--resume", "halted", in_process=True)
    assert resumed.code == 0, resumed.stderr
    halted_run, plain = run_cli.directory / "halted", runs / "plain"
    for name in ("model.safetensors", "checkpoints/last.safetensors"):
        ours, theirs = load_file(halted_run / name), load_file(plain / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    for one, other in zip(rows(halted_run), rows(plain), strict=True):
        timed = ("seconds", "images_per_second")
        assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}
    again = run_cli("diffmap", "train", "--resume", "halted", in_process=True)
    assert (again.code, "already finished" in again.stdout) == (0, True)
    changed = run_cli("diffmap", "train", "--resume", "halted", "--lr", "0.5", in_process=True)
    assert (changed.code, "--lr" in changed.stderr) == (2, True)


def test_the_adversary_changes_the_result(runs: Path, run_cli: RunCli) -> None:
    words = [word for word in TRAIN if word != "--adversarial"]
    assert run_cli(*words, "--out", "alone", in_process=True).code == 0
    alone = tensors(run_cli.directory / "alone")
    assert any(not torch.equal(alone[name], value) for name, value in tensors(runs / "plain").items())
    assert "train_discriminator" not in rows(run_cli.directory / "alone")[0]


def test_maps_are_antisymmetric_and_zero_for_equal_images(runs: Path) -> None:
    loaded = load_difference_run(runs / "plain")
    random = torch.Generator().manual_seed(0)
    one, other = (torch.rand(3, 1, 32, 32, generator=random) for _ in range(2))
    assert loaded.map(one, other).shape == (3, 1, 32, 32)
    assert loaded.map(one, one).abs().max() <= 1e-6
    assert (loaded.map(one, other) + loaded.map(other, one)).abs().max() <= 1e-6
    assert loaded.map(one, other).abs().max() > 1e-4
    plain = loaded.map(one, other, antisymmetric=False)
    assert (plain + loaded.map(other, one, antisymmetric=False)).abs().max() > 1e-4
    assert 0 < loaded.extra["threshold"] <= 1


def test_an_encoder_comes_from_a_pretraining_and_stays_frozen(runs: Path, run_cli: RunCli) -> None:
    assert rows(runs / "pre")[0]["train_discriminator"] > 0
    assert (runs / "pre/plots/examples.png").is_file()
    words = ("diffmap", "train", *PAIRS, "--epochs", "1", "--freeze-encoder", "--map", "magnitude", "--loss", "l1-l2")
    done = run_cli(*words, "--encoder-from", runs / "pre", "--out", "frozen", in_process=True)
    assert done.code == 0, done.stderr
    before, after = tensors(runs / "pre"), tensors(run_cli.directory / "frozen")
    encoder = [name for name in after if name.startswith("encoder.")]
    assert f"{len(encoder)} of {len(encoder)} encoder tensors" in done.stderr
    assert all(torch.equal(after[name], before[name]) for name in encoder)
    with pytest.raises(UsageProblem, match="pretraining"):
        load_difference_run(runs / "pre")
    loaded = load_difference_run(run_cli.directory / "frozen")
    found = loaded.map(torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32))
    assert (found.min() >= 0, found.max() <= 1) == (True, True)


def test_what_follows_a_pretraining_runs_as_it_is_shown(runs: Path, run_cli: RunCli) -> None:
    shown = run_cli("runs", "show", runs / "pre", in_process=True)
    hint = re.search(r"`medcli (diffmap train [^`]*)`", shown.stdout + shown.stderr)
    assert hint is not None, shown.stdout
    assert "--model siamese-unet --image-size 32 --arch-opt encoder=test_resnet --arch-opt width=4" in hint[1]
    words = hint[1].replace("PAIRS", "synthetic/chest-pairs").split()
    done = run_cli(*words, "--limit", "9", "--workers", "0", "--register", "none", "--dry-run", in_process=True)
    assert done.code == 0, done.stderr
    assert "encoder tensors" in done.stderr


def test_an_encoder_comes_from_a_classifier(run_cli: RunCli) -> None:
    small = ("--image-size", "32", "--in-channels", "1", "--limit", "8", "--epochs", "1", "--batch-size", "4")
    words = ("train", "timm/test_resnet", "--data", "synthetic/chest", *small, "--workers", "0", "--out", "classes")
    assert run_cli(*words, in_process=True).code == 0
    more = ("diffmap", "train", *PAIRS, "--epochs", "1", "--out", "from-classes")
    done = run_cli(*more, "--encoder-from", "classes", in_process=True)
    assert done.code == 0, done.stderr
    assert "of its head" in done.stderr


def test_a_rehearsal_writes_nothing(run_cli: RunCli) -> None:
    for words in (("diffmap", "train", *PAIRS, "--ssim-weight", "1", "--gradient-weight", "1"), PRETRAIN):
        done = run_cli(*words, "--dry-run", "--json", "--out", "none", in_process=True)
        assert done.code == 0, done.stderr
        assert done.json()["result"]["loss"] > 0
    assert not (run_cli.directory / "none").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "synthetic/chest-pairs", "--model", "subtraction"), "nothing to train"),
        (("--data", "synthetic/chest-pairs", "--model", "siamese-unett"), "siamese-unet"),
        ((), "--data"),
        (("--data", "nowhere"), "does not exist"),
        (("--data", "pairs"), "no true map"),
        (("--data", "synthetic/chest-pairs", "--encoder-from", "nowhere"), "--encoder-from"),
        (("--data", "synthetic/chest-pairs", "--loss", "ce"), "weighted-l1-l2"),
        (("--data", "synthetic/chest-pairs", "--monitor", "auc"), "auprc"),
        (("--data", "synthetic/chest-pairs", "--adversarial-from", "2"), "--adversarial"),
        (("--data", "synthetic/chest-pairs", "--limit", "3", "--image-size", "16", "--adversarial"), "32"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    words: tuple[str, ...], said: str, run_cli: RunCli
) -> None:
    for name in ("prior", "current"):
        file = run_cli.directory / f"pairs/case/pair_0/{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        from PIL import Image

        Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)).save(file)
    done = run_cli("diffmap", "train", *words, "--register", "none", "--out", "new", in_process=True)
    assert done.code == 2, done.stderr
    assert said in done.stderr
    assert not (run_cli.directory / "new").exists()


def test_a_run_of_another_kind_is_not_a_difference_model(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "plain", tmp_path / "copy")
    (tmp_path / "copy/model.safetensors").unlink()
    with pytest.raises(UsageProblem, match="no trained model"):
        load_difference_run(tmp_path / "copy")


def test_an_alignment_is_sought_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, calls = synthetic_pairs(1, size=48).pairs[0], []
    real = prepared.prepare
    monkeypatch.setattr(prepared, "prepare", lambda *args, **named: (calls.append(1), real(*args, **named))[1])
    first, second = (prepared_pair(pair, 48, "affine", key=b"key") for _ in range(2))
    assert len(calls) == 1
    for name in ("baseline", "followup", "target", "valid"):
        assert np.array_equal(getattr(first, name), getattr(second, name), equal_nan=name == "target"), name


def test_pairs_change_as_one() -> None:
    source = PairPictures(synthetic_pairs(3, size=32).pairs, 32, "none")
    planes = torch.from_numpy(np.stack([source.read(row).pixels for row in range(3)])).permute(0, 3, 1, 2)
    index = torch.arange(3)

    def changed(level: Any, flip: Flip, swap: bool, epoch: int, rows: list[int]) -> torch.Tensor:
        return PairAugmentation(level, flip, swap, True, 5)(planes[rows], index[rows], epoch)

    assert torch.equal(changed("none", "none", False, 0, [0, 1, 2]).nan_to_num(9), planes.nan_to_num(9))
    moved = changed("light", "horizontal", True, 1, [0, 1, 2])
    assert torch.equal(moved[[2]].nan_to_num(9), changed("light", "horizontal", True, 1, [2]).nan_to_num(9))
    swapped = [changed("none", "none", True, epoch, [0])[0] for epoch in range(12)]
    ways = {bool(torch.equal(one[0], planes[0, 1])) for one in swapped}
    assert ways == {True, False}
    for one in swapped:
        before, after, truth = (0, 1, 1.0) if torch.equal(one[0], planes[0, 0]) else (1, 0, -1.0)
        assert torch.equal(one[0], planes[0, before])
        assert torch.equal(one[1], planes[0, after])
        assert torch.equal(one[2].nan_to_num(9), (truth * planes[0, 2]).nan_to_num(9))


def test_commands_for_single_images_name_the_one_for_pairs(runs: Path, run_cli: RunCli) -> None:
    done = run_cli("predict", runs / "plain", "image.png", in_process=True)
    assert (done.code, "medcli diffmap predict" in done.stderr) == (2, True)
