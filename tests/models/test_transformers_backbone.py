"""The transformers adapter: families, pooling, sizes, files old and new, and silence."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import socket

import pytest
import torch
import transformers
from safetensors.torch import save_file

from medcli.errors import UsageProblem
from medcli.models.transformers_backbone import TransformersBackbone
from medcli.plugin import Backbone

PLAIN = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "num_channels": 3}


def dinov2(**changes):
    return transformers.Dinov2Config(**{**PLAIN, "image_size": 56, "patch_size": 14, **changes})


def registers(**changes):
    return transformers.Dinov2WithRegistersConfig(**{**PLAIN, "image_size": 56, "patch_size": 14, **changes})


def vit(**changes):
    return transformers.ViTConfig(**{**PLAIN, "intermediate_size": 48, "image_size": 64, "patch_size": 16, **changes})


def swin(**changes):
    return transformers.SwinConfig(
        **{"embed_dim": 12, "depths": [1, 2], "num_heads": [2, 2], "image_size": 32, "window_size": 4, **changes}
    )


def convnext(**changes):
    return transformers.ConvNextV2Config(
        **{"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2, "image_size": 32, **changes}
    )


FAMILIES = {
    "dinov2": (dinov2, 84, 24),
    "registers": (registers, 84, 24),
    "vit": (vit, 80, 24),
    "swin": (swin, 40, 24),
    "convnext": (convnext, 40, 16),
}
TOKENS = ("dinov2", "registers", "vit")


def randomise(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module


def built(family, **arguments):
    make, size, _ = FAMILIES[family]
    return randomise(TransformersBackbone(make(), **{"image_size": size, **arguments})).eval()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_builds_for_any_number_of_channels(family, channels):
    _, size, width = FAMILIES[family]
    backbone = built(family, in_channels=channels)
    images = torch.randn(2, channels, size, size)
    assert isinstance(backbone, Backbone)
    assert backbone(images).shape == (2, backbone.feature_dim) == (2, width)
    assert backbone.feature_map(images).shape[:2] == (2, width)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_every_parameter(family):
    _, size, _ = FAMILIES[family]
    backbone = built(family).train()
    (backbone(torch.randn(2, 3, size, size)) * torch.randn(backbone.feature_dim)).sum().backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_groups_are_ordered_once_and_complete(family):
    backbone = built(family)
    groups = backbone.layer_groups()
    assert [name for group in groups for name in group.parameters] == [name for name, _ in backbone.named_parameters()]
    stages = [group.stage for group in groups]
    assert stages == sorted(stages)
    assert set(stages) == set(range(4 if family in TOKENS else 3))
    assert len(groups) == 4
    assert {name.split(".")[1] for name in groups[0].parameters} == {"embeddings"}
    assert any("layernorm" in name for name in groups[-1].parameters)


@pytest.mark.parametrize("family", TOKENS)
def test_each_block_of_a_plain_transformer_is_a_stage(family):
    assert [group.stage for group in built(family).layer_groups()] == [0, 1, 2, 3]


def test_pooling_is_the_class_token_or_the_mean_of_the_patches():
    images = torch.randn(2, 3, 84, 56)
    by_token, by_mean = built("dinov2"), built("dinov2", pool="mean")
    output = by_token.net(images)
    assert torch.equal(by_token(images), output.pooler_output)
    assert torch.allclose(by_mean(images), output.last_hidden_state[:, 1:].mean(1))
    patches = by_token.feature_map(images)
    assert patches.shape == (2, 24, 6, 4)
    assert torch.equal(patches[0, :, 1, 2], output.last_hidden_state[0, 1 + 1 * 4 + 2])


def test_registers_are_no_patches():
    images = torch.randn(1, 3, 84, 84)
    backbone = built("registers", pool="mean")
    tokens = backbone.net(images).last_hidden_state
    assert tokens.shape[1] == 1 + 4 + 36
    assert torch.allclose(backbone(images), tokens[:, 5:].mean(1))


def test_maps_are_pooled_as_the_network_does_it():
    images = torch.randn(2, 3, 40, 40)
    for family in ("swin", "convnext"):
        backbone = built(family)
        with torch.random.fork_rng():
            own = transformers.AutoModel.from_config(FAMILIES[family][0]()).eval()
        own.load_state_dict(backbone.net.state_dict(), strict=False)
        assert torch.allclose(backbone(images), own(images).pooler_output, atol=1e-6)


@pytest.mark.parametrize(("family", "pool"), [("swin", "cls"), ("convnext", "cls"), ("dinov2", "max")])
def test_impossible_pooling_is_refused(family, pool):
    with pytest.raises(UsageProblem, match="cannot pool by"):
        built(family, pool=pool)


@pytest.mark.parametrize(
    ("family", "size", "nearest"),
    [("dinov2", 80, 84), ("dinov2", 77, 84), ("dinov2", 3, 14), ("vit", 70, 64), ("convnext", 30, 32)],
)
def test_impossible_size_names_the_nearest_valid_one(family, size, nearest):
    with pytest.raises(UsageProblem, match=rf"nearest size it can take is {nearest}\b") as caught:
        TransformersBackbone(FAMILIES[family][0](), image_size=size)
    assert caught.value.code == "bad-image-size"
    assert caught.value.hint == f"--image-size {nearest}"
    with torch.device("meta"):
        TransformersBackbone(FAMILIES[family][0](), image_size=nearest)


def test_pictures_of_which_a_border_would_be_dropped_are_refused():
    with pytest.raises(UsageProblem, match="60 × 60"):
        built("dinov2")(torch.zeros(1, 3, 60, 60))


@pytest.mark.parametrize("family", TOKENS)
def test_attention_maps_are_probabilities_and_leave_no_trace(family):
    _, size, _ = FAMILIES[family]
    backbone = built(family).train()
    before = backbone.net.config._attn_implementation
    images = torch.randn(2, 3, size, size)
    maps = backbone.attention_maps(images, layer=1)
    assert maps.shape[:2] == (2, 3)
    assert maps.shape[2] == maps.shape[3] == backbone._prefix + (size // backbone._step) ** 2
    assert torch.allclose(maps.sum(-1), torch.ones(()), atol=1e-5)
    assert not maps.requires_grad
    assert backbone.training
    assert backbone.net.config._attn_implementation == before != "eager"
    assert torch.equal(maps, backbone.attention_maps(images, layer=-2))
    assert not torch.equal(maps, backbone.attention_maps(images))


def test_attention_map_is_that_of_the_first_block():
    backbone = built("dinov2")
    images = torch.randn(1, 3, 56, 56)
    state = {name: value.double() for name, value in backbone.net.state_dict().items()}
    tokens = backbone.net.embeddings(images)
    layer = "encoder.layer.0."
    x = torch.nn.functional.layer_norm(
        tokens.double(), (24,), state[f"{layer}norm1.weight"], state[f"{layer}norm1.bias"], 1e-6
    )
    q, k = (
        (x @ state[f"{layer}attention.{one}_proj.weight"].T + state[f"{layer}attention.{one}_proj.bias"])
        .reshape(1, -1, 3, 8)
        .transpose(1, 2)
        for one in ("q", "k")
    )
    expected = (q @ k.transpose(2, 3) / 8**0.5).softmax(-1)
    assert torch.allclose(backbone.attention_maps(images, layer=0).double(), expected, atol=1e-5)


@pytest.mark.parametrize("family", ["swin", "convnext"])
def test_no_attention_over_the_picture_no_map(family):
    with pytest.raises(UsageProblem, match="no attention over the whole picture"):
        built(family).attention_maps(torch.zeros(1, 3, 40, 40))
    with pytest.raises(UsageProblem, match="3 attention layers"):
        built("vit").attention_maps(torch.zeros(1, 3, 80, 80), layer=3)


@pytest.mark.parametrize("family", ["dinov2", "vit"])
def test_gradient_checkpointing_changes_nothing_but_memory(family):
    _, size, _ = FAMILIES[family]
    images = torch.randn(2, 3, size, size)
    found = []
    for enabled in (False, True):
        backbone = built(family).train()
        backbone.set_grad_checkpointing(enabled)
        backbone(images).square().sum().backward()
        found.append([parameter.grad for parameter in backbone.parameters()])
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(*found, strict=True))
    backbone.set_grad_checkpointing(False)
    with pytest.raises(UsageProblem, match="does not offer gradient checkpointing"):
        built("convnext").set_grad_checkpointing()


def test_drop_path_comes_from_the_configuration_and_is_refused_where_it_has_none():
    backbone = built("dinov2", drop_path=0.5).train()
    images = torch.randn(1, 3, 56, 56).expand(8, -1, -1, -1)
    assert len({tuple(row.tolist()) for row in backbone(images)}) > 1
    with pytest.raises(UsageProblem, match="no stochastic depth"):
        built("vit", drop_path=0.1)


def test_tokens_and_positions_are_not_decayed():
    assert built("registers").no_weight_decay() == {
        "net.embeddings.cls_token",
        "net.embeddings.register_tokens",
        "net.embeddings.position_embeddings",
    }


def test_same_seed_same_weights():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(TransformersBackbone(dinov2()).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_exports(family):
    _, size, _ = FAMILIES[family]
    backbone = built(family)
    images = torch.randn(2, 3, size, size)
    program = torch.export.export(backbone, (images,))
    assert torch.allclose(program.module()(images), backbone(images), atol=1e-5)


OLD_DINOV2 = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
}
OLD_VIT = {
    **OLD_DINOV2,
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def old_names(family, state):
    """As files of transformers 4 have them."""
    table = OLD_VIT if family == "vit" else OLD_DINOV2
    renamed = {}
    for name, tensor in state.items():
        for new, old in table.items():
            name = name.replace(f".{new}.", f".{old}.")
        renamed[f"encoder.layer.{name[7:]}" if name.startswith("layers.") else name] = tensor.clone()
    return renamed


def published(family, folder, **extra):
    """A folder in the hub's layout, in old names, and the backbone that it was taken from."""
    backbone = built(family)
    state = old_names(family, backbone.net.state_dict())
    if family != "vit":
        state["embeddings.mask_token"] = torch.zeros(1, 24)
    else:
        state |= {"pooler.dense.weight": torch.zeros(24, 24), "pooler.dense.bias": torch.zeros(24)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({**state, **extra}, folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps(
            {**FAMILIES[family][0]().to_dict(), "torch_dtype": "float32", "auto_map": {"AutoModel": "evil.Evil"}}
        )
    )
    return backbone, state


@pytest.mark.parametrize("family", TOKENS)
def test_folder_of_an_older_release_is_read_whole(family, tmp_path):
    source, _ = published(family, tmp_path / "hub")
    backbone = TransformersBackbone(str(tmp_path / "hub"), image_size=FAMILIES[family][1]).eval()
    images = torch.randn(2, 3, *2 * [FAMILIES[family][1]])
    assert torch.allclose(backbone(images), source(images), atol=1e-6)
    report = backbone.load_report
    assert report.matched == report.total == len(source.net.state_dict())
    assert report.ignored == (("pooler.dense.bias", "pooler.dense.weight") if family == "vit" else
                              ("embeddings.mask_token",))  # fmt: skip


def test_names_of_today_and_of_a_classifier_are_read_too(tmp_path):
    source = built("dinov2")
    images = torch.randn(1, 3, 56, 56)
    for name, prefix in (("today", ""), ("classifier", "dinov2."), ("parallel", "module.")):
        state = {f"{prefix}{key}": value.clone() for key, value in source.net.state_dict().items()}
        if prefix == "dinov2.":
            state |= {"classifier.weight": torch.zeros(5, 48), "classifier.bias": torch.zeros(5)}
        save_file(state, tmp_path / f"{name}.safetensors")
        backbone = TransformersBackbone(dinov2(), weights=tmp_path / f"{name}.safetensors").eval()
        assert torch.equal(backbone(images), source(images))
    torch.save({"state_dict": source.net.state_dict()}, tmp_path / "pytorch_model.bin")
    backbone = TransformersBackbone(dinov2(), weights=tmp_path).eval()
    assert torch.equal(backbone(images), source(images))


def test_fused_matrices_of_swiglu_are_split(tmp_path):
    config = dinov2(use_swiglu_ffn=True)
    source = randomise(TransformersBackbone(config)).eval()
    state = old_names("dinov2", source.net.state_dict())
    for layer in range(3):
        for kind in ("weight", "bias"):
            at = f"encoder.layer.{layer}.mlp"
            gate, up = (state.pop(f"{at}.{one}_proj.{kind}") for one in ("gate", "up"))
            state[f"{at}.weights_in.{kind}"] = torch.cat([gate, up])
            state[f"{at}.weights_out.{kind}"] = state.pop(f"{at}.down_proj.{kind}")
    save_file(state, tmp_path / "old.safetensors")
    backbone = TransformersBackbone(config, weights=tmp_path / "old.safetensors").eval()
    images = torch.randn(1, 3, 56, 56)
    assert torch.equal(backbone(images), source(images))


def test_grey_pictures_get_the_summed_patch_convolution(tmp_path):
    source, _ = published("dinov2", tmp_path)
    grey = TransformersBackbone(str(tmp_path), in_channels=1, image_size=56).eval()
    images = torch.randn(2, 1, 56, 56)
    assert torch.allclose(grey(images), source(images.expand(-1, 3, -1, -1)), atol=1e-5)
    assert grey.load_report.converted == ("embeddings.patch_embeddings.projection.weight",)


def test_own_renaming_ignoring_and_fresh_parts(tmp_path):
    source = built("dinov2")
    state = {f"visual.{key}": value.clone() for key, value in source.net.state_dict().items() if "layernorm" not in key}
    save_file({**state, "text.weight": torch.zeros(2), "logit_scale": torch.ones(1)}, tmp_path / "clip.safetensors")
    backbone = TransformersBackbone(
        dinov2(),
        weights=tmp_path / "clip.safetensors",
        rename=lambda key: None if key == "logit_scale" else key.removeprefix("visual."),
        ignore=["text.*"],
        fresh=["layernorm.*"],
    )
    assert backbone.load_report.ignored == ("logit_scale", "text.weight")
    assert backbone.load_report.fresh == ("layernorm.weight", "layernorm.bias")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: {f"x{name}": value for name, value in state.items()}, "0 of 60 tensors match; 60 are missing"),
        (lambda state: dict(list(state.items())[:30]), "29 of 60 tensors match; 31 are missing"),
        (lambda state: {**state, "decoder.weight": torch.zeros(3)}, r"1 are not part of it \(decoder.weight\)"),
        (
            lambda state: {**state, "layernorm.weight": torch.zeros(25)},
            r"59 of 60 tensors match; 1 have another shape \(layernorm.weight \[25\] instead of \[24\]\)",
        ),
        (
            lambda state: {**state, "encoder.layer.0.attention.q_proj.bias": torch.zeros(24)},
            r"1 are not part of it \(encoder.layer.0.attention.attention.query.bias\)",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_counts_and_names(change, said, tmp_path):
    _, state = published("dinov2", tmp_path / "hub")
    state = {"embeddings.mask_token": state.pop("embeddings.mask_token"), **state}
    save_file(change(state), tmp_path / "other.safetensors")
    with pytest.raises(UsageProblem, match=said) as caught:
        TransformersBackbone(dinov2(), weights=tmp_path / "other.safetensors")
    assert caught.value.code == "weights-do-not-fit"


def test_other_network_of_the_same_shapes_is_refused_by_its_configuration(tmp_path):
    published("dinov2", tmp_path)
    with pytest.raises(UsageProblem, match="num_attention_heads 3 instead of 4") as caught:
        TransformersBackbone(dinov2(num_attention_heads=4), weights=tmp_path)
    assert caught.value.code == "weights-do-not-fit"


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_file_that_runs_code_is_refused_and_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save({"embeddings.cls_token": torch.zeros(1, 1, 24), "evil": Evil()}, buffer)
    (tmp_path / "pytorch_model.bin").write_bytes(buffer.getvalue())
    (tmp_path / "plain.bin").write_bytes(pickle.dumps(Evil(), protocol=2))
    for place in (tmp_path, tmp_path / "plain.bin"):
        with pytest.raises(UsageProblem):
            TransformersBackbone(dinov2(), weights=place)
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_repository_in_the_cache_is_read_and_others_are_named(tmp_path, monkeypatch, offline):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--somebody--dino"
    source, _ = published("dinov2", repository / "snapshots" / "0123abcd")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    images = torch.randn(1, 3, 56, 56)
    assert torch.equal(TransformersBackbone("somebody/dino").eval()(images), source(images))
    assert torch.equal(TransformersBackbone(dinov2(), weights="somebody/dino").eval()(images), source(images))
    for arguments in ({"model": "somebody/else"}, {"model": dinov2(), "weights": "somebody/else", "name": "mine"}):
        with pytest.raises(UsageProblem, match="somebody/else") as caught:
            TransformersBackbone(**arguments)
        assert caught.value.code == "weights-not-cached"
    assert "medcli models fetch mine" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no `config.json`"),
        ("{", "cannot be read"),
        ("[]", "no table"),
        ('{"model_type": "dinov22"}', "does not know"),
        ('{"model_type": "dinov2", "hidden_size": "wide"}', "no configuration of a `dinov2`"),
        ('{"model_type": "bert"}', "no vision network"),
    ],
)
def test_folder_with_another_configuration_is_refused(text, said, tmp_path):
    published("dinov2", tmp_path)
    (tmp_path / "config.json").unlink()
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageProblem, match=said):
        TransformersBackbone(str(tmp_path))


def test_folder_without_weights_and_missing_files_are_refused(tmp_path):
    with pytest.raises(UsageProblem, match="holds neither"):
        TransformersBackbone(dinov2(), weights=tmp_path)
    with pytest.raises(UsageProblem, match="there is no weight file"):
        TransformersBackbone(dinov2(), weights=tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UsageProblem, match="split over several files"):
        TransformersBackbone(dinov2(), weights=tmp_path)


def test_transformers_says_nothing(tmp_path, capfd):
    published("dinov2", tmp_path)
    before = transformers.utils.logging.get_verbosity()
    heard = []
    listener = logging.Handler()
    listener.emit = lambda record: heard.append(record.getMessage())
    logging.getLogger("transformers").addHandler(listener)
    try:
        backbone = TransformersBackbone(str(tmp_path), in_channels=1, drop_path=0.1)
        backbone.attention_maps(torch.zeros(1, 1, 56, 56))
        backbone.set_grad_checkpointing()
        backbone.train()(torch.zeros(1, 1, 56, 56)).sum().backward()
    finally:
        logging.getLogger("transformers").removeHandler(listener)
    assert heard == []
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.get_verbosity() == before
