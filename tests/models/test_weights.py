"""Weight files: everything fits or nothing is loaded, and nothing in a file is ever run."""

from __future__ import annotations

import argparse
import os
from collections import OrderedDict
from itertools import cycle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from medcli.errors import UsageProblem
from medcli.models.timm_backbone import TimmBackbone
from medcli.models.weight_files import read_weights


def trained(name="test_resnet", **options):
    """A network with a head of its own, whose tensors nobody else has."""
    torch.manual_seed(7)
    network = timm.create_model(name, **options)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor) * 0.1)
    return network.eval()


def stored(path: Path, content) -> str:
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in content.items()}, str(path))
    else:
        torch.save(content, path)
    return str(path)


def load(path, name="test_resnet", **options):
    return TimmBackbone(name, image_size=options.pop("image_size", 32), weights=str(path), **options).eval()


def same(backbone, network):
    expected = network.state_dict()
    return all(torch.equal(value, expected[key]) for key, value in backbone.net.state_dict().items())


WRAPPED = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "arch": "densenet121"},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}, "args": argparse.Namespace(lr=0.1)},
    "parallel": lambda state: {"state_dict": OrderedDict((f"module.{key}", value) for key, value in state.items())},
    "lightning": lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
    "twice": lambda state: {"model": {f"module.backbone.{key}": value for key, value in state.items()}},
    "compiled": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
}


@pytest.mark.parametrize(
    ("wrapping", "suffix"), list(zip(WRAPPED, cycle([".pth", ".pt", ".bin", ".pth.tar"]), strict=False))
)
def test_files_of_training_scripts_are_unwrapped(wrapping, suffix, tmp_path):
    network = trained()
    backbone = load(stored(tmp_path / f"w{suffix}", WRAPPED[wrapping](network.state_dict())))
    assert same(backbone, network)
    report = backbone.load_report
    assert report is not None
    assert report.matched == report.total == len(backbone.net.state_dict())
    assert len(report.head) == 2
    assert "left out" in report.sentence()


def test_safetensors_and_half_precision_become_float32(tmp_path):
    network = trained().half()
    backbone = load(stored(tmp_path / "w.safetensors", network.state_dict()))
    assert same(backbone, network.float())
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}


def test_old_head_is_kept_aside(tmp_path):
    network = trained(num_classes=5)
    backbone = load(stored(tmp_path / "w.safetensors", network.state_dict()))
    assert backbone.pretrained_head is not None
    weight, bias = backbone.pretrained_head.weight, backbone.pretrained_head.bias
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(torch.nn.functional.linear(backbone(images), weight, bias), network(images))
    assert not [name for name, _ in backbone.named_parameters() if "head" in name or "fc" in name]


def test_head_with_a_norm_is_recognised_by_what_the_classes_add(tmp_path):
    network = trained("levit_128s", num_classes=4)
    backbone = load(stored(tmp_path / "w.pth", network.state_dict()), "levit_128s", image_size=224)
    assert backbone.load_report is not None
    assert any("bn" in key for key in backbone.load_report.head)
    assert same(backbone, network)


def test_old_densenet_names_are_converted(tmp_path):
    network = trained("densenet121")
    old = {
        key.replace("norm1.", "norm.1.")
        .replace("conv1.", "conv.1.")
        .replace("norm2.", "norm.2.")
        .replace("conv2.", "conv.2.")
        if "denselayer" in key
        else key: value
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    backbone = load(
        stored(tmp_path / "w.pth.tar", {"state_dict": {f"module.{k}": v for k, v in old.items()}}), "densenet121"
    )
    assert same(backbone, network)


def test_rgb_stem_is_summed_for_one_channel(tmp_path):
    network = trained()
    backbone = load(stored(tmp_path / "w.safetensors", network.state_dict()), in_channels=1)
    assert backbone.load_report is not None
    assert backbone.load_report.converted
    grey = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(
        backbone(grey), network.forward_head(network.forward_features(grey.expand(-1, 3, -1, -1)), pre_logits=True)
    )


@pytest.mark.parametrize("size", [64, 160, 224])
def test_positions_are_interpolated_to_the_image_size(size, tmp_path):
    network = trained("test_vit", img_size=160)
    backbone = load(stored(tmp_path / "w.safetensors", network.state_dict()), "test_vit", image_size=size)
    expected = timm.layers.resample_abs_pos_embed(network.pos_embed, [size // 16] * 2, num_prefix_tokens=1)
    torch.testing.assert_close(backbone.net.pos_embed, expected)
    assert backbone.load_report is not None
    assert backbone.load_report.resized == (() if size == 160 else ("pos_embed",))
    assert backbone(torch.randn(1, 3, size, size)).shape == (1, backbone.feature_dim)


def test_patches_of_another_size_are_resampled(tmp_path):
    network = trained("test_vit", img_size=160)
    path = stored(tmp_path / "w.safetensors", network.state_dict())
    backbone = load(path, "test_vit", image_size=160, patch_size=8)
    assert backbone.load_report is not None
    assert set(backbone.load_report.resized) == {"pos_embed", "patch_embed.proj.weight"}
    assert torch.equal(backbone.net.blocks[0].attn.qkv.weight, network.blocks[0].attn.qkv.weight)


def test_relative_positions_of_swin_follow_the_size(tmp_path):
    network = trained("swin_tiny_patch4_window7_224")
    path = stored(tmp_path / "w.safetensors", network.state_dict())
    backbone = load(path, "swin_tiny_patch4_window7_224", image_size=64)
    assert backbone.load_report is not None
    assert backbone.load_report.matched == backbone.load_report.total
    assert len(backbone.load_report.resized) == 8  # windows of 4 in the third stage, of 2 in the last
    old = network.layers[3].blocks[0].attn.relative_position_bias_table
    new = backbone.net.layers[3].blocks[0].attn.relative_position_bias_table
    # The middle of the table is no displacement, in any window.
    torch.testing.assert_close(new[len(new) // 2], old[len(old) // 2], atol=0.1, rtol=0)


def changed(state, how):
    keys = list(state)
    if how == "missing":
        del state[keys[3]]
    elif how == "unexpected":
        state["surplus.weight"] = torch.zeros(3)
    else:
        state["conv1.0.weight" if "conv1.0.weight" in state else keys[0]] = torch.zeros(2, 2)
    return state


@pytest.mark.parametrize(
    ("how", "words"),
    [("missing", "1 are missing"), ("unexpected", "surplus.weight"), ("shape", r"\[2, 2\] instead of")],
)
def test_whatever_does_not_fit_exactly_is_refused(how, words, tmp_path):
    path = stored(tmp_path / "w.pth", changed(trained().state_dict(), how))
    with pytest.raises(UsageProblem, match=words) as caught:
        load(path)
    assert caught.value.code == "weights-do-not-fit"
    assert caught.value.where == "--weights"
    assert "tensors match" in caught.value.message


def test_weights_of_another_family_are_refused_both_ways(tmp_path):
    resnet = stored(tmp_path / "r.pth", trained().state_dict())
    vit = stored(tmp_path / "v.pth", trained("test_vit").state_dict())
    for path, name in ((resnet, "test_vit"), (vit, "test_resnet"), (vit, "swin_tiny_patch4_window7_224")):
        with pytest.raises(UsageProblem, match=r"does not fit `\w+`: \d+ of \d+ tensors match"):
            load(path, name)


class Runs:
    """What a hostile file looks like: unpickling it would call a function."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_file_that_needs_code_is_refused_and_not_run(tmp_path):
    path = stored(tmp_path / "w.pth", {"state_dict": trained().state_dict(), "hook": Runs(tmp_path / "ran")})
    with pytest.raises(UsageProblem, match="could only be read by running code") as caught:
        load(path)
    assert caught.value.code == "unsafe-weights"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_files_are_refused(suffix, damage, tmp_path):
    path = tmp_path / f"w{suffix}"
    stored(path, trained().state_dict())
    content = {"truncated": path.read_bytes()[:-2000], "empty": b"", "text": b"not weights at all"}[damage]
    path.write_bytes(content)
    with pytest.raises(UsageProblem) as caught:
        read_weights(path)
    assert caught.value.code in {"bad-weights", "unsafe-weights"}
    assert "\n" not in caught.value.message


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UsageProblem, match="there is no weight file"):
        read_weights(tmp_path / "absent.pth")
    (tmp_path / "w.npz").write_bytes(b"PK")
    with pytest.raises(UsageProblem, match="is not a weight file"):
        read_weights(tmp_path / "w.npz")
    with pytest.raises(UsageProblem, match="not tensors by name"):
        read_weights(stored(tmp_path / "t.pt", torch.zeros(3)))
    with pytest.raises(UsageProblem, match="holds no tensors"):
        read_weights(stored(tmp_path / "d.pt", {"epoch": 3}))


@pytest.mark.parametrize(
    ("file", "name", "options"),
    [
        ("tf_mobilenetv3_small_100.keras_in1k_dequant.safetensors", "tf_mobilenetv3_small_100", {}),
        ("mobilenetv2_100.tf2_in1k_dequant.safetensors", "mobilenetv2_100", {"pad_type": "same", "bn_eps": 1e-3}),
        ("deit_tiny_patch16_224.pipevit_in1k.fp16.safetensors", "deit_tiny_patch16_224", {}),
    ],
)
def test_real_files_give_the_features_of_timm(file, name, options, shared_data):
    path = shared_data / "data" / "weights" / file
    network = timm.create_model(name, **options).eval()
    network.load_state_dict({key: value.float() for key, value in read_weights(path).items()}, strict=True)
    backbone = TimmBackbone(name, weights=str(path), **options).eval()
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(images), pre_logits=True)
        assert torch.equal(backbone(images), expected)


def test_real_deit_file_does_not_fit_mobilenet(shared_data):
    path = shared_data / "data" / "weights" / "deit_tiny_patch16_224.pipevit_in1k.fp16.safetensors"
    with pytest.raises(UsageProblem, match="0 of 312 tensors match"):
        TimmBackbone("mobilenetv2_100", weights=str(path))
