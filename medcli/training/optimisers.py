"""The optimiser: timm's factory over parameter groups that follow the network's own order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import nn

from medcli.models.classifier import Classifier
from medcli.settings.groups import TrainingSettings
from medcli.training.strategies import Tuning
from medcli.training.strategies import parameter_groups as tuned_groups

__all__ = ["make_optimizer", "optimizer_over", "parameter_groups", "set_rate", "undecayed"]


def parameter_groups(network: nn.Module, lr: float, weight_decay: float, loraplus: float = 1.0) -> list[dict[str, Any]]:
    """Groups of trainable parameters, input to output, norms and biases without weight decay.

    Every group carries its own `peak_lr`, which schedules multiply. With `loraplus` the second factors of adapters
    learn at that multiple of the rate (LoRA+, Hayou et al. 2024).
    """
    named = {name: value for name, value in network.named_parameters() if value.requires_grad}
    bare = undecayed(network)
    decayed, plain = [n for n in named if n not in bare], [n for n in named if n in bare]
    fast = [n for n in decayed if ".lora_B." in n and loraplus != 1.0]
    decayed = [n for n in decayed if n not in fast]
    return [
        {"params": [named[n] for n in names], "weight_decay": decay, "lr": rate, "peak_lr": rate, "names": names}
        for names, decay, rate in (
            (decayed, weight_decay, lr),
            (plain, 0.0, lr),
            (fast, weight_decay, lr * loraplus),
        )
        if names
    ]


def undecayed(network: nn.Module) -> frozenset[str]:
    """Names of parameters that are never decayed: norms, biases, and what the network's authors name."""
    own = set(getattr(getattr(network, "backbone", network), "no_weight_decay", set)())
    return frozenset(
        name for name, value in network.named_parameters() if value.ndim <= 1 or name.removeprefix("backbone.") in own
    )


def make_optimizer(
    classifier: Classifier,
    settings: TrainingSettings,
    device: torch.device,
    tuning: Tuning | None = None,
    *,
    loraplus: float = 1.0,
) -> torch.optim.Optimizer:
    """The optimiser of the settings; fused kernels where torch has them, since the plain ones cost up to a tenth.

    With `tuning` every block has groups of its own.
    """
    if tuning is None:
        groups = parameter_groups(classifier, settings.lr, settings.weight_decay, loraplus)
    else:
        groups = tuned_groups(classifier, tuning, settings.weight_decay, undecayed(classifier))
    return optimizer_over(groups, settings, device)


def optimizer_over(
    groups: Sequence[Mapping[str, Any]], settings: TrainingSettings, device: torch.device
) -> torch.optim.Optimizer:
    """The optimiser of the settings over groups of `parameter_groups`."""
    own = [{key: value for key, value in group.items() if key != "names"} for group in groups]
    if not own:  # neighbours learn nothing; a group of nothing keeps the rest of the machinery as it is
        own = [{"params": [], "lr": settings.lr, "peak_lr": settings.lr, "block": 0}]
    extra: dict[str, Any] = {"fused": True} if device.type in {"cpu", "cuda"} else {}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        own, opt=settings.optimizer, lr=settings.lr, momentum=0.9, **extra
    )
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to `factor` times its peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
