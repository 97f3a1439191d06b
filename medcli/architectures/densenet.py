"""DenseNet (Huang et al. 2017), with the 264-layer network of the paper that no library carries."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from medcli.errors import UsageProblem
from medcli.plugin import ArchitectureFactory, TimmBackbone

__all__ = ["densenet121", "densenet169", "densenet201", "densenet264"]


def _densenet264(*, growth_rate: int = 32, **arguments: Any) -> nn.Module:
    """Growth 32, blocks of 6, 12, 64 and 48 layers: 33.3 M parameters. timm's `densenet264d` is another network."""
    from timm.models.densenet import DenseNet

    network: nn.Module = DenseNet(growth_rate=growth_rate, block_config=(6, 12, 64, 48), **arguments)
    return network


def _factory(name: str, make: Any) -> ArchitectureFactory:
    def build(
        *,
        in_channels: int = 3,
        image_size: int | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        drop_path: float = 0.0,
        growth_rate: int = 32,
    ) -> TimmBackbone:
        if growth_rate < 1:
            raise UsageProblem(
                f"a growth rate of {growth_rate} adds no channels", code="bad-option", where="--arch-opt growth_rate"
            )
        return TimmBackbone(
            make,
            in_channels=in_channels,
            image_size=image_size,
            pretrained=pretrained,
            weights=weights,
            drop_path=drop_path,
            growth_rate=growth_rate,
        )

    build.__name__ = build.__qualname__ = name
    return build  # type: ignore[return-value]


_made_here: Any = partial(_densenet264)
_made_here.__name__ = "densenet264"

densenet121 = _factory("densenet121", "densenet121")
densenet169 = _factory("densenet169", "densenet169")
densenet201 = _factory("densenet201", "densenet201")
densenet264 = _factory("densenet264", _made_here)
