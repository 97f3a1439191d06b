"""Every option of a built-in architecture changes what it should, and nothing else."""

from __future__ import annotations

import importlib

import pytest
import torch
from safetensors.torch import save_file

from medcli.errors import UsageProblem


def build(module, name, **options):
    torch.manual_seed(0)
    factory = getattr(importlib.import_module(f"medcli.architectures.{module}"), name)
    return factory(**{"in_channels": 3, "image_size": 32, **options})


def count(backbone):
    return sum(parameter.numel() for parameter in backbone.parameters())


IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("module", "name"),
    [("vit", "vit_tiny_patch16_224"), ("vit", "deit_tiny_patch16_224"), ("swin", "swin_tiny_patch4_window7_224")],
)
def test_attention_dropout_acts_in_training_alone(module, name):
    still = build(module, name).train()
    assert torch.equal(still(IMAGES), still(IMAGES))
    moving = build(module, name, attention_dropout=0.3).train()
    assert not torch.equal(moving(IMAGES), moving(IMAGES))
    assert torch.equal(moving.eval()(IMAGES), still.eval()(IMAGES))


@pytest.mark.parametrize(("patch", "tokens"), [(16, 4), (8, 16), (4, 64)])
def test_patch_size_sets_the_number_of_tokens(patch, tokens):
    backbone = build("vit", "vit_tiny_patch16_224", patch_size=patch)
    assert backbone.attention_maps(IMAGES).shape[-1] == tokens + 1
    with pytest.raises(UsageProblem, match=f"nearest size it can take is {32 + patch}"):
        build("vit", "vit_tiny_patch16_224", patch_size=patch, image_size=32 + patch // 2)


def test_pool_chooses_the_class_token_or_the_mean_of_the_patches(tmp_path):
    cls = build("vit", "vit_tiny_patch16_224").eval()
    path = tmp_path / "vit.safetensors"
    save_file(cls.net.state_dict(), str(path))
    mean = build("vit", "vit_tiny_patch16_224", pool="mean", weights=str(path)).eval()
    tokens = cls.net.forward_features(IMAGES)
    torch.testing.assert_close(cls(IMAGES), tokens[:, 0])
    torch.testing.assert_close(mean(IMAGES), tokens[:, 1:].mean(1))
    assert count(cls) == count(mean)


@pytest.mark.parametrize("name", ["densenet121", "densenet264"])
def test_growth_rate_sets_the_width(name):
    with torch.device("meta"):
        thin, full = build("densenet", name, growth_rate=12), build("densenet", name)
    assert count(thin) < count(full)
    layer = thin.net.features.denseblock1.denselayer1
    assert layer.conv2.out_channels == 12
    assert layer.conv1.out_channels == 48


def test_small_stem_keeps_the_resolution():
    standard, small = build("resnet", "resnet18").eval(), build("resnet", "resnet18", stem="small").eval()
    assert standard.feature_map(IMAGES).shape[-1] == 1
    assert small.feature_map(IMAGES).shape[-1] == 4
    assert small.net.conv1.stride == (1, 1)
    assert count(standard) - count(small) == 64 * 3 * (49 - 9)
    assert small.layer_groups()[0].stage == 0
    assert build("resnet", "resnet18", stem="small", in_channels=1).net.conv1.in_channels == 1


@pytest.mark.parametrize("options", [{}, {"stem": "small"}], ids=["standard", "small"])
def test_weights_are_drawn_as_pytorch_draws_them(options):
    """The moments of a uniform distribution within ± 1 / sqrt(fan in), and no block that begins as the identity."""
    usual, drawn = build("resnet", "resnet18", **options).net, build("resnet", "resnet18", init="torch", **options).net
    assert {name: value.shape for name, value in usual.state_dict().items()} == {
        name: value.shape for name, value in drawn.state_dict().items()
    }
    for one in (layer for layer in drawn.modules() if isinstance(layer, torch.nn.Conv2d)):
        bound = one.weight[0].numel() ** -0.5
        assert bound * 0.98 < float(one.weight.detach().abs().max()) <= bound
        assert float(one.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.03)
    last = [network.layer1[0].bn2.weight.detach() for network in (usual, drawn)]
    assert (last[0] == 0).all()
    assert (last[1] == 1).all()
    again = build("resnet", "resnet18", init="torch", **options).net
    assert torch.equal(again.layer4[1].conv2.weight, drawn.layer4[1].conv2.weight)


def test_weights_from_a_file_are_not_drawn(tmp_path):
    path = tmp_path / "resnet18.safetensors"
    save_file(build("resnet", "resnet18").net.state_dict(), str(path))
    with pytest.raises(UsageProblem, match="`init=torch` draws weights, and these come from a file"):
        build("resnet", "resnet18", init="torch", weights=str(path))


def test_weights_with_the_published_stem_do_not_fit_the_small_one(tmp_path):
    path = tmp_path / "resnet18.safetensors"
    save_file(build("resnet", "resnet18").net.state_dict(), str(path))
    with pytest.raises(UsageProblem, match=r"conv1.weight \[64, 3, 7, 7\] instead of \[64, 3, 3, 3\]"):
        build("resnet", "resnet18", stem="small", weights=str(path))


@pytest.mark.parametrize(
    ("module", "name", "default"),
    [
        ("efficientnet", "efficientnet_b0", "symmetric"),
        ("efficientnet", "efficientnet_lite1", "same"),
        ("mobilenet", "mobilenetv3_small_100", "symmetric"),
    ],
)
def test_padding_changes_the_result_and_not_the_tensors(module, name, default):
    symmetric, same = (build(module, name, padding=padding).eval() for padding in ("symmetric", "same"))
    same.load_state_dict(symmetric.state_dict(), strict=True)
    assert not torch.allclose(symmetric(IMAGES), same(IMAGES))
    plain = build(module, name).eval()
    plain.load_state_dict(symmetric.state_dict(), strict=True)
    assert torch.equal(plain(IMAGES), {"symmetric": symmetric, "same": same}[default](IMAGES))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("resnet", "resnet18"),
        ("efficientnet", "efficientnet_b0"),
        ("vit", "deit_tiny_patch16_224"),
        ("swin", "swin_tiny_patch4_window7_224"),
        ("mobilenet", "mobilenetv3_small_100"),
        ("convnext", "convnext_tiny"),
        ("regnet", "regnetx_032"),
    ],
)
def test_drop_path_acts_in_the_families_that_have_it(module, name):
    with torch.device("meta"):
        backbone = build(module, name, drop_path=0.2)
        assert max(getattr(part, "drop_prob", 0) or 0 for part in backbone.modules()) == pytest.approx(0.2, abs=0.05)
        without = build(module, name)
    assert not any(getattr(part, "drop_prob", 0) for part in without.modules())


def test_drop_path_is_refused_in_densenet():
    with pytest.raises(UsageProblem, match="no stochastic depth"):
        build("densenet", "densenet121", drop_path=0.1)


@pytest.mark.parametrize(
    ("module", "name", "options"),
    [
        ("resnet", "resnet18", {"stem": "tiny"}),
        ("resnet", "resnet18", {"init": "zero"}),
        ("vit", "vit_tiny_patch16_224", {"pool": "max"}),
        ("vit", "vit_tiny_patch16_224", {"patch_size": 0}),
        ("densenet", "densenet121", {"growth_rate": 0}),
        ("efficientnet", "efficientnet_b0", {"padding": "valid"}),
        ("mobilenet", "mobilenetv3_small_100", {"padding": "valid"}),
    ],
)
def test_values_that_do_not_exist_are_refused(module, name, options):
    with pytest.raises(UsageProblem) as caught:
        build(module, name, **options)
    assert str(caught.value.where).startswith("--arch-opt")


def test_timm_options_are_read_from_text():
    from medcli.architectures.timm_namespace import build as timm_network

    backbone = timm_network(
        name="test_vit", in_channels=3, image_size=32, depth="2", qkv_bias="false", norm_layer="layernorm"
    )
    assert len(backbone.net.blocks) == 2
    assert backbone.net.blocks[0].attn.qkv.bias is None
