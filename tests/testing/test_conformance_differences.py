"""The checks of difference models: passed by one that keeps its promises, failed by those that break one."""

from __future__ import annotations

import pytest

from medcli.testing.checks.table import DIFFERENCE as CHECKS
from medcli.testing.checks.table import PACKAGE

DIFFERENCE_CARD = """api = 1

[difference_models.fake-net]
summary = "keeps every promise"
input_size = 16
in_channels = 1
"""
DIFFERENCE = """
import torch
from torch import nn

from medcli.plugin import LayerGroup


class Net(nn.Module):
    def __init__(self, in_channels, signed):
        super().__init__()
        self.signed = signed
        self.encoder = nn.Conv2d(in_channels, 2, 3, padding=1)
        self.out = nn.Conv2d(2, 1, 1)

    def forward(self, baseline, followup):
        change = self.out(self.encoder(followup) - self.encoder(baseline))
        return torch.tanh(change) if self.signed else torch.sigmoid(change)

    def layer_groups(self):
        return (
            LayerGroup("encoder", 0, ("encoder.weight", "encoder.bias"), ("encoder",)),
            LayerGroup("out", 1, ("out.weight", "out.bias"), ("out",)),
        )


def build(*, in_channels, image_size, map="signed", weights=None):
    return Net(in_channels, map == "signed")
"""


@pytest.mark.parametrize("check", [check.name for check in (*PACKAGE, *CHECKS)])
def test_a_difference_model_that_keeps_its_promises_passes(verdict, check: str) -> None:
    if check == "gradients":
        # The encoder's bias cancels out of a plain difference: exactly what this check is for.
        found = verdict(check, source=DIFFERENCE, card=DIFFERENCE_CARD)
        assert "`encoder.bias`" in found.reason
        whole = DIFFERENCE.replace(
            "nn.Conv2d(in_channels, 2, 3, padding=1)", "nn.Conv2d(in_channels, 2, 3, bias=False)"
        )
    else:
        whole = DIFFERENCE
    found = verdict(check, source=whole, card=DIFFERENCE_CARD)
    if found.outcome == "skipped":
        assert check in {"options", "onnx"}
    elif check != "gradients":
        assert found.outcome == "passed", found.reason


@pytest.mark.parametrize(
    ("check", "words", "change"),
    [
        ("output", "a signed map lies in [-1, 1]", ("torch.tanh(change)", "change + 3")),
        ("output", "[3, 2, 16, 16]", ("nn.Conv2d(2, 1, 1)", "nn.Conv2d(2, 2, 1)")),
        ("output", "needs `encoder`", ("self.encoder", "self.inner")),
        ("magnitude", "[0, 1]", ("torch.sigmoid(change)", "torch.tanh(change)")),
        ("magnitude", "unexpected keyword", (', map="signed"', "")),
        (
            "encoder",
            "no part of the network",
            (
                "self.encoder = nn.Conv2d(in_channels, 2, 3, padding=1)",
                'self.__dict__["encoder"] = nn.Conv2d(in_channels, 2, 3, padding=1)',
            ),
        ),
        ("channels", "with 3 channels", ("Net(in_channels,", "Net(1,")),
        ("finite", "NaN", ("torch.tanh(change)", "torch.tanh(change / 0 * 0)")),
    ],
)
def test_each_broken_promise_of_a_difference_model_is_found(
    verdict, check: str, words: str, change: tuple[str, str]
) -> None:
    source = DIFFERENCE.replace(', map == "signed")', ", True)") if words.startswith("unexpected") else DIFFERENCE
    found = verdict(check, change, source=source, card=DIFFERENCE_CARD)
    assert found.outcome == "failed", found.reason
    assert words in found.reason
