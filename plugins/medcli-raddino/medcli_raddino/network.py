"""The network and its two published file layouts; only a build imports this module, and with it transformers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import torch

from medcli.plugin import TransformersBackbone

if TYPE_CHECKING:
    from transformers import Dinov2Config

__all__ = ["build", "from_dinov2", "published_config"]

# DINOv2's own names to those of the published `model.safetensors`, which transformers knows how to read.
_OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
_INSIDE = {
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_FUSED = ("query", "key", "value")


def published_config() -> Dinov2Config:
    """DINOv2's ViT-B/14 for pictures of 518 pixels: 12 blocks of width 768, with layer scale."""
    from transformers import Dinov2Config

    return Dinov2Config(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        mlp_ratio=4,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        qkv_bias=True,
        layerscale_value=1.0,
        image_size=518,
        patch_size=14,
    )


def build(
    config: Any,
    *,
    in_channels: int,
    image_size: int,
    weights: str | None = None,
    drop_path: float = 0.0,
    pool: Literal["cls", "mean"] = "cls",
) -> TransformersBackbone:
    """The backbone of a `Dinov2Config`: the published one, or a smaller one in tests. Arguments as for `raddino`."""
    return TransformersBackbone(
        config,
        name="raddino",
        in_channels=in_channels,
        image_size=image_size,
        weights=weights,
        drop_path=drop_path,
        pool=pool,
        convert=from_dinov2,
    )


def from_dinov2(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors under DINOv2's own names (`backbone_compatible.safetensors`) under those of `model.safetensors`.

    The fused matrix of queries, keys and values [3 D, D] is split. Tensors under other names are handed on.
    """
    if "patch_embed.proj.weight" not in tensors:
        return tensors
    state: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        block = _BLOCK.fullmatch(name)
        if block is None:
            state[_OUTSIDE.get(name, name)] = tensor
            continue
        prefix = f"encoder.layer.{block[1]}"
        part, _, kind = block[2].rpartition(".")
        if part == "attn.qkv" and tensor.shape[0] % 3 == 0:
            thirds = zip(_FUSED, tensor.chunk(3), strict=True)
            state.update({f"{prefix}.attention.attention.{one}.{kind}": third.contiguous() for one, third in thirds})
        elif block[2] in _INSIDE:
            state[f"{prefix}.{_INSIDE[block[2]]}"] = tensor
        elif part in _INSIDE:
            state[f"{prefix}.{_INSIDE[part]}.{kind}"] = tensor
        else:
            state[f"{prefix}.{block[2]}"] = tensor
    return state
