"""Published weights by tag: found in the local caches, never fetched."""

from __future__ import annotations

import socket

import pytest
import timm
import torch
from safetensors.torch import save_file

from medcli.errors import UsageProblem
from medcli.models.pretrained import cached_weights
from medcli.models.timm_backbone import TimmBackbone


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
    with pytest.raises(UsageProblem, match=r"`test_resnet\.r160_in1k` are not in the local cache") as caught:
        TimmBackbone("test_resnet", pretrained=True)
    assert caught.value.code == "weights-not-cached"
    assert "--weights FILE" in str(caught.value.hint)
    assert "hf download timm/test_resnet.r160_in1k" in str(caught.value.hint)


def test_wrong_tags_are_refused_with_the_right_ones():
    with pytest.raises(UsageProblem) as caught:
        cached_weights("resnet18", "a1_in1l")
    assert "a1_in1k" in str(caught.value.hint)
    with pytest.raises(UsageProblem, match="belong to timm's `tf_efficientnet_b0`"):
        cached_weights("efficientnet_b0", "tf_efficientnet_b0.ns_jft_in1k")
    with pytest.raises(UsageProblem, match="no weights are published"):
        cached_weights("efficientnet_b7")
