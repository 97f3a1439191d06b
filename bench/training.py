"""An epoch of medcli beside an epoch of a hand-written PyTorch loop: same network, batches, optimiser and precision.

Both loops run in this process, one epoch each in turn, so that the machine's moods meet both. The figure that counts is
the median ratio from the second epoch on; the bar is 1.05.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F

from medcli.data.load import load_data
from medcli.registry.cards import read_card
from medcli.registry.discovery import discover, find
from medcli.settings.groups import ComputeSettings, DataSettings, ModelSettings, TrainingSettings
from medcli.training.best import Best
from medcli.training.checkpoint import Position
from medcli.training.engine import Prepared, prepare
from medcli.training.interruption import Interruption
from medcli.training.loop import learn_epoch
from medcli.training.plan import plan_training
from medcli.training.progress import NoProgress

BAR = 1.05


def archive(folder: Path, images: int, size: int) -> Path:
    """A MedMNIST-shaped archive of noise: what is learnt does not matter here."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", images), ("val", 16), ("test", 16)):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = random.integers(0, 2, (count, 1), dtype=np.uint8)
    path = folder / "noise.npz"
    np.savez(path, **arrays)
    return path


def medcli_loop(path: Path, architecture: str, size: int, batch: int, augment: str) -> Prepared:
    """medcli's own parts, as `medcli train` makes them."""
    data_settings = DataSettings(data=(str(path),), image_size=size, task="binary", mean=(0.5,), std=(0.5,))
    entry = find(discover(), architecture)
    plan = plan_training(
        load_data(data_settings)[0],
        entry.qualified,
        read_card(entry),
        {},
        data_settings=data_settings,
        model=ModelSettings(),
        training=TrainingSettings(augment=augment, epochs=100),  # type: ignore[arg-type]
        compute=ComputeSettings(batch_size=batch, device="cpu"),
    )
    return prepare(plan)


class PlainLoop:
    """The loop one would write by hand: tensors in memory, a random permutation, the same fused optimiser."""

    def __init__(self, path: Path, architecture: str, batch: int) -> None:
        with np.load(path) as arrays:
            images = torch.from_numpy(arrays["train_images"]).permute(0, 3, 1, 2)
            self.labels = torch.from_numpy(arrays["train_labels"]).long().squeeze(1)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.batch = batch
        self.model = timm.create_model(architecture, num_classes=2).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)

    def epoch(self) -> None:
        self.model.train()
        for chosen in torch.randperm(len(self.images)).split(self.batch):
            images = (self.images[chosen].float().div_(255) - 0.5) / 0.5
            loss = F.cross_entropy(self.model(images), self.labels[chosen])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            loss.item()


def main() -> int:
    """Print the ratio; exit 1 when it misses the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = archive(Path(folder), options.images, options.size)
        own = medcli_loop(path, options.architecture, options.size, options.batch, "none")
        plain = PlainLoop(path, options.architecture, options.batch)
        ratios = []
        position = Position(Best("auc"))
        for epoch in range(options.epochs):
            began = time.perf_counter()
            position = learn_epoch(own.parts, Position(position.best, epoch), Interruption(), NoProgress())
            middle = time.perf_counter()
            plain.epoch()
            end = time.perf_counter()
            if epoch:
                ratios.append((middle - began) / (end - middle))
            print(f"epoch {epoch + 1}: medcli {middle - began:.2f} s, plain loop {end - middle:.2f} s")
    ratio = statistics.median(ratios)
    print(
        f"{options.architecture}, {options.images} images of {options.size} px, batch {options.batch}, fp32: "
        f"median ratio {ratio:.3f} (bar {BAR}) over {len(ratios)} epochs"
    )
    return int(ratio > BAR)


if __name__ == "__main__":
    raise SystemExit(main())
