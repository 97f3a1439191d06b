"""What only a difference model promises."""

from __future__ import annotations

from medcli.errors import UsageProblem
from medcli.testing.checks.subject import Subject
from medcli.testing.checks.verdict import fail

__all__ = ["encoder", "magnitude"]


def magnitude(subject: Subject) -> None:
    """The other kind of map."""
    import torch

    try:
        network = subject.build(size=subject.small_size, map="magnitude", **subject.plan.options)
    except UsageProblem as error:
        fail(f'`map="magnitude"` is refused: {error.message}')
    inputs = subject.inputs(2)
    with torch.no_grad():
        found = network(*inputs)
    if tuple(found.shape) != (2, 1, *inputs[0].shape[2:]):
        fail(f"the map is {list(found.shape)}, not {[2, 1, *inputs[0].shape[2:]]}")
    if not bool(((found >= 0) & (found <= 1)).all()):
        fail(f"a map of magnitudes lies in [0, 1], this one in [{float(found.min()):.3g}, {float(found.max()):.3g}]")


def encoder(subject: Subject) -> None:
    """A module of the network itself, so that freezing it and giving it weights reaches the network."""
    from torch import nn

    network = subject.outline()
    part = getattr(network, "encoder", None)
    if not isinstance(part, nn.Module):
        fail(f"`.encoder` must be an `nn.Module`, not {type(part).__name__}")
    if not any(part is module for module in network.modules() if module is not network):
        fail("`.encoder` is no part of the network: its parameters are not the network's")
    if not any(True for _ in part.parameters()):
        fail("`.encoder` has no parameters")
