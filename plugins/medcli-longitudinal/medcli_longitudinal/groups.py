"""Blocks of these networks from input to output, for freezing and rates by layer: each encoder block is a stage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from medcli.plugin import LayerGroup
from medcli_longitudinal.bottleneck import BottleneckEncoder
from medcli_longitudinal.encoder import EfficientNetMiniEncoder

__all__ = ["cut", "encoder_parts"]


def cut(network: nn.Module, parts: Iterable[Sequence[str]]) -> tuple[LayerGroup, ...]:
    """One group, and one stage, for each part that has parameters.

    Args:
        network: the network.
        parts: names of the modules that make each group, in the order of use.
    """
    modules, parameters = list(network.named_modules()), list(network.named_parameters())
    groups: list[LayerGroup] = []
    for names in parts:
        held = tuple(name for name, _ in parameters if _within(name, names))
        if held:
            inside = tuple(name for name, _ in modules if _within(name, names))
            groups.append(LayerGroup(names[0], len(groups), held, inside))
    return tuple(groups)


def encoder_parts(encoder: nn.Module, prefix: str = "encoder") -> list[Sequence[str]]:
    """The parts of a mini encoder, or of one with a bottleneck: stem, blocks, transformer layers, compression."""
    if isinstance(encoder, EfficientNetMiniEncoder):
        return [(f"{prefix}.stem",), *((f"{prefix}.blocks.{index}",) for index in range(len(encoder.blocks)))]
    if not isinstance(encoder, BottleneckEncoder):
        return [(prefix,)]
    branch = f"{prefix}.bottleneck.transformer"
    layers: nn.ModuleList = encoder.bottleneck.transformer.encoder.layers  # type: ignore[assignment]
    return [
        *encoder_parts(encoder.encoder, f"{prefix}.encoder"),
        (f"{prefix}.before",),
        (f"{branch}.embeddings", f"{branch}.down"),
        *((f"{branch}.encoder.layers.{index}",) for index in range(len(layers))),
        (f"{branch}.up",),
        (f"{prefix}.bottleneck.conv",),
        (f"{prefix}.bottleneck.compression",),
        (f"{prefix}.after",),
    ]


def _within(name: str, parts: Sequence[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)
