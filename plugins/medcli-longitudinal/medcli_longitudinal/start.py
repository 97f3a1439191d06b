"""How weights start: the published initialisation, or torch's own where `Sizes.init_weights` is false."""

from __future__ import annotations

import math

import torch
from torch import nn

from medcli_longitudinal.constants import GROUP_NORM_GROUPS, INIT_STD, Sizes

__all__ = ["group_norm", "kaiming", "small", "truncated"]


def kaiming(layer: nn.Conv2d | nn.ConvTranspose2d, sizes: Sizes) -> nn.Conv2d | nn.ConvTranspose2d:
    """Kaiming normal over the inputs, for ReLU; bias 0."""
    if sizes.init_weights:
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        _zero(layer.bias)
    return layer


def small(layer: nn.Conv2d, sizes: Sizes) -> nn.Conv2d:
    """Normal of deviation 0.02; bias 0."""
    if sizes.init_weights:
        nn.init.normal_(layer.weight, std=INIT_STD)
        _zero(layer.bias)
    return layer


def truncated(layer: nn.Linear | nn.Conv2d, sizes: Sizes) -> nn.Linear | nn.Conv2d:
    """Truncated normal of deviation 0.02; bias 0."""
    if sizes.init_weights:
        nn.init.trunc_normal_(layer.weight, std=INIT_STD)
        _zero(layer.bias)
    return layer


def group_norm(channels: int, groups: int = GROUP_NORM_GROUPS) -> nn.GroupNorm:
    """Group norm, weight 1 and bias 0; as many groups as divide the channels, `groups` at most."""
    wanted = min(channels, groups)
    return nn.GroupNorm(wanted if channels % wanted == 0 else math.gcd(channels, wanted), channels)


def _zero(bias: torch.Tensor | None) -> None:
    if bias is not None:
        nn.init.zeros_(bias)
