"""A made-up plugin that keeps every promise, and a way to break one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from medcli.registry.discovery import discover
from medcli.testing.checks.subject import Plan, subjects_of
from medcli.testing.checks.table import cases_of
from medcli.testing.checks.verdict import Verdict
from medcli.testing.plugins import FakePlugin

WHOLE = """
import torch
from torch import nn
from torch.nn import functional

from medcli.plugin import LayerGroup, UsageProblem


class Net(nn.Module):
    def __init__(self, in_channels, width, drop_path):
        super().__init__()
        self.feature_dim = width
        self.drop_path = drop_path
        self.stem = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.block = nn.Conv2d(4, 4, 3, padding=1)
        self.out = nn.Linear(4, width)

    def forward(self, images):
        hidden = torch.sigmoid(self.norm(self.stem(images)))
        branch = self.block(hidden)
        if self.training and self.drop_path:
            branch = branch * (torch.rand(len(images), 1, 1, 1) > self.drop_path)
        features = self.out((hidden + branch).mean((2, 3)))
        return features

    def attention_maps(self, images, layer=-1):
        return torch.softmax(images.new_zeros(len(images), 2, 5, 5), -1)

    def layer_groups(self):
        return (
            LayerGroup("stem", 0, ("stem.weight", "stem.bias", "norm.weight", "norm.bias"), ("stem", "norm")),
            LayerGroup("block", 1, ("block.weight", "block.bias"), ("block",)),
            LayerGroup("out", 1, ("out.weight", "out.bias"), ("out",)),
        )


def build(*, in_channels, image_size, pretrained=False, weights=None, drop_path=0.0, width=8, bias="yes"):
    return Net(in_channels, width, drop_path)
"""
CARD = """api = 1

[architectures.fake-net]
summary = "keeps every promise"
params = 236
input_size = 32
in_channels = 1
feature_dim = 8
stages = 2
blocks = 3
drop_path = true
attention_maps = true
size = { minimum = 8, multiple = 2 }
lora_targets = { mlp = ["out"], conv = ["*"] }

[architectures.fake-net.options.width]
type = "int"
default = 8
minimum = 1
maximum = 16
help = "number of features"

[architectures.fake-net.options.bias]
type = "str"
default = "yes"
choices = ["yes", "no"]
help = "nothing"
"""

Judge = Callable[..., Verdict]


@pytest.fixture
def verdict(fake_plugin: FakePlugin) -> Judge:
    """A function that installs a plugin changed in some places and says how one check of it ends."""

    def of(
        check: str, *changes: tuple[str, str], plan: Plan | None = None, source: str = WHOLE, card: str = CARD
    ) -> Verdict:
        for old, new in changes:
            assert old in source + card, f"nothing to change: {old}"
            source, card = source.replace(old, new), card.replace(old, new)
        group = "medcli.difference_models" if "[difference_models." in card else "medcli.architectures"
        fake_plugin("fake-net", module=source, card=card, group=group)
        cases = cases_of(subjects_of("medcli-fake", discover()), plan)
        (case,) = [case for case in cases if case.check.name == check]
        return case.verdict()

    return of
