"""Every built-in family leaves as ONNX and answers like the network it was made from, by its smallest member."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medcli import build
from medcli.bundles.bundle import open_session
from medcli.export.graph import Network, export_onnx

SLOW = pytest.mark.slow
FAMILIES = [
    pytest.param("resnet18", 64, id="resnet"),
    pytest.param("vit_tiny_patch16_224", 32, id="vit"),
    pytest.param("efficientnet_b0", 64, id="efficientnet", marks=SLOW),
    pytest.param("efficientnet_lite0", 64, id="efficientnet-lite", marks=SLOW),
    pytest.param("densenet121", 64, id="densenet", marks=SLOW),
    pytest.param("densenet264", 64, id="densenet264", marks=SLOW),
    pytest.param("deit_tiny_patch16_224", 32, id="deit", marks=SLOW),
    pytest.param("swin_tiny_patch4_window7_224", 64, id="swin", marks=SLOW),
    pytest.param("mobilenetv3_small_100", 64, id="mobilenet", marks=SLOW),
    pytest.param("convnext_tiny", 64, id="convnext", marks=SLOW),
    pytest.param("regnetx_032", 64, id="regnet", marks=SLOW),
    pytest.param("custom1", 64, id="custom", marks=SLOW),
    pytest.param("timm/test_efficientnet", 64, id="timm", marks=SLOW),
]


@pytest.mark.parametrize(("name", "size"), FAMILIES)
def test_the_family_leaves_as_onnx(name: str, size: int, tmp_path: Path) -> None:
    model = build(name, num_classes=3, image_size=size, seed=0)
    export_onnx(model, tmp_path / "n.onnx", channels=3, image_size=size)
    session, network = open_session(tmp_path / "n.onnx", threads=1), Network(model)
    for count in (1, 3, 4):
        images = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            logits, features = network(images)
        found = [torch.from_numpy(one) for one in session.run(["logits", "features"], {"images": images.numpy()})]
        chances = (torch.softmax(found[0], 1) - torch.softmax(logits, 1)).abs().max()
        assert float(chances) <= 1e-5
        assert float((found[1] - features).abs().max()) <= 1e-4 * max(1.0, float(features.abs().max()))
