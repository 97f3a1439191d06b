"""Attention maps of a network that attends over the whole picture, read while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from medcli.errors import UsageProblem

__all__ = ["attention_maps", "watch_attention"]


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
    blocks = _attentions(network, name)
    if not -len(blocks) <= layer < len(blocks):
        raise UsageProblem(
            f"`{name}` has {len(blocks)} attention layers; layer {layer} is not one of them", code="no-attention"
        )
    training = {module: module.training for module in network.modules()}
    try:
        with _watched([blocks[layer]], lambda attention: attention.detach()) as caught:
            network.eval()
            with torch.no_grad():
                network(images)
    finally:
        for module, mode in training.items():
            module.training = mode
    if len(caught) != 1 or not _whole(caught[0], len(images)):
        raise _in_windows(name)
    return caught[0]


@contextlib.contextmanager
def watch_attention(
    network: nn.Module, *, name: str, keep: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Iterator[list[torch.Tensor]]:
    """A list that the next forward pass fills with the attention of every block, [B, heads, N, N] each, in order.

    The maps are part of the pass's graph, so that gradients reach them. Fused kernels are off meanwhile.

    Args:
        network: a timm network.
        name: the architecture, for messages.
        keep: what of each map is kept, such as its mean over the heads: all maps of a large picture take a gigabyte.

    Raises:
        UsageProblem: the network has no attention over all positions; raised by the pass where only it shows that.
    """
    blocks = _attentions(network, name)
    batch: list[int] = []

    def checked(attention: torch.Tensor) -> torch.Tensor:
        if not _whole(attention, batch[-1] if batch else None):
            raise _in_windows(name)
        return attention if keep is None else keep(attention)

    hook = network.register_forward_pre_hook(lambda _, inputs: batch.append(len(inputs[0])))
    try:
        with _watched(blocks, checked) as caught:
            yield caught
    finally:
        hook.remove()


@contextlib.contextmanager
def _watched(blocks: list[nn.Module], keep: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    caught: list[torch.Tensor] = []
    fused = [block.fused_attn for block in blocks]
    hooks = []
    try:
        for block in blocks:
            block.fused_attn = False  # type: ignore[assignment]
            watched: nn.Module = block.attn_drop  # type: ignore[assignment]
            hooks.append(watched.register_forward_pre_hook(lambda _, inputs: caught.append(keep(inputs[0]))))
        yield caught
    finally:
        for block, before in zip(blocks, fused, strict=True):
            block.fused_attn = before
        for hook in hooks:
            hook.remove()


def _attentions(network: nn.Module, name: str) -> list[nn.Module]:
    blocks = [
        module
        for module in network.modules()
        if hasattr(module, "fused_attn") and isinstance(getattr(module, "attn_drop", None), nn.Module)
    ]
    if not blocks:
        raise UsageProblem(
            f"`{name}` has no attention layers, so it has no attention maps",
            code="no-attention",
            hint="choose a ViT or DeiT",
        )
    return blocks


def _whole(attention: torch.Tensor, images: int | None = None) -> bool:
    """Whether every position attends to every other, as far as the shape of a map tells."""
    square = attention.ndim == 4 and attention.shape[-1] == attention.shape[-2]
    return square and (images is None or len(attention) == images)


def _in_windows(name: str) -> UsageProblem:
    return UsageProblem(
        f"`{name}` attends within windows or to pooled positions, so it has no map over the whole picture",
        code="no-attention",
        hint="choose a ViT or DeiT",
    )
