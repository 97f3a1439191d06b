"""Decoded images kept between epochs: filled in memory, or in a file that appears only when it is whole."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import torch

from medcli.caches import cache_root
from medcli.data.dataset import ImageSource, Preprocessing
from medcli.data.reading import Progress, in_order
from medcli.data.storage import DiskStorage, Failure, Layout, MemoryStorage, Planes, read_planes

__all__ = [
    "TooLarge",
    "available_memory",
    "cache_directory",
    "cache_key",
    "fill_disk",
    "fill_memory",
    "open_disk",
]

FORMAT = 1
STALE_SECONDS = 24 * 3600


class TooLarge(Exception):
    """The images turned out to need more room than allowed; the caller chooses another storage."""


def fill_memory(
    images: ImageSource,
    preprocessing: Preprocessing,
    layout: Layout,
    *,
    limit: int | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> tuple[MemoryStorage, npt.NDArray[np.int64], tuple[Failure, ...]]:
    """Decode everything into one tensor.

    Returns:
        the storage (rows = readable images in order), the positions of those images [rows], and every failure.

    Raises:
        TooLarge: the layout had to be widened beyond `limit` bytes.
    """
    sink = _MemorySink(len(images), layout, limit)
    kept, failures = _fill(images, preprocessing, sink, threads, progress)
    return MemoryStorage(sink.layout, sink.images[: len(kept)]), kept, failures


def fill_disk(
    images: ImageSource,
    preprocessing: Preprocessing,
    layout: Layout,
    *,
    key: str,
    keep_failures: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> tuple[DiskStorage | None, npt.NDArray[np.int64], tuple[Failure, ...]]:
    """Decode everything into a cache file, which appears under its name only when it is complete.

    Args:
        keep_failures: whether a set with unreadable images is worth keeping; without it such a set leaves no file and
            the storage returned is None.

    Raises:
        OSError: the cache directory cannot be written, or the disk is full.
    """
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    _remove_stale(directory)
    sink = _DiskSink(directory, layout)
    try:
        kept, failures = _fill(images, preprocessing, sink, threads, progress)
        if failures and not keep_failures:
            return None, kept, failures
        # The description is what makes a file count, so it goes last; two processes write the same bytes.
        path = directory / f"{key}.images"
        sink.commit(path)
        entry = {
            "format": FORMAT,
            "rows": len(kept),
            "layout": asdict(sink.layout),
            "total": len(images),
            "failures": [asdict(failure) for failure in failures],
            "kept": kept.tolist() if failures else None,
        }
        _write_atomically(directory / f"{key}.json", json.dumps(entry).encode())
        return DiskStorage(sink.layout, path), kept, failures
    finally:
        sink.discard()


def open_disk(key: str) -> tuple[DiskStorage, npt.NDArray[np.int64], tuple[Failure, ...]] | None:
    """A complete cache file under this key, or None; anything that does not add up is treated as absent."""
    path = cache_directory() / f"{key}.images"
    try:
        entry = json.loads(path.with_suffix(".json").read_bytes())
        layout = Layout(**entry["layout"])
        kept = np.arange(entry["total"]) if entry["kept"] is None else np.asarray(entry["kept"])
        failures = tuple(Failure(**failure) for failure in entry["failures"])
        complete = entry["format"] == FORMAT and len(kept) == entry["rows"]
        if not complete or path.stat().st_size != entry["rows"] * layout.image_bytes:
            return None
        with suppress(OSError):
            os.utime(path)
        return DiskStorage(layout, path), kept.astype(np.int64), failures
    except (OSError, ValueError, KeyError, TypeError):
        return None


def cache_key(images: ImageSource, preprocessing: Preprocessing) -> str:
    """Hash of every image's fingerprint and of all that decides about pixels (not of mean and standard deviation)."""
    wanted = (preprocessing.image_size, preprocessing.channels, preprocessing.interpolation, preprocessing.fit)
    digest = hashlib.sha256(repr((FORMAT, torch.__version__, *wanted, preprocessing.window, len(images))).encode())
    for index in range(len(images)):
        fingerprint = images.fingerprint(index)
        digest.update(len(fingerprint).to_bytes(4, "little") + fingerprint)
    return digest.hexdigest()[:40]


def cache_directory() -> Path:
    """Where decoded images lie, below the root of all caches."""
    return cache_root() / "images"


def available_memory() -> int:
    """Bytes that can still be used, by the kernel's estimate and by the control group's limit, whichever is less."""
    free = 2 * 2**30
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        free = min(free, max(0, limit - int((group / "memory.current").read_text())))
    return free


class _Sink(Protocol):
    layout: Layout

    def append(self, planes: Planes) -> None: ...

    def widen(self, layout: Layout) -> None: ...


class _MemorySink:
    def __init__(self, rows: int, layout: Layout, limit: int | None) -> None:
        self.layout = layout
        self.images = self._allocate(rows, layout)
        self._used = 0
        self._limit = limit

    @staticmethod
    def _allocate(rows: int, layout: Layout) -> Planes:
        return np.empty((rows, layout.channels, layout.size, layout.size), dtype=layout.dtype)

    def append(self, planes: Planes) -> None:
        self.images[self._used] = planes
        self._used += 1

    def widen(self, layout: Layout) -> None:
        if self._limit is not None and layout.image_bytes * len(self.images) > self._limit:
            raise TooLarge
        wider = self._allocate(len(self.images), layout)
        for row in range(self._used):
            wider[row] = layout.convert(self.images[row])
        self.layout, self.images = layout, wider


class _DiskSink:
    def __init__(self, directory: Path, layout: Layout) -> None:
        self.layout = layout
        self._directory = directory
        self._file, self._path = self._open()

    def _open(self) -> tuple[BinaryIO, Path]:
        handle, name = tempfile.mkstemp(suffix=".part", dir=self._directory)
        return os.fdopen(handle, "w+b"), Path(name)

    def append(self, planes: Planes) -> None:
        self._file.write(np.ascontiguousarray(planes).data)

    def widen(self, layout: Layout) -> None:
        narrow, old, old_path = self.layout, self._file, self._path
        self._file, self._path = self._open()
        self.layout = layout
        old.seek(0)
        while row := old.read(narrow.image_bytes):
            planes = np.frombuffer(row, dtype=narrow.dtype).reshape(narrow.channels, narrow.size, narrow.size)
            self.append(layout.convert(planes))
        old.close()
        old_path.unlink()

    def commit(self, path: Path) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._path.replace(path)

    def discard(self) -> None:
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


def _fill(
    images: ImageSource, preprocessing: Preprocessing, sink: _Sink, threads: int, progress: Progress | None
) -> tuple[npt.NDArray[np.int64], tuple[Failure, ...]]:
    kept: list[int] = []
    failures: list[Failure] = []
    results = in_order(lambda index: read_planes(images, index, preprocessing), len(images), threads, progress)
    for index, planes in enumerate(results):
        if isinstance(planes, Failure):
            failures.append(planes)
            continue
        if (wider := sink.layout.widened(planes)) != sink.layout:
            sink.widen(wider)
        sink.append(sink.layout.convert(planes))
        kept.append(index)
    return np.asarray(kept, dtype=np.int64), tuple(failures)


def _write_atomically(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _remove_stale(directory: Path) -> None:
    """Delete what a killed process left half-written long ago; a younger file may belong to a running one."""
    oldest = time.time() - STALE_SECONDS
    parts: Sequence[Path] = list(directory.glob("*.part"))
    for part in parts:
        with suppress(OSError):
            if part.stat().st_mtime < oldest:
                part.unlink()
