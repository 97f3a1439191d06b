"""What the built network promises while it runs."""

from __future__ import annotations

from typing import Any

from medcli.errors import UsageProblem
from medcli.testing.checks.building import output_shape
from medcli.testing.checks.subject import Subject, same
from medcli.testing.checks.verdict import fail, skip

__all__ = ["attention", "batch_of_one", "finite", "output", "repeats"]


def output(subject: Subject) -> str:
    """Features [B, D]; for a difference model a map [B, 1, H, W] within [-1, 1]."""
    import torch

    from medcli.plugin import Backbone, DifferenceModel

    network = subject.network()
    protocol: Any = DifferenceModel if subject.is_difference else Backbone
    if not isinstance(network, protocol):
        needed = "`encoder` and `layer_groups()`" if subject.is_difference else "`feature_dim` and `layer_groups()`"
        fail(f"`{type(network).__name__}` needs {needed}")
    inputs = subject.inputs(3)
    with torch.no_grad():
        found = network(*inputs)
    promised = output_shape(subject, network, inputs)
    if not isinstance(found, torch.Tensor):
        fail(f"the output is a {type(found).__name__}, not one tensor {list(promised)}")
    if tuple(found.shape) != promised or found.dtype != torch.float32:
        fail(f"the output is {list(found.shape)} of {found.dtype}, not {list(promised)} of torch.float32")
    if subject.is_difference and not bool(((found >= -1) & (found <= 1)).all()):
        fail(f"a signed map lies in [-1, 1], this one in [{float(found.min()):.3g}, {float(found.max()):.3g}]")
    return f"{list(promised)} from {list(inputs[0].shape)}"


def finite(subject: Subject) -> None:
    """No NaN and no infinity, for noise, for black and for white pictures."""
    import torch

    network = subject.network()
    noise = subject.inputs(2)
    pictures = {
        "noise": noise,
        "black pictures": tuple(torch.zeros_like(one) for one in noise),
        "white pictures": tuple(torch.ones_like(one) for one in noise),
    }
    for kind, inputs in pictures.items():
        with torch.no_grad():
            found = network(*inputs)
        wrong = int((~torch.isfinite(found)).sum())
        if wrong:
            fail(f"for {kind} {wrong} of {found.numel()} output values are NaN or infinite")


def batch_of_one(subject: Subject) -> None:
    """In eval mode nothing passes from one image of a batch to another."""
    import torch

    network = subject.network()
    inputs = subject.inputs(3)
    with torch.no_grad():
        together = network(*inputs)
        for index in range(3):
            alone = network(*(one[index : index + 1] for one in inputs))
            if tuple(alone.shape) != (1, *together.shape[1:]):
                fail(f"a batch of one gives {list(alone.shape)}, not {[1, *together.shape[1:]]}")
            if not same(alone, together[index : index + 1]):
                worst = float((alone - together[index : index + 1]).abs().max())
                fail(f"in eval mode an image alone differs from itself within a batch by up to {worst:.3g}")


def repeats(subject: Subject) -> None:
    """Twice the same, and no buffer moves."""
    import torch

    network = subject.network()
    inputs = subject.inputs(2)
    before = {name: one.clone() for name, one in network.state_dict().items() if isinstance(one, torch.Tensor)}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        first, second = network(*inputs), network(*inputs)
    if not same(first, second, 1e-6):
        fail(f"in eval mode two passes differ by up to {float((first - second).abs().max()):.3g}")
    after = network.state_dict()
    moved = [name for name, one in before.items() if not torch.equal(one, after[name])]
    if moved:
        fail(f"a forward pass in eval mode changes {', '.join(f'`{name}`' for name in moved[:5])}")


def attention(subject: Subject) -> str | None:
    """[B, heads, N, N] after the softmax, or a clear refusal."""
    import torch

    if subject.card is None or subject.card.attention_maps is None:
        skip("the card does not say whether it has attention maps")
    network = subject.network()
    maps = getattr(network, "attention_maps", None)
    images = subject.inputs(2)
    try:
        if maps is None:
            raise UsageProblem("it has no method `attention_maps`")
        with torch.no_grad():
            found = maps(*images, layer=-1)
    except UsageProblem as error:
        if not subject.card.attention_maps:
            return "it gives none, as the card says"
        fail(f"`attention_maps = true` in the card, but {error.message}")
    if not subject.card.attention_maps:
        fail("`attention_maps = false` in the card, but it gives attention maps")
    if found.ndim != 4 or found.shape[0] != 2 or found.shape[2] != found.shape[3]:
        fail(f"attention maps are [B, heads, N, N], not {list(found.shape)}")
    rows = found.sum(-1)
    if bool((found < 0).any()) or not torch.allclose(rows, torch.ones_like(rows), atol=1e-3):
        fail("the rows of attention maps are shares that add up to 1, these are not")
    return f"{found.shape[1]} heads over {found.shape[2]} tokens"
