"""What an adapter cannot be put into: said before anything is wrapped, so that the network stays as it was."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import nn

from medcli.errors import UsageProblem, listed

__all__ = ["check_factors", "check_shapes", "refuse_modules"]


def refuse_modules(modules: Mapping[str, nn.Module], rank: int, variant: str, *, beside_others: bool) -> None:
    """Refuse what fresh factors cannot be put into.

    Args:
        modules: those chosen, by name.
        rank: of the factors.
        variant: see `LoraOptions`.
        beside_others: whether the classifier has adapters already.

    Raises:
        UsageProblem: a rank too large for a layer; PiSSA on convolutions or beside others; DoRA on odd padding.
    """
    _refuse_large_rank(modules, rank)
    if variant == "pissa":
        _refuse_pissa(modules, beside_others=beside_others)
    if variant == "dora":
        _refuse_own_padding(modules)


def _refuse_pissa(modules: Mapping[str, nn.Module], *, beside_others: bool) -> None:
    convolutions = [name for name, module in modules.items() if isinstance(module, nn.Conv2d)]
    if convolutions:
        raise UsageProblem(
            f"PiSSA takes the singular vectors of a matrix, and {listed(convolutions)} "
            f"{'are convolutions' if len(convolutions) > 1 else 'is a convolution'}",
            where="--variant",
            hint="`--variant lora`, `dora` or `rslora`; or linear layers: `--targets all-linear`",
            code="pissa-on-convolutions",
        )
    if beside_others:
        raise UsageProblem(
            "PiSSA changes the base weights, which another adapter uses",
            where="--variant",
            hint="`--variant lora`",
            code="pissa-beside-others",
        )


def _refuse_large_rank(modules: Mapping[str, nn.Module], rank: int) -> None:
    sizes = {name: _full_rank(module) for name, module in modules.items()}
    small = [name for name, size in sizes.items() if size < rank]
    if small:
        most = min(sizes.values())
        raise UsageProblem(
            f"a rank of {rank} is larger than {len(small)} of {len(sizes)} layers to adapt: {listed(small)} "
            f"({'the smallest ' if len(small) > 1 else ''}of rank {most})",
            where="--rank",
            hint=f"`--rank {most}`, or other `--targets`",
            code="bad-rank",
        )


def _refuse_own_padding(modules: Mapping[str, nn.Module]) -> None:
    odd = [
        name
        for name, module in modules.items()
        if isinstance(module, nn.Conv2d) and type(module).forward is not nn.Conv2d.forward
    ]
    if odd:
        raise UsageProblem(
            f"DoRA computes a convolution anew, and {listed(odd)} pad in a way of their own that it does not know",
            where="--variant",
            hint="`--variant lora` or `rslora`",
            code="dora-on-padding",
        )


def _full_rank(module: nn.Module) -> int:
    shape = tuple(module.weight.shape)  # type: ignore[arg-type]
    return int(min(shape[0], prod(shape[1:])))


def check_factors(tensors: Mapping[str, torch.Tensor], modules: Mapping[str, nn.Module]) -> None:
    """Every stored factor must belong to a module that is there, before anything is wrapped."""
    homes = {name.partition(".lora_")[0] for name in tensors}
    strange = sorted(home for home in homes if home not in modules)
    if strange or not homes:
        raise UsageProblem(
            f"the adapter belongs to another network: it has factors for {listed(strange)}, which this one has not"
            if strange
            else "the file holds no adapter",
            code="adapter-does-not-fit",
        )


def check_shapes(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], what: str) -> None:
    """Stored tensors must have the names and the shapes of those that are there."""
    wrong = [
        name
        for name in sorted(found.keys() | expected.keys())
        if name not in found or name not in expected or found[name].shape != expected[name].shape
    ]
    if wrong:
        raise UsageProblem(
            f"the stored {what} does not fit this network: {len(wrong)} of {len(expected)} tensors: {listed(wrong)}",
            code="adapter-does-not-fit",
        )
