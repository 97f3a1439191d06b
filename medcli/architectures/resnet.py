"""ResNet (He et al. 2016), with an optional stem that keeps the resolution of small pictures."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from torch import nn

from medcli.errors import UsageProblem
from medcli.plugin import ArchitectureFactory, TimmBackbone

__all__ = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


def _small_stem(name: str, **arguments: Any) -> nn.Module:
    """The published network, its 7 × 7 stride-2 convolution and max-pool replaced by one 3 × 3 convolution of stride 1.

    At 28 or 64 px the published stem throws away three quarters of the picture twice before the first block.
    """
    import timm

    network: Any = timm.create_model(name, **arguments)
    stem = nn.Conv2d(network.conv1.in_channels, network.conv1.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    network.conv1 = stem
    network.maxpool = nn.Identity()
    module: nn.Module = network
    return module


def _factory(name: str) -> ArchitectureFactory:
    def build(
        *,
        in_channels: int = 3,
        image_size: int | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        drop_path: float = 0.0,
        stem: Literal["standard", "small"] = "standard",
    ) -> TimmBackbone:
        if stem not in {"standard", "small"}:
            raise UsageProblem(f"`{stem}` is not a stem: standard, small", code="bad-option", where="--arch-opt stem")
        make: Any = name
        if stem == "small":
            make = partial(_small_stem, name)
            make.__name__ = name
            make.published = name
        return TimmBackbone(
            make,
            in_channels=in_channels,
            image_size=image_size,
            pretrained=pretrained,
            weights=weights,
            drop_path=drop_path,
        )

    build.__name__ = build.__qualname__ = name
    return build  # type: ignore[return-value]


resnet18 = _factory("resnet18")
resnet34 = _factory("resnet34")
resnet50 = _factory("resnet50")
resnet101 = _factory("resnet101")
resnet152 = _factory("resnet152")
