"""Features: the backbone's own numbers, found again only where nothing that decides about them has changed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medcli.data.augment import Augmentation
from medcli.data.batches import Batches, open_batches
from medcli.data.dataset import Picture, Preprocessing, Samples
from medcli.data.resize import normalise, to_tensor
from medcli.data.subset import take
from medcli.data.target import Target
from medcli.errors import RunFailure
from medcli.models.build import build_classifier
from medcli.models.device import Precision
from medcli.models.spec import ModelSpec
from medcli.prediction.feature_cache import FeatureCache, feature_directory
from medcli.prediction.features import PLAIN, Extractor, View, weights_digest

SPEC = ModelSpec("timm/test_resnet", 3, 32, Target("binary", ("no", "yes")))
HOW = Preprocessing(32, 3, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
COUNT = 13


@dataclass
class Images:
    """Pictures in memory."""

    pixels: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> Picture:
        return Picture(self.pixels[index], 0, 255)

    def describe(self, index: int) -> str:
        return f"image-{index}"

    def fingerprint(self, index: int) -> bytes:
        return hashlib.sha256(self.pixels[index].tobytes()).digest()


def samples(seed: int = 0, labels: int = 0) -> Samples:
    pixels = np.random.default_rng(seed).integers(0, 256, (COUNT, 40, 36, 3), dtype=np.uint8)
    ids = np.array([f"case{index}" for index in range(COUNT)])
    return Samples(ids, Images(pixels), np.full(COUNT, labels))


def opened(some: Samples | None = None, how: Preprocessing = HOW, **settings: Any) -> Batches:
    return open_batches(some or samples(), how, **{"batch_size": 4, "cache": "memory", "workers": 0, **settings})


def backbone() -> nn.Module:
    network = build_classifier(SPEC, seed=4).classifier.backbone
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return network


def extractor(
    network: nn.Module | None = None, how: Preprocessing = HOW, spec: ModelSpec = SPEC, precision: Precision = "fp32"
) -> Extractor:
    return Extractor.of(network or backbone(), spec, how, device=torch.device("cpu"), precision=precision)


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


def test_features_are_what_the_backbone_says() -> None:
    network = backbone()
    some = samples()
    with torch.inference_mode():
        images = torch.stack([to_tensor(some.images.read(index), HOW) for index in range(COUNT)])
        wanted = network.eval()(normalise(images, HOW))
    network.train()
    # Shuffled, and without its lone last image: every case still comes once.
    batches = opened(shuffle=True, seed=5, drop_lone=True)
    assert batches.images == 12
    found = extractor(network).features(batches)
    torch.testing.assert_close(found.rows, wanted, rtol=1e-5, atol=1e-6)
    assert found.rows.dtype == torch.float32
    assert not found.cached
    assert not found.notes
    assert network.training


def test_a_view_is_what_training_sees_of_its_epoch() -> None:
    network, some, augment = backbone(), samples(), Augmentation("medium", "both", 7)
    images = torch.stack([to_tensor(some.images.read(index), HOW) for index in range(COUNT)])
    with torch.inference_mode():
        wanted = network.eval()(normalise(augment(images, torch.arange(COUNT), 3), HOW))
    found = extractor(network).features(opened(shuffle=True), View(3, augment)).rows
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, extractor(network).features(opened()).rows, atol=1e-3)


def test_the_second_time_nothing_is_computed(cache: FeatureCache) -> None:
    passes: list[int] = []
    first = extractor().features(opened(), cache=cache, on_batch=passes.append)
    assert sum(passes) == COUNT
    assert not first.cached
    # Another batch size, another order, other labels, a network built anew: the same features.
    again = extractor().features(
        opened(samples(labels=1), shuffle=True, batch_size=3), cache=cache, on_batch=passes.append
    )
    assert sum(passes) == COUNT
    assert again.cached
    assert torch.equal(first.rows, again.rows)


def with_weight(network: nn.Module) -> nn.Module:
    next(network.parameters()).data.view(-1)[0] += 1e-6
    return network


def with_buffer(network: nn.Module) -> nn.Module:
    next(buffer for buffer in network.buffers() if buffer.is_floating_point()).view(-1)[0] += 1e-6
    return network


def with_hidden_buffer(network: nn.Module) -> nn.Module:
    network.register_buffer("table", torch.ones(2), persistent=False)
    return network


LIGHT = Augmentation("light", "none", 0)
CHANGES: dict[str, Callable[[], str | None]] = {
    "a weight": lambda: extractor(with_weight(backbone())).key(samples()),
    "a buffer": lambda: extractor(with_buffer(backbone())).key(samples()),
    "a buffer that no file keeps": lambda: extractor(with_hidden_buffer(backbone())).key(samples()),
    "the mean": lambda: extractor(how=replace(HOW, mean=(0.4, 0.5, 0.7))).key(samples()),
    "the fit": lambda: extractor(how=replace(HOW, fit="pad")).key(samples()),
    "the window": lambda: extractor(how=replace(HOW, window="full")).key(samples()),
    "the precision": lambda: extractor(precision="bf16").key(samples()),
    "the options": lambda: extractor(spec=replace(SPEC, options={"pool": "mean"})).key(samples()),
    "the architecture": lambda: extractor(spec=replace(SPEC, architecture="resnet18")).key(samples()),
    "the pictures": lambda: extractor().key(samples(seed=1)),
    "their number": lambda: extractor().key(take(samples(), range(COUNT - 1))),
    "their order": lambda: extractor().key(take(samples(), range(COUNT)[::-1])),
    "the view": lambda: extractor().key(samples(), View(1, LIGHT)),
    "its number": lambda: extractor().key(samples(), View(2, LIGHT)),
    "its strength": lambda: extractor().key(samples(), View(1, replace(LIGHT, level="medium"))),
    "its flips": lambda: extractor().key(samples(), View(1, replace(LIGHT, flip="both"))),
    "its seed": lambda: extractor().key(samples(), View(1, replace(LIGHT, seed=1))),
}


def test_whatever_decides_about_features_changes_their_key() -> None:
    keys = {name: change() for name, change in CHANGES.items()}
    keys["nothing"] = extractor().key(samples())
    assert None not in keys.values()
    assert len(set(keys.values())) == len(keys)
    assert keys["nothing"] == extractor().key(samples(labels=1))


def test_a_change_of_weights_is_computed_again(cache: FeatureCache) -> None:
    network = backbone()
    before = extractor(network).features(opened(), cache=cache)
    with torch.no_grad():
        next(network.parameters()).add_(0.05)
    after = extractor(network).features(opened(), cache=cache)
    assert not after.cached
    assert not torch.equal(before.rows, after.rows)


def test_the_digest_of_weights_does_not_depend_on_how_they_lie_in_memory() -> None:
    network = backbone()
    before = weights_digest(network)
    assert weights_digest(network.to(memory_format=torch.channels_last)) == before  # type: ignore[call-overload]
    assert weights_digest(network.to(torch.bfloat16)) != before


def test_an_augmentation_that_does_not_say_what_it_does_is_never_cached(cache: FeatureCache) -> None:
    found = extractor().features(opened(), View(1, lambda images, index, epoch: images), cache=cache)
    assert not found.cached
    assert not cache.directory.exists()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, empty])
def test_a_damaged_file_is_computed_again_and_said(cache: FeatureCache, damage: Callable[[Path], None]) -> None:
    first = extractor().features(opened(), cache=cache).rows.clone()
    (path,) = cache.directory.iterdir()
    damage(path)
    again = extractor().features(opened(), cache=cache)
    assert not again.cached
    assert torch.equal(first, again.rows)
    assert "damaged" in again.notes[0]
    assert str(path) in again.notes[0]
    assert extractor().features(opened(), cache=cache).cached


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found = extractor().features(opened(), cache=FeatureCache(tmp_path / "file" / "features"))
    assert len(found.rows) == COUNT
    assert "not kept" in found.notes[0]


def test_features_that_are_no_numbers_are_refused() -> None:
    network = backbone()
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(RunFailure, match="features of `case0` are no numbers") as problem:
        extractor(network).features(opened())
    assert problem.value.code == "not-finite"


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    rows = torch.zeros(10, 100)
    cache = FeatureCache(tmp_path, limit=3 * 4500)
    for number in range(3):
        cache.write(f"old{number}", rows, "")
        age = time.time() - 7200 - 100 * number
        os.utime(cache.path(f"old{number}"), (age, age))
    assert cache.read("old2", 10) is not None  # used now
    cache.write("new", rows, "")
    assert {path.stem for path in tmp_path.iterdir()} == {"old0", "old2", "new"}
    # Nothing that was used within the hour goes, whatever the limit.
    FeatureCache(tmp_path, limit=0).make_room()
    assert {path.stem for path in tmp_path.iterdir()} == {"old2", "new"}


def test_it_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert feature_directory() == tmp_path / "medcli" / "features"
    extractor().features(opened(), cache=FeatureCache())
    assert len(list(feature_directory().glob("*.safetensors"))) == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_number_format_is_that_of_the_pass(precision: Precision) -> None:
    rows = extractor(precision=precision).features(opened(), PLAIN).rows
    assert torch.equal(rows, rows.to(torch.bfloat16).float()) is (precision == "bf16")
