"""Images decoded when they are needed, by worker processes that stay between epochs."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medcli.data.dataset import ImageSource, Preprocessing
from medcli.data.storage import Failure, Layout, Planes, read_planes
from medcli.errors import RunFailure

__all__ = ["Stream", "UnreadableImages"]

Rows = npt.NDArray[np.int64]


class UnreadableImages(RunFailure):
    """Images that cannot be read, every one of them named.

    Args:
        failures: the files with their reasons.
        total: images that were tried.
    """

    def __init__(self, failures: Sequence[Failure], total: int) -> None:
        self.failures, self.total = tuple(failures), total
        # A damaged array of an archive takes all its images with it: one line, not one for each of them.
        counted = Counter(f"{failure.path}: {failure.reason}" for failure in failures)
        listed = "".join(
            f"\n  {line}" + (f" ({count:,} images)" if count > 1 else "") for line, count in counted.items()
        )
        number = "1 image" if len(failures) == 1 else f"{len(failures):,} images"
        super().__init__(
            f"{number} of {total:,} cannot be read:{listed}",
            hint="mend or remove these files, or leave them out with `--skip-unreadable`"
            if len(failures) < total
            else "`medcli data inspect FILE` shows how one file is decoded",
            code="unreadable-images",
        )


class _Decoding(Dataset[Any]):
    """What a worker process gets: it decodes, and hands failures back as values."""

    def __init__(self, images: ImageSource, preprocessing: Preprocessing) -> None:
        self._images, self._preprocessing = images, preprocessing

    def __getitem__(self, index: int) -> Planes | Failure:
        return read_planes(self._images, index, self._preprocessing)


def _stack(items: list[Planes | Failure]) -> Tensor | Failure:
    layout: Layout | None = None
    planes: list[Planes] = []
    for item in items:
        if isinstance(item, Failure):
            return item
        layout = (layout or Layout(1, item.shape[-1], True)).widened(item)
        planes.append(item)
    assert layout is not None
    return torch.from_numpy(np.stack([layout.convert(item) for item in planes]))


class _Plan:
    """A batch sampler whose plan changes between epochs while the workers live on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Stream:
    """Decodes every batch when it is needed, in worker processes that stay between epochs."""

    def __init__(self, images: ImageSource, preprocessing: Preprocessing, processes: int) -> None:
        self._plan = _Plan()
        with warnings.catch_warnings():
            # `--workers` above the number of cores is the user's decision.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            # Its own generator: the loader draws a seed per epoch, which must not come from training's random state.
            self._loader: DataLoader[Any] = DataLoader(
                _Decoding(images, preprocessing),
                batch_sampler=self._plan,
                num_workers=processes,
                collate_fn=_stack,
                generator=torch.Generator().manual_seed(0),
                persistent_workers=processes > 0,
            )

    def planes(self, plan: Sequence[Rows]) -> Iterator[Tensor]:
        self._plan.batches = [rows.tolist() for rows in plan]
        if not plan:
            return
        try:
            for stacked in self._loader:
                if isinstance(stacked, Failure):
                    raise UnreadableImages([stacked], 1)
                yield stacked
        except RuntimeError as problem:
            if "worker" not in str(problem).lower():
                raise
            raise RunFailure(
                f"a decoding process ended: {str(problem).splitlines()[0]}",
                hint="lower `--workers`, or use `--workers 0`",
                code="worker-died",
            ) from problem
