"""Some of the cases of a split, without copying or decoding anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medcli.data.dataset import DataSet, ImageSource, Picture, Samples

__all__ = ["SelectedImages", "drop", "skip", "take"]


@dataclass(frozen=True)
class SelectedImages:
    """Some images of another source, in an order of their own."""

    source: ImageSource
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Picture:
        """Decode one image. Raises UnreadableImage."""
        return self.source.read(int(self.rows[index]))

    def describe(self, index: int) -> str:
        """The file, or file and row."""
        return self.source.describe(int(self.rows[index]))

    def fingerprint(self, index: int) -> bytes:
        """A digest of the stored bytes."""
        return self.source.fingerprint(int(self.rows[index]))


def take(samples: Samples, indices: npt.NDArray[np.int64] | Sequence[int]) -> Samples:
    """The cases at these positions, in this order."""
    rows = np.asarray(indices, dtype=np.int64)
    images = samples.images
    if isinstance(images, SelectedImages):
        images = SelectedImages(images.source, images.rows[rows])
    else:
        images = SelectedImages(images, rows)
    patients = None if samples.patients is None else samples.patients[rows]
    return Samples(samples.ids[rows], images, samples.labels[rows], patients)


def drop(samples: Samples, indices: npt.NDArray[np.int64] | Sequence[int]) -> Samples:
    """All cases but those at these positions."""
    keep = np.ones(len(samples), dtype=bool)
    keep[np.asarray(indices, dtype=np.int64)] = False
    return take(samples, np.flatnonzero(keep))


def skip(dataset: DataSet, unreadable: Mapping[str, Sequence[tuple[int, str]]]) -> DataSet:
    """The data set without unreadable images, which `DataSet.skipped` then lists.

    Args:
        dataset: what was loaded.
        unreadable: per split, (position, reason).
    """
    splits = dict(dataset.splits)
    skipped = list(dataset.skipped)
    for split, found in unreadable.items():
        samples = splits[split]
        skipped += [(samples.images.describe(index), reason) for index, reason in found]
        splits[split] = drop(samples, [index for index, _ in found])
    return replace(dataset, splits=splits, skipped=tuple(skipped))
