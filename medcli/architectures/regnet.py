"""RegNet (Radosavovic et al. 2020)."""

from __future__ import annotations

from medcli.plugin import TimmBackbone

__all__ = ["regnetx_032"]


def regnetx_032(
    *,
    in_channels: int = 3,
    image_size: int | None = None,
    pretrained: bool = False,
    weights: str | None = None,
    drop_path: float = 0.0,
) -> TimmBackbone:
    """See `medcli models show regnetx_032`."""
    return TimmBackbone(
        "regnetx_032",
        in_channels=in_channels,
        image_size=image_size,
        pretrained=pretrained,
        weights=weights,
        drop_path=drop_path,
    )
