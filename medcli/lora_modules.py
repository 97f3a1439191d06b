"""Which modules a card's LoRA patterns mean: one rule for `lora` and for the kit that examines a plugin's card.

torch is imported where it is needed, so that whoever only reads cards does without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from medcli.errors import UsageProblem, listed

if TYPE_CHECKING:
    from torch import nn

__all__ = ["above", "adaptable", "called", "card_modules", "convolves"]

_GATES = ("squeeze", "semodule", "effectivese", "eca", "ecam")


def card_modules(network: nn.Module, role: str, patterns: Iterable[str]) -> list[str]:
    """Names of the modules that a card's patterns mean for a role.

    `conv` means the convolutions without groups among what is matched; elsewhere everything matched must be adaptable.

    Raises:
        UsageProblem: code `bad-targets` for a pattern that means nothing, or something that cannot be adapted.
    """
    modules = dict(network.named_modules())
    found: dict[str, None] = {}
    for pattern in patterns:
        named = [name for name in modules if name and fnmatchcase(name, pattern)]
        fitting = [name for name in named if (convolves(name, modules) if role == "conv" else adaptable(modules[name]))]
        if not named:
            raise _bad(role, f"`{pattern}` matches no module")
        if not fitting:
            kind = "a convolution without groups" if role == "conv" else "a linear layer or convolution"
            raise _bad(role, f"`{pattern}` matches {listed(named)}, none of them {kind}")
        if role != "conv" and len(fitting) < len(named):
            wrong = [name for name in named if name not in fitting]
            raise _bad(role, f"`{pattern}` also matches {listed(wrong)}, which cannot be adapted")
        found.update(dict.fromkeys(fitting))
    return list(found)


def adaptable(module: nn.Module) -> bool:
    """Whether low-rank factors can be added to a module and merged into its weight.

    Not to grouped convolutions (peft would need a rank divisible by the groups), not to dilated ones (peft's factors
    are not dilated), and not where the weight is standardised first, so that a sum of weights is no sum of outputs.
    """
    from torch import nn

    if isinstance(module, nn.Conv2d):
        plain = module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
        return plain and "Std" not in type(module).__name__
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def convolves(name: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether it is an adaptable convolution over positions; a gate's convolution sees one pooled pixel."""
    from torch import nn

    module = modules[name]
    gated = any(called(one, modules, _GATES, by_name=False) for one in above(name))
    return isinstance(module, nn.Conv2d) and adaptable(module) and not gated


def above(name: str) -> Iterable[str]:
    """Names of the modules around one, the innermost first."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def called(name: str, modules: Mapping[str, nn.Module], words: Sequence[str], *, by_name: bool = True) -> bool:
    """Whether its own name or its type holds one of some words; with `by_name=False` its type alone."""
    own, kind = name.rpartition(".")[2].lower(), type(modules[name]).__name__.lower()
    return any(word in kind or (by_name and word in own) for word in words)


def _bad(role: str, reason: str) -> UsageProblem:
    return UsageProblem(f"`lora_targets.{role}`: {reason}", where="the card", code="bad-targets")
