"""Image files to scores: decoding runs ahead in threads, a bad file costs nothing but itself, memory stays bounded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medcli.data.dataset import ImageSource
from medcli.data.resize import normalise
from medcli.data.sources.files import FileImages, find_images
from medcli.data.sources.npz import npz_cases
from medcli.data.storage import Failure, read_planes
from medcli.errors import RunFailure, UsageProblem
from medcli.evaluation.members import mean_logits
from medcli.models.build import LoadedModel
from medcli.models.device import autocast, choose_precision
from medcli.prediction.datasets import place_model
from medcli.prediction.predict import answers_of, memory_layout, raw_to_logits
from medcli.runs.directory import RunDirectory
from medcli.runs.members import is_ensemble
from medcli.settings.groups import ComputeSettings

__all__ = ["FilePredictions", "Input", "list_inputs", "predict_files"]

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


def predict_files(
    loaded: LoadedModel,
    inputs: Sequence[Input],
    compute: ComputeSettings,
    *,
    progress: Callable[[int], None] | None = None,
) -> FilePredictions:
    """Predict every input that can be read.

    At most two batches of decoded images exist at a time, however long the list is.

    Args:
        loaded: the model with its preprocessing.
        inputs: from `list_inputs`.
        compute: device, precision, batch size, workers (decoding threads; 0 decodes in between).
        progress: told the number of inputs done.

    Raises:
        UsageProblem: no such device.
        RunFailure: an output is no number (code `not-finite`).
    """
    device = torch.device(place_model(loaded, compute.device))
    precision = choose_precision(compute.precision, device)
    layout = memory_layout(loaded.predictor)
    names: list[str] = []
    logits: list[npt.NDArray[np.float32]] = []
    failures: list[tuple[str, str]] = []
    waiting: list[tuple[str, torch.Tensor]] = []
    target, kind = loaded.spec.target, loaded.spec.head_kind

    def run() -> None:
        images = torch.stack([planes for _, planes in waiting]).to(device)
        images = normalise(images, loaded.preprocessing).contiguous(memory_format=layout)
        with torch.inference_mode(), autocast(device, precision):
            raw = loaded.predictor(images)
        found = raw_to_logits(raw, target, kind)
        bad = (np.isnan(found) | np.isposinf(found)).reshape(len(found), -1).any(axis=1)
        if bad.any():
            raise RunFailure(
                f"the network's output for `{waiting[int(bad.argmax())][0]}` is not a number",
                hint="try `--precision fp32`",
                code="not-finite",
            )
        logits.append(found)
        names.extend(name for name, _ in waiting)
        waiting.clear()

    loaded.predictor.eval()
    for done, (entry, planes) in enumerate(_decoded(loaded, inputs, compute), start=1):
        if isinstance(planes, Failure):
            failures.append((entry.name, planes.reason))
        else:
            waiting.append((entry.name, _as_tensor(planes, loaded.preprocessing.channels)))
        if len(waiting) == compute.batch_size:
            run()
        if progress is not None:
            progress(done)
    if waiting:
        run()
    rows = np.concatenate(logits) if logits else np.zeros((0, *target.logits_shape), dtype=np.float32)
    members = answers_of(rows, target)
    if members is None:
        return FilePredictions(tuple(names), rows, tuple(failures))
    return FilePredictions(tuple(names), mean_logits(members, target), tuple(failures), members)


def _decoded(
    loaded: LoadedModel, inputs: Sequence[Input], compute: ComputeSettings
) -> Iterator[tuple[Input, npt.NDArray[Any] | Failure]]:
    """The inputs in order, each decoded and resized or failed."""

    def read(entry: Input) -> npt.NDArray[Any] | Failure:
        return read_planes(entry.images, entry.index, loaded.preprocessing)

    threads = min(8, os.cpu_count() or 1) if compute.workers is None else compute.workers
    if not threads:
        for entry in inputs:
            yield entry, read(entry)
        return
    ahead: deque[tuple[Input, Future[npt.NDArray[Any] | Failure]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for entry in inputs:
                ahead.append((entry, pool.submit(read, entry)))
                if len(ahead) > compute.batch_size:
                    first, future = ahead.popleft()
                    yield first, future.result()
            while ahead:
                first, future = ahead.popleft()
                yield first, future.result()
        finally:
            for _, future in ahead:
                future.cancel()


def _as_tensor(planes: npt.NDArray[Any], channels: int) -> torch.Tensor:
    # A copy, because decoders may hand over memory that must not be written to.
    values = torch.from_numpy(planes.astype(np.float32))
    if planes.dtype == np.uint8:
        values /= 255
    return values.expand(channels, -1, -1)
