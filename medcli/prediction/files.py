"""Image files to scores: decoding runs ahead in threads, a bad file costs nothing but itself, memory stays bounded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medcli.data.resize import normalise
from medcli.data.storage import Failure, read_planes
from medcli.errors import RunFailure
from medcli.evaluation.members import mean_logits
from medcli.models.build import LoadedModel
from medcli.models.device import autocast, choose_precision
from medcli.prediction.datasets import place_model
from medcli.prediction.inputs import FilePredictions, Input, list_inputs
from medcli.prediction.predict import answers_of, memory_layout, raw_to_logits
from medcli.settings.groups import ComputeSettings

__all__ = ["FilePredictions", "Input", "list_inputs", "predict_files"]


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
    # Each decoding thread would start torch's own pool for every resize; the cores are the network's meanwhile.
    intra_op = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
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
            torch.set_num_threads(intra_op)


def _as_tensor(planes: npt.NDArray[Any], channels: int) -> torch.Tensor:
    # A copy, because decoders may hand over memory that must not be written to.
    values = torch.from_numpy(planes.astype(np.float32))
    if planes.dtype == np.uint8:
        values /= 255
    return values.expand(channels, -1, -1)
