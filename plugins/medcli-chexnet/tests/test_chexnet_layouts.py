"""Files in the published layouts give the features and outputs of the networks they were written from."""

from __future__ import annotations

import pytest
import torch
from medcli_chexnet import chexnet
from torch.nn import functional as F

from medcli.errors import UsageProblem

NIH = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def build(path=None, **arguments):
    return chexnet(**{"in_channels": 3, "image_size": 64, "weights": path, **arguments}).eval().requires_grad_(False)


def outputs(backbone, pictures):
    head = backbone.pretrained_head
    return F.linear(backbone(pictures), head.weight, head.bias)


def test_chexnet_checkpoint_gives_its_features_outputs_and_labels(
    chexnet_file, torchvision_network, torchvision_tensors, images, plain_features, dotted
):
    backbone = build(chexnet_file)
    features = backbone(images)
    maps = F.relu(torchvision_network.features(images))
    torch.testing.assert_close(features, F.adaptive_avg_pool2d(maps, 1).flatten(1), **CLOSE)
    torch.testing.assert_close(features, plain_features(dotted(torchvision_tensors), images), **CLOSE)
    torch.testing.assert_close(outputs(backbone, images), torchvision_network(images), **CLOSE)
    assert (torchvision_network.features(images) < 0).any()  # the last ReLU has something to do
    assert backbone.pretrained_head.class_names == NIH
    assert backbone.pretrained_head.task == "multilabel"


def test_every_tensor_comes_from_the_file(chexnet_file, torchvision_tensors):
    backbone = build(chexnet_file)
    state = {key: value for key, value in backbone.net.state_dict().items() if "num_batches" not in key}
    assert len(state) == 604
    assert all(torch.equal(value, torchvision_tensors[key]) for key, value in state.items())
    assert (backbone.load_report.matched, len(backbone.load_report.head)) == (604, 2)


def test_dots_of_2017_also_in_files_of_torchvision(saved, torchvision_tensors, images, plain_features, dotted):
    wide = {**torchvision_tensors, "classifier.weight": torch.zeros(1000, 1024), "classifier.bias": torch.zeros(1000)}
    backbone = build(saved(dotted(wide)))
    tensors = dotted(torchvision_tensors)
    torch.testing.assert_close(backbone(images), plain_features(tensors, images), **CLOSE)
    head = backbone.pretrained_head
    assert (head.weight.shape, head.class_names, head.task) == ((1000, 1024), (), "")


@pytest.mark.parametrize("prefix", ["", "module.", "module.densenet121.", "model.backbone."])
def test_names_of_torchvision_prove_no_labels(saved, torchvision_tensors, torchvision_network, images, prefix):
    backbone = build(saved({f"{prefix}{key}": value for key, value in torchvision_tensors.items()}))
    torch.testing.assert_close(outputs(backbone, images), torchvision_network(images), **CLOSE)
    assert backbone.pretrained_head.class_names == ()


def test_wrapper_of_chexnet_with_todays_names_proves_no_labels(saved, torchvision_tensors):
    state = {key.replace("classifier.", "classifier.0."): value for key, value in torchvision_tensors.items()}
    assert build(saved({f"densenet121.{key}": value for key, value in state.items()})).pretrained_head.class_names == ()


@pytest.mark.parametrize(
    ("labels", "first", "last"),
    [("nih14", "Atelectasis", "Hernia"), ("chexpert14", "No Finding", "Support Devices")],
)
def test_labels_that_are_said(saved, torchvision_tensors, labels, first, last):
    head = build(saved(torchvision_tensors), labels=labels).pretrained_head
    assert (head.class_names[0], head.class_names[-1], len(set(head.class_names))) == (first, last, 14)
    assert head.task == "multilabel"


def test_labels_none_forgets_what_the_file_proves(chexnet_file):
    assert build(chexnet_file, labels="none").pretrained_head.class_names == ()


def test_file_without_classifier(saved, torchvision_tensors, images):
    bare = saved({key: value for key, value in torchvision_tensors.items() if "classifier" not in key})
    backbone = build(bare)
    assert backbone.pretrained_head is None
    assert backbone(images).shape == (2, 1024)
    with pytest.raises(UsageProblem, match="no classifier") as caught:
        build(bare, labels="nih14")
    assert caught.value.code == "wrong-labels"


def test_xrv_state_dict(saved, xrv_network, images):
    grey = images[:, :1]
    backbone = build(saved(xrv_network.state_dict()), in_channels=1, pixels="xrv")
    torch.testing.assert_close(backbone(grey), xrv_network.features2(grey), **CLOSE)
    torch.testing.assert_close(outputs(backbone, grey), xrv_network.classifier(xrv_network.features2(grey)), **CLOSE)
    head = backbone.pretrained_head
    assert (head.class_names[0], head.class_names[16], head.task) == ("Atelectasis", "Lung Opacity", "multilabel")
    assert [index for index, name in enumerate(head.class_names) if not name] == [2, 17]
    assert backbone.load_report.ignored == ("op_threshs",)
    # What it publishes ranks pictures as the sigmoid of these outputs does.
    published = xrv_network(grey)
    assert torch.equal(published[:, 0].argsort(), outputs(backbone, grey)[:, 0].argsort())


def test_xrv_without_operating_points_proves_no_labels(saved, xrv_network):
    path = saved({key: value for key, value in xrv_network.state_dict().items() if key != "op_threshs"})
    head = build(path, in_channels=1, pixels="xrv").pretrained_head
    assert (head.class_names, head.task) == ((), "multilabel")
    names = build(path, in_channels=1, pixels="xrv", labels="xrv18").pretrained_head.class_names
    assert len(set(names)) == 18
    assert names[10] == "Cardiomegaly"


def test_one_channel_becomes_three(saved, xrv_network, images):
    grey = images[:, :1]
    backbone = build(saved(xrv_network.state_dict()), in_channels=3, pixels="xrv")
    torch.testing.assert_close(backbone(grey.repeat(1, 3, 1, 1)), xrv_network.features2(grey), **CLOSE)
    assert backbone.load_report.converted == ("features.conv0.weight",)


def test_three_channels_become_one(chexnet_file, images):
    grey = images[:, :1]
    one, three = build(chexnet_file, in_channels=1), build(chexnet_file)
    torch.testing.assert_close(one(grey), three(grey.repeat(1, 3, 1, 1)), **CLOSE)
    torch.testing.assert_close(outputs(one, grey), outputs(three, grey.repeat(1, 3, 1, 1)), **CLOSE)
