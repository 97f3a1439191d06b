"""Rare classes, mixtures and mirrored sides as a user types them: what is said, recorded and refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.testing.command import Outcome, RunCli

TINY = ("timm/test_resnet", "--image-size", "32", "--batch-size", "8", "--workers", "0", "--epochs", "1")
ZONES = ("left_upper", "right_upper", "left_lower", "right_lower")


@pytest.fixture
def zones(tmp_path: Path) -> Path:
    """A table of pictures with four zones of grades 0 to 2, some of them missing."""
    random = np.random.default_rng(0)
    path = tmp_path / "zones.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "odd", *ZONES])
        for number in range(40):
            name = f"{number}.png"
            Image.fromarray(random.integers(0, 255, (32, 32), dtype=np.uint8)).save(tmp_path / name)
            writer.writerow([name, "seldom" if number % 10 == 0 else "often", *((number + at) % 3 for at in range(4))])
    return path


def train(run_cli: RunCli, table: Path, *words: str, labels: tuple[str, ...] = ZONES) -> Outcome:
    columns = [word for label in labels for word in ("--label-column", label)]
    task = ("--task", "multioutput") if len(labels) > 1 else ()
    return run_cli(
        "train", *TINY, "--data", table, "--image-column", "image", *columns, *task, *words,
        in_process=True, cwd=table.parent,
    )  # fmt: skip


def test_a_run_that_distorts_probabilities_says_so_and_keeps_it(run_cli: RunCli, zones: Path) -> None:
    done = train(run_cli, zones, "--sampler", "balanced", "--mixup", "0.4", "--out", "one", labels=("odd",))
    assert done.code == 0, done.stderr
    assert "calibrate on untouched data" in done.stderr
    facts = json.loads((zones.parent / "one" / "environment.json").read_text(encoding="utf-8"))
    assert facts["probabilities_distorted_by"] == ["`--sampler balanced`", "`--mixup`"]
    assert "calibrate on untouched data" in (zones.parent / "one" / "log.txt").read_text(encoding="utf-8")
    plain = train(run_cli, zones, "--out", "two", labels=("odd",))
    assert "calibrate" not in plain.stderr
    facts = json.loads((zones.parent / "two" / "environment.json").read_text(encoding="utf-8"))
    assert facts["probabilities_distorted_by"] == []


def test_zones_are_mirrored_only_with_their_labels(run_cli: RunCli, zones: Path) -> None:
    refused = train(run_cli, zones, "--flip", "horizontal")
    assert refused.code == 2
    assert "--swap-on-flip left_upper:right_upper" in refused.stderr
    half = train(run_cli, zones, "--flip", "horizontal", "--swap-on-flip", "left_upper:right_upper")
    assert half.code == 2
    assert "`left_lower`" in half.stderr
    whole = train(
        run_cli, zones, "--flip", "horizontal", "--swap-on-flip", "left_upper:right_upper,left_lower:right_lower",
        "--logit-adjust", "1", "--cutmix", "1",
    )  # fmt: skip
    assert whole.code == 0, whole.stderr


@pytest.mark.parametrize(
    ("words", "labels", "part"),
    [
        (("--sampler", "balanced"), ZONES, "--class-weights balanced"),
        (("--augment", "modality", "--modality", "fondus"), ("odd",), "did you mean `fundus`?"),
        (("--augment", "modality", "--modality", "fundus"), ZONES, "upside down"),
        (("--augment", "modality", "--modality", "oct"), ZONES, "mirrors pictures of oct"),
        (("--augment", "modality"), ("odd",), "--modality chest-xray"),
        (("--mixup", "-0.5"), ("odd",), "at least 0"),
        (("--swap-on-flip", "a:b"), ("odd",), "no label `a`"),
        (("--mixup", "0.2", "--task", "ordinal", "--class-names", "seldom,often"), ("odd",), "--loss ce"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    run_cli: RunCli, zones: Path, words: tuple[str, ...], labels: tuple[str, ...], part: str
) -> None:
    done = train(run_cli, zones, *words, "--out", "refused", labels=labels)
    assert done.code == 2
    assert part in done.stderr
    assert not (zones.parent / "refused").exists()


def test_a_class_without_images_cannot_be_drawn(run_cli: RunCli, zones: Path) -> None:
    done = train(run_cli, zones, "--sampler", "balanced", "--class-names", "often,seldom,never", labels=("odd",))
    assert done.code == 2
    assert "`never`" in done.stderr
    assert "--class-weights balanced" in done.stderr
