"""Twenty epochs of `--strategy frozen` beside the same twenty epochs with the backbone run every time.

Both start from the same weights and see the same batches in the same order; both validate after every epoch. medcli's
time is that of everything from reading the archive to the written model file, with an empty cache; the plain loop's
starts when its images lie in memory. The bar is a twelfth of its time at an equal figure.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from medcli.data.batches import epoch_order
from medcli.data.load import load_data
from medcli.models.build import build_classifier
from medcli.registry.cards import read_card
from medcli.registry.discovery import discover, find
from medcli.runs.directory import RunDirectory, claim_run
from medcli.runs.records import read_metrics
from medcli.settings.groups import ComputeSettings, DataSettings, ModelSettings, StrategySettings, TrainingSettings
from medcli.training.engine import prepare, train
from medcli.training.plan import Plan, plan_training
from medcli.training.progress import NoProgress

BAR = 12.0
SAME = 1e-3
RATE, DECAY, SEED = 1e-2, 0.01, 0


def archive(folder: Path, images: int, size: int) -> Path:
    """A MedMNIST-shaped archive: noise, in one class of which a corner is brighter."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", images), ("val", images // 4), ("test", images // 4)):
        pictures = random.integers(0, 200, (count, size, size, 3), dtype=np.uint8)
        labels = random.integers(0, 2, (count, 1), dtype=np.uint8)
        pictures[labels[:, 0] == 1, : size // 2, : size // 2] += np.uint8(16)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = pictures, labels
    path = folder / "noise.npz"
    np.savez(path, **arrays)
    return path


def plan_of(path: Path, architecture: str, size: int, batch: int, epochs: int) -> Plan:
    """The plan that `medcli finetune --strategy frozen` would carry out."""
    data = DataSettings(data=(str(path),), image_size=size, task="binary", mean=(0.5,), std=(0.5,))
    entry = find(discover(), architecture)
    training = TrainingSettings(
        epochs=epochs, lr=RATE, weight_decay=DECAY, scheduler="constant", warmup_epochs=0, patience=0, augment="none"
    )
    return plan_training(
        load_data(data)[0],
        entry.qualified,
        read_card(entry),
        {},
        data_settings=data,
        model=ModelSettings(),
        training=training,
        compute=ComputeSettings(batch_size=batch, device="cpu", seed=SEED),
        strategy=StrategySettings(strategy="frozen"),
    )


def on_features(plan: Plan, folder: Path) -> tuple[float, float]:
    """Seconds, and validation AUC after the last epoch."""
    began = time.perf_counter()
    run = RunDirectory(folder / "run")
    claim_run(run, command="finetune")
    train(prepare(plan), run, NoProgress())
    return time.perf_counter() - began, float(read_metrics(run)[-1]["val_auc"])


def backbone_every_time(path: Path, plan: Plan) -> tuple[float, float]:
    """The same from a loop one would write by hand: images in memory, frozen backbone in eval, no gradients in it."""
    with np.load(path) as arrays:
        images, labels = {}, {}
        for split in ("train", "val"):
            pictures = torch.from_numpy(arrays[f"{split}_images"]).permute(0, 3, 1, 2)
            images[split] = pictures.contiguous(memory_format=torch.channels_last)
            labels[split] = torch.from_numpy(arrays[f"{split}_labels"]).long().squeeze(1)
    torch.manual_seed(SEED)
    model = build_classifier(plan.spec).classifier.to(memory_format=torch.channels_last)
    head, batch = model.medcli_head, plan.compute.batch_size
    decayed, bare = [head.linear.weight], [head.linear.bias]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": bare, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)
    model.eval()

    def features(split: str, rows: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            found = model.backbone((images[split][rows].float().div_(255) - 0.5) / 0.5)
        return found.clone()

    score = 0.0
    began = time.perf_counter()
    for epoch in range(plan.training.epochs):
        order = torch.from_numpy(epoch_order(len(labels["train"]), SEED, epoch))
        for rows in order.split(batch):
            loss = F.cross_entropy(head(features("train", rows)), labels["train"][rows])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            places = torch.arange(len(labels["val"])).split(batch)
            raw = torch.cat([head(features("val", rows)) for rows in places])
        score = float(roc_auc_score(labels["val"], raw.softmax(1)[:, 1]))
    return time.perf_counter() - began, score


def main() -> int:
    """Print the ratio; exit 1 when it misses the bar or the figures differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        path = archive(folder, options.images, options.size)
        plan = plan_of(path, options.architecture, options.size, options.batch, options.epochs)
        mine, auc = on_features(plan, folder)
        plain, reference = backbone_every_time(path, plan)
    ratio = plain / mine
    print(
        f"{options.architecture}, {options.images} images of {options.size} px, {options.epochs} epochs with a frozen "
        f"backbone: {mine:.1f} s on features, {plain:.1f} s with the backbone run every time: {ratio:.1f} times less "
        f"(bar {BAR:g}); val AUC {auc:.4f} and {reference:.4f}"
    )
    return int(ratio < BAR or abs(auc - reference) > SAME)


if __name__ == "__main__":
    raise SystemExit(main())
