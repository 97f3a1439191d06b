"""The timm adapter: widths, sizes, options, attention and maps."""

from __future__ import annotations

import pytest
import timm
import torch

from medcli.errors import UsageProblem
from medcli.models.timm_backbone import TimmBackbone


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_vit", "mobilenetv3_small_050", "vgg11", "hgnetv2_b0", "levit_128s"]
)
def test_feature_dim_is_what_the_forward_pass_gives(name):
    with torch.device("meta"):
        backbone = TimmBackbone(name).eval()
        assert backbone(torch.zeros(2, 3, backbone.image_size, backbone.image_size)).shape == (2, backbone.feature_dim)


def test_features_are_those_of_timm():
    torch.manual_seed(0)
    backbone = TimmBackbone("test_resnet", image_size=64).eval()
    network = timm.create_model("test_resnet", num_classes=7).eval()
    network.load_state_dict(backbone.net.state_dict(), strict=False)
    images = torch.randn(2, 3, 64, 64)
    expected = network.forward_head(network.forward_features(images), pre_logits=True)
    assert torch.equal(backbone(images), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_number_of_channels(channels):
    backbone = TimmBackbone("test_resnet", in_channels=channels, image_size=32)
    assert backbone(torch.randn(2, channels, 32, 32)).shape == (2, backbone.feature_dim)


def test_native_input_is_that_of_the_published_weights():
    native = TimmBackbone("vit_tiny_patch16_224").native
    assert (native.image_size, native.mean, native.interpolation) == (224, (0.5, 0.5, 0.5), "bicubic")


@pytest.mark.parametrize(
    ("name", "size", "nearest"),
    [
        ("vit_tiny_patch16_224", 100, 96),
        ("vit_tiny_patch16_224", 104, 112),
        ("vit_tiny_patch16_224", 3, 16),
        ("swin_tiny_patch4_window7_224", 225, 224),
        ("convnext_atto", 28, 32),
        ("densenet121", 20, 29),
    ],
)
def test_impossible_size_names_the_nearest_valid_one(name, size, nearest):
    with pytest.raises(UsageProblem, match=rf"nearest size it can take is {nearest}\b") as caught:
        TimmBackbone(name, image_size=size)
    assert caught.value.hint == f"--image-size {nearest}"
    with torch.device("meta"):
        TimmBackbone(name, image_size=nearest)


@pytest.mark.parametrize("size", [32, 100])
def test_swin_takes_every_multiple_of_its_patch(size):
    with torch.device("meta"):
        backbone = TimmBackbone("swin_tiny_patch4_window7_224", image_size=size).eval()
        assert backbone(torch.zeros(1, 3, size, size)).shape == (1, 768)


def test_drop_path_acts_where_it_exists():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    still = TimmBackbone("test_vit", image_size=32).train()
    assert torch.equal(still(images), still(images))
    moving = TimmBackbone("test_vit", image_size=32, drop_path=0.5).train()
    assert not torch.equal(moving(images), moving(images))
    moving.eval()
    assert torch.equal(moving(images), moving(images))


@pytest.mark.parametrize("name", ["densenet121", "vgg11"])
def test_drop_path_is_refused_where_it_does_not(name):
    with pytest.raises(UsageProblem, match="no stochastic depth"):
        TimmBackbone(name, drop_path=0.1)


def test_swin_has_no_drop_path_unless_asked():
    with torch.device("meta"):
        backbone = TimmBackbone("swin_tiny_patch4_window7_224")
    assert not [m for m in backbone.modules() if getattr(m, "drop_prob", 0)]


def test_attention_maps_are_those_the_network_uses():
    torch.manual_seed(0)
    backbone = TimmBackbone("vit_tiny_patch16_224", image_size=48).train()
    images = torch.randn(2, 3, 48, 48)
    maps = backbone.attention_maps(images, layer=0)
    assert maps.shape == (2, 3, 10, 10)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 3, 10))
    net = backbone.net.eval()
    block = net.blocks[0]
    tokens = block.norm1(net._pos_embed(net.patch_embed(images)))
    q, k, _ = block.attn.qkv(tokens).reshape(2, 10, 3, 3, 64).permute(2, 0, 3, 1, 4)
    torch.testing.assert_close(maps, ((q @ k.transpose(-1, -2)) * 64**-0.5).softmax(-1))
    assert not torch.equal(backbone.attention_maps(images), maps)
    assert torch.equal(backbone.attention_maps(images, -1), backbone.attention_maps(images, 11))


def test_reading_attention_leaves_the_network_as_it_was():
    backbone = TimmBackbone("test_vit", image_size=32).train()
    fused = [block.attn.fused_attn for block in backbone.net.blocks]
    modes = {name: module.training for name, module in backbone.named_modules()}
    backbone.attention_maps(torch.zeros(1, 3, 32, 32))
    assert [block.attn.fused_attn for block in backbone.net.blocks] == fused
    assert {name: module.training for name, module in backbone.named_modules()} == modes
    assert not any(module._forward_pre_hooks for module in backbone.modules())


def test_attention_that_is_not_there_is_refused():
    with pytest.raises(UsageProblem, match="has no attention layers"):
        TimmBackbone("test_resnet", image_size=32).attention_maps(torch.zeros(1, 3, 32, 32))
    with pytest.raises(UsageProblem, match="layer 99"):
        TimmBackbone("test_vit", image_size=32).attention_maps(torch.zeros(1, 3, 32, 32), layer=99)
    with torch.device("meta"), pytest.raises(UsageProblem, match="within windows"):
        TimmBackbone("swin_tiny_patch4_window7_224").attention_maps(torch.zeros(2, 3, 224, 224), layer=0)


@pytest.mark.parametrize(
    ("name", "size", "side"), [("test_resnet", 64, 2), ("test_vit", 64, 4), ("swin_tiny_patch4_window7_224", 64, 2)]
)
def test_feature_map_is_channels_first(name, size, side):
    backbone = TimmBackbone(name, image_size=size).eval()
    assert backbone.feature_map(torch.zeros(2, 3, size, size)).shape == (2, backbone.feature_dim, side, side)


def test_gradient_checkpointing_changes_no_result():
    torch.manual_seed(0)
    backbone = TimmBackbone("test_vit", image_size=32).train()
    images = torch.randn(2, 3, 32, 32)
    plain = torch.autograd.grad(backbone(images).square().sum(), backbone.net.patch_embed.proj.weight)[0]
    backbone.set_grad_checkpointing()
    again = torch.autograd.grad(backbone(images).square().sum(), backbone.net.patch_embed.proj.weight)[0]
    torch.testing.assert_close(plain, again)
    assert backbone.net.grad_checkpointing


def test_unknown_names_and_options_are_refused_with_the_nearest():
    with pytest.raises(UsageProblem) as caught:
        TimmBackbone("resnt50")
    assert "`resnet50`" in str(caught.value.hint)
    with pytest.raises(UsageProblem, match="no option `depht`"):
        TimmBackbone("test_vit", depht=3)
    with pytest.raises(UsageProblem, match="cannot be built"):
        TimmBackbone("vit_tiny_patch16_224", num_heads=5)


def test_position_embeddings_are_kept_free_of_weight_decay():
    backbone = TimmBackbone("test_vit", image_size=32)
    assert {"net.pos_embed", "net.cls_token"} <= backbone.no_weight_decay()
    assert backbone.no_weight_decay() & {name for name, _ in backbone.named_parameters()}
    assert TimmBackbone("test_resnet", image_size=32).no_weight_decay() == set()
