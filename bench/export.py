"""ONNX Runtime beside eager torch for one picture of 224 pixels, the same numbers of threads for both.

Bar: at least 1.8 times faster in single precision for resnet18, efficientnet_b0 and densenet121. Rounds are
interleaved, so that a busy moment of the machine falls on both.
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

NAMES = ("resnet18", "efficientnet_b0", "densenet121")
TIMES, SIZE = 1.8, 224


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"one picture, {SIZE} px, {options.threads} threads, median of {options.rounds} interleaved rounds")
    fine = True
    for name in options.names:
        model = build(name, num_classes=2, image_size=SIZE, seed=0)
        images = torch.randn(1, 3, SIZE, SIZE)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "n.onnx"
            start = time.perf_counter()
            export_onnx(model, file, channels=3, image_size=SIZE)
            exported = time.perf_counter() - start
            session = open_session(file, threads=options.threads)
        eager, onnx = [], []
        by_torch = partial(model, images)
        by_onnx = partial(session.run, ["logits"], {"images": images.numpy()})
        with torch.inference_mode():
            for turn in range(options.rounds + 5):
                one, other = milliseconds(by_torch), milliseconds(by_onnx)
                if turn >= 5:
                    eager.append(one)
                    onnx.append(other)
        ratio = statistics.median(eager) / statistics.median(onnx)
        fine &= ratio >= TIMES
        print(
            f"  {name:18} eager {statistics.median(eager):7.1f} ms   onnxruntime {statistics.median(onnx):7.1f} ms   "
            f"{ratio:4.2f} x (bar {TIMES:g})   exported in {exported:.1f} s"
        )
    print("ok" if fine else "FAILED")
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
