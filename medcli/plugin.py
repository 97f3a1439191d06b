"""What a plugin author imports: the contract, as protocols and plain values. Importing it never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import nn

    from medcli.models.timm_backbone import TimmBackbone

__all__ = ["API_VERSION", "ArchitectureFactory", "Backbone", "LayerGroup", "TimmBackbone"]

API_VERSION = 1


@dataclass(frozen=True)
class LayerGroup:
    """One block of a backbone.

    Args:
        name: readable name such as `layer1.0`.
        stage: the stage it belongs to; the stem is stage 0.
        parameters: full parameter names, as in `named_parameters()`.
        modules: full names of the modules whose state (buffers, training mode) belongs to the block.
    """

    name: str
    stage: int
    parameters: tuple[str, ...]
    modules: tuple[str, ...]


@runtime_checkable
class Backbone(Protocol):
    """An `nn.Module` that turns images [B, C, H, W] into pooled features [B, D].

    Optional, found by attribute: `feature_map(images) -> [B, D', H', W']`, `attention_maps(images, layer=-1) ->
    [B, heads, N, N]`, `pretrained_head: (weight [K, D], bias [K])`, `set_grad_checkpointing(enabled)`.
    """

    feature_dim: int

    def __call__(self, images: torch.Tensor) -> torch.Tensor: ...

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Ordered from input to output, every parameter in exactly one group."""
        ...


class ArchitectureFactory(Protocol):
    """What an entry point in `medcli.architectures` names: keyword-only, plus the options its card lists."""

    def __call__(
        self,
        *,
        in_channels: int,
        image_size: int,
        pretrained: bool = False,
        weights: str | None = None,
        drop_path: float = 0.0,
        **options: Any,
    ) -> nn.Module: ...


def __getattr__(name: str) -> Any:
    if name == "TimmBackbone":
        from medcli.models.timm_backbone import TimmBackbone

        return TimmBackbone
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
