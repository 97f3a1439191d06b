"""Attention maps of a network that attends over the whole picture, read while it runs."""

from __future__ import annotations

import torch
from torch import nn

from medcli.errors import UsageProblem

__all__ = ["attention_maps"]


def attention_maps(network: nn.Module, images: torch.Tensor, layer: int, *, name: str) -> torch.Tensor:
    """Attention after the softmax, [B, heads, N, N]; N counts the class token and other prefix tokens first.

    The network runs in eval mode and without gradients. The fused kernel never forms the matrix, so it is switched off
    for this one call.

    Args:
        network: a timm network.
        images: [B, C, H, W], normalised.
        layer: block to read; negative numbers count from the last.
        name: the architecture, for messages.

    Raises:
        UsageProblem: the network has no attention over all positions, or no such layer.
    """
    blocks = [module for module in network.modules() if _is_attention(module)]
    if not blocks:
        raise UsageProblem(
            f"`{name}` has no attention layers, so it has no attention maps",
            code="no-attention",
            hint="choose a ViT or DeiT",
        )
    if not -len(blocks) <= layer < len(blocks):
        raise UsageProblem(
            f"`{name}` has {len(blocks)} attention layers; layer {layer} is not one of them", code="no-attention"
        )
    attention = blocks[layer]
    caught: list[torch.Tensor] = []
    fused = attention.fused_attn
    training = {module: module.training for module in network.modules()}
    watched: nn.Module = attention.attn_drop  # type: ignore[assignment]
    hook = watched.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].detach()))
    try:
        attention.fused_attn = False  # type: ignore[assignment]
        network.eval()
        with torch.no_grad():
            network(images)
    finally:
        attention.fused_attn = fused
        hook.remove()
        for module, mode in training.items():
            module.training = mode
    if (
        len(caught) != 1
        or caught[0].ndim != 4
        or len(caught[0]) != len(images)
        or caught[0].shape[-1] != caught[0].shape[-2]
    ):
        raise UsageProblem(
            f"`{name}` attends within windows or to pooled positions, so it has no map over the whole picture",
            code="no-attention",
            hint="choose a ViT or DeiT",
        )
    return caught[0]


def _is_attention(module: nn.Module) -> bool:
    return hasattr(module, "fused_attn") and isinstance(getattr(module, "attn_drop", None), nn.Module)
