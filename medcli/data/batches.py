"""Images as batches: the same images in the same order whether they lie in memory, on disk or are decoded on the fly.

The order of an epoch follows from seed and epoch alone, so a run may stop after any step and continue in another
process, with other storage or another number of workers, and see what it would have seen.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medcli.data.cache import (
    TooLarge,
    available_memory,
    cache_directory,
    cache_key,
    fill_disk,
    fill_memory,
    open_disk,
)
from medcli.data.dataset import ImageSource, Preprocessing, Samples
from medcli.data.order import earlier, epoch_order
from medcli.data.reading import Progress, verify
from medcli.data.shares import Share
from medcli.data.storage import DiskStorage, Failure, Layout, Storage, probe_layout
from medcli.data.stream import Stream, UnreadableImages
from medcli.data.subset import SelectedImages, take
from medcli.errors import RunFailure

__all__ = ["Batch", "Batches", "Cache", "epoch_order", "open_batches"]

Cache = Literal["auto", "memory", "disk", "off"]
Rows = npt.NDArray[np.int64]

SHARE_OF_MEMORY = 0.25
SHARE_OF_DISK = 0.5
MOST_WORKERS = 8


@dataclass(frozen=True)
class Batch:
    """Some cases of one split.

    Args:
        images: float32 [B, C, S, S] in [0, 1] units, not normalised. Grey images for three channels are one plane seen
            three times (a view: do not write into it).
        labels: [B, ...] as in `Target`.
        index: int64 [B], positions in `Batches.samples`, on the CPU.
        own: where several processes share the batch, positions in it of the images that this one holds (labels and
            index are then still those of the whole batch); None where it holds them all.
        again: how often each case came before in this epoch, int64 [B], where cases are drawn with repetition.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    own: Tensor | None = None
    again: Tensor | None = None

    @property
    def held(self) -> Tensor:
        """Positions in `Batches.samples` of the images in this process."""
        return self.index if self.own is None else self.index[self.own]

    @property
    def keys(self) -> Tensor:
        """What random changes follow from, int64 [B]: the case, and how often it came before, lest it come alike."""
        return self.index if self.again is None else self.index + (self.again << 32)

    @property
    def held_keys(self) -> Tensor:
        """The keys of the images in this process."""
        return self.keys if self.own is None else self.keys[self.own]


class Batches:
    """The batches of one split; iterate `epoch(e)` as often as wanted. Made by `open_batches`.

    Attributes:
        storage: `memory`, `disk` or `stream`.
        note: a sentence that says where the images are and how large they are.
        memory_bytes: what the images take of this process's memory.
        samples: the cases in these batches: those given to `open_batches` without the unreadable ones.
        skipped: (file, reason) of the images left out.
    """

    def __init__(
        self,
        source: Storage | Stream,
        samples: Samples,
        *,
        channels: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        device: torch.device,
        storage: str,
        note: str,
        memory_bytes: int,
        skipped: tuple[tuple[str, str], ...],
    ) -> None:
        self.storage, self.note, self.memory_bytes, self.samples, self.skipped = (
            storage,
            note,
            memory_bytes,
            samples,
            skipped,
        )
        self._source, self._count, self._share = source, len(samples), Share()
        self._chances: npt.NDArray[np.float64] | None = None
        self._labels = torch.from_numpy(np.ascontiguousarray(samples.labels))
        self._channels, self._device = channels, device
        self._batch_size, self._seed, self._shuffle, self._drop_last = batch_size, seed, shuffle, drop_last
        # A tensor, because dividing by a Python number on a GPU multiplies by its reciprocal: another last bit.
        self._white = torch.full((1,), 255.0, device=device)

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(self._count, self._batch_size)
        return full if self._drop_last or not rest else full + 1

    @property
    def images(self) -> int:
        """Images per epoch."""
        return min(self._count, len(self) * self._batch_size)

    def epoch(self, epoch: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """The batches `start`, `start` + 1, ... of this epoch, up to the last one or to that before `stop`.

        Raises:
            RunFailure: an image that could be read before can no longer be read.
        """
        if self._chances is None:
            yield from self._epoch(epoch, start, stop)
            return
        again = torch.from_numpy(earlier(np.concatenate(self.rows(epoch))))
        for place, batch in enumerate(self._epoch(epoch, start, stop), start):
            first = place * self._batch_size
            yield replace(batch, again=again[first : first + len(batch.index)])

    def _epoch(self, epoch: int, start: int, stop: int | None) -> Iterator[Batch]:
        plan = self.rows(epoch, start)
        if stop is not None:
            plan = plan[: stop - start]
        if self._share.of == 1:
            for chosen, planes in zip(plan, self._planes(plan), strict=True):
                yield self._batch(chosen, planes)
            return
        own = [self._share.own(len(chosen), self._batch_size) for chosen in plan]
        mine = [chosen[places] for chosen, places in zip(plan, own, strict=True)]
        for chosen, places, planes in zip(plan, own, self._planes(mine), strict=True):
            yield replace(self._batch(chosen, planes), own=torch.from_numpy(places))

    def rows(self, epoch: int, start: int = 0) -> list[Rows]:
        """Which cases make up the batches `start`, `start` + 1, ... of this epoch; nothing is read."""
        rows = epoch_order(self._count, self._seed, epoch, self._chances) if self._shuffle else np.arange(self._count)
        return [rows[at * self._batch_size : (at + 1) * self._batch_size] for at in range(start, len(self))]

    def shared(self, share: Share) -> Batches:
        """The same batches, of whose images this process reads its share alone."""
        part = copy.copy(self)
        part._share = share
        return part

    def own(self, rows: Rows) -> Tensor | None:
        """Positions in a batch of these cases that this process holds, or None where it holds them all."""
        return None if self._share.of == 1 else torch.from_numpy(self._share.own(len(rows), self._batch_size))

    def drawn(self, chances: npt.NDArray[np.float64]) -> Batches:
        """The same images, as many per epoch, drawn with repetition by these chances [n], which add up to 1."""
        uneven = copy.copy(self)
        uneven._chances = chances
        return uneven

    def in_order(self) -> Batches:
        """The same images from the same place, every one of them once and in this process, as the samples stand."""
        ordered = self.shared(Share())
        ordered._shuffle = ordered._drop_last = False
        ordered._chances = None
        return ordered

    def _planes(self, plan: Sequence[Rows]) -> Iterator[Tensor]:
        if isinstance(self._source, Stream):
            yield from self._source.planes(plan)
        elif isinstance(self._source, DiskStorage):
            yield from _ahead(self._source, plan)
        else:
            for rows in plan:
                yield self._source.take(rows)

    def _batch(self, rows: Rows, planes: Tensor) -> Batch:
        images = planes.to(self._device, non_blocking=True)
        if images.dtype == torch.uint8:
            images = images.to(torch.float32).div_(self._white)
        chosen = torch.from_numpy(rows)
        return Batch(
            images.expand(-1, self._channels, -1, -1),
            self._labels.index_select(0, chosen).to(self._device, non_blocking=True),
            chosen,
        )


def open_batches(
    samples: Samples,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    seed: int = 0,
    shuffle: bool = False,
    workers: int | None = None,
    cache: Cache = "auto",
    cache_limit: float | None = None,
    drop_last: bool = False,
    drop_lone: bool = False,
    skip_unreadable: bool = False,
    device: torch.device | str = "cpu",
    check: bool = True,
    progress: Progress | None = None,
) -> Batches:
    """Read every image once (or find it in the cache) and offer the set as batches.

    Args:
        samples: the cases.
        preprocessing: decides the pixels; its mean and std are not applied.
        batch_size: images per batch; the last batch may be smaller.
        seed: with the epoch, all that decides about the order.
        shuffle: whether epochs differ in order; otherwise every epoch has the order of the samples.
        workers: decoding threads while a cache is filled, decoding processes while streaming (0: none). Default: one
            per core, at most eight.
        cache: `memory`, `disk`, `off` (decode again every epoch) or `auto`: memory if it fits, else disk if that fits,
            else off.
        cache_limit: most GiB of memory for these images; default a quarter of what is free. `memory` asked for by name
            ignores the default, but not a limit that was given.
        drop_last: leave out an incomplete last batch.
        drop_lone: leave out a last batch of one image, where earlier batches hold more.
        skip_unreadable: leave out images that cannot be read, instead of one error that names them all.
        device: where images and labels of a batch are; bytes are moved as bytes.
        check: without a cache, still read every image once now, so that the first epoch cannot meet an unreadable one.
        progress: called with (images done, images in all) while they are read.

    Raises:
        RunFailure: unreadable images (code `unreadable-images`), no readable image at all, a cache directory that
            cannot be written (`cache-unwritable`), or a `memory` cache above its limit (`cache-limit`).
    """
    threads = default_workers() if workers is None else max(1, workers)
    processes = default_workers() if workers is None else workers
    opened = _open_source(
        samples.images, preprocessing, cache, cache_limit, skip_unreadable, threads, processes, check, progress
    )
    if opened.failures and not skip_unreadable:
        raise UnreadableImages(opened.failures, len(samples))
    if not len(opened.kept):
        raise UnreadableImages(opened.failures, len(samples))
    count = len(opened.kept)
    return Batches(
        opened.source,
        samples if len(opened.kept) == len(samples) else take(samples, opened.kept),
        channels=preprocessing.channels,
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        drop_last=drop_last or (drop_lone and count > batch_size > 1 and count % batch_size == 1),
        device=torch.device(device),
        storage=opened.storage,
        note=opened.note,
        memory_bytes=opened.memory_bytes,
        skipped=tuple((failure.path, failure.reason) for failure in opened.failures),
    )


def default_workers() -> int:
    """Cores this process may use, at most eight."""
    with suppress(AttributeError):
        return min(MOST_WORKERS, len(os.sched_getaffinity(0)))
    return min(MOST_WORKERS, os.cpu_count() or 1)


@dataclass(frozen=True)
class _Opened:
    source: Storage | Stream
    kept: Rows
    failures: tuple[Failure, ...]
    storage: str
    note: str
    memory_bytes: int = 0


def _open_source(
    images: ImageSource,
    preprocessing: Preprocessing,
    cache: Cache,
    cache_limit: float | None,
    skip: bool,
    threads: int,
    processes: int,
    check: bool,
    progress: Progress | None,
) -> _Opened:
    if not len(images):
        raise RunFailure("there is no image to read", code="no-images")
    limit = int(available_memory() * SHARE_OF_MEMORY if cache_limit is None else cache_limit * 2**30)
    layout = probe_layout(images, preprocessing)
    size = layout.image_bytes * len(images)
    if cache == "memory" and cache_limit is None:
        limit = available_memory()
    if cache == "memory" and size > limit:
        raise _above_limit(size, limit)
    if cache in ("auto", "memory") and size <= limit:
        try:
            memory, kept, failures = fill_memory(
                images, preprocessing, layout, limit=limit, threads=threads, progress=progress
            )
            held = memory.layout.image_bytes * len(kept)
            return _Opened(memory, kept, failures, "memory", _note("in memory", memory.layout, len(kept)), held)
        except TooLarge:
            if cache == "memory":
                raise _above_limit(4 * size, limit) from None
    if cache == "disk" or (cache == "auto" and size <= _free_disk() * SHARE_OF_DISK):
        return _open_on_disk(images, preprocessing, layout, skip, threads, progress)
    kept, failures = verify(images, threads=threads, progress=progress) if check else (np.arange(len(images)), ())
    stream = Stream(SelectedImages(images, kept) if failures else images, preprocessing, processes)
    how = f"decoded again every epoch by {processes} worker processes" if processes else "decoded again every epoch"
    return _Opened(stream, kept, failures, "stream", _note(how, layout, len(kept)))


def _open_on_disk(
    images: ImageSource,
    preprocessing: Preprocessing,
    layout: Layout,
    skip: bool,
    threads: int,
    progress: Progress | None,
) -> _Opened:
    key = cache_key(images, preprocessing)
    if (found := open_disk(key)) is not None:
        storage, kept, failures = found
    else:
        try:
            filled, kept, failures = fill_disk(
                images, preprocessing, layout, key=key, keep_failures=skip, threads=threads, progress=progress
            )
        except OSError as problem:
            raise RunFailure(
                f"decoded images cannot be kept in `{cache_directory()}`: {problem.strerror or problem}",
                hint="decode them again every epoch with `--cache off`, or set `XDG_CACHE_HOME` to a roomier disk",
                code="cache-unwritable",
            ) from problem
        if filled is None:
            return _Opened(Stream(images, preprocessing, 0), kept, failures, "stream", "")
        storage = filled
    return _Opened(storage, kept, failures, "disk", _note(f"on disk in {cache_directory()}", storage.layout, len(kept)))


def _note(where: str, layout: Layout, count: int) -> str:
    mebibytes = layout.image_bytes * count / 2**20
    number = "8-bit" if layout.eight_bit else "float32"
    shape = f"{layout.channels} x {layout.size} x {layout.size}"
    return f"{count:,} images {where} ({number}, {shape}, {mebibytes:,.1f} MiB)"


def _free_disk() -> int:
    directory = cache_directory()
    while not directory.exists():
        directory = directory.parent
    with suppress(OSError):
        return shutil.disk_usage(directory).free if os.access(directory, os.W_OK) else 0
    return 0


def _above_limit(size: int, limit: int) -> RunFailure:
    return RunFailure(
        f"decoded images need {size / 2**30:.2f} GiB and may take {limit / 2**30:.2f} GiB of memory",
        hint="use `--cache disk` or `--cache off`, raise `--cache-limit`, or lower `--image-size`",
        code="cache-limit",
    )


def _ahead(storage: DiskStorage, plan: Sequence[Rows]) -> Iterator[Tensor]:
    """Read one batch while the previous one is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        upcoming = [pool.submit(storage.take, plan[0])] if plan else []
        for at in range(len(plan)):
            planes = upcoming.pop().result()
            if at + 1 < len(plan):
                upcoming.append(pool.submit(storage.take, plan[at + 1]))
            yield planes
