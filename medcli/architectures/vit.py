"""Vision transformers (Dosovitskiy et al. 2021) and their data-efficient training DeiT (Touvron et al. 2021)."""

from __future__ import annotations

from typing import Any, Literal

from medcli.errors import UsageProblem
from medcli.plugin import ArchitectureFactory, TimmBackbone

__all__ = [
    "deit_base_patch16_224",
    "deit_small_patch16_224",
    "deit_tiny_patch16_224",
    "vit_base_patch16_224",
    "vit_huge_patch14_224",
    "vit_large_patch16_224",
    "vit_small_patch16_224",
    "vit_tiny_patch16_224",
]


def _factory(name: str, own_patch: int) -> ArchitectureFactory:
    def build(
        *,
        in_channels: int = 3,
        image_size: int | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        drop_path: float = 0.0,
        attention_dropout: float = 0.0,
        patch_size: int = own_patch,
        pool: Literal["cls", "mean"] = "cls",
    ) -> TimmBackbone:
        if pool not in {"cls", "mean"}:
            raise UsageProblem(f"`{pool}` is not a pooling: cls, mean", code="bad-option", where="--arch-opt pool")
        if patch_size < 1:
            raise UsageProblem(
                f"patches of {patch_size} pixels cannot be cut", code="bad-option", where="--arch-opt patch_size"
            )
        options: dict[str, Any] = {"attn_drop_rate": attention_dropout, "patch_size": patch_size}
        if pool == "mean":
            # The last norm stays where the weights learned it, before the mean, so that the same files fit both.
            options |= {"global_pool": "avg", "fc_norm": False}
        return TimmBackbone(
            name,
            in_channels=in_channels,
            image_size=image_size,
            pretrained=pretrained,
            weights=weights,
            drop_path=drop_path,
            **options,
        )

    build.__name__ = build.__qualname__ = name
    return build  # type: ignore[return-value]


vit_tiny_patch16_224 = _factory("vit_tiny_patch16_224", 16)
vit_small_patch16_224 = _factory("vit_small_patch16_224", 16)
vit_base_patch16_224 = _factory("vit_base_patch16_224", 16)
vit_large_patch16_224 = _factory("vit_large_patch16_224", 16)
vit_huge_patch14_224 = _factory("vit_huge_patch14_224", 14)
deit_tiny_patch16_224 = _factory("deit_tiny_patch16_224", 16)
deit_small_patch16_224 = _factory("deit_small_patch16_224", 16)
deit_base_patch16_224 = _factory("deit_base_patch16_224", 16)
