"""What a network promises to whoever keeps it: its state dict is all of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.testing.checks.subject import Subject, same
from medcli.testing.checks.verdict import CheckFailed, fail

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["safetensors", "state_dict"]


def state_dict(subject: Subject) -> None:
    """Into a network of another seed, and equal outputs."""
    network = _trained(subject)
    _restored(subject, network, network.state_dict())


def safetensors(subject: Subject) -> None:
    """Through a file that can hold tensors and nothing else."""
    import torch
    from safetensors.torch import load_file, save_file

    network = _trained(subject)
    state = network.state_dict()
    foreign = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if foreign:
        fail(f"`{foreign[0]}` in its state dict is a {type(state[foreign[0]]).__name__}, not a tensor")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        try:
            save_file(
                {name: one.detach().clone(memory_format=torch.contiguous_format) for name, one in state.items()}, file
            )
        except Exception as error:
            raise CheckFailed(f"its state cannot be written as safetensors: {error}") from error
        _restored(subject, network, load_file(file))


def _trained(subject: Subject) -> nn.Module:
    """A network whose every number has moved, as training would move it, so that a fixed start restores nothing."""
    import torch

    network = subject.small(seed=1)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        # Buffers outside the state (attention masks) are constants that a second network makes again.
        for tensor in network.state_dict().values():
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                tensor.mul_(1.0 + 0.05 * torch.rand(tensor.shape, generator=generator))
                tensor.add_(0.01 * torch.rand(tensor.shape, generator=generator))
    return network


def _restored(subject: Subject, network: nn.Module, state: Mapping[str, Any]) -> None:
    import torch

    other = subject.small(seed=2)
    try:
        other.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CheckFailed(f"a second network does not take the first one's state: {error}") from error
    inputs = subject.inputs(2)
    with torch.no_grad():
        first: torch.Tensor = network(*inputs)
        second: torch.Tensor = other(*inputs)
    if not same(first, second, 1e-6):
        worst = float((first - second).abs().max())
        fail(
            f"a second network with the first one's state gives other outputs (largest difference {worst:.3g}): "
            "something that matters is neither a parameter nor a persistent buffer"
        )
