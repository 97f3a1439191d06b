"""Every built-in architecture is what the papers say: counts, widths, blocks in order, on the meta device."""

from __future__ import annotations

import importlib.metadata

import pytest
import torch

# Backbone without head, pooled width, stages: written down from the papers and the libraries that publish them.
PUBLISHED = {
    "resnet18": (11_176_512, 512, 5),
    "resnet34": (21_284_672, 512, 5),
    "resnet50": (23_508_032, 2048, 5),
    "resnet101": (42_500_160, 2048, 5),
    "resnet152": (58_143_808, 2048, 5),
    "efficientnet_b0": (4_007_548, 1280, 8),
    "efficientnet_b1": (6_513_184, 1280, 8),
    "efficientnet_b2": (7_700_994, 1408, 8),
    "efficientnet_b3": (10_696_232, 1536, 8),
    "efficientnet_b4": (17_548_616, 1792, 8),
    "efficientnet_b5": (28_340_784, 2048, 8),
    "efficientnet_b6": (40_735_704, 2304, 8),
    "efficientnet_b7": (63_786_960, 2560, 8),
    "efficientnet_lite0": (3_371_008, 1280, 8),
    "efficientnet_lite1": (4_135_680, 1280, 8),
    "efficientnet_lite2": (4_811_072, 1280, 8),
    "efficientnet_lite3": (6_916_096, 1280, 8),
    "efficientnet_lite4": (11_725_568, 1280, 8),
    "densenet121": (6_953_856, 1024, 5),
    "densenet169": (12_484_480, 1664, 5),
    "densenet201": (18_092_928, 1920, 5),
    "densenet264": (30_648_704, 2688, 5),
    "vit_tiny_patch16_224": (5_524_416, 192, 13),
    "vit_small_patch16_224": (21_665_664, 384, 13),
    "vit_base_patch16_224": (85_798_656, 768, 13),
    "vit_large_patch16_224": (303_301_632, 1024, 25),
    "vit_huge_patch14_224": (630_764_800, 1280, 33),
    "deit_tiny_patch16_224": (5_524_416, 192, 13),
    "deit_small_patch16_224": (21_665_664, 384, 13),
    "deit_base_patch16_224": (85_798_656, 768, 13),
    "swin_tiny_patch4_window7_224": (27_519_354, 768, 5),
    "swin_small_patch4_window7_224": (48_837_258, 768, 5),
    "swin_base_patch4_window7_224": (86_743_224, 1024, 5),
    "mobilenetv3_small_100": (1_517_856, 1024, 7),
    "mobilenetv3_large_100": (4_202_032, 1280, 8),
    "convnext_tiny": (27_820_128, 768, 5),
    "regnetx_032": (14_287_552, 1008, 5),
    "custom1": (979_360, 384, 5),
}


def factory(name):
    (entry,) = importlib.metadata.entry_points(group="medcli.architectures", name=name)
    return entry.load()


def made(name, **options):
    with torch.device("meta"):
        return factory(name)(**{"in_channels": 3, "image_size": 224, **options}).eval()


def shape_of(backbone, size, channels=3):
    with torch.no_grad(), torch.device("meta"):
        return tuple(backbone(torch.zeros(2, channels, size, size)).shape)


def test_no_built_in_is_left_out():
    names = {entry.name for entry in importlib.metadata.entry_points(group="medcli.architectures")}
    assert set(PUBLISHED) <= names


@pytest.mark.parametrize("name", PUBLISHED)
def test_built_in_is_what_was_published(name):
    backbone = made(name)
    parameters, width, stages = PUBLISHED[name]
    assert sum(parameter.numel() for parameter in backbone.parameters()) == parameters
    assert backbone.feature_dim == width
    groups = backbone.layer_groups()
    assert groups[-1].stage + 1 == stages
    named = [parameter for group in groups for parameter in group.parameters]
    assert sorted(named) == sorted(key for key, _ in backbone.named_parameters())
    entered: list[int] = []
    owner = {module: index for index, group in enumerate(groups) for module in group.modules}
    for key, module in backbone.named_modules():
        if key in owner and next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(lambda *_, index=owner[key]: entered.append(index))
    assert shape_of(backbone, 224) == (2, width)
    first = list(dict.fromkeys(entered))
    assert first == sorted(first)
    assert len(first) == len(groups)


@pytest.mark.parametrize("name", PUBLISHED)
def test_built_in_takes_one_channel_and_a_smaller_size(name):
    assert shape_of(made(name, in_channels=1, image_size=112), 112, channels=1) == (2, PUBLISHED[name][1])


@pytest.mark.slow
@pytest.mark.parametrize("size", [336, 448])
@pytest.mark.parametrize("name", PUBLISHED)
def test_built_in_takes_many_sizes(name, size):
    assert shape_of(made(name, image_size=size), size) == (2, PUBLISHED[name][1])


def test_custom1_takes_any_size_and_has_no_weights():
    from medcli.errors import UsageProblem

    for size in (1, 7, 28, 65):
        assert shape_of(made("custom1", image_size=size), size) == (2, 384)
    for wrong in ({"pretrained": True}, {"weights": "in1k"}, {"drop_path": 0.1}):
        with pytest.raises(UsageProblem):
            made("custom1", **wrong)
