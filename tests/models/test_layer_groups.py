"""Blocks and stages: complete, once, in the order of the forward pass, for timm's patterns and for containers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medcli.models.layer_groups import group_layers
from medcli.models.timm_backbone import TimmBackbone

NETWORKS = (
    "test_resnet",
    "test_vit",
    "test_efficientnet",
    "test_convnext",
    "swin_tiny_patch4_window7_224",
    "mobilenetv3_small_100",
    "densenet121",
    "regnetx_002",
    "maxvit_tiny_tf_224",
    "deit_tiny_distilled_patch16_224",
    "poolformer_s12",
)


def order_of_first_use(backbone, groups, image_size):
    """Positions of the groups in the order in which a module of theirs with parameters is first entered."""
    owner = {module: index for index, group in enumerate(groups) for module in group.modules}
    seen: list[int] = []

    def enter(index):
        return lambda *_: seen.append(index)

    for name, module in backbone.named_modules():
        if name in owner and next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(enter(owner[name]))
    backbone.eval()
    with torch.no_grad():
        backbone(torch.zeros(1, 3, image_size, image_size, device="meta"))
    return list(dict.fromkeys(seen))


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_are_complete_once_and_in_order(name):
    with torch.device("meta"):
        backbone = TimmBackbone(name)
    groups = backbone.layer_groups()
    named = [parameter for group in groups for parameter in group.parameters]
    assert sorted(named) == sorted(key for key, _ in backbone.named_parameters())
    modules = [module for group in groups for module in group.modules]
    assert len(set(modules)) == len(modules)
    owned = set(modules)
    for key, module in backbone.named_modules():
        if next(module.buffers(recurse=False), None) is not None:
            assert key in owned, key
        if isinstance(module, nn.Dropout) or type(module).__name__ == "DropPath":
            assert key in owned, key
    stages = [group.stage for group in groups]
    assert stages == sorted(stages)
    assert set(stages) == set(range(stages[-1] + 1))
    assert len({group.name for group in groups}) == len(groups)
    used = order_of_first_use(backbone, groups, backbone.image_size)
    assert used == sorted(used)


def test_stages_are_those_a_reader_counts():
    def shape(name):
        with torch.device("meta"):
            groups = TimmBackbone(name).layer_groups()
        stages = [group.stage for group in groups]
        return [stages.count(stage) for stage in range(stages[-1] + 1)], groups[0].name, groups[1].name

    assert shape("resnet50") == ([1, 3, 4, 6, 3], "stem", "layer1.0")
    assert shape("vit_tiny_patch16_224") == ([1] * 13, "stem", "blocks.0")
    assert shape("swin_tiny_patch4_window7_224")[0] == [1, 2, 2, 6, 2]
    assert shape("densenet121")[0] == [1, 6, 12, 24, 17]


class Unlabelled(nn.Module):
    """Two stages of blocks and a bare embedding, without any description of itself."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(4))
        self.stem = nn.Conv2d(3, 4, 1)
        self.stages = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)) for _ in range(2)))
        self.drop = nn.Dropout(0.1)
        self.norm = nn.LayerNorm(4)


def test_networks_without_patterns_are_cut_along_containers():
    groups = group_layers(Unlabelled(), prefix="net.")
    assert [parameter for group in groups for parameter in group.parameters] == [
        f"net.{name}" for name, _ in Unlabelled().named_parameters()
    ]
    assert [group.stage for group in groups] == [0, 1, 2, 2, 3, 3, 4]
    assert "net.stages.0.1" in groups[3].modules
    assert [group.name for group in groups if "net.drop" in group.modules] == ["stages.1.1"]


def test_network_without_parameters_has_no_groups():
    assert group_layers(nn.ReLU()) == ()
