"""Swin transformers (Liu et al. 2021)."""

from __future__ import annotations

from medcli.plugin import ArchitectureFactory, TimmBackbone

__all__ = ["swin_base_patch4_window7_224", "swin_small_patch4_window7_224", "swin_tiny_patch4_window7_224"]


def _factory(name: str) -> ArchitectureFactory:
    def build(
        *,
        in_channels: int = 3,
        image_size: int | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        drop_path: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> TimmBackbone:
        return TimmBackbone(
            name,
            in_channels=in_channels,
            image_size=image_size,
            pretrained=pretrained,
            weights=weights,
            drop_path=drop_path,
            attn_drop_rate=attention_dropout,
        )

    build.__name__ = build.__qualname__ = name
    return build  # type: ignore[return-value]


swin_tiny_patch4_window7_224 = _factory("swin_tiny_patch4_window7_224")
swin_small_patch4_window7_224 = _factory("swin_small_patch4_window7_224")
swin_base_patch4_window7_224 = _factory("swin_base_patch4_window7_224")
