"""Thirty passes with dropout in the head beside one pass without, from decoded images to stored predictions.

Both run medcli's own prediction of a data set; they alternate, and the fastest of each counts, so that a busy machine
disturbs neither more than the other. The bar: 1.3 times one pass. A loop that runs the whole network thirty times, as
switching dropout on in a network usually means, is timed on one batch for comparison.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from medcli.data.dataset import Picture, Preprocessing, Samples
from medcli.data.target import Target
from medcli.models.build import LoadedModel, build_classifier
from medcli.models.spec import ModelSpec
from medcli.prediction.datasets import predict_samples
from medcli.prediction.mc_dropout import with_mc_dropout
from medcli.settings.groups import ComputeSettings

BAR = 1.3


class Noise:
    """Grey pictures in memory."""

    def __init__(self, images: int, size: int) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (images, size, size), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> Picture:
        return Picture(self.pixels[index], 0, 255)

    def describe(self, index: int) -> str:
        return str(index)

    def fingerprint(self, index: int) -> bytes:
        return str(index).encode()


def main() -> int:
    """Print the ratio; exit 1 when it misses the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--passes", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    target = Target("multilabel", tuple(f"label {index}" for index in range(options.classes)))
    spec = ModelSpec(
        architecture=options.architecture, in_channels=3, image_size=options.size, target=target, dropout=0.3
    )
    classifier = build_classifier(spec, seed=0).classifier.eval()
    plain = LoadedModel(classifier, spec, Preprocessing(options.size, 3, (0.5,) * 3, (0.5,) * 3), {})
    dropping = with_mc_dropout(plain, options.passes)
    images = Noise(options.images, options.size)
    ids = np.array([str(index) for index in range(options.images)])
    samples = Samples(ids, images, np.zeros((options.images, options.classes), np.float32))
    compute = ComputeSettings(device="cpu", batch_size=32, workers=0)

    def seconds(model: LoadedModel) -> float:
        began = time.perf_counter()
        predict_samples(model, samples, compute, split="test", data_name="noise")
        return time.perf_counter() - began

    seconds(plain)
    timed = [(seconds(plain), seconds(dropping)) for _ in range(options.repeats)]
    once, many = (min(times) for times in zip(*timed, strict=True))
    batch = torch.zeros(32, 3, options.size, options.size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        began = time.perf_counter()
        for _ in range(options.passes):
            classifier(batch)
        naive = (time.perf_counter() - began) * options.images / 32
    ratio = many / once
    print(
        f"{options.architecture}, {options.images} images of {options.size} px, {options.classes} labels: one pass "
        f"{once:.2f} s, {options.passes} passes with dropout in the head {many:.2f} s: {ratio:.3f} times as long (bar "
        f"{BAR:g}); {options.passes} passes of the whole network take {naive:.1f} s"
    )
    return int(ratio > BAR)


if __name__ == "__main__":
    raise SystemExit(main())
