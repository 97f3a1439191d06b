"""Every image of a set once, in order, by several threads: a few are under way at a time, so memory stays flat."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from medcli.data.dataset import ImageSource
from medcli.data.decode import UnreadableImage
from medcli.data.storage import Failure, Planes

__all__ = ["Progress", "in_order", "verify"]

Progress = Callable[[int, int], None]


def verify(
    images: ImageSource, *, threads: int = 1, progress: Progress | None = None
) -> tuple[npt.NDArray[np.int64], tuple[Failure, ...]]:
    """Decode everything and keep nothing: the positions of readable images, and every failure."""

    def read(index: int) -> Planes | Failure:
        try:
            images.read(index)
        except UnreadableImage as problem:
            return Failure(str(problem.path), str(problem.reason))
        return np.empty(0, dtype=np.uint8)

    results = in_order(read, len(images), threads, progress)
    good, failures = [], []
    for index, result in enumerate(results):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            good.append(index)
    return np.asarray(good, dtype=np.int64), tuple(failures)


def in_order(
    read: Callable[[int], Planes | Failure], count: int, threads: int, progress: Progress | None
) -> Iterator[Planes | Failure]:
    """Results of `read(0)`, `read(1)`, ... in this order; `progress` is told after each."""
    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, count)

    if threads <= 1:
        for index in range(count):
            yield read(index)
            tell()
        return
    # Each decoding thread would start torch's own pool of threads for every resize; one each is what the cores allow.
    intra_op = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode", initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future[Planes | Failure]] = deque()
    try:
        for index in range(count):
            waiting.append(pool.submit(read, index))
            if len(waiting) >= 4 * threads:
                yield waiting.popleft().result()
                tell()
        while waiting:
            yield waiting.popleft().result()
            tell()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(intra_op)
