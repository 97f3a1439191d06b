"""What `predict` is asked about and what it answers, for models with torch and without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.dataset import ImageSource
from medcli.data.sources.files import FileImages, find_images
from medcli.data.sources.npz import npz_cases
from medcli.errors import UsageProblem
from medcli.runs.directory import RunDirectory
from medcli.runs.members import is_ensemble

__all__ = ["FilePredictions", "Input", "list_inputs"]

_TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


@dataclass(frozen=True)
class Input:
    """One image to predict.

    Args:
        name: how the answer calls it.
        images: where it lies.
        index: its position there.
    """

    name: str
    images: ImageSource
    index: int


@dataclass(frozen=True)
class FilePredictions:
    """What came out of a list of inputs.

    Args:
        names: those that could be read, in input order.
        logits: float32, one row per name; float64 once calibrated.
        failures: (input, reason) of the others, in input order.
        member_logits: float32 [answers, n, ...] where a case has several, whose mean `logits` are; else None.
        member_weights: float64 [answers], or None where they count the same.
    """

    names: tuple[str, ...]
    logits: npt.NDArray[np.floating[Any]]
    failures: tuple[tuple[str, str], ...]
    member_logits: npt.NDArray[np.float32] | None = None
    member_weights: npt.NDArray[np.float64] | None = None


def list_inputs(inputs: Sequence[str], window: str) -> tuple[Input, ...]:
    """Files as given, folders' images in sorted order, the images of .npz archives, in the order of the inputs.

    A named file is kept whatever it is, so that it is reported. An image named twice is kept twice.

    Raises:
        UsageProblem: an input that does not exist, a folder without images, a table, another run, an odd archive.
    """
    found: list[Input] = []
    for text in inputs:
        lower = text.lower()
        if lower.endswith(".npz"):
            cases = npz_cases(text)
            found += [Input(f"{text}:{name}", cases.images, row) for row, name in enumerate(cases.ids)]
            continue
        if lower.endswith(_TABLES):
            raise UsageProblem(
                f"`{text}` is a table, not an image",
                hint=f"`medcli evaluate RUN --data {text}` reads tables; here name image files or their folder",
                code="not-an-image",
            )
        if RunDirectory(Path(text)).holds_model or is_ensemble(Path(text)):
            raise UsageProblem(
                f"`{text}` is a run: predict takes one run and then images",
                hint="predict with each run by itself, or join them (`medcli ensemble RUN RUN`); only adapter runs on "
                "one base go together here",
                code="several-runs",
            )
        images = FileImages(find_images([text]), window)
        found += [Input(path, images, row) for row, path in enumerate(images.paths)]
    return tuple(found)
