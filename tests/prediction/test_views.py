"""Ten crops against torchvision's own, and the mean of probabilities against numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as vision

from medcli.data.dataset import Preprocessing
from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.models.build import LoadedModel, build_classifier
from medcli.models.spec import ModelSpec
from medcli.prediction.views import with_ten_crop
from medcli.testing.command import RunCli

from .conftest import SmallRun

TARGETS = {
    "multilabel": Target("multilabel", ("a", "b", "c")),
    "multiclass": Target("multiclass", ("a", "b", "c")),
    "ordinal": Target("ordinal", ("a", "b", "c")),
    "multioutput": Target("multioutput", outputs=(Output("x", ("0", "1")), Output("y", ("0", "1", "2")))),
}


def loaded(target: Target, size: int = 28) -> LoadedModel:
    kind = "corn" if target.task == "ordinal" else "linear"
    spec = ModelSpec(architecture="custom1", in_channels=1, image_size=size, target=target, head_kind=kind)
    classifier = build_classifier(spec, seed=1).classifier.eval()
    with torch.no_grad():
        classifier.medcli_head.linear.weight.mul_(300)
    return LoadedModel(classifier, spec, Preprocessing(size, 1, (0.5,), (0.5,)), {})


@pytest.mark.parametrize("task", TARGETS)
def test_ten_crops_are_those_of_torchvision(task: str) -> None:
    model = loaded(TARGETS[task])
    asked = with_ten_crop(model)
    assert asked.preprocessing.image_size == 32
    images = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        views = vision.ten_crop(images, [28, 28])
        logits = np.stack([model.classifier.decode(model.classifier(view)).numpy() for view in views]).astype(
            np.float64
        )
        found = asked.predictor(images).numpy()
    if task == "multilabel":
        expected, mean = (1 / (1 + np.exp(-logits))).mean(0), 1 / (1 + np.exp(-found))
    else:
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        expected, mean = (powers / powers.sum(-1, keepdims=True)).mean(0), np.exp(found)
    assert np.allclose(mean, expected, atol=1e-6)
    finite = np.isfinite(logits[0])
    assert np.abs(logits[0][finite] - logits[4][finite]).max() > 1e-3, "crops that are all alike prove nothing"


def test_sides_are_not_mirrored() -> None:
    with pytest.raises(UsageProblem, match="name a side"):
        with_ten_crop(loaded(Target("multiclass", ("lung-left", "lung-right"))))


def test_a_run_is_asked_ten_times(small_run: SmallRun, tmp_path: Path) -> None:
    medcli = RunCli(tmp_path)
    picture = next((small_run.data / "test" / "opaque").iterdir())
    once = medcli("predict", small_run.run.path, picture, "--json", in_process=True).json()
    ten = medcli("predict", small_run.run.path, picture, "--ten-crop", "--json", in_process=True).json()
    first, other = (document["result"]["predictions"][0] for document in (once, ten))
    assert first["image"] == other["image"]
    assert first["score_opaque"] != other["score_opaque"]
