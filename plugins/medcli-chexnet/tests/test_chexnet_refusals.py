"""What is not proven is refused: no file is loaded in part, none is run, and options must agree with the file."""

from __future__ import annotations

import os
import sys
import warnings
from types import ModuleType

import pytest
import torch
from medcli_chexnet import chexnet
from torchvision.models import densenet121, densenet169

from medcli.errors import UsageProblem


def refused(path=None, **arguments):
    with pytest.raises(UsageProblem) as caught:
        chexnet(**{"in_channels": 3, "image_size": 64, "weights": path, **arguments})
    return caught.value


def test_there_is_no_default_to_start_from():
    problem = refused(pretrained=True)
    assert (problem.where, problem.code) == ("--pretrained", "no-default-weights")
    assert "--weights FILE" in problem.hint


def test_names_of_chexnet_that_match_nothing(saved, torchvision_tensors):
    """Loaded without strictness, such a file once gave a random network and an AUROC of .49."""
    problem = refused(saved({f"net_{key}": value for key, value in torchvision_tensors.items()}))
    assert problem.code == "weights-do-not-fit"
    assert "0 of 725 tensors match" in problem.message
    assert "604 are missing (features.conv0.weight" in problem.message
    assert "net_features.conv0.weight" in problem.message


def test_one_renamed_layer(saved, torchvision_tensors):
    state = {key.replace("denselayer3.norm1", "denselayer3.bn1"): value for key, value in torchvision_tensors.items()}
    problem = refused(saved(state))
    assert "16 are missing (features.denseblock1.denselayer3.norm1.weight" in problem.message
    assert "features.denseblock1.denselayer3.bn1.weight" in problem.message


def test_truncated(saved, torchvision_tensors):
    problem = refused(saved({key: value for key, value in torchvision_tensors.items() if "denseblock4" not in key}))
    assert "160 are missing" in problem.message


def test_half_matching(saved):
    with torch.device("meta"):
        shapes = densenet169(weights=None).state_dict()
    problem = refused(saved({key: torch.zeros(value.shape, dtype=value.dtype) for key, value in shapes.items()}))
    assert "are not part of it (features.denseblock3.denselayer25" in problem.message
    assert "have another shape" in problem.message


def test_two_networks_in_one_file(saved, torchvision_tensors):
    both = {f"{name}.{key}": value for name in ("teacher", "student") for key, value in torchvision_tensors.items()}
    assert refused(saved(both)).code == "weights-do-not-fit"


def test_two_names_for_one_tensor(saved, torchvision_tensors):
    state = {**torchvision_tensors, "classifier.0.weight": torchvision_tensors["classifier.weight"]}
    assert "classifier.weight" in refused(saved(state)).message


@pytest.mark.parametrize(
    "head",
    [
        {"classifier.weight": torch.zeros(14, 1024)},
        {"classifier.weight": torch.zeros(14, 512), "classifier.bias": torch.zeros(14)},
        {"classifier.weight": torch.zeros(14, 1024), "classifier.bias": torch.zeros(13)},
    ],
)
def test_classifier_that_is_no_linear_layer_on_the_features(saved, torchvision_tensors, head):
    body = {key: value for key, value in torchvision_tensors.items() if "classifier" not in key}
    problem = refused(saved({**body, **head}))
    assert problem.code == "weights-do-not-fit"
    assert "[K, 1024]" in problem.message


def test_deeper_classifier(saved, torchvision_tensors):
    state = {key.replace("classifier.", "classifier.2."): value for key, value in torchvision_tensors.items()}
    assert "2 are not part of it (classifier.2.weight" in refused(saved(state)).message


class Harm:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_file_that_would_run_a_command(saved, torchvision_tensors, tmp_path):
    victim = tmp_path / "harmed"
    problem = refused(saved({"state_dict": torchvision_tensors, "epoch": Harm(f"touch {victim}")}, "model.pth.tar"))
    assert problem.code == "unsafe-weights"
    assert "state dict" not in problem.hint
    assert not victim.exists()


def test_pickled_network_says_how_to_convert_it(saved):
    with torch.device("meta"):
        network = densenet121(weights=None, num_classes=14)
    problem = refused(saved(network))
    assert problem.code == "unsafe-weights"
    assert "whole pickled network" in problem.message
    assert "state_dict()" in problem.hint


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_network_of_torchxrayvision_says_how_to_convert_it(monkeypatch, tmp_path, zipped):
    package, models = ModuleType("torchxrayvision"), ModuleType("torchxrayvision.models")
    models.DenseNet = type("DenseNet", (torch.nn.Sequential,), {"__module__": models.__name__})
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, models.__name__, models)
    network = models.DenseNet(torch.nn.Conv2d(1, 2, 3))
    path = tmp_path / "nih-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old format would like to keep the source of this class, which has none
        torch.save(network, path, _use_new_zipfile_serialization=zipped)
    problem = refused(str(path), pixels="xrv")
    assert problem.code == "unsafe-weights"
    assert "xrv.models.DenseNet(weights='densenet121-res224-all').state_dict()" in problem.hint


def test_pixels_must_agree_with_the_file(saved, xrv_network, chexnet_file):
    for path, pixels, hint in (
        (saved(xrv_network.state_dict()), "imagenet", "add `--arch-opt pixels=xrv`"),
        (chexnet_file, "xrv", "leave `--arch-opt pixels=xrv` out"),
    ):
        problem = refused(path, in_channels=1, pixels=pixels)
        assert (problem.code, problem.hint) == ("wrong-pixels", hint)


def test_labels_must_agree_with_the_file(saved, chexnet_file, torchvision_tensors):
    problem = refused(chexnet_file, labels="chexpert14")
    assert (problem.code, problem.hint) == ("wrong-labels", "--arch-opt labels=nih14")
    problem = refused(saved(torchvision_tensors), labels="xrv18")
    assert "has 14 outputs, but `xrv18` names 18" in problem.message


def test_stochastic_depth():
    assert refused(drop_path=0.1).code == "no-drop-path"
