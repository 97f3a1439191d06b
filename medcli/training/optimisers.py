"""The optimiser: timm's factory over parameter groups that follow the network's own order."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2

from medcli.models.classifier import Classifier
from medcli.settings.groups import TrainingSettings

__all__ = ["make_optimizer", "parameter_groups", "set_rate"]


def parameter_groups(classifier: Classifier, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Groups of trainable parameters, input to output, norms and biases without weight decay.

    Every group carries its own `peak_lr`, which schedules multiply.
    """
    named = {name: value for name, value in classifier.named_parameters() if value.requires_grad}
    bare = set(getattr(classifier.backbone, "no_weight_decay", set)())
    decayed = [n for n, p in named.items() if p.ndim > 1 and n.removeprefix("backbone.") not in bare]
    plain = [n for n in named if n not in set(decayed)]
    return [
        {"params": [named[n] for n in names], "weight_decay": decay, "lr": lr, "peak_lr": lr, "names": names}
        for names, decay in ((decayed, weight_decay), (plain, 0.0))
        if names
    ]


def make_optimizer(classifier: Classifier, settings: TrainingSettings, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser of the settings; fused kernels where torch has them, since the plain ones cost up to a tenth."""
    groups = parameter_groups(classifier, settings.lr, settings.weight_decay)
    own = [{key: value for key, value in group.items() if key != "names"} for group in groups]
    extra: dict[str, Any] = {"fused": True} if device.type in {"cpu", "cuda"} else {}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        own, opt=settings.optimizer, lr=settings.lr, momentum=0.9, **extra
    )
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to `factor` times its peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
