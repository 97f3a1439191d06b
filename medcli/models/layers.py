"""The layer table: what each part of a network gives out, holds and costs, counted on the meta device in no memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["LayerRow", "LayerTable", "layer_table"]


@dataclass(frozen=True)
class LayerRow:
    """One module that holds parameters or multiplies matrices.

    Args:
        module: full name, as in `named_modules()`; empty for the network's own parameters.
        kind: its class.
        output_shape: for one image, without the batch dimension; empty if the module is never called as such.
        parameters: of this module alone, not of those inside it.
        macs: multiply-accumulate operations of this module alone, for one image (convolutions, matrix products,
            attention).
    """

    module: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


@dataclass(frozen=True)
class LayerTable:
    """Rows in the order of the first forward pass; the totals are the sums of the rows."""

    rows: tuple[LayerRow, ...]

    @property
    def parameters(self) -> int:
        """Equal to `Classifier.parameter_counts().total`."""
        return sum(row.parameters for row in self.rows)

    @property
    def macs(self) -> int:
        """For one image."""
        return sum(row.macs for row in self.rows)


def layer_table(network: nn.Module, image_size: int, in_channels: int = 3, *, images: int = 1) -> LayerTable:
    """Describe a network at an image size; the network itself is not touched.

    Args:
        network: images [B, C, H, W] -> anything; usually a `Classifier`.
        image_size: side in pixels.
        in_channels: channels of the images.
        images: how many pictures one forward pass takes; 2 for a difference model, whose MACs are those of a pair.
    """
    twin = copy.deepcopy(network).to("meta").eval()
    modules = dict(twin.named_modules())
    shapes: dict[str, tuple[int, ...]] = {}
    called: dict[str, int] = {}

    def enter(name: str) -> Any:
        def hook(*_: Any) -> None:  # what a pre-hook returns would replace the input
            called.setdefault(name, len(called))

        return hook

    def remember(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                shapes.setdefault(name, tuple(output.shape[1:]))

        return hook

    for name, module in modules.items():
        module.register_forward_pre_hook(enter(name))
        module.register_forward_hook(remember(name))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(*(torch.zeros(1, in_channels, image_size, image_size, device="meta") for _ in range(images)))
    root = type(twin).__name__
    flops = {
        name: sum(operations.values())
        for name, operations in counter.get_flop_counts().items()
        if name == root or name.startswith(f"{root}.")
    }
    inclusive = {name: flops.get(f"{root}.{name}" if name else root, 0) for name in modules}
    own = dict(inclusive)
    for name in called:
        if name:
            # A container that is looped over is never called, so it has counted nothing that could be taken from it.
            own[_first_called(name.rpartition(".")[0], called)] -= inclusive[name]
    seen: set[int] = set()
    rows = {}
    for name, module in modules.items():
        parameters = 0
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                parameters += parameter.numel()
        if parameters or own[name] > 0:
            macs = own[name] // 2
            rows[name] = LayerRow(name, type(module).__name__, shapes.get(name, ()), parameters, macs)
    order = sorted(rows, key=lambda name: called.get(_first_called(name, called), -1))
    return LayerTable(tuple(rows[name] for name in order))


def _first_called(name: str, called: dict[str, int]) -> str:
    """A module whose parameters are used without calling it stands where its nearest called parent does."""
    while name and name not in called:
        name = name.rpartition(".")[0]
    return name
