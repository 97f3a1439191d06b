"""The factories of the RETFound family; torch and timm are imported only when one of them is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medcli_retfound.layouts import DINOV2, GREEN, MAE, Layout, Pool

if TYPE_CHECKING:
    from medcli.plugin import ArchitectureFactory
    from medcli_retfound.network import RetFoundBackbone

__all__ = [
    "retfound_cfp",
    "retfound_dinov2_meh",
    "retfound_dinov2_shanghai",
    "retfound_green",
    "retfound_mae_meh",
    "retfound_mae_shanghai",
    "retfound_oct",
]


def _factory(name: str, layout: Layout, page: str) -> ArchitectureFactory:
    """The factory of one set of weights.

    Args:
        name: of the architecture, for messages.
        layout: the network and its weight files.
        page: where the weights can be asked for.
    """

    def build(
        *,
        in_channels: int = 3,
        image_size: int = layout.image_size,
        pretrained: bool = False,
        weights: str | None = None,
        drop_path: float = 0.0,
        pool: Pool = layout.pool,
    ) -> RetFoundBackbone:
        from medcli_retfound.network import build_network

        return build_network(
            layout,
            name=name,
            page=page,
            in_channels=in_channels,
            image_size=image_size,
            pretrained=pretrained,
            weights=weights,
            drop_path=drop_path,
            pool=pool,
        )

    build.__name__ = build.__qualname__ = name.replace("-", "_")
    return build  # type: ignore[return-value]


def _on_the_hub(name: str) -> str:
    return f"https://huggingface.co/YukunZhou/{name}"


retfound_cfp = _factory("retfound-cfp", MAE, _on_the_hub("RETFound_mae_natureCFP"))
retfound_oct = _factory("retfound-oct", MAE, _on_the_hub("RETFound_mae_natureOCT"))
retfound_mae_meh = _factory("retfound-mae-meh", MAE, _on_the_hub("RETFound_mae_meh"))
retfound_mae_shanghai = _factory("retfound-mae-shanghai", MAE, _on_the_hub("RETFound_mae_shanghai"))
retfound_dinov2_meh = _factory("retfound-dinov2-meh", DINOV2, _on_the_hub("RETFound_dinov2_meh"))
retfound_dinov2_shanghai = _factory("retfound-dinov2-shanghai", DINOV2, _on_the_hub("RETFound_dinov2_shanghai"))
retfound_green = _factory("retfound-green", GREEN, "https://github.com/justinengelmann/RETFound_Green")
