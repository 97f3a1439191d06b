"""The cache file: only ever whole, keyed by what decides about pixels, safe with several writers."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medcli.data.batches import open_batches
from medcli.data.cache import (
    available_memory,
    cache_directory,
    cache_key,
    fill_disk,
    fill_memory,
    open_disk,
)
from medcli.data.dataset import Picture, Preprocessing, Samples
from medcli.data.decode import UnreadableImage
from medcli.data.storage import Layout, probe_layout
from medcli.errors import RunFailure

PREPROCESSING = Preprocessing(8, 1, (0.5,), (0.25,))


@dataclass
class Images:
    pixels: list[np.ndarray]  # type: ignore[type-arg]
    broken: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> Picture:
        if index in self.broken:
            raise UnreadableImage(str(index), "is no image")
        return Picture(self.pixels[index], 0, 255)

    def describe(self, index: int) -> str:
        return str(index)

    def fingerprint(self, index: int) -> bytes:
        return hashlib.sha256(self.pixels[index].tobytes()).digest()


def images(count: int = 10, size: int = 8) -> Images:
    rng = np.random.default_rng(3)
    return Images([rng.integers(0, 256, (size, size), dtype=np.uint8) for _ in range(count)])


def rows(count: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.arange(count, dtype=np.int64)


def fill(source: Images, key: str = "key") -> None:
    fill_disk(source, PREPROCESSING, probe_layout(source, PREPROCESSING), key=key)


def test_a_cache_is_found_again_and_holds_the_same() -> None:
    source = images()
    assert open_disk("key") is None
    fill(source)
    found = open_disk("key")
    assert found is not None
    storage, kept, failures = found
    assert storage.layout == Layout(1, 8, True)
    assert kept.tolist() == list(range(10))
    assert not failures
    taken = storage.take(np.array([7, 0, 7]))
    assert torch.equal(taken, torch.from_numpy(np.stack([source.pixels[i] for i in (7, 0, 7)]))[:, None])


@pytest.mark.parametrize(
    "change",
    [{"image_size": 9}, {"channels": 3}, {"interpolation": "bicubic"}, {"fit": "pad"}, {"window": "full"}],
    ids=lambda change: next(iter(change)),
)
def test_the_key_follows_what_decides_about_pixels(change: dict[str, object]) -> None:
    source = images()
    assert cache_key(source, PREPROCESSING) != cache_key(source, replace(PREPROCESSING, **change))  # type: ignore[arg-type]


def test_the_key_follows_the_images_and_not_the_normalisation() -> None:
    source = images()
    key = cache_key(source, PREPROCESSING)
    assert key == cache_key(images(), replace(PREPROCESSING, mean=(0.1,), std=(0.2,)))
    source.pixels[4] = source.pixels[4] ^ 1
    assert key != cache_key(source, PREPROCESSING)
    assert key != cache_key(Images(images().pixels[::-1]), PREPROCESSING)


def test_a_set_with_unreadable_images_leaves_no_cache_unless_they_are_skipped() -> None:
    source = images()
    source.broken = frozenset({2})
    fill(source)
    assert list(cache_directory().iterdir()) == []
    fill_disk(source, PREPROCESSING, Layout(1, 8, True), key="key", keep_failures=True)
    found = open_disk("key")
    assert found is not None
    assert found[1].tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert [failure.path for failure in found[2]] == ["2"]


def test_an_interrupted_fill_leaves_nothing() -> None:
    class Interrupting(Images):
        def read(self, index: int) -> Picture:
            if index == 6:
                raise KeyboardInterrupt
            return super().read(index)

    with pytest.raises(KeyboardInterrupt):
        fill_disk(Interrupting(images().pixels), PREPROCESSING, Layout(1, 8, True), key="key")
    assert list(cache_directory().iterdir()) == []


@pytest.mark.parametrize("damage", ["shorter", "longer", "no description", "broken description", "other format"])
def test_a_damaged_cache_counts_as_absent(damage: str) -> None:
    fill(images())
    data, description = cache_directory() / "key.images", cache_directory() / "key.json"
    if damage == "shorter":
        data.write_bytes(data.read_bytes()[:-1])
    elif damage == "longer":
        data.write_bytes(data.read_bytes() + b"x")
    elif damage == "no description":
        description.unlink()
    elif damage == "broken description":
        description.write_text("{")
    else:
        description.write_text(json.dumps({**json.loads(description.read_text()), "format": 0}))
    assert open_disk("key") is None
    fill(images())
    assert open_disk("key") is not None


def test_several_writers_do_not_disturb_each_other_or_a_reader() -> None:
    source = images(60)
    fill(source)
    reader = open_disk("key")
    assert reader is not None
    threads = [threading.Thread(target=fill, args=(source,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    expected = torch.from_numpy(np.stack(source.pixels))[:, None]
    while any(thread.is_alive() for thread in threads):
        assert torch.equal(reader[0].take(rows(60)), expected)
        found = open_disk("key")
        assert found is not None
        assert torch.equal(found[0].take(rows(60)), expected)
    assert sorted(path.name for path in cache_directory().iterdir()) == ["key.images", "key.json"]


def test_layouts_widen_without_loss_in_memory_and_on_disk() -> None:
    rng = np.random.default_rng(0)
    pixels = [
        *images(5).pixels,
        rng.integers(0, 256, (8, 8, 3), dtype=np.uint8),
        rng.integers(0, 256, (20, 8), dtype=np.uint8),
    ]
    source, colour = Images(pixels), replace(PREPROCESSING, channels=3)
    narrow = Layout(1, 8, True)
    memory, _, _ = fill_memory(source, colour, narrow)
    disk, _, _ = fill_disk(source, colour, narrow, key="wide")
    assert disk is not None
    assert memory.layout == disk.layout == Layout(3, 8, False)
    assert torch.equal(memory.take(rows(7)), disk.take(rows(7)))
    assert torch.equal(
        memory.take(rows(5)), torch.from_numpy(np.stack(pixels[:5]))[:, None].float().div(255).expand(-1, 3, -1, -1)
    )


def test_only_old_remains_are_swept() -> None:
    cache_directory().mkdir(parents=True)
    old, young = cache_directory() / "a.part", cache_directory() / "b.part"
    old.write_bytes(b"")
    young.write_bytes(b"")
    os.utime(old, (0, 0))
    fill(images())
    assert not old.exists()
    assert young.exists()


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_directory() == tmp_path / "cache" / "medcli" / "images"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, by the specification
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "medcli" / "images"


def test_a_cache_that_cannot_be_written_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    source = images()
    cases = Samples(np.array([str(i) for i in range(10)]), source, np.zeros(10, np.int64))
    with pytest.raises(RunFailure) as caught:
        open_batches(cases, PREPROCESSING, batch_size=2, cache="disk", workers=0)
    assert caught.value.code == "cache-unwritable"
    assert "--cache off" in str(caught.value)


def test_free_memory_is_a_sensible_number() -> None:
    assert 2**20 < available_memory() < 2**50
