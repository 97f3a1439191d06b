"""`medcli lora` as a user types it: adapters are trained, judged, applied together, resumed and continued."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from medcli.testing.command import Outcome, RunCli
from medcli.training.engine import RunJournal

TINY = ("--data", "tiny.npz", "--batch-size", "8", "--workers", "0", "--augment", "none")
NETWORK = ("timm/test_vit", "--weights", "vit.safetensors", "--image-size", "32")


@pytest.fixture
def folder(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a data set and two weight files, where commands run."""
    monkeypatch.chdir(run_cli.directory)
    random = np.random.default_rng(7)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 16), ("val", 8), ("test", 8)):
        images = random.integers(60, 180, (count, 32, 32), dtype=np.uint8)
        labels = np.arange(count)[:, None] % 2
        images[labels[:, 0] == 1, :16, :16] += 50
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels.astype(np.uint8)
    np.savez("tiny.npz", **arrays)
    for seed, name in enumerate(("vit", "other")):
        torch.manual_seed(seed)
        save_file(timm.create_model("test_vit", img_size=32).state_dict(), f"{name}.safetensors")
    return run_cli.directory


@pytest.fixture
def lora(run_cli: RunCli, folder: Path) -> Callable[..., Outcome]:
    def run(*arguments: str, command: str = "lora") -> Outcome:
        data = () if "--resume" in arguments or command in {"predict", "evaluate"} else TINY
        return run_cli(command, *arguments, *data, in_process=True)

    return run


def done(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome.stderr
    return outcome


def test_from_training_to_prediction(lora: Callable[..., Outcome], folder: Path) -> None:
    done(lora(*NETWORK, "--epochs", "2", "--rank", "2", "--out", "a"))
    assert not (folder / "a" / "model.safetensors").exists()
    adapter = load_file(folder / "a" / "adapter" / "adapter_model.safetensors")
    assert sum(value.size for value in adapter.values()) == 6 * 2 * (64 + 192) + 2 * 64 + 2
    held = load_file(folder / "a" / "checkpoints" / "last.safetensors")
    learnt = sum(value.size for name, value in held.items() if name.startswith("model/")) - 32
    assert learnt == sum(value.size for value in adapter.values())
    stored = np.load(folder / "a" / "predictions" / "test.npz")["logits"]
    done(lora("a", "--epochs", "1", "--lr", "0.01", "--out", "b"))
    done(lora("a", "--data", "tiny.npz", "--save-predictions", "again.npz", command="evaluate"))
    np.testing.assert_allclose(np.load(folder / "again.npz")["logits"], stored, atol=1e-6)
    answer = json.loads(done(lora("a", "b", "tiny.npz", "--json", command="predict")).stdout)["result"]
    assert answer["columns"][:4] == ["image", "a/score_0", "a/score_1", "a/predicted"]
    assert answer["columns"][4:] == ["b/score_0", "b/score_1", "b/predicted"]
    alone = json.loads(done(lora("b", "tiny.npz", "--json", command="predict")).stdout)["result"]
    for together, single in zip(answer["predictions"], alone["predictions"], strict=True):
        assert together["b/score_0"] == single["score_0"]
    assert answer["predictions"][0]["a/score_0"] != answer["predictions"][0]["b/score_0"]


@pytest.mark.parametrize("variant", ["lora", "pissa"])
def test_a_resumed_run_is_the_run_that_never_stopped(
    variant: str, lora: Callable[..., Outcome], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = (*NETWORK, "--rank", "2", "--variant", variant, "--ema", "--epochs", "3")
    done(lora(*common, "--out", "whole"))
    kept = RunJournal.epoch_done

    def stop(journal: RunJournal, row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt
        kept(journal, row)

    with monkeypatch.context() as patched:
        patched.setattr(RunJournal, "epoch_done", stop)
        assert lora(*common, "--out", "part").code == 130
    done(lora("--resume", "part"))
    whole, part = (load_file(folder / name / "checkpoints" / "last.safetensors") for name in ("whole", "part"))
    assert whole.keys() == part.keys()
    assert [name for name in whole if not np.array_equal(whole[name], part[name])] == []


def test_a_run_with_a_whole_model_gets_a_new_adapter_and_merges_for_finetune(
    lora: Callable[..., Outcome], folder: Path
) -> None:
    done(lora("timm/test_vit", "--image-size", "32", "--epochs", "1", "--out", "whole", command="train"))
    done(lora("whole", "--epochs", "1", "--rank", "2", "--out", "adapted"))
    (folder / "elsewhere").mkdir()
    (folder / "whole").rename(folder / "elsewhere" / "whole")
    (folder / "adapted").rename(folder / "elsewhere" / "adapted")
    done(lora("elsewhere/adapted", "tiny.npz", command="predict"))
    done(lora("elsewhere/adapted", "--strategy", "full", "--epochs", "1", "--out", "tuned", command="finetune"))
    assert (folder / "tuned" / "model.safetensors").is_file()


def test_the_base_is_found_again_or_asked_for(lora: Callable[..., Outcome], folder: Path) -> None:
    done(lora(*NETWORK, "--epochs", "1", "--rank", "2", "--out", "a"))
    (folder / "vit.safetensors").rename(folder / "moved.safetensors")
    missing = lora("a", "tiny.npz", command="predict")
    assert missing.code == 2
    assert "`vit.safetensors`" in missing.stderr
    assert "--weights FILE" in missing.stderr
    done(lora("a", "tiny.npz", "--weights", "moved.safetensors", command="predict"))
    done(lora("a", "--data", "tiny.npz", "--weights", "moved.safetensors", command="evaluate"))
    wrong = lora("a", "tiny.npz", "--weights", "other.safetensors", command="predict")
    assert wrong.code == 2
    assert "other weights" in wrong.stderr
    (folder / "other.safetensors").rename(folder / "vit.safetensors")
    assert "have changed" in lora("--resume", "a", "--extend", "1").stderr


FLAGS: dict[str, tuple[str, ...]] = {
    "rank": ("--rank", "3"),
    "lora_alpha": ("--lora-alpha", "2"),
    "lora_dropout": ("--lora-dropout", "0.9"),
    "targets": ("--targets", "mlp"),
    "variant": ("--variant", "rslora"),
    "loraplus_ratio": ("--loraplus-ratio", "16"),
    "freeze_layers": ("--freeze-layers", "2"),
}


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_changes_what_is_learnt(flag: str, lora: Callable[..., Outcome], folder: Path) -> None:
    common = (*NETWORK, "--epochs", "1", "--lr", "0.01", "--rank", "2")
    done(lora(*common, "--out", "plain"))
    done(lora(*(common[:-2] if flag == "rank" else common), *FLAGS[flag], "--out", "changed"))
    plain, changed = (load_file(folder / name / "adapter/adapter_model.safetensors") for name in ("plain", "changed"))
    assert plain.keys() != changed.keys() or any(
        plain[name].shape != changed[name].shape or not np.array_equal(plain[name], changed[name]) for name in plain
    )


def test_an_adapter_is_a_start(lora: Callable[..., Outcome], folder: Path) -> None:
    done(lora(*NETWORK, "--epochs", "1", "--rank", "2", "--out", "a"))
    done(lora(*NETWORK, "--epochs", "1", "--adapter", "a/adapter", "--out", "b"))
    assert json.loads((folder / "b/adapter/adapter_config.json").read_text())["r"] == 2
    other = lora(
        "timm/test_vit", "--weights", "other.safetensors", "--image-size", "32", "--adapter", "a", "--out", "c"
    )
    assert other.code == 2
    assert "other weights" in other.stderr
    assert not (folder / "c").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*NETWORK, "--rank", "-2"), "no rank"),
        ((*NETWORK, "--rank", "500"), "larger than"),
        ((*NETWORK, "--targets", "nothing"), "qkv (6)"),
        ((*NETWORK, "--adapter", "absent"), "no adapter"),
        ((*NETWORK, "--adapter", "absent", "--rank", "2"), "settled by the adapter"),
        (("timm/test_vit", "--image-size", "32", "--random-weights", "--pretrained"), "exclude each other"),
        (("custom1", "--image-size", "32"), "no weights for `custom1`"),
    ],
)
def test_bad_input_writes_nothing(
    arguments: tuple[str, ...], says: str, lora: Callable[..., Outcome], folder: Path
) -> None:
    outcome = lora(*arguments, "--out", "new")
    assert outcome.code == 2
    assert says in outcome.stderr
    assert not (folder / "new").exists()


def test_random_weights_have_to_be_asked_for(lora: Callable[..., Outcome]) -> None:
    done(lora("timm/test_vit", "--image-size", "32", "--random-weights", "--epochs", "1", "--seed", "3", "--out", "a"))
    done(lora("a", "tiny.npz", command="predict"))
