"""How images are kept: one layout for a whole set, rows in memory or in a file, and the reading of single images.

Bytes stay bytes where nothing but the conversion to [0, 1] units happens to them; everything else is float32, because
rounding a resized image would give training other numbers than prediction. Grey images stay one plane.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medcli.data.dataset import ImageSource, Preprocessing
from medcli.data.decode import UnreadableImage
from medcli.data.resize import to_planes, untouched_bytes

__all__ = ["DiskStorage", "Failure", "Layout", "MemoryStorage", "Planes", "Storage", "probe_layout", "read_planes"]

Planes = npt.NDArray[Any]


@dataclass(frozen=True)
class Failure:
    """An image that could not be read, as a value that crosses threads and processes."""

    path: str
    reason: str


@dataclass(frozen=True)
class Layout:
    """How every image of a set is stored.

    Args:
        channels: planes per image, 1 or 3.
        size: side in pixels.
        eight_bit: uint8 (units = value / 255) rather than float32 in units.
    """

    channels: int
    size: int
    eight_bit: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8 if self.eight_bit else np.float32)

    @property
    def image_bytes(self) -> int:
        return self.channels * self.size * self.size * self.dtype.itemsize

    def widened(self, planes: Planes) -> Layout:
        """The narrowest layout that holds these planes as well."""
        return Layout(max(self.channels, len(planes)), self.size, self.eight_bit and planes.dtype == np.uint8)

    def convert(self, planes: Planes) -> Planes:
        """Planes [..., c, S, S] of a narrower layout in this one, without loss."""
        if not self.eight_bit and planes.dtype == np.uint8:
            planes = planes.astype(np.float32) / np.float32(255)
        return planes if planes.shape[-3] == self.channels else np.repeat(planes, self.channels, axis=-3)


class Storage(Protocol):
    """Images by row, all in one layout."""

    layout: Layout

    def take(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Rows [B] -> uint8 or float32 [B, c, S, S]."""
        ...


class MemoryStorage:
    """All images in one tensor."""

    def __init__(self, layout: Layout, images: Planes) -> None:
        self.layout = layout
        self._images = torch.from_numpy(images)

    def take(self, rows: npt.NDArray[np.int64]) -> Tensor:
        return self._images.index_select(0, torch.from_numpy(rows))


class DiskStorage:
    """All images in one file, read row by row: a map would count every page it ever touched as the process's memory."""

    def __init__(self, layout: Layout, path: Path) -> None:
        self.layout = layout
        self._file = path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()

    def take(self, rows: npt.NDArray[np.int64]) -> Tensor:
        layout = self.layout
        images = np.empty((len(rows), layout.channels, layout.size, layout.size), dtype=layout.dtype)
        with self._lock:
            for image, row in zip(images, rows.tolist(), strict=True):
                self._file.seek(row * layout.image_bytes)
                view = memoryview(image.reshape(-1)).cast("B")
                while view:  # a read may be short on some file systems
                    count = self._file.readinto(view)
                    if not count:
                        raise OSError(f"{self._file.name} ended early")
                    view = view[count:]
        return torch.from_numpy(images)


def read_planes(images: ImageSource, index: int, preprocessing: Preprocessing) -> Planes | Failure:
    """Decode and resize one image: uint8 or float32 [c, S, S], or why it could not be read."""
    try:
        picture = images.read(index)
        return (
            found
            if (found := untouched_bytes(picture, preprocessing)) is not None
            else to_planes(picture, preprocessing).numpy()
        )
    except UnreadableImage as problem:
        return Failure(str(problem.path), str(problem.reason))


def probe_layout(images: ImageSource, preprocessing: Preprocessing, looks: int = 8) -> Layout:
    """The layout that a few images spread over the set suggest; filling widens it where others need more."""
    layout: Layout | None = None
    for index in np.unique(np.linspace(0, len(images) - 1, num=min(looks, len(images))).astype(int)).tolist():
        planes = read_planes(images, index, preprocessing)
        if not isinstance(planes, Failure):
            narrow = Layout(1, preprocessing.image_size, True)
            layout = (layout or narrow).widened(planes)
    return layout or Layout(preprocessing.channels, preprocessing.image_size, False)
