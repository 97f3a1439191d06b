"""ConvNeXt (Liu et al. 2022)."""

from __future__ import annotations

from medcli.plugin import TimmBackbone

__all__ = ["convnext_tiny"]


def convnext_tiny(
    *,
    in_channels: int = 3,
    image_size: int | None = None,
    pretrained: bool = False,
    weights: str | None = None,
    drop_path: float = 0.0,
) -> TimmBackbone:
    """See `medcli models show convnext_tiny`."""
    return TimmBackbone(
        "convnext_tiny",
        in_channels=in_channels,
        image_size=image_size,
        pretrained=pretrained,
        weights=weights,
        drop_path=drop_path,
    )
