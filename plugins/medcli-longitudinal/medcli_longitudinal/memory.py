"""Gradient checkpointing that changes nothing but memory and time: batch norm counts each batch once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from medcli.plugin import LoadReport

__all__ = ["Checkpointing"]


class Checkpointing(nn.Module):
    """A network whose parts can be run twice instead of being remembered.

    `set_grad_checkpointing` reaches every such part within it.
    """

    load_report: LoadReport | None = None

    def __init__(self) -> None:
        super().__init__()
        self.checkpointed = False

    def set_grad_checkpointing(self, enabled: bool = True) -> None:
        """Recompute activations in the backward pass: memory falls to a third, time rises by about a third."""
        for module in self.modules():
            if isinstance(module, Checkpointing):
                module.checkpointed = enabled

    def run(self, part: nn.Module, *inputs: torch.Tensor) -> Any:
        """`part(*inputs)`, recomputed in the backward pass if that is asked for."""
        if not (self.checkpointed and self.training and torch.is_grad_enabled()):
            return part(*inputs)
        return checkpoint(
            part, *inputs, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), _uncounted(part))
        )


@contextlib.contextmanager
def _uncounted(part: nn.Module) -> Iterator[None]:
    """Batch norm as in training, its running statistics left where they are: the first pass has moved them already."""
    norms = [one for one in part.modules() if isinstance(one, nn.BatchNorm2d)]
    before = [(one.momentum, one.num_batches_tracked) for one in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = (
            torch.zeros_like(norm.num_batches_tracked) if norm.num_batches_tracked is not None else None
        )
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
