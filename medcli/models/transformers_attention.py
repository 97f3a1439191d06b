"""Attention maps of transformers' networks, whose fused kernels never form the matrix."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from medcli.errors import UsageProblem
from medcli.models.transformers_files import quiet

__all__ = ["attention_maps", "watch_attention"]


def attention_maps(network: nn.Module, run: Callable[[], object], layer: int, *, name: str) -> torch.Tensor:
    """Attention of one block after the softmax, [B, heads, N, N], in eval mode and without gradients.

    Only the block asked for is kept: at RAD-DINO's own size the maps of all of them take a gigabyte per picture.

    Args:
        network: a network of transformers.
        run: calls it once.
        layer: block to read; negative numbers count from the last.
        name: the architecture, for messages.

    Raises:
        UsageProblem: the network has no attention over all positions, or no such layer.
    """
    blocks = _attentions(network)
    if not blocks:
        raise _no_attention(name)
    if not -len(blocks) <= layer < len(blocks):
        raise UsageProblem(
            f"`{name}` has {len(blocks)} attention layers; layer {layer} is not one of them", code="no-attention"
        )
    caught: list[torch.Tensor] = []
    hook = blocks[layer].register_forward_hook(lambda _, __, output: caught.append(output[1]))
    training = {module: module.training for module in network.modules()}
    try:
        with _eager(network), torch.no_grad():
            network.eval()
            run()
    finally:
        hook.remove()
        for module, mode in training.items():
            module.training = mode
    if len(caught) != 1 or caught[0].ndim != 4 or caught[0].shape[-1] != caught[0].shape[-2]:
        raise _no_attention(name)
    return caught[0].detach()


@contextlib.contextmanager
def watch_attention(
    network: nn.Module, *, name: str, keep: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Iterator[list[torch.Tensor]]:
    """A list that the next forward pass fills with the attention of every block, [B, heads, N, N] each, in order.

    The maps are part of the pass's graph, so that gradients reach them. Fused kernels are off meanwhile.

    Args:
        network: a network of transformers.
        name: the architecture, for messages.
        keep: what of each map is kept.

    Raises:
        UsageProblem: the network has no attention over all positions.
    """
    blocks = _attentions(network)
    if not blocks:
        raise _no_attention(name)
    caught: list[torch.Tensor] = []

    def catch(_: nn.Module, __: Any, output: Any) -> None:
        attention = output[1]
        if attention.ndim != 4 or attention.shape[-1] != attention.shape[-2]:
            raise _no_attention(name)
        caught.append(attention if keep is None else keep(attention))

    hooks = [block.register_forward_hook(catch) for block in blocks]
    try:
        with _eager(network):
            yield caught
    finally:
        for hook in hooks:
            hook.remove()


def _attentions(network: Any) -> list[nn.Module]:
    """Modules that give (output, attention [B, heads, N, N]), in order."""
    recorded = (getattr(network, "_can_record_outputs", None) or {}).get("attentions")
    kind, place = getattr(recorded, "target_class", recorded), getattr(recorded, "index", 1)
    # Hierarchical networks record attention stage by stage, within windows: at another place of the output.
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)) or place != 1:
        return []
    return [module for module in network.modules() if isinstance(module, kind)]


def _no_attention(name: str) -> UsageProblem:
    return UsageProblem(
        f"`{name}` has no attention over the whole picture, so it has no attention maps",
        code="no-attention",
        hint="choose a ViT or DeiT",
    )


@contextlib.contextmanager
def _eager(network: Any) -> Iterator[None]:
    before = network.config._attn_implementation
    try:
        with quiet():
            network.set_attn_implementation("eager")
        yield
    finally:
        with quiet():
            network.set_attn_implementation(before)
