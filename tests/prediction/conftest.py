"""A run directory as a finished training leaves it, small enough to make in every session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medcli.data.dataset import Preprocessing
from medcli.data.target import Target
from medcli.evaluation.predictions import Predictions
from medcli.models.build import build_classifier, load_model, save_model
from medcli.models.spec import ModelSpec
from medcli.prediction.datasets import predict_samples
from medcli.prediction.finish import write_predictions
from medcli.prediction.sources import choose_cases
from medcli.runs.directory import RunDirectory, claim_run
from medcli.settings.groups import ComputeSettings, DataSettings, EvaluationSettings

TARGET = Target("binary", ("clear", "opaque"))
COMPUTE = ComputeSettings(device="cpu", batch_size=4, workers=1)


@dataclass(frozen=True)
class SmallRun:
    """A run, the folder of images it belongs to (own test split), and its stored test predictions."""

    run: RunDirectory
    data: Path
    stored: Predictions


def draw_images(folder: Path, count: int, seed: int) -> None:
    """Grey noise, brighter where the class is `opaque`, below `folder/CLASS/`."""
    generator = np.random.default_rng(seed)
    for label, name in enumerate(TARGET.class_names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = generator.integers(0, 156, (20, 20), dtype=np.uint8) + np.uint8(80 * label)
            Image.fromarray(pixels).save(folder / name / f"{name}{seed}-{number}.png")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("small")
    data = place / "home"
    for split, count in (("train", 3), ("val", 3), ("test", 6)):
        draw_images(data / split, count, {"train": 1, "val": 2, "test": 3}[split])
    run = RunDirectory(place / "run")
    claim_run(run, command="train")
    spec = ModelSpec(architecture="medcli/custom1", in_channels=1, image_size=16, target=TARGET)
    preprocessing = Preprocessing(image_size=16, channels=1, mean=(0.5,), std=(0.25,))
    save_model(run.model_file, build_classifier(spec, seed=0).classifier, spec, preprocessing)
    loaded = load_model(run.model_file)

    from medcli.data.load import load_data

    (dataset,) = load_data(DataSettings(data=(str(data),)), target=TARGET)
    stored = [
        predict_samples(loaded, dataset.splits[split], COMPUTE, split=split, data_name="home")[0]
        for split in ("val", "test")
    ]
    assert choose_cases(dataset, None).split == "test"
    write_predictions(run.path, stored, EvaluationSettings(bootstrap=20))
    return SmallRun(run, data, stored[1])
