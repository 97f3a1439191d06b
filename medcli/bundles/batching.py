"""Pictures of any sizes through a graph that takes one size at a time: decoding runs ahead, equal sizes go together."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.bundles.bundle import Answers
from medcli.bundles.pictures import as_input
from medcli.data.dataset import ImageSource
from medcli.data.decode import UnreadableImage
from medcli.errors import RunFailure

__all__ = ["Case", "Outcome", "run_cases"]

Case = tuple[ImageSource, int]
"""Where a picture lies, and its position there."""

MOST_THREADS = 8
AHEAD = 2
"""Batches of decoded pictures that may exist while others are computed."""


@dataclass(frozen=True)
class Outcome:
    """What came of a list of cases.

    Args:
        rows: int64 [k], positions of those that could be read, ascending.
        answers: float32 [k, ...], as the graph gives them.
        logits: float32 [k, ...].
        failures: position -> (file, reason) of the others.
    """

    rows: npt.NDArray[np.int64]
    answers: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    failures: dict[int, tuple[str, str]]


def run_cases(
    run: Callable[[npt.NDArray[Any]], Answers],
    cases: Sequence[Case],
    *,
    batch_size: int,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Decode and run every case that can be read.

    Pictures wait until `batch_size` of one size are there, but never more than `AHEAD` batches in all.

    Args:
        run: pictures of one size -> answers, such as `Bundle.run`.
        cases: the pictures.
        batch_size: most that are run at a time.
        workers: decoding threads (0 decodes in between); None for one per core, at most eight.
        progress: told the number of pictures done.

    Raises:
        RunFailure: an answer is no number (code `not-finite`).
    """
    waiting: dict[tuple[Any, ...], list[tuple[int, npt.NDArray[Any]]]] = {}
    found: list[tuple[int, npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []
    failures: dict[int, tuple[str, str]] = {}
    count = done = 0

    def flush(key: tuple[Any, ...]) -> None:
        nonlocal count, done
        batch = waiting.pop(key)
        answers = run(np.stack([image for _, image in batch]))
        bad = ~np.isfinite(answers.answers.reshape(len(batch), -1)).all(axis=1)
        if bad.any():
            images, index = cases[batch[int(bad.argmax())][0]]
            raise RunFailure(f"the answer to `{images.describe(index)}` is not a number", code="not-finite")
        rows = [row for row, _ in batch]
        found.extend(zip(rows, answers.answers, answers.logits, strict=True))
        count, done = count - len(batch), done + len(batch)
        if progress is not None:
            progress(done + len(failures))

    for row, image in enumerate(_decoded(cases, batch_size, workers)):
        if isinstance(image, UnreadableImage):
            failures[row] = (str(image.path), str(image.reason))
            continue
        key = (image.shape, image.dtype)
        waiting.setdefault(key, []).append((row, image))
        count += 1
        if len(waiting[key]) == batch_size:
            flush(key)
        elif count >= AHEAD * batch_size:
            flush(max(waiting, key=lambda each: len(waiting[each])))
    while waiting:
        flush(next(iter(waiting)))
    found.sort(key=lambda item: item[0])
    if not found:
        nothing = np.zeros((0, 0), dtype=np.float32)
        return Outcome(np.zeros(0, dtype=np.int64), nothing, nothing, failures)
    rows, answers, logits = zip(*found, strict=True)
    return Outcome(np.array(rows, dtype=np.int64), np.stack(answers), np.stack(logits), failures)


def _decoded(
    cases: Sequence[Case], batch_size: int, workers: int | None
) -> Iterator[npt.NDArray[Any] | UnreadableImage]:
    """The pictures in order, each decoded or failed."""

    def read(case: Case) -> npt.NDArray[Any] | UnreadableImage:
        try:
            return as_input(case[0].read(case[1]))
        except UnreadableImage as problem:
            return problem

    threads = min(MOST_THREADS, os.cpu_count() or 1) if workers is None else workers
    if not threads:
        yield from map(read, cases)
        return
    ahead: deque[Future[npt.NDArray[Any] | UnreadableImage]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for case in cases:
                ahead.append(pool.submit(read, case))
                if len(ahead) > batch_size:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
