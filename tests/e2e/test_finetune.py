"""`medcli finetune` as a user types it: every strategy's flags act, runs say what was done, bad input is refused."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from medcli.models.timm_backbone import TimmBackbone
from medcli.testing.command import Outcome, RunCli
from medcli.training import loop

TINY = (
    "--data", "synthetic/chest", "--limit", "24", "--image-size", "32", "--batch-size", "8", "--workers", "0",
    "--augment", "none", "--seed", "1",
)  # fmt: skip
ARCH = "timm/test_resnet"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file of the architecture, with numbers that nobody else draws."""
    import torch

    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    torch.manual_seed(5)
    network = TimmBackbone("test_resnet", image_size=32).net
    save_file({name: tensor.numpy() for name, tensor in network.state_dict().items()}, path)
    return path


@pytest.fixture
def finetune(run_cli: RunCli, weights: Path, tmp_path: Path) -> Callable[..., Outcome]:
    def run(*words: object, source: str | Path = ARCH, out: str = "run", fail: bool = False) -> Outcome:
        own = ("--weights", weights) if source == ARCH else ()
        done = run_cli("finetune", source, *own, *TINY, "--out", tmp_path / out, *words, in_process=True)
        assert fail or done.code == 0, done.stderr
        return done

    return run


def backbone(run: Path) -> dict[str, np.ndarray[Any, Any]]:
    tensors = load_file(run / "model.safetensors")
    return {
        name.removeprefix("backbone.net."): tensor
        for name, tensor in tensors.items()
        if name.startswith("backbone.net.")
    }


def same(one: dict[str, np.ndarray[Any, Any]], other: dict[str, np.ndarray[Any, Any]]) -> set[str]:
    return {name for name in one if np.array_equal(one[name], other[name])}


def groups(run: Path) -> Any:
    return json.loads((run / "groups.json").read_text())


def test_frozen_keeps_what_the_file_said(finetune: Callable[..., Outcome], weights: Path, tmp_path: Path) -> None:
    done = finetune("--strategy", "frozen", "--epochs", "2")
    before, after = load_file(weights), backbone(tmp_path / "run")
    assert same(before, after) == set(before)
    assert "frozen" in done.stderr
    assert {block["name"] for block in groups(tmp_path / "run")["blocks"] if block["rates"]} == {"medcli_head"}
    assert 'strategy = "frozen"' in (tmp_path / "run" / "config.toml").read_text()


def test_each_flag_of_a_strategy_acts(finetune: Callable[..., Outcome], tmp_path: Path) -> None:
    def rates(out: str, *words: str) -> list[list[dict[str, float]]]:
        finetune(*words, "--epochs", "2", out=out)
        return [block["rates"] for block in groups(tmp_path / out)["blocks"]]

    layerwise = rates("a", "--strategy", "layerwise", "--lr", "1e-3")
    assert layerwise[0][0]["lr"] == pytest.approx(1e-3 * 0.75 ** (len(layerwise) - 1))
    assert rates("b", "--strategy", "layerwise", "--lr", "1e-3", "--layer-decay", "0.5") != layerwise
    ladder = rates("d", "--strategy", "layerwise", "--stage-lr", "1e-4,1e-5", "--head-lr", "1e-2")
    assert ladder[-1] == [{"from_epoch": 0, "lr": 1e-2}]
    assert [step["lr"] for step in ladder[-2]] == [1e-4]
    assert [step["lr"] for step in ladder[0]] == [1e-5]
    gradual = rates("e", "--strategy", "gradual", "--unfreeze-at", "1", "--unfreeze-groups", "2", "--lr", "1e-3")
    assert [block for block in gradual if block] == [[{"from_epoch": 1, "lr": 1e-3}]] * (
        len([block for block in gradual if block]) - 1
    ) + [[{"from_epoch": 0, "lr": 1e-3}]]
    fewer = rates("f", "--strategy", "gradual", "--unfreeze-at", "1", "--unfreeze-groups", "1", "--lr", "1e-3")
    assert sum(map(bool, fewer)) < sum(map(bool, gradual))
    probed = rates("g", "--strategy", "lp-ft", "--probe-epochs", "1", "--head-lr", "1e-2", "--lr", "1e-3")
    assert probed[0] == [{"from_epoch": 1, "lr": 1e-3}]
    assert probed[-1] == [{"from_epoch": 0, "lr": 1e-2}, {"from_epoch": 1, "lr": 1e-3}]
    kept = rates("h", "--strategy", "full", "--freeze-layers", "2")
    assert not kept[0]
    assert kept[-1]


def test_the_decay_counts_blocks_or_stages(run_cli: RunCli, tmp_path: Path) -> None:
    """On a network whose stages have several blocks, taken over from a run."""
    words = ("timm/test_convnext", "--epochs", "1", *TINY, "--out", tmp_path / "made")
    assert run_cli("train", *words, in_process=True).code == 0
    found = {}
    for by in ("block", "stage"):
        words = ("--strategy", "layerwise", "--decay-by", by, "--layer-decay", "0.5", "--lr", "1e-3", "--epochs", "1")
        done = run_cli("finetune", tmp_path / "made", *words, *TINY, "--out", tmp_path / by, in_process=True)
        assert done.code == 0, done.stderr
        found[by] = [block["rates"][0]["lr"] for block in groups(tmp_path / by)["blocks"]]
    assert found["block"] == pytest.approx([1e-3 * 0.5**depth for depth in range(11, -1, -1)])
    assert found["stage"] == pytest.approx([1e-3 * 0.5**depth for depth in (5, 4, 3, 3, 2, 2, 2, 2, 1, 1, 1, 0)])


def test_gradual_moves_only_what_has_joined_in(finetune: Callable[..., Outcome], weights: Path, tmp_path: Path) -> None:
    finetune(
        "--strategy", "gradual", "--unfreeze-at", "1", "--unfreeze-groups", "1", "--epochs", "2", "--monitor", "loss"
    )
    last = load_file(tmp_path / "run" / "checkpoints" / "last.safetensors")
    before = load_file(weights)
    after = {name: last[f"model/backbone.net.{name}"] for name in before}
    learnt = {block["name"] for block in groups(tmp_path / "run")["blocks"][:-1] if block["rates"]}
    moved = set(before) - same(before, after)
    assert moved
    assert all(any(name.startswith(f"{block}.") for block in learnt) for name in moved)


def test_resume_is_bit_exact_across_an_unfreezing(
    finetune: Callable[..., Outcome], run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--strategy", "gradual", "--unfreeze-at", "1,2", "--unfreeze-groups", "1", "--epochs", "4", "--ema")
    finetune(*words, out="whole")
    learn = loop.learn_window

    def interrupted(parts: Any, window: Any, epoch: int) -> Any:
        if epoch == 1:
            signal.raise_signal(signal.SIGINT)
        return learn(parts, window, epoch)

    monkeypatch.setattr(loop, "learn_window", interrupted)
    stopped = finetune(*words, out="parts", fail=True)
    assert stopped.code == 130
    assert f"medcli finetune --resume {tmp_path / 'parts'}" in stopped.stderr
    monkeypatch.undo()
    resumed = run_cli("finetune", "--resume", tmp_path / "parts", in_process=True)
    assert resumed.code == 0, resumed.stderr
    one, two = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "parts"))
    assert same(one, two) == set(one)


def test_a_run_is_adapted_with_what_it_was_made_with(
    finetune: Callable[..., Outcome], run_cli: RunCli, tmp_path: Path
) -> None:
    finetune("--strategy", "full", "--epochs", "1", "--mean", "0.4", "--std", "0.3", "--in-channels", "1", out="first")
    done = run_cli(
        "finetune", tmp_path / "first", "--strategy", "frozen", "--epochs", "1", *TINY, "--out", tmp_path / "second",
        in_process=True,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert "head included" in done.stderr
    one, two = backbone(tmp_path / "first"), backbone(tmp_path / "second")
    assert same(one, two) == set(one)
    text = (tmp_path / "second" / "config.toml").read_text()
    assert "mean = [0.4]" in text
    assert "in_channels = 1" in text
    refused = run_cli("finetune", tmp_path / "first", "--strategy", "full", *TINY, "--mean", "0.5", "--std", "0.5")
    assert refused.code == 2
    assert "is settled by the run" in refused.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no strategy was named"),
        (("--strategy", "gradual", "--unfreeze-at", "1,9", "--epochs", "3"), "`--unfreeze-at` names epoch 9"),
        (("--strategy", "gradual", "--unfreeze-at", "5,1"), "must rise"),
        (("--strategy", "layerwise", "--layer-decay", "1.2"), "at most 1"),
        (("--strategy", "layerwise", "--layer-decay", "0"), "above 0"),
        (("--strategy", "full", "--layer-decay", "0.5"), "acts only with `--strategy layerwise`"),
        (("--strategy", "layerwise", "--stage-lr", "1e-3", "--layer-decay", "0.5"), "exclude each other"),
        (("--strategy", "lp-ft", "--probe-epochs", "3", "--epochs", "3"), "leaves no epoch"),
        (("--strategy", "full", "--freeze-layers", "99"), "cannot be frozen"),
        (("--strategy", "full", "--freeze-backbone"), "--freeze-backbone"),
        (("--strategy", "gradul"), "gradul"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    finetune: Callable[..., Outcome], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = finetune(*words, fail=True)
    assert done.code == 2, done.stderr
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_here_are_named_and_never_random(run_cli: RunCli, tmp_path: Path) -> None:
    done = run_cli("finetune", "resnet18", "--strategy", "full", *TINY, "--out", tmp_path / "run", in_process=True)
    assert done.code == 2
    assert "`medcli models fetch resnet18" in done.stderr
    assert "`--weights FILE`" in done.stderr
    bare = run_cli("finetune", "custom1", "--strategy", "full", *TINY, "--out", tmp_path / "run", in_process=True)
    assert bare.code == 2
    assert not (tmp_path / "run").exists()
