"""Real ImageNet weights through the core: what a linear probe gets out of their features is what others got."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medcli import build
from medcli.data.batches import open_batches
from medcli.data.dataset import Preprocessing, Samples
from medcli.data.load import load_data
from medcli.data.resize import normalise
from medcli.data.splits import draw
from medcli.data.subset import take
from medcli.settings.groups import DataSettings

HALF = ((0.5,) * 3, (0.5,) * 3)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Architecture, options, file, normalisation, and the AUC of a linear probe on 800 radiographs of children, pretrained
# and random, as the files' own page reports them.
FILES = [
    ("timm/tf_mobilenetv3_small_100", {}, "tf_mobilenetv3_small_100.keras_in1k_dequant", HALF, 0.949, 0.862),
    (
        "timm/mobilenetv2_100",
        {"pad_type": "same", "bn_eps": 1e-3},
        "mobilenetv2_100.tf2_in1k_dequant",
        HALF,
        0.953,
        0.898,
    ),
    ("deit_tiny_patch16_224", {}, "deit_tiny_patch16_224.pipevit_in1k.fp16", IMAGENET, 0.950, 0.715),
]


def features(model: torch.nn.Module, samples: Samples, preprocessing: Preprocessing) -> np.ndarray:
    batches = open_batches(samples, preprocessing, batch_size=32, workers=1)
    with torch.inference_mode():
        parts = [model.features(normalise(batch.images, preprocessing)) for batch in batches.epoch(0)]
    return torch.cat(parts).numpy()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "file", "normalisation", "pretrained", "random"), FILES)
def test_a_linear_probe_gets_what_was_reported(
    shared_data: Path,
    name: str,
    options: dict[str, object],
    file: str,
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    pretrained: float,
    random: float,
) -> None:
    (data,) = load_data(DataSettings(data=(str(shared_data / "data/kermany_cxr224/dataset"),)))
    everything = data.splits["train"]
    train = take(everything, draw(everything.labels, 800, 0))
    test = data.splits["test"]
    preprocessing = Preprocessing(224, 3, *normalisation, interpolation="bicubic")
    found = {}
    for kind in ("pretrained", "random"):
        weights = shared_data / "data/weights" / f"{file}.safetensors" if kind == "pretrained" else None
        model = build(name, num_classes=2, weights=weights, seed=0, **options)
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        probe.fit(features(model, train, preprocessing), train.labels)
        found[kind] = roc_auc_score(test.labels, probe.decision_function(features(model, test, preprocessing)))
    assert found["pretrained"] == pytest.approx(pretrained, abs=0.02)
    assert found["random"] < random + 0.05 < found["pretrained"] + 0.03
