"""`predict` on 1,000 JPEGs beside the sum of pure decoding and pure compute, for torch and for a bundle.

Pure decoding reads and resizes every file with as many threads; pure compute runs the network on as many batches that
are in memory already. Bar on a CPU: 1.15 times their sum.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medcli import build
from medcli.data.dataset import Preprocessing
from medcli.data.resize import normalise
from medcli.data.storage import read_planes
from medcli.export.running import through_onnx
from medcli.models.build import LoadedModel
from medcli.models.spec import ModelSpec
from medcli.prediction.files import list_inputs, predict_files
from medcli.prediction.members import Jury
from medcli.prediction.predict import suits_channels_last
from medcli.settings.groups import ComputeSettings

BAR, SIZE = 1.15, 224


def draw(folder: Path, count: int) -> None:
    """Radiograph-like JPEGs of 700 to 1,400 pixels."""
    random = np.random.default_rng(0)
    coarse = random.random((16, 16))
    for number in range(count):
        height, width = random.integers(700, 1400, 2)
        picture = Image.fromarray((255 * np.roll(coarse, number, axis=number % 2)).astype(np.uint8))
        picture.resize((int(width), int(height)), Image.Resampling.BICUBIC).save(
            folder / f"{number:04}.jpeg", quality=90
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--folder", help="JPEGs of your own instead of drawn ones")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    model = build(options.architecture, num_classes=2, image_size=SIZE, seed=0)
    how = Preprocessing(SIZE, 3, (0.5,) * 3, (0.5,) * 3)
    spec = ModelSpec(options.architecture, 3, SIZE, model.target)
    loaded = LoadedModel(model, spec, how, {})
    compute = ComputeSettings(device="cpu", batch_size=32, workers=options.workers)
    fine = True
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or made
        if not options.folder:
            draw(Path(made), options.images)
        entries = list_inputs([folder], "auto")[: options.images]
        start = time.perf_counter()
        with ThreadPoolExecutor(options.workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(lambda entry: read_planes(entry.images, entry.index, how), entries):
                pass
        decoding = time.perf_counter() - start
        print(f"{len(entries)} JPEGs, {options.architecture} at {SIZE} px, {options.workers} decoding threads")
        for runtime in ("torch", "onnx"):
            chosen = loaded if runtime == "torch" else through_onnx(Jury((loaded,))).first
            layout = torch.channels_last if suits_channels_last(chosen.predictor) else torch.contiguous_format
            chosen = replace(chosen, classifier=chosen.classifier.to(memory_format=layout))
            batch = torch.rand(32, 3, SIZE, SIZE)
            start = time.perf_counter()
            with torch.inference_mode():
                for _ in range(0, len(entries), 32):
                    chosen.predictor(normalise(batch, how).contiguous(memory_format=layout))
            computing = time.perf_counter() - start
            start = time.perf_counter()
            predict_files(chosen, entries, compute)
            whole = time.perf_counter() - start
            ratio = whole / (decoding + computing)
            fine &= ratio <= BAR
            print(
                f"  {runtime:6} decoding {decoding:6.1f} s + compute {computing:6.1f} s, predict {whole:6.1f} s: "
                f"{ratio:4.2f} x their sum (bar {BAR:g}), {len(entries) / whole:.0f} images/s"
            )
    print("ok" if fine else "FAILED")
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
