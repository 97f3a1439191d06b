"""What every source hands over: cases with text labels, before targets are understood and splits are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.dataset import ImageSource

__all__ = ["Cases", "LabelColumn", "split_word"]

SPLIT_WORDS = {
    "train": "train", "training": "train", "tr": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def split_word(text: str) -> str | None:
    """`train`, `val` or `test` for any usual spelling, else None."""
    return SPLIT_WORDS.get(text.strip().lower())


@dataclass(frozen=True)
class LabelColumn:
    """Labels as text, one per case.

    Args:
        name: the column.
        cells: the text of each case; empty means no label.
    """

    name: str
    cells: Sequence[str]


@dataclass(frozen=True)
class Cases:
    """The cases of a data set as its source knows them.

    Args:
        ids: unique identifiers.
        images: one image per case.
        columns: the label columns.
        where: the file and line of a case, for messages about its label.
        channels: 1 if every image is grey, else 3.
        splits: the split of each case, or None where the source has none.
        patients: the patient of each case, or None.
        class_names: names that the source itself knows, in label order.
        task: the task that the source itself knows.
        positive: the class that counts as the finding, where the source itself knows it.
        notes: what the user should read.
        skipped: (file, reason) of images left out while reading the source.
        extra: further facts for `DataSet.extra`.
    """

    ids: tuple[str, ...]
    images: ImageSource
    columns: tuple[LabelColumn, ...]
    where: Callable[[int], str]
    channels: int
    splits: npt.NDArray[np.str_] | None = None
    patients: npt.NDArray[np.str_] | None = None
    class_names: tuple[str, ...] = ()
    task: str | None = None
    positive: str | None = None
    notes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)
