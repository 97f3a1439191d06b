"""A training small enough to run in a fraction of a second, with one argument per setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medcli.data.load import load_data
from medcli.registry.cards import parse_options, read_card
from medcli.registry.discovery import discover, find
from medcli.settings.groups import ComputeSettings, DataSettings, ModelSettings, StrategySettings, TrainingSettings
from medcli.training.plan import Plan, plan_training

ARCHITECTURE = "timm/test_resnet"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread: the arrays are too small for two, and other tests run beside these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def write_archive(path: Path, *, classes: int = 2, size: int = 32, train: int = 24, labels: int = 0) -> Path:
    """A MedMNIST-shaped archive whose classes differ by the brightness of one quadrant.

    Args:
        classes: number of classes.
        size: side in pixels.
        train: training images; validation and test have half as many.
        labels: labels per image for a multilabel archive, or 0.
    """
    random = np.random.default_rng(7)
    arrays: dict[str, Any] = {}
    for split, count in (("train", train), ("val", train // 2), ("test", train // 2)):
        images = random.integers(60, 180, (count, size, size), dtype=np.uint8)
        if labels:
            truth = random.integers(0, 2, (count, labels))
            for position in range(labels):
                images[truth[:, position] == 1, : size // 2, position * 8 : position * 8 + 8] += 50
        else:
            truth = np.arange(count)[:, None] % classes
            for kind in range(1, classes):
                images[truth[:, 0] == kind, : size // 2, : size // 2] += np.uint8(50 // (classes - 1) * kind)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, truth.astype(np.uint8)
    np.savez(path, **arrays)
    return path


@pytest.fixture
def make_archive(tmp_path: Path) -> Callable[..., Path]:
    """Write an archive under a name; keywords as in `write_archive`."""
    return lambda name, **settings: write_archive(tmp_path / name, **settings)


@pytest.fixture
def archive(make_archive: Callable[..., Path]) -> Path:
    return make_archive("tiny.npz")


MakePlan = Callable[..., Plan]


@pytest.fixture
def make_plan(archive: Path) -> MakePlan:
    """Make a plan; keywords are fields of any group of settings, `architecture` and `arch_opt`."""

    def make(architecture: str = ARCHITECTURE, **settings: Any) -> Plan:
        defaults: dict[str, Any] = {
            "data": (str(archive),),
            "image_size": 32,
            "epochs": 2,
            "batch_size": 8,
            "augment": "none",
            "patience": 0,
            "device": "cpu",
            "workers": 0,
        }
        given = defaults | settings
        groups = {
            kind: kind(**{f.name: given[f.name] for f in fields(kind) if f.name in given})
            for kind in (DataSettings, ModelSettings, TrainingSettings, ComputeSettings, StrategySettings)
        }
        known = {f.name for kind in groups for f in fields(kind)}
        assert set(given) <= known, f"no such setting: {set(given) - known}"
        entry = find(discover(), architecture)
        card = read_card(entry)
        return plan_training(
            load_data(groups[DataSettings])[0],
            entry.qualified,
            card,
            parse_options(entry, card, groups[ModelSettings].arch_opt),
            data_settings=groups[DataSettings],
            model=groups[ModelSettings],
            training=groups[TrainingSettings],
            compute=groups[ComputeSettings],
            strategy=groups[StrategySettings] if "strategy" in given else None,
        )

    return make
