"""The images of a training as batches, and what the user should know about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch

from medcli.data.batches import SHARE_OF_MEMORY, Batches, open_batches
from medcli.data.cache import available_memory
from medcli.data.dataset import DataSet, Preprocessing, Samples
from medcli.data.decode import UnreadableImage
from medcli.data.stream import UnreadableImages
from medcli.settings.groups import ComputeSettings, DataSettings
from medcli.training.plan import Plan
from medcli.training.team import Team

__all__ = ["describe_cases", "enlargement_note", "open_splits", "storage_notes"]


class Read(Protocol):
    """What decides which images are read, and how."""

    @property
    def data(self) -> DataSet: ...

    @property
    def data_settings(self) -> DataSettings: ...

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def compute(self) -> ComputeSettings: ...


def open_splits(
    plan: Read, device: torch.device, progress: Callable[[str, int, int], None] | None, team: Team | None = None
) -> dict[str, Batches]:
    """Batches of every split, decoded once where that fits.

    Of several processes each holds its own copy in memory, for which they share what is free; a copy on disk is made
    by one process of the machine and read by all.

    Raises:
        RunFailure: unreadable images without `--skip-unreadable`; every file of every split is named.
    """
    team = team or Team()
    if team.of > 1 and plan.data_settings.cache in ("auto", "disk"):
        return team.one_at_first(lambda: _open(plan, device, progress if team.first else None, team))
    return _open(plan, device, progress, team)


def _open(
    plan: Read, device: torch.device, progress: Callable[[str, int, int], None] | None, team: Team
) -> dict[str, Batches]:
    settings = plan.data_settings
    opened: dict[str, Batches] = {}
    failed: list[UnreadableImages] = []
    left = settings.cache_limit
    if team.place.local_of > 1:
        free = available_memory() * SHARE_OF_MEMORY / 2**30 if settings.cache != "memory" else None
        left = free if left is None else left
        left = None if left is None else left / team.place.local_of
    for split, samples in plan.data.splits.items():
        report = None if progress is None else partial(progress, split)
        try:
            opened[split] = _open_split(plan, split, samples, device, left, report)
        except UnreadableImages as error:
            failed.append(error)
            continue
        if left is not None:
            left = max(0.0, left - opened[split].memory_bytes / 2**30)
    if failed:
        total = sum(len(samples) for samples in plan.data.splits.values())
        raise UnreadableImages([failure for error in failed for failure in error.failures], total)
    return opened


def _open_split(
    plan: Read,
    split: str,
    samples: Samples,
    device: torch.device,
    cache_limit: float | None,
    progress: Callable[[int, int], None] | None,
) -> Batches:
    compute, settings = plan.compute, plan.data_settings
    learn = split == "train"
    return open_batches(
        samples,
        plan.preprocessing,
        batch_size=compute.batch_size,
        seed=compute.seed,
        shuffle=learn,
        workers=compute.workers,
        cache=settings.cache,
        cache_limit=cache_limit,
        # A last batch of one image has no variance for a normalisation layer to divide by.
        drop_lone=learn,
        skip_unreadable=settings.skip_unreadable,
        device=device,
        progress=progress,
    )


def storage_notes(batches: Mapping[str, Batches]) -> list[str]:
    """Where images are kept, when that is not simply memory, and which were left out."""
    notes = [f"{split}: {one.note}" for split, one in batches.items() if one.storage != "memory"]
    skipped = [(split, file, reason) for split, one in batches.items() for file, reason in one.skipped]
    if skipped:
        notes.append(f"left out {len(skipped)} unreadable images:")
        notes += [f"  {split}: {file}: {reason}" for split, file, reason in skipped]
    return notes


def enlargement_note(plan: Plan) -> list[str]:
    """A sentence when the architecture's own size, not the user's, makes small pictures several times larger."""
    if plan.data_settings.image_size is not None:
        return []
    samples = plan.data.splits["train"]
    try:
        height, width = samples.images.read(0).pixels.shape[:2]
    except UnreadableImage:  # reading the whole set says so, with every other file
        return []
    size = plan.preprocessing.image_size
    if size < 2 * max(height, width):
        return []
    return [
        f"pictures of {width} × {height} px are enlarged to {size} px, the architecture's own size; "
        f"`--image-size {max(height, width)}` is about {(size / max(height, width)) ** 2:.0f} times less work"
    ]


def describe_cases(samples: Samples, cases: Sequence[int], shown: int = 8) -> str:
    """The identifiers of some cases, for an error message."""
    names = [str(samples.ids[case]) for case in cases[:shown]]
    return ", ".join(names) + (f" and {len(cases) - shown} more" if len(cases) > shown else "")
