"""Every plugin here leaves as ONNX and answers like the network it was made from, by its smallest member."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medcli import build
from medcli.bundles.bundle import open_session
from medcli.export.graph import Network, export_onnx

MEMBERS = [
    ("medcli-echo/echo", 16),
    pytest.param("medcli-chexnet/chexnet", 64, marks=pytest.mark.slow),
    pytest.param("medcli-longitudinal/longitudinal-encoder", 64, marks=pytest.mark.slow),
    pytest.param("medcli-raddino/raddino", 56, marks=pytest.mark.slow),
    pytest.param("medcli-retfound/retfound-green", 56, marks=pytest.mark.slow),
    pytest.param("medcli-retfound/retfound-cfp", 32, marks=pytest.mark.slow),
    pytest.param("medcli-retfound/retfound-dinov2-meh", 28, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "size"), MEMBERS)
def test_the_plugin_leaves_as_onnx(name: str, size: int, tmp_path: Path) -> None:
    model = build(name, num_classes=3, image_size=size, seed=0)
    export_onnx(model, tmp_path / "n.onnx", channels=3, image_size=size)
    session, network = open_session(tmp_path / "n.onnx", threads=1), Network(model)
    for count in (1, 3):
        images = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            logits, features = network(images)
        found = [torch.from_numpy(one) for one in session.run(["logits", "features"], {"images": images.numpy()})]
        chances = (torch.softmax(found[0], 1) - torch.softmax(logits, 1)).abs().max()
        assert float(chances) <= 1e-5
        assert float((found[1] - features).abs().max()) <= 1e-4 * max(1.0, float(features.abs().max()))
