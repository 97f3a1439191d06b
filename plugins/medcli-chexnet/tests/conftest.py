"""DenseNet-121 written three more times, and weight files in the layouts in which they are published."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import densenet121

BLOCKS = (6, 12, 24, 16)
LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))([12])\.")


def _randomise(network):
    """Statistics and affine parameters of every normalisation away from 0 and 1, so that none can be mixed up."""
    generator = torch.Generator().manual_seed(7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            size = module.num_features
            module.running_mean.copy_(torch.randn(size, generator=generator) * 0.2)
            module.running_var.copy_(torch.rand(size, generator=generator) + 0.5)
            module.weight.data.copy_(torch.rand(size, generator=generator) * 0.5 + 0.75)
            module.bias.data.copy_(torch.randn(size, generator=generator) * 0.2)
    return network.eval().requires_grad_(False)


class _Layer(nn.Sequential):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(width), nn.ReLU()
        self.conv1 = nn.Conv2d(width, 128, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(128), nn.ReLU()
        self.conv2 = nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, images):
        return torch.cat([images, super().forward(images)], 1)


class XrvNetwork(nn.Module):
    """TorchXRayVision's DenseNet: one channel, 18 outputs, operating points as a buffer."""

    def __init__(self, thresholds):
        super().__init__()
        self.features = nn.Sequential()
        self.features.conv0 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        self.features.norm0, self.features.relu0 = nn.BatchNorm2d(64), nn.ReLU()
        self.features.pool0 = nn.MaxPool2d(3, 2, 1)
        width = 64
        for block, layers in enumerate(BLOCKS, 1):
            stack = nn.Sequential()
            for layer in range(layers):
                stack.add_module(f"denselayer{layer + 1}", _Layer(width + 32 * layer))
            self.features.add_module(f"denseblock{block}", stack)
            width += 32 * layers
            if block < len(BLOCKS):
                between = nn.Sequential()
                between.norm, between.relu = nn.BatchNorm2d(width), nn.ReLU()
                between.conv, between.pool = nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2, 2)
                self.features.add_module(f"transition{block}", between)
                width //= 2
        self.features.norm5 = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, 18)
        self.register_buffer("op_threshs", thresholds)

    def features2(self, images):
        return F.adaptive_avg_pool2d(F.relu(self.features(images)), (1, 1)).flatten(1)

    def forward(self, images):
        """Sigmoid outputs bent so that an operating point lies at .5; .5 where there is none."""
        out = torch.sigmoid(self.classifier(self.features2(images)))
        points = self.op_threshs
        bent = torch.where(out < points, out / (2 * points), 1 - (1 - out) / (2 * (1 - points)))
        return torch.where(torch.isnan(points), 0.5, bent)


def _plain_features(tensors, images):
    """[B, C, H, W] -> [B, 1024] by torch's functions alone, from tensors with the dotted names of 2017."""

    def norm_relu(name, maps):
        mean, var, weight, bias = (
            tensors[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu((maps - mean[:, None, None]) / torch.sqrt(var + 1e-5)[:, None, None] * weight[:, None, None]
                      + bias[:, None, None])  # fmt: skip

    maps = F.conv2d(images, tensors["features.conv0.weight"], stride=2, padding=3)
    maps = F.max_pool2d(norm_relu("features.norm0", maps), 3, 2, 1)
    for block, layers in enumerate(BLOCKS, 1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            new = F.conv2d(norm_relu(f"{name}.norm.1", maps), tensors[f"{name}.conv.1.weight"])
            new = F.conv2d(norm_relu(f"{name}.norm.2", new), tensors[f"{name}.conv.2.weight"], padding=1)
            maps = torch.cat([maps, new], 1)
        if block < len(BLOCKS):
            name = f"features.transition{block}"
            maps = F.avg_pool2d(F.conv2d(norm_relu(f"{name}.norm", maps), tensors[f"{name}.conv.weight"]), 2)
    return norm_relu("features.norm5", maps).mean((2, 3))


def _dotted(tensors):
    """The names of 2017: `norm.1` for `norm1`, no counters of batch normalisation."""
    return {LAYER.sub(r"\1.\2.", key): value for key, value in tensors.items() if "num_batches" not in key}


@pytest.fixture
def plain_features():
    """The network as a function of the file's tensors and images."""
    return _plain_features


@pytest.fixture
def dotted():
    """Tensors under today's names to the names of 2017."""
    return _dotted


@pytest.fixture(scope="session")
def torchvision_network():
    """torchvision's DenseNet-121 with 14 outputs."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return _randomise(densenet121(weights=None, num_classes=14))


@pytest.fixture(scope="session")
def torchvision_tensors(torchvision_network):
    return dict(torchvision_network.state_dict())


@pytest.fixture(scope="session")
def xrv_network():
    """TorchXRayVision's network for a set that has no labels for the outputs 2 and 17."""
    thresholds = torch.linspace(0.1, 0.6, 18)
    thresholds[[2, 17]] = torch.nan
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return _randomise(XrvNetwork(thresholds))


@pytest.fixture(scope="session")
def images():
    """Two RGB pictures, normalised."""
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def saved(tmp_path):
    """Write what `torch.save` takes; the path as text."""

    def write(content, name="model.pth"):
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return write


@pytest.fixture
def chexnet_file(saved, torchvision_tensors):
    """`model.pth.tar` as arnoweng/CheXNet publishes it: DataParallel, a wrapper, Linear and Sigmoid in sequence."""
    state = {
        f"module.densenet121.{key.replace('classifier.', 'classifier.0.')}": value
        for key, value in _dotted(torchvision_tensors).items()
    }
    moments = {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    return saved(
        {"epoch": 7, "arch": "densenet121", "state_dict": state, "best_loss": 0.15, "optimizer": moments},
        "model.pth.tar",
    )
