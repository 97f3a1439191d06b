"""What a network promises to whoever trains it: everything learns, and chance is the seed's alone."""

from __future__ import annotations

from medcli.errors import listed
from medcli.registry.discovery import load_factory
from medcli.testing.checks.subject import Subject
from medcli.testing.checks.verdict import fail, skip

__all__ = ["gradients", "seed"]


def gradients(subject: Subject) -> str:
    """One backward pass in training mode reaches every parameter that asks for a gradient.

    Parameters that are zero at the start (last gammas of residual branches) get small random values first, because they
    would hide what lies behind them.
    """
    import torch

    if subject.card is not None and not subject.card.trainable:
        skip("`trainable = false` in the card")
    network = subject.small(seed=1).train()
    trainable = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    if not trainable:
        fail("it has no trainable parameter; a network that is not meant to learn says `trainable = false` in its card")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        with torch.no_grad():
            for parameter in trainable.values():
                if not bool(parameter.any()):
                    parameter.copy_(torch.randn_like(parameter) * 0.1)
        found = network(*subject.inputs(4))
        # Random weights per output, so that no symmetry (a norm whose outputs sum to zero) cancels the gradient.
        if found.requires_grad:
            (found * torch.randn_like(found)).sum().backward()
    apart = [name for name, one in trainable.items() if one.grad is None]
    reached = {name: one.grad for name, one in trainable.items() if one.grad is not None}
    dead = [name for name, gradient in reached.items() if not bool(gradient.any())]
    broken = [name for name, gradient in reached.items() if not bool(torch.isfinite(gradient).all())]
    said = [
        f"{len(names)} of {len(trainable)} trainable parameters {what}: {listed(names, 5)}"
        for names, what in (
            (apart, "take no part in the output"),
            (dead, "get a gradient of zero"),
            (broken, "get a gradient that is not finite"),
        )
        if names
    ]
    if said:
        fail("; ".join(said) + "; remove them, or set `requires_grad` to False")
    return f"{len(trainable)} parameters"


def seed(subject: Subject) -> str | None:
    """Same seed, same weights; other seed, other weights, unless the network says `fixed_weights = True`."""
    import torch

    after = []
    weights = []
    for number in (0, 0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(number)
            network = load_factory(subject.entry)(
                in_channels=subject.channels, image_size=subject.small_size, **subject.plan.options
            )
            after.append(torch.default_generator.get_state())
            weights.append({name: one.detach() for name, one in network.named_parameters()})
            fixed = getattr(network, "fixed_weights", False) is True
    first, again, other = weights
    moved = [name for name in first if not torch.equal(first[name], again[name])]
    if moved:
        fail(f"built twice from seed 0 it starts from different weights: {listed(moved, 5)}")
    moved = [name for name in first if not torch.equal(first[name], other[name])]
    if fixed:
        if moved:
            fail(f"it says `fixed_weights = True`, but seeds 0 and 1 give different weights: {listed(moved, 5)}")
        return "its weights are fixed on purpose"
    if not moved:
        fail(
            "seeds 0 and 1 give the same weights, so that the members of an ensemble would be one network; one whose "
            "weights are fixed on purpose says so with the attribute `fixed_weights = True`"
        )
    if torch.equal(after[0], after[2]):
        fail("the factory sets the seed of torch's global generator, which is the caller's")
    return None
