"""ONNX Runtime beside eager torch for one picture of 224 pixels, the same numbers of threads for both.

Bars: in single precision at least 1.8 times faster for resnet18, efficientnet_b0 and densenet121; `--int8`: the static
int8 of resnet50 at least 4 times. Rounds are interleaved, so that a busy moment of the machine falls on all.
What int8 costs in accuracy is another question, which `medcli export --quantize` answers for every run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from medcli import build
from medcli.bundles.bundle import open_session
from medcli.export.graph import export_onnx
from medcli.export.shrinking import calibrated_ranges, network_bytes, prepare, write_static

NAMES = ("resnet18", "efficientnet_b0", "densenet121")
TIMES, SIZE = 1.8, 224
INT8_NAMES, INT8_TIMES = ("resnet50",), 4.0


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


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
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"one picture, {SIZE} px, {options.threads} threads, median of {options.rounds} interleaved rounds")
    fine = True
    for name in options.names or (INT8_NAMES if options.int8 else NAMES):
        model = build(name, num_classes=2, image_size=SIZE, seed=0)
        images = torch.randn(1, 3, SIZE, SIZE)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "n.onnx"
            start = time.perf_counter()
            export_onnx(model, file, channels=3, image_size=SIZE)
            exported = time.perf_counter() - start
            files = [file, smaller(file)] if options.int8 else [file]
            sizes = [network_bytes(one) / 1e6 for one in files]
            sessions = [open_session(one, threads=options.threads) for one in files]
        calls = [partial(model, images)]
        calls += [partial(session.run, ["logits"], {"images": images.numpy()}) for session in sessions]
        times: list[list[float]] = []
        with torch.inference_mode():
            for turn in range(options.rounds + 5):
                row = [milliseconds(call) for call in calls]
                if turn >= 5:
                    times.append(row)
        eager, *others = (statistics.median(column) for column in zip(*times, strict=True))
        bar = INT8_TIMES if options.int8 else TIMES
        fine &= eager / others[-1] >= bar
        print(f"  {name:18} eager {eager:7.1f} ms", end="")
        for kind, size, one in zip(("onnxruntime", "int8"), sizes, others, strict=False):
            print(f"   {kind} {one:7.1f} ms {eager / one:5.2f} x {size:6.1f} MB", end="")
        print(f"   (bar {bar:g} x), exported in {exported:.1f} s")
    print("ok" if fine else "FAILED")
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
