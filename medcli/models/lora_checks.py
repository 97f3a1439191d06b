"""That an adapter learns at all, tried before a training begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from medcli.errors import UsageProblem, listed
from medcli.models.base import Origin

if TYPE_CHECKING:
    from medcli.models.classifier import Classifier

__all__ = ["refuse_dead", "sample_images"]


def sample_images(origin: Origin | None, like: nn.Module, count: int = 2) -> torch.Tensor:
    """Random images [count, C, S, S] of the kind a classifier was built for, where its weights are."""
    channels, size = (3, 224) if origin is None else (origin.spec.in_channels, origin.spec.image_size)
    generator = torch.Generator().manual_seed(0)
    place = next(like.parameters()).device
    return torch.randn(count, channels, size, size, generator=generator).to(place)


def refuse_dead(classifier: Classifier, images: torch.Tensor) -> None:
    """See that every adapter learns: one backward pass, and each `lora_B` must have a gradient.

    Several networks use a layer's weight without calling the layer (the query-key-value layers of swinv2, beit, eva02);
    an adapter there is trained for days and does nothing.

    Raises:
        UsageProblem: code `dead-adapters`, naming the modules.
    """
    mode = classifier.training
    classifier.eval()
    factors = {
        name: parameter
        for name, parameter in classifier.named_parameters()
        if ".lora_B." in name and parameter.requires_grad
    }
    generator = torch.Generator().manual_seed(1)
    with torch.enable_grad():
        outputs = classifier(images)
        outputs = outputs[torch.isfinite(outputs)]
        loss = (outputs * torch.randn(outputs.shape, generator=generator).to(outputs)).sum()
        found = torch.autograd.grad(loss, list(factors.values()), allow_unused=True)
    classifier.train(mode)
    dead = [
        name.partition(".lora_B.")[0].removeprefix("backbone.")
        for name, gradient in zip(factors, found, strict=True)
        if gradient is None or not bool(gradient.any())
    ]
    if dead:
        raise UsageProblem(
            f"{len(dead)} of {len(factors)} adapters would get no gradient and never learn: {listed(dead)}",
            where="--targets",
            hint="this network uses the weights of these layers without calling them, or multiplies what they give by "
            "zero: choose others, such as `--targets mlp`",
            code="dead-adapters",
        )
