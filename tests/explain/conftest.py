"""Small networks whose explanations are known, and a picture of where the truth is."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from medcli.data.target import Target
from medcli.models.classifier import Classifier
from medcli.plugin import LayerGroup

SIDE = 32
TARGET = Target("binary", ("clear", "spot"))


class Small(nn.Module):
    """Two convolutions, 32 px -> a map of 8 x 8, the mean of which is the feature."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.feature_dim = width
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True), nn.AvgPool2d(2))
        self.second = nn.Sequential(nn.Conv2d(8, width, 3, padding=1), nn.ReLU(inplace=True), nn.AvgPool2d(2))

    def feature_map(self, images: Tensor) -> Tensor:
        final: Tensor = self.second(self.first(images))
        return final

    def forward(self, images: Tensor) -> Tensor:
        return self.feature_map(images).mean((2, 3))

    def layer_groups(self) -> tuple[LayerGroup, ...]:
        return tuple(
            LayerGroup(name, stage, (f"{name}.0.weight", f"{name}.0.bias"), (name, f"{name}.0"))
            for stage, name in enumerate(("first", "second"))
        )


class Blind(nn.Module):
    """A network that shows neither a map nor attention."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_dim = 4
        self.layer = nn.Linear(SIDE * SIDE, 4)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layer(images.flatten(1))
        return features

    def layer_groups(self) -> tuple[LayerGroup, ...]:
        return (LayerGroup("layer", 0, ("layer.weight", "layer.bias"), ("layer",)),)


def spots(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise [n, 1, 32, 32], half of it with a bright square of 8 px; labels [n]; corners (row, column) [n, 2]."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, SIDE, SIDE, generator=generator)
    labels = torch.arange(count) % 2
    corners = torch.randint(0, SIDE - 8, (count, 2), generator=generator)
    for image, label, (row, column) in zip(images, labels, corners.tolist(), strict=True):
        if label:
            image[0, row : row + 8, column : column + 8] += 3
    return images, labels, corners


@dataclass(frozen=True)
class Learned:
    """A network that has learned to see the square, and pictures it has not seen."""

    classifier: Classifier
    images: Tensor
    corners: Tensor


@pytest.fixture(scope="package")
def learned() -> Learned:
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = Classifier(Small(), TARGET)
        images, labels, _ = spots(128, 1)
        optimiser = torch.optim.Adam(classifier.parameters(), lr=2e-2)
        for _ in range(60):
            loss = nn.functional.cross_entropy(classifier(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    others, labels, corners = spots(16, 2)
    classifier.eval()
    for parameter in classifier.parameters():
        parameter.requires_grad_(False)
    assert float((classifier(others).argmax(1) == labels).float().mean()) > 0.9
    return Learned(classifier, others[1::2], corners[1::2])


@pytest.fixture
def blind() -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(Blind(), TARGET).eval()
