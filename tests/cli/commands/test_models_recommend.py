"""`models recommend` as a user sees it: short text, one JSON document, helpful refusals, no network library."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.testing.command import Outcome, RunCli
from medcli.testing.imports import HEAVY, NoHeavyImports

ALONE = {"MEDCLI_PLUGINS": "none"}


def ask(run_cli: RunCli, *arguments: str) -> Outcome:
    return run_cli("models", "recommend", *arguments, env=ALONE, in_process=True)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    arrays: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = np.zeros((40, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(40) % 4 == 0).astype(np.uint8)[:, None]
    path = tmp_path / "breastmnist.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    "goal", ["learn", "prototype", "accuracy", "production", "research", "competition", "speed", "edge"]
)
@pytest.mark.parametrize("modality", ["chest-xray", "fundus"])
def test_the_text_is_short(run_cli: RunCli, goal: str, modality: str) -> None:
    done = ask(run_cli, "--goal", goal, "--modality", modality, "--images", "5000", "--gpu-memory", "8")
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 40
    assert lines[0] == f"goal {goal} · 5,000 training images · {modality} · GPU of 8 GB"
    assert [line[0] for line in lines if line[:2] in {"1.", "2.", "3."}] == ["1", "2", "3"]
    assert sum(line.startswith(("   run ", "   first ")) for line in lines) == 3


def test_reasons_name_their_sources_and_evidence_its_document(run_cli: RunCli) -> None:
    text = ask(run_cli, "--images", "20000").stdout
    assert "[Doerrich et al. 2025]" in text
    assert "where published evidence contradicts a document" in text
    assert "architecture comparison: EfficientNet-B3" in text
    assert "\n   probe medcli finetune densenet121 --data DATA --strategy frozen " in text


def test_what_is_assumed_or_unknown_is_said(run_cli: RunCli) -> None:
    text = ask(run_cli).stdout
    assert "GPU of 8 GB (assumed)" in text
    assert "kind of picture not known" in text
    assert "`--images N`" in text


def test_settings_that_all_share_are_said_once(run_cli: RunCli) -> None:
    text = ask(run_cli, "--goal", "edge", "--images", "9000").stdout
    assert text.count("128 px is as accurate") == 1
    assert "\nfor all: " in text


def test_data_speak_for_themselves(run_cli: RunCli, archive: Path) -> None:
    done = ask(run_cli, "--data", str(archive), "--goal", "prototype", "--json")
    answer = done.json()
    assert answer["schema"] == "medcli/models-recommend/1"
    known = answer["result"]["situation"]
    assert (known["images"], known["modality"], known["imbalance"]) == (40, "ultrasound", 3.0)
    best = answer["result"]["recommendations"][0]
    assert best["architecture"] == "resnet18"
    assert shlex.split(best["command"])[:5] == ["medcli", *best["command"].split()[1:3], "--data", str(archive)]
    assert best["settings"]["image_size"]["value"] == 128
    assert best["settings"]["image_size"]["kind"] == "evidence"
    assert best["batch"]["size"] == 8
    assert {one["kind"] for one in best["reasons"]} <= {"evidence", "document", "practice"}


@pytest.mark.slow
def test_the_command_without_weights_trains_as_printed(run_cli: RunCli, archive: Path) -> None:
    rows = ask(run_cli, "--data", str(archive), "--goal", "prototype", "--json").json()["result"]["recommendations"]
    (command,) = [one["command"] for one in rows if one["architecture"] == "custom1"]
    words = shlex.split(command)[1:]
    done = run_cli(*words, "--dry-run", "--workers", "0", "--device", "cpu", env=ALONE, in_process=True)
    assert done.code == 0, done.stderr


def test_quiet_prints_the_names(run_cli: RunCli) -> None:
    assert ask(run_cli, "--goal", "learn", "-q").stdout.split() == ["resnet50", "resnet18", "custom1"]


def test_plugins_are_named_before_they_are_installed(run_cli: RunCli) -> None:
    text = ask(run_cli, "--modality", "fundus").stdout
    assert "pip install medcli-retfound" in text
    assert "medcli train retfound-cfp" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--modality", "chst-xray"), ("chst-xray", "did you mean `chest-xray`?")),
        (("--images", "-3"), ("--images", "at least 1")),
        (("--images", "0"), ("--images", "at least 1")),
        (("--gpu-memory", "-1"), ("--gpu-memory", "at least 0")),
        (("--imbalance", "0.2"), ("--imbalance", "at least 1")),
        (("--goal", "world-peace"), ("--goal", "`prototype`")),
        (("vit_huge_patch14_224", "--goal", "edge"), ("631 M parameters", "medcli models recommend --goal edge")),
        (("vit_huge_patch14_224", "--gpu-memory", "2"), ("does not fit into 2 GB", "ranks what can")),
        (("resnet5000",), ("unknown architecture",)),
        (("--data", "nowhere"), ("`nowhere` does not exist",)),
        (("--label-column", "grade"), ("--label-column", "--data PATH")),
    ],
)
def test_impossible_requests_get_helpful_errors(
    run_cli: RunCli, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    done = ask(run_cli, *arguments)
    assert done.code == 2
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_named_architectures_are_judged(run_cli: RunCli) -> None:
    done = ask(run_cli, "resnet101", "densenet121", "--images", "3000", "-q")
    assert done.stdout.split() == ["densenet121", "resnet101"]


def test_no_network_library_is_needed(no_heavy_imports: NoHeavyImports, archive: Path) -> None:
    done = no_heavy_imports.cli("models", "recommend", "--data", str(archive), blocked=HEAVY, cwd=archive.parent)
    assert done.code == 0, done.stderr
