"""Batches: one order, one set of numbers, whatever the storage, the workers and the point at which a run goes on."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from medcli.data.batches import Batch, Batches, epoch_order, open_batches
from medcli.data.dataset import Picture, Preprocessing, Samples
from medcli.data.decode import UnreadableImage
from medcli.data.resize import to_tensor
from medcli.errors import RunFailure

PREPROCESSING = Preprocessing(16, 3, (0.5,), (0.25,))


@dataclass
class Images:
    """Pictures in memory; some cannot be read; counts its decodes."""

    pictures: list[Picture]
    broken: frozenset[int] = frozenset()
    reads: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, index: int) -> Picture:
        self.reads.append(index)
        if index in self.broken:
            raise UnreadableImage(self.describe(index), "is cut short")
        return self.pictures[index]

    def describe(self, index: int) -> str:
        return f"image-{index}.png"

    def fingerprint(self, index: int) -> bytes:
        return hashlib.sha256(self.pictures[index].pixels.tobytes()).digest()


def samples(kind: str = "mixed", count: int = 23, broken: frozenset[int] = frozenset()) -> Samples:
    rng = np.random.default_rng(1)
    pictures = []
    for index in range(count):
        shape: tuple[int, ...] = (16, 16)
        dtype: Any = np.uint8
        if kind == "mixed" and index % 3 == 1:
            shape = (20 + index, 11)
        if kind == "mixed" and index % 5 == 2:
            shape = (16, 16, 3)
        if kind == "mixed" and index % 7 == 3:
            dtype = np.uint16
        high = 255 if dtype is np.uint8 else 4095
        pictures.append(Picture(rng.integers(0, high + 1, shape).astype(dtype), 0, high))
    ids = np.array([f"case-{index}" for index in range(count)])
    return Samples(ids, Images(pictures, broken), np.arange(count) % 3, np.array([f"p{i // 2}" for i in range(count)]))


def opened(cases: Samples, **changes: Any) -> Batches:
    wanted: dict[str, Any] = {"batch_size": 4, "seed": 5, "shuffle": True, "workers": 0, "cache": "memory"}
    return open_batches(cases, PREPROCESSING, **{**wanted, **changes})


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.index, b.index)
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("kind", ["bytes", "mixed"])
def test_every_storage_gives_the_same_bits(kind: str) -> None:
    cases = samples(kind)
    memory, disk, stream = (opened(cases, cache=cache) for cache in ("memory", "disk", "off"))
    assert [memory.storage, disk.storage, stream.storage] == ["memory", "disk", "stream"]
    again = opened(cases, cache="disk")
    for epoch in (0, 1):
        expected = list(memory.epoch(epoch))
        for other in (disk, stream, again):
            assert same(expected, list(other.epoch(epoch)))


def test_images_are_those_of_the_definition() -> None:
    cases = samples()
    for batch in opened(cases).epoch(0):
        for image, index in zip(batch.images, batch.index.tolist(), strict=True):
            assert torch.equal(image, to_tensor(cases.images.read(index), PREPROCESSING))
        assert batch.labels.tolist() == [int(cases.labels[index]) for index in batch.index.tolist()]


def test_bytes_stay_bytes_and_grey_stays_one_plane() -> None:
    batches = opened(samples("bytes"))
    assert "8-bit, 1 x 16 x 16" in batches.note
    assert batches.memory_bytes == 23 * 256
    batch = next(batches.epoch(0))
    assert batch.images.shape == (4, 3, 16, 16)
    assert batch.images.dtype == torch.float32
    assert batch.images.stride(1) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_nothing(workers: int) -> None:
    cases = samples()
    stream = opened(cases, cache="off", workers=workers, check=False)
    expected = opened(cases)
    for epoch in (0, 1):
        assert same(list(expected.epoch(epoch)), list(stream.epoch(epoch)))
    # An epoch left half-way must not leak into the next one.
    next(stream.epoch(2))
    assert same(list(expected.epoch(3)), list(stream.epoch(3)))


@pytest.mark.parametrize("cache", ["memory", "disk", "off"])
@pytest.mark.parametrize("start", [0, 1, 3, 5, 6])
def test_an_epoch_goes_on_where_it_stopped(cache: str, start: int) -> None:
    batches = opened(samples(), cache=cache)
    assert same(list(batches.epoch(2))[start:], list(batches.epoch(2, start=start)))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    torch.manual_seed(0)
    first = epoch_order(100, 3, 7)
    torch.manual_seed(1)
    assert (first == epoch_order(100, 3, 7)).all()
    assert sorted(first.tolist()) == list(range(100))
    assert (first != epoch_order(100, 3, 8)).any()
    assert (first != epoch_order(100, 4, 7)).any()


def test_the_global_random_state_is_left_alone() -> None:
    cases = samples()
    for cache in ("memory", "disk", "off"):
        before = torch.get_rng_state()
        for _ in opened(cases, cache=cache).epoch(0):
            pass
        assert torch.equal(before, torch.get_rng_state())


def test_without_shuffling_the_order_is_the_samples() -> None:
    batches = opened(samples(), shuffle=False)
    for epoch in (0, 4):
        assert torch.cat([batch.index for batch in batches.epoch(epoch)]).tolist() == list(range(23))


def test_lengths_and_the_last_batch() -> None:
    assert len(opened(samples(), batch_size=4)) == 6
    assert [len(batch.index) for batch in opened(samples(), batch_size=4).epoch(0)] == [4, 4, 4, 4, 4, 3]
    dropped = opened(samples(), batch_size=4, drop_last=True)
    assert len(dropped) == len(list(dropped.epoch(0))) == 5
    assert dropped.images == 20
    assert len(opened(samples(count=24), batch_size=4)) == 6


def test_in_order_gives_every_image_once_and_rows_say_which_come() -> None:
    some = samples(count=9)
    batches = open_batches(some, PREPROCESSING, batch_size=4, seed=3, shuffle=True, drop_lone=True)
    rows = batches.rows(2, start=1)
    assert [batch.index.tolist() for batch in batches.epoch(2, start=1)] == [row.tolist() for row in rows]
    assert batches.images == 8
    whole = batches.in_order()
    assert [batch.index.tolist() for batch in whole.epoch(5)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert batches.images == 8
    assert batches.rows(2)[0].tolist() != [0, 1, 2, 3]


@pytest.mark.parametrize("cache", ["memory", "disk", "off"])
@pytest.mark.parametrize("workers", [0, 3])
def test_every_unreadable_image_is_named_before_the_first_batch(cache: str, workers: int) -> None:
    with pytest.raises(RunFailure) as caught:
        opened(samples(broken=frozenset({0, 9, 22})), cache=cache, workers=workers)
    text = str(caught.value)
    assert caught.value.code == "unreadable-images"
    assert "3 images of 23" in text
    assert all(f"image-{index}.png: is cut short" in text for index in (0, 9, 22))
    assert "--skip-unreadable" in text


@pytest.mark.parametrize("cache", ["memory", "disk", "off"])
def test_unreadable_images_may_be_left_out(cache: str) -> None:
    cases = samples(broken=frozenset({0, 9}))
    for _ in range(2):  # the second time, a disk cache is found
        batches = opened(cases, cache=cache, skip_unreadable=True)
        assert batches.skipped == (("image-0.png", "is cut short"), ("image-9.png", "is cut short"))
        assert batches.samples.ids.tolist() == [f"case-{i}" for i in range(23) if i not in {0, 9}]
        assert batches.samples.patients is not None
        seen = []
        for batch in batches.epoch(0):
            for image, index in zip(batch.images, batch.index.tolist(), strict=True):
                assert torch.equal(image, to_tensor(batches.samples.images.read(index), PREPROCESSING))
            seen += batch.index.tolist()
        assert sorted(seen) == list(range(21))


def test_nothing_readable_is_an_error_even_when_skipping() -> None:
    with pytest.raises(RunFailure, match="3 images of 3 cannot be read"):
        opened(samples(count=3, broken=frozenset(range(3))), skip_unreadable=True)


def test_an_image_lost_later_is_named_when_streaming() -> None:
    cases = samples()
    batches = opened(cases, cache="off", workers=1)
    cases.images.broken = frozenset({4})  # type: ignore[attr-defined]
    with pytest.raises(RunFailure, match=r"image-4\.png: is cut short"):
        list(batches.epoch(0))


def test_automatic_storage_goes_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = samples()
    need = 23 * 3 * 16 * 16 * 4 / 2**30
    assert opened(cases, cache="auto", cache_limit=1.1 * need).storage == "memory"
    assert opened(cases, cache="auto", cache_limit=0.9 * need).storage == "disk"
    monkeypatch.setattr("medcli.data.batches._free_disk", lambda: 0)
    assert opened(cases, cache="auto", cache_limit=0.9 * need).storage == "stream"


def test_a_set_that_proves_larger_than_it_looked_leaves_memory() -> None:
    # The probe looks at eight images; the one that needs float32 is not among them.
    cases = samples("bytes", count=200)
    images = cases.images
    images.pictures[5] = Picture(np.zeros((40, 40), np.uint8), 0, 255)  # type: ignore[attr-defined]
    batches = opened(cases, cache="auto", cache_limit=2 * 200 * 256 / 2**30)
    assert batches.storage == "disk"
    assert same(list(opened(cases).epoch(0)), list(batches.epoch(0)))


def test_a_memory_cache_above_its_limit_is_refused() -> None:
    with pytest.raises(RunFailure) as caught:
        opened(samples(), cache="memory", cache_limit=1e-6)
    assert caught.value.code == "cache-limit"
    assert "--cache disk" in str(caught.value)


def test_a_cached_image_is_decoded_once() -> None:
    cases = samples(count=40)
    opened(cases, cache="disk")
    images: Any = cases.images
    images.reads.clear()
    batches = opened(cases, cache="disk")
    for epoch in range(3):
        list(batches.epoch(epoch))
    assert len(images.reads) <= 8  # the probe


def test_progress_counts_every_image() -> None:
    told: list[tuple[int, int]] = []
    opened(samples(), workers=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 23) for done in range(1, 24)]


def test_decoding_threads_leave_torchs_thread_count_alone() -> None:
    before = torch.get_num_threads()
    opened(samples(), workers=3)
    assert torch.get_num_threads() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_multilabel_and_multioutput_labels_keep_their_shape() -> None:
    cases = samples()
    labels: npt.NDArray[Any] = np.full((23, 2), np.nan, np.float32)
    batch = next(opened(Samples(cases.ids, cases.images, labels)).epoch(0))
    assert batch.labels.shape == (4, 2)
    assert batch.labels.dtype == torch.float32
    assert batch.labels.isnan().all()
