"""What a plugin author imports: the contract, as protocols and plain values. Importing it never imports torch.

This is API 1. Within it, fields and keywords may be added, always with a default; nothing is renamed or removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from medcli.card import (
    ArchitectureCard,
    MemoryNote,
    Normalisation,
    OptionCard,
    Recipe,
    RecipeValue,
    Reference,
    Scaling,
    SizeRule,
    WeightCard,
)
from medcli.errors import RunFailure, UsageProblem

if TYPE_CHECKING:
    import torch
    from torch import nn

    from medcli.models.layer_groups import group_layers
    from medcli.models.timm_backbone import TimmBackbone
    from medcli.models.transformers_backbone import TransformersBackbone
    from medcli.models.weight_files import read_weights
    from medcli.models.weights import LoadReport, adapt_channels, load_weights, resize_positions

__all__ = [
    "API_VERSION",
    "ArchitectureCard",
    "ArchitectureFactory",
    "Backbone",
    "DifferenceModel",
    "DifferenceModelFactory",
    "LayerGroup",
    "LoadReport",
    "MemoryNote",
    "Normalisation",
    "OptionCard",
    "PretrainedHead",
    "Recipe",
    "RecipeValue",
    "Reference",
    "RunFailure",
    "Scaling",
    "SizeRule",
    "TimmBackbone",
    "TransformersBackbone",
    "UsageProblem",
    "WeightCard",
    "adapt_channels",
    "group_layers",
    "load_weights",
    "read_weights",
    "resize_positions",
]

API_VERSION = 1

# Fetched on first use, because they import torch; a card, a name or an error needs none of them.
_ON_DEMAND = {
    "LoadReport": "medcli.models.weights",
    "TimmBackbone": "medcli.models.timm_backbone",
    "TransformersBackbone": "medcli.models.transformers_backbone",
    "adapt_channels": "medcli.models.weights",
    "group_layers": "medcli.models.layer_groups",
    "load_weights": "medcli.models.weights",
    "read_weights": "medcli.models.weight_files",
    "resize_positions": "medcli.models.weights",
}


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


@dataclass(frozen=True, eq=False)
class PretrainedHead:
    """The classifier that came with a weight file, so that `evaluate ARCH --weights FILE` needs no training.

    Args:
        weight: [K, D], on the CPU.
        bias: [K].
        class_names: in the order of the rows; empty where the file does not prove them, and then the head is not used.
            A name that is itself empty stands for an output that was never trained.
        task: `multilabel` for sigmoid outputs, `multiclass` or `binary` for a softmax; empty where it is not known.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    class_names: tuple[str, ...] = ()
    task: Literal["multilabel", "multiclass", "binary", ""] = ""


@runtime_checkable
class Backbone(Protocol):
    """An `nn.Module` that turns images [B, C, H, W] into pooled features [B, D].

    Optional, found by attribute:

    - `feature_map(images) -> [B, D', H', W']`: the last map before pooling;
    - `attention_maps(images, layer=-1) -> [B, heads, N, N]`: attention after the softmax;
    - `watch_attention(keep=None)`: a context manager whose list the next pass fills with that of every block, with its
      graph; without it, `explain` asks `attention_maps` for one block after another;
    - `pretrained_head: PretrainedHead | None`: the classifier that came with the weights;
    - `load_report: LoadReport | None`: what came out of the weight file;
    - `no_weight_decay() -> set[str]`: names of parameters that are never decayed;
    - `set_grad_checkpointing(enabled)`: trade time for memory.
    """

    feature_dim: int

    def __call__(self, images: torch.Tensor) -> torch.Tensor: ...

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Ordered from input to output, every parameter in exactly one group."""
        ...


class ArchitectureFactory(Protocol):
    """What an entry point in `medcli.architectures` names: keyword-only, plus the options its card lists.

    `weights` is None, or the path of a file or folder: a tag of the card has become the cached file by then. Only a tag
    whose card names no `file` arrives as the tag itself. `pretrained` says that the card's default weights were meant.
    """

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


@runtime_checkable
class DifferenceModel(Protocol):
    """An `nn.Module` that turns two images of one patient, each [B, C, H, W], into a map of what changed, [B, 1, H, W].

    Values lie in [-1, 1] for a signed map, positive where the follow-up shows new or more opacity, and in [0, 1] for a
    map of magnitudes.

    Optional, found by attribute:

    - `reconstruction() -> nn.Module`: images [B, C, H, W] to [B, 1, H, W] in [0, 1] through this network's own
      `encoder`, for masked pretraining;
    - `discriminator(in_channels) -> nn.Module`: maps to a logit per patch [B, 1, h, w], for adversarial training, in
      place of medcli's own;
    - `encoder_tensors(state) -> (state, left out)`: tensors of a classifier of the same encoder under the encoder's
      names, and the names of those that it does not need;
    - `set_grad_checkpointing(enabled)`: trade time for memory;
    - `load_report: LoadReport | None`: what came out of the weight file.
    """

    encoder: nn.Module

    def __call__(self, baseline: torch.Tensor, followup: torch.Tensor) -> torch.Tensor: ...

    def layer_groups(self) -> Sequence[LayerGroup]:
        """Ordered from input to output, every parameter in exactly one group."""
        ...


class DifferenceModelFactory(Protocol):
    """What an entry point in `medcli.difference_models` names: keyword-only, plus the options its card lists."""

    def __call__(
        self,
        *,
        in_channels: int,
        image_size: int,
        map: Literal["signed", "magnitude"] = "signed",  # noqa: A002 (the flag's own name)
        weights: str | None = None,
        **options: Any,
    ) -> nn.Module: ...


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        return getattr(import_module(_ON_DEMAND[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
