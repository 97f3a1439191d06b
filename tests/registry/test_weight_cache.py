"""What the source of a weight means, read in one place."""

from __future__ import annotations

import pytest

from medcli.plugin import WeightCard
from medcli.registry.weight_cache import HubSource, WebSource, source_of


@pytest.mark.parametrize(
    ("source", "file", "meant"),
    [
        ("owner/name", "a.pth", HubSource("owner/name", ("a.pth",))),
        ("timm/resnet18.a1_in1k", "", HubSource("timm/resnet18.a1_in1k", ("model.safetensors", "pytorch_model.bin"))),
        ("https://x.org/w/a.pth", "", WebSource("https://x.org/w/a.pth", "a.pth")),
        ("https://x.org/get?id=3", "a.pth", WebSource("https://x.org/get?id=3", "a.pth")),
        ("https://x.org/w/", "a b.pth", WebSource("https://x.org/w/a%20b.pth", "a b.pth")),
        ("https://x.org/w/", "", None),
        ("https://x.org/w/a", "../../a.pth", WebSource("https://x.org/w/a", "a.pth")),
        ("medcli-echo", "", None),
        ("on request", "a.pth", None),
        ("ftp://x.org/a.pth", "a.pth", None),
    ],
)
def test_sources(source, file, meant):
    assert source_of(WeightCard(tag="t", source=source, file=file)) == meant


def test_the_address_of_a_file_on_the_hub(monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    source = HubSource("owner/name", ("a.pth",))
    assert str(source) == "https://huggingface.co/owner/name/resolve/main/a.pth"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example.org/")
    assert source.page == "https://mirror.example.org/owner/name"
