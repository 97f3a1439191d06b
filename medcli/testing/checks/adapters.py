"""What a card's LoRA targets promise: modules of those names exist, can be wrapped, and learn."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from medcli.errors import UsageProblem, listed
from medcli.lora_modules import card_modules
from medcli.testing.checks.subject import Subject, same
from medcli.testing.checks.verdict import CheckFailed, fail, skip

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["lora"]


def lora(subject: Subject) -> str:
    """Every pattern matches, peft wraps the modules, nothing changes at first, and every adapter gets a gradient."""
    import torch

    if subject.card is None or not subject.card.lora_targets:
        skip("the card names no LoRA targets")
    chosen = {
        role: names
        for role, patterns in subject.card.lora_targets.items()
        for names in [_matched(subject.outline(), role, patterns)]
    }
    network = copy.deepcopy(subject.network())
    small = {role: _matched(network, role, patterns) for role, patterns in subject.card.lora_targets.items()}
    inputs = subject.inputs(2)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        for parameter in network.parameters():  # zeros (last gammas of residual branches) hide what lies behind them
            if not bool(parameter.any()):
                parameter.copy_(torch.randn_like(parameter) * 0.1)
        before = network(*inputs)
    for role, names in small.items():
        _adapt(copy.deepcopy(network), role, names, inputs, before)
    return ", ".join(f"{role}: {len(names)}" for role, names in chosen.items())


def _matched(network: nn.Module, role: str, patterns: tuple[str, ...]) -> list[str]:
    """Names of the modules a role means, by the rule that `lora` has."""
    try:
        return card_modules(network, role, patterns)
    except UsageProblem as problem:
        raise CheckFailed(problem.message) from None


def _adapt(network: nn.Module, role: str, names: list[str], inputs: tuple[Tensor, ...], before: Tensor) -> None:
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=2, lora_alpha=2, target_modules=names)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        try:
            wrapped = inject_adapter_in_model(config, network).eval()
        except Exception as error:
            raise CheckFailed(f"`lora_targets.{role}`: peft cannot wrap them: {error}") from error
        found = wrapped(*inputs)
        if not same(found.detach(), before):
            fail(f"`lora_targets.{role}`: fresh adapters change the output although they start at zero")
        if found.requires_grad:
            (found * torch.randn_like(found)).sum().backward()
    dead = [
        name
        for name, parameter in wrapped.named_parameters()
        if ".lora_B." in name and (parameter.grad is None or not bool(parameter.grad.any()))
    ]
    if dead:
        fail(
            f"`lora_targets.{role}`: {len(dead)} adapters get no gradient, because their layer's weight is used "
            f"without calling the layer: {listed(dead, 5)}"
        )
