"""Every strategy acts on every package beside this file, as it does on the built-in families."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from medcli.testing.command import RunCli

# Architecture, options, side in pixels. RAD-DINO and RETFound's large networks share their code with smaller ones.
NETWORKS = [
    pytest.param("chexnet", 32, id="chexnet"),
    pytest.param("retfound-green", 28, id="retfound-green"),
    pytest.param("echo", 16, id="echo"),
    pytest.param("raddino", 28, id="raddino", marks=pytest.mark.slow),
]
DATA = ("--data", "synthetic/chest", "--limit", "16", "--batch-size", "8", "--workers", "0", "--augment", "none")


def ok(outcome: Any) -> Any:
    assert outcome.code == 0, outcome.stderr
    return outcome


def weights(run: Path) -> dict[str, np.ndarray[Any, Any]]:
    return load_file(run / "model.safetensors")


@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_strategies_do_what_they_say(run_cli: RunCli, tmp_path: Path, name: str, size: int) -> None:
    base = (*DATA, "--image-size", str(size), "--epochs", "1")
    ok(run_cli("train", name, *base, "--lr", "1e-3", "--out", tmp_path / "base", in_process=True))
    before = weights(tmp_path / "base")

    ok(
        run_cli(
            "finetune", tmp_path / "base", "--strategy", "frozen", *base, "--lr", "0.1", "--out", tmp_path / "frozen",
            in_process=True,
        )
    )  # fmt: skip
    after = weights(tmp_path / "frozen")
    moved = {key for key in before if not np.array_equal(before[key], after[key])}
    assert moved
    assert all(key.startswith("medcli_head.") for key in moved)

    words = ("--strategy", "layerwise", "--layer-decay", "0.8", "--lr", "1e-2", "--weight-decay", "0")
    ok(run_cli("finetune", tmp_path / "base", *words, *base, "--out", tmp_path / "layerwise", in_process=True))
    blocks = json.loads((tmp_path / "layerwise" / "groups.json").read_text())["blocks"]
    rates = [block["rates"][0]["lr"] for block in blocks]
    assert rates == pytest.approx([1e-2 * 0.8**depth for depth in range(len(blocks) - 1, -1, -1)])
    after = weights(tmp_path / "layerwise")
    for block in blocks[:-1]:
        own = [key for key in before if key.startswith("backbone.") and f".{block['name']}." in f"{key}."]
        assert not own or any(not np.array_equal(before[key], after[key]) for key in own), block["name"]
    learnt = sum(not np.array_equal(before[key], after[key]) for key in before if key.startswith("backbone."))
    assert learnt > 0.5 * sum(key.startswith("backbone.") for key in before)


@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_adapters_learn_and_nothing_else_does(run_cli: RunCli, tmp_path: Path, name: str, size: int) -> None:
    base = (*DATA, "--image-size", str(size), "--epochs", "1")
    ok(run_cli("train", name, *base, "--lr", "1e-3", "--out", tmp_path / "base", in_process=True))
    targets = ("--targets", "mlp") if name == "echo" else ()
    ok(run_cli("lora", tmp_path / "base", *targets, "--rank", "2", *base, "--out", tmp_path / "lora", in_process=True))
    assert not (tmp_path / "lora" / "model.safetensors").exists()
    kept = load_file(tmp_path / "lora" / "adapter" / "adapter_model.safetensors")
    assert all("lora_" in key or "medcli_head" in key for key in kept)
    assert any(np.abs(tensor).max() > 0 for key, tensor in kept.items() if "lora_B" in key), "nothing was learnt"
    assert not [key for key in kept if "patch_embed" in key or "projection" in key]
    judged = ok(run_cli("evaluate", tmp_path / "lora", "--bootstrap", "0", "--json", in_process=True)).json()
    again = (*DATA[:2], "--limit", "16", "--bootstrap", "0", "--json")
    ok(run_cli("evaluate", tmp_path / "lora", *again, in_process=True))
    assert judged["result"]["evaluations"]
