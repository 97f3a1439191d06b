"""The network itself; only a build imports this module, and with it torch."""

from __future__ import annotations

import torch
from torch import nn

from medcli.plugin import LayerGroup

__all__ = ["Echo"]

_CHANNELS, _GRID = 4, 4


class Echo(nn.Module):
    """Images [B, C, H, W] to features [B, width]: convolution to four channels, mean over a 4 × 4 grid, linear layer.

    Args:
        in_channels: channels of the images.
        width: number of features.
        scale: factor on all weights.
    """

    def __init__(self, in_channels: int, width: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.feature_dim = width
        self.fixed_weights = True  # no seed changes them, which `medcli.testing` would otherwise call a fault
        self.spread = nn.Conv2d(in_channels, _CHANNELS, 1)
        self.pool = nn.AdaptiveAvgPool2d(_GRID)
        self.mix = nn.Linear(_CHANNELS * _GRID * _GRID, width)
        for layer in (self.spread, self.mix):
            _fix(layer, scale)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, width]."""
        features: torch.Tensor = self.mix(self.feature_map(images).flatten(1))
        return features

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 4, 4, 4]."""
        grid: torch.Tensor = self.pool(self.spread(images))
        return grid

    def layer_groups(self) -> tuple[LayerGroup, ...]:
        """The convolution is stage 0, the linear layer stage 1."""
        return (
            LayerGroup("spread", 0, ("spread.weight", "spread.bias"), ("spread",)),
            LayerGroup("mix", 1, ("mix.weight", "mix.bias"), ("pool", "mix")),
        )


def _fix(layer: nn.Conv2d | nn.Linear, scale: float) -> None:
    """Weight number i becomes sin(i + 1) / sqrt(inputs), computed in float64 so that every machine rounds alike."""
    inputs = layer.weight[0].numel()
    order = torch.arange(1, layer.weight.numel() + 1, dtype=torch.float64, device=layer.weight.device)
    with torch.no_grad():
        layer.weight.copy_((torch.sin(order) * scale / inputs**0.5).reshape(layer.weight.shape))
        if layer.bias is not None:
            layer.bias.zero_()
