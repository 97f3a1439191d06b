"""Published weights by tag: found in the local caches, never fetched."""

from __future__ import annotations

import socket

import pytest
import timm
import torch
from safetensors.torch import save_file

from medcli.errors import UsageProblem
from medcli.models.pretrained import cached_weights, factory_weights
from medcli.models.timm_backbone import TimmBackbone
from medcli.plugin import ArchitectureCard, WeightCard
from medcli.registry.cards import read_card
from medcli.registry.discovery import discover, find


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def put_in_hub_cache(root, repository, state):
    folder = root / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123456789abcdef")
    save_file(state, str(snapshot / "model.safetensors"))


def test_cached_weights_are_used(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("test_resnet")
    put_in_hub_cache(tmp_path / "hub", "timm/test_resnet.r160_in1k", network.state_dict())
    for asked in ({"pretrained": True}, {"weights": "r160_in1k"}, {"weights": "test_resnet.r160_in1k"}):
        backbone = TimmBackbone("test_resnet", image_size=32, **asked)
        assert all(torch.equal(value, network.state_dict()[key]) for key, value in backbone.net.state_dict().items())


def test_missing_weights_are_named_with_both_ways_out():
    with pytest.raises(UsageProblem, match=r"`test_resnet\.r160_in1k` are not on this machine") as caught:
        TimmBackbone("test_resnet", pretrained=True)
    assert caught.value.code == "weights-not-cached"
    assert "--weights FILE" in str(caught.value.hint)
    assert "medcli models fetch timm/test_resnet.r160_in1k" in str(caught.value.hint)


def test_wrong_tags_are_refused_with_the_right_ones():
    with pytest.raises(UsageProblem) as caught:
        cached_weights("resnet18", "a1_in1l")
    assert "a1_in1k" in str(caught.value.hint)
    with pytest.raises(UsageProblem, match="belong to timm's `tf_efficientnet_b0`"):
        cached_weights("efficientnet_b0", "tf_efficientnet_b0.ns_jft_in1k")
    with pytest.raises(UsageProblem, match="no weights are published"):
        cached_weights("efficientnet_b7")


def test_the_cached_file_of_a_tag_goes_to_the_factory(tmp_path, monkeypatch):
    card = read_card(find(discover(), "resnet18"))
    with pytest.raises(UsageProblem) as caught:
        factory_weights("resnet18", card, None, pretrained=True)
    assert (caught.value.code, caught.value.where) == ("weights-not-cached", "--pretrained")
    assert "medcli models fetch resnet18 --weights in1k" in str(caught.value.hint)
    put_in_hub_cache(tmp_path / "hub", "timm/resnet18.a1_in1k", {"x": torch.zeros(1)})
    for asked in ((None, True), ("in1k", False), ("in1k", True)):
        assert str(factory_weights("resnet18", card, *asked)).endswith("0123456789abcdef/model.safetensors")


def test_weights_that_timm_put_elsewhere_are_found_too(tmp_path):
    card = read_card(find(discover(), "resnet18"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet18_a1_0-d63eafa0.pth").write_bytes(b"")
    assert str(factory_weights("resnet18", card, "in1k")).endswith("checkpoints/resnet18_a1_0-d63eafa0.pth")


def test_what_is_no_file_of_a_card_is_handed_on(tmp_path):
    echo, resnet = read_card(find(discover(), "echo")), read_card(find(discover(), "resnet18"))
    assert factory_weights("echo", echo, "half") == "half"
    assert factory_weights("echo", echo, None, pretrained=True) == "half"
    assert factory_weights("resnet18", resnet, None) is None
    assert factory_weights("resnet18", resnet, "a1_in1k") == "a1_in1k"
    for path in ("some/file.pth", str(tmp_path), "weights.bin"):
        assert factory_weights("resnet18", resnet, path) == path
    assert factory_weights("thing", None, "tag", pretrained=True) == "tag"


def test_a_mistyped_tag_of_a_plugin_is_named_before_it_is_taken_for_a_file():
    card = ArchitectureCard(
        name="eye",
        summary="",
        weights=(WeightCard(tag="cfp", source="https://example.org/cfp.pth", file="cfp.pth"),),
    )
    with pytest.raises(UsageProblem) as caught:
        factory_weights("eye", card, "cpf")
    assert (caught.value.code, caught.value.hint) == ("unknown-weights", "did you mean `cfp`?")
    assert factory_weights("eye", card, "./cpf") == "./cpf"


def test_gated_weights_say_where_to_ask():
    weights = WeightCard(tag="cfp", source="owner/eye", file="eye.pth", gated=True)
    card = ArchitectureCard(name="eye", summary="", weights=(weights,), default_weights="cfp")
    with pytest.raises(UsageProblem) as caught:
        factory_weights("eye", card, "cfp")
    assert str(caught.value.hint).startswith("ask for access at https://huggingface.co/owner/eye, then `medcli models")
