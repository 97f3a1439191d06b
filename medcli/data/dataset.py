"""A dataset: images that can be read one by one, their labels, patients and splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target

__all__ = ["DataSet", "ImageSource", "Picture", "Preprocessing", "Samples"]


@dataclass(frozen=True)
class Picture:
    """One decoded image, before any resizing.

    Args:
        pixels: uint8, uint16 or float32 array [H, W] or [H, W, 3].
        low: the value that stands for black.
        high: the value that stands for white; float pixels are (pixels - low) / (high - low).
    """

    pixels: npt.NDArray[Any]
    low: float
    high: float


class ImageSource(Protocol):
    """Images by position. Reading is thread-safe and holds nothing open."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Picture:
        """Decode one image. Raises `medcli.data.decode.UnreadableImage` with the file and the reason."""
        ...

    def describe(self, index: int) -> str:
        """The file, or file and row, for error messages."""
        ...

    def fingerprint(self, index: int) -> bytes:
        """A digest that changes when the stored bytes of this image change."""
        ...


@dataclass(frozen=True)
class Samples:
    """The cases of one split, in a stable order.

    Args:
        ids: str array [n], unique within the data set.
        images: the n images.
        labels: see `Target`.
        patients: str array [n], or None when no patient is known.
    """

    ids: npt.NDArray[np.str_]
    images: ImageSource
    labels: npt.NDArray[Any]
    patients: npt.NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class DataSet:
    """A named set with its target and splits (`train`, `val`, `test`; a split may be absent).

    Args:
        name: the user's NAME, or the file's or folder's own.
        origin: the path or built-in name as given.
        target: what is predicted.
        splits: the splits present, in the order train, val, test.
        channels: 1 if every image is grey, else 3.
        notes: sentences the user should read (a split that was made, images left out, ...).
        skipped: (file, reason) of images left out under `--skip-unreadable`.
        made_splits: whether medcli drew the splits (then they are written into the run).
    """

    name: str
    origin: str
    target: Target
    splits: Mapping[str, Samples]
    channels: int
    notes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    made_splits: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded picture to the network's input, the same everywhere.

    decode -> float32 in [0, 1] -> channels -> resize (`F.interpolate(antialias=True)`, unclamped) -> (x - mean) / std.

    Args:
        image_size: side of the square input in pixels.
        channels: 1 or 3.
        mean: one value per channel, in [0, 1] units.
        std: one value per channel.
        interpolation: `bilinear` or `bicubic`.
        fit: `squash`, `pad` or `crop` (see `DataSettings.fit`).
        window: DICOM window (see `DataSettings.window`).
    """

    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    fit: str = "squash"
    window: str = "auto"
