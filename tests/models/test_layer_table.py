"""The layer table adds up to the known totals."""

from __future__ import annotations

import pytest
import torch

import medcli
from medcli.models.layers import layer_table


@pytest.mark.parametrize(
    ("name", "size", "gmacs"),
    [
        ("resnet18", 224, 1.81),
        ("resnet50", 224, 4.09),
        ("resnet50", 28, 0.081),
        ("efficientnet_b0", 224, 0.386),
        ("densenet121", 224, 2.83),
        ("vit_base_patch16_224", 224, 17.56),
        ("timm/beit_base_patch16_224", 224, 17.56),
    ],
)
def test_totals_are_the_published_ones(name, size, gmacs):
    with torch.device("meta"):
        model = medcli.build(name, num_classes=1000, image_size=size)
    table = layer_table(model, size)
    assert table.parameters == model.parameter_counts().total
    assert table.macs / 1e9 == pytest.approx(gmacs, rel=0.01)


def test_rows_of_a_small_network_by_hand():
    model = medcli.build("custom1", num_classes=3, image_size=16, in_channels=1)
    rows = layer_table(model, 16, 1).rows
    first = rows[0]
    assert (first.module, first.kind) == ("backbone.blocks.0.0", "Conv2d")
    assert first.output_shape == (32, 16, 16)
    assert first.parameters == 32 * 9
    assert first.macs == 32 * 9 * 16 * 16
    last = rows[-1]
    assert (last.module, last.output_shape, last.parameters, last.macs) == (
        "medcli_head.linear",
        (3,),
        384 * 3 + 3,
        384 * 3,
    )
    assert next(model.parameters()).device.type == "cpu"
