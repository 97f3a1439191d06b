"""ONNX Runtime beside eager torch for one picture of 224 pixels, the same numbers of threads for both.

Bars: in single precision at least 1.8 times faster for resnet18, efficientnet_b0 and densenet121; `--int8`: the static
int8 of resnet50 at least 4 times. Each contender has a process of its own, for the waiting threads of one library slow
the other down (eager resnet18 takes twice its time beside a session in the same process), and they take turns, so that
a busy moment of the machine falls on all. Eager channels_last is shown beside: `predict` and `benchmark` can use it.
What int8 costs in accuracy is another question, which `medcli export --quantize` answers for every run.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from medcli import build
from medcli.bundles.bundle import open_session
from medcli.export.graph import export_onnx
from medcli.export.shrinking import calibrated_ranges, network_bytes, prepare, write_static

NAMES = ("resnet18", "efficientnet_b0", "densenet121")
TIMES, SIZE = 1.8, 224
INT8_NAMES, INT8_TIMES = ("resnet50",), 4.0
WAKING, PASSES = 3, 10


@cache
def contender(kind: str, what: str, threads: int) -> Callable[[], object]:
    """One forward pass: `eager` or `channels_last` of an architecture, or a session of an ONNX file."""
    if kind == "session":
        session = open_session(Path(what), threads=threads)
        pixels = np.random.default_rng(0).standard_normal((1, 3, SIZE, SIZE)).astype(np.float32)
        return partial(session.run, ["logits"], {"images": pixels})
    torch.set_num_threads(threads)
    layout = torch.channels_last if kind == "channels_last" else torch.contiguous_format
    model = build(what, num_classes=2, image_size=SIZE, seed=0).to(memory_format=layout)
    images = torch.randn(1, 3, SIZE, SIZE).to(memory_format=layout)

    def forward() -> object:
        with torch.inference_mode():
            return model(images)

    return forward


def milliseconds(kind: str, what: str, threads: int) -> list[float]:
    """One turn: a few passes to wake up, then `PASSES` that count."""
    call = contender(kind, what, threads)
    times = []
    for _ in range(WAKING + PASSES):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return times[WAKING:]


def smaller(network: Path) -> Path:
    """Static int8 of everything but the head; the ranges of noise do for a latency."""
    folder = network.parent
    prepare(network, folder / "p.onnx")
    noise = torch.randn(8, 3, SIZE, SIZE).numpy()
    write_static(
        folder / "p.onnx", folder / "q.onnx", calibrated_ranges(folder / "p.onnx", noise, "minmax", folder), "all"
    )
    return folder / "q.onnx"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--int8", action="store_true", help="static int8 beside both")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"one picture, {SIZE} px, {options.threads} threads, median of {options.rounds} turns of {PASSES}")
    fine = True
    for name in options.names or (INT8_NAMES if options.int8 else NAMES):
        model = build(name, num_classes=2, image_size=SIZE, seed=0)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "n.onnx"
            start = time.perf_counter()
            export_onnx(model, file, channels=3, image_size=SIZE)
            exported = time.perf_counter() - start
            files = [file, smaller(file)] if options.int8 else [file]
            sizes = [network_bytes(one) / 1e6 for one in files]
            asked = [("eager", name), ("channels_last", name), *(("session", str(one)) for one in files)]
            times: list[list[float]] = [[] for _ in asked]
            with contextlib.ExitStack() as stack:
                places = [stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn"))) for _ in asked]
                for turn in range(options.rounds + 1):
                    for one, place, found in zip(asked, places, times, strict=True):
                        turned = place.submit(milliseconds, *one, options.threads).result()
                        found.extend(turned if turn else [])  # the first turn loads, and compiles kernels
        eager, last, *others = map(statistics.median, times)
        bar = INT8_TIMES if options.int8 else TIMES
        fine &= eager / others[-1] >= bar
        print(f"  {name:18} eager {eager:7.1f} ms   channels_last {last:7.1f} ms", end="")
        for kind, size, one in zip(("onnxruntime", "int8"), sizes, others, strict=False):
            print(f"   {kind} {one:7.1f} ms {eager / one:5.2f} x {size:6.1f} MB", end="")
        print(f"   (bar {bar:g} x), exported in {exported:.1f} s")
    print("ok" if fine else "FAILED")
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
