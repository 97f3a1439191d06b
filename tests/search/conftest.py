"""A search small enough for a test: an archive of 24 bright-corner images and trials of one or two epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("optuna", reason="the extra `search` is not installed")

from medcli.search.plan import SearchPlan, plan_search
from medcli.search.session import SearchResult, SearchWatch, conduct_search
from medcli.training.progress import NoProgress

ARCHITECTURE = "timm/test_resnet"
SMALL: Mapping[str, Any] = {
    "image_size": 16,
    "epochs": 2,
    "augment": "none",
    "device": "cpu",
    "workers": 0,
    "trials": 3,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread: the arrays are too small for two, and other tests run beside these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_archive(path: Path, *, classes: int = 2, count: int = 24, seed: int = 7) -> Path:
    """A MedMNIST-shaped archive whose classes differ by the brightness of a corner; 16 pixels a side."""
    random = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for split, number in (("train", count), ("val", count // 2), ("test", count // 2)):
        images = random.integers(60, 180, (number, 16, 16), dtype=np.uint8)
        labels = np.arange(number) % classes
        for kind in range(1, classes):
            images[labels == kind, :8, :8] += np.uint8(60 // (classes - 1) * kind)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels[:, None].astype(np.uint8)
    np.savez(path, **arrays)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "tiny.npz")


@dataclass
class Heard:
    """What a search said."""

    lines: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def watch(self) -> SearchWatch:
        """A watch that only listens."""
        return SearchWatch(
            NoProgress, self.lines.append, self.details.append, lambda split, done, total: None, lambda question: True
        )


@pytest.fixture
def heard() -> Heard:
    return Heard()


PlanSearch = Callable[..., SearchPlan]
DoSearch = Callable[..., SearchResult]


@pytest.fixture
def make_search(archive: Path) -> PlanSearch:
    """Plan a search; keywords are flags."""

    def make(**flags: Any) -> SearchPlan:
        return plan_search(ARCHITECTURE, {"data": (str(archive),), **SMALL, **flags})

    return make


@pytest.fixture
def do_search(make_search: PlanSearch, heard: Heard) -> DoSearch:
    """Plan a search and carry it out; keywords are flags, and `out`."""

    def do(*, out: str = "found", **flags: Any) -> SearchResult:
        return conduct_search(make_search(**flags), heard.watch(), out=out)

    return do


@pytest.fixture
def write_space(tmp_path: Path) -> Callable[[str], str]:
    """Write a space file and return its name."""

    def write(text: str, name: str = "space.toml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    return write
