"""Which modules of a backbone an adapter goes to: by role, as the card says it or as the modules' types show it.

By name alone one hits the wrong ones (`proj` is also the patch embedding's; `conv1` is also a container), and some
types cannot be adapted without changing what they compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from medcli.errors import UsageProblem, nearest

__all__ = ["ROLES", "adaptable", "card_modules", "default_role", "target_modules"]

ROLES = ("qkv", "attn", "mlp", "conv", "all-linear")

_QUERY_KEY_VALUE = frozenset(
    {"qkv", "q", "k", "v", "kv", "qk", "query", "key", "value"}
    | {f"{name}_proj" for name in ("qkv", "q", "k", "v", "kv", "in")}
    | {f"to_{name}" for name in ("qkv", "q", "k", "v", "kv")}
)
_MLP_PARENTS = ("mlp", "ffn", "feedforward", "feed_forward", "swiglu")
_POSITIONS = ("cpb_mlp", "rel_pos", "rel_bias")
_GATES = ("squeeze", "semodule", "effectivese", "eca", "ecam")


def target_modules(
    backbone: nn.Module, targets: str | None, roles: Mapping[str, Sequence[str]], *, channels: int = 3
) -> list[str]:
    """Names of the modules to adapt, within the backbone, in definition order; never the patch embedding.

    Args:
        backbone: the network without its head.
        targets: one of `ROLES`, or a pattern of module names (`*` matches any text); None for `default_role`.
        roles: the card's `lora_targets`; a role that it has not is found by the types of modules.
        channels: channels of the images, by which a patch embedding is known.

    Raises:
        UsageProblem: code `no-targets`, naming what exists.
    """
    role = targets or default_role(backbone, roles, channels=channels)
    modules = dict(backbone.named_modules())
    if role in roles:
        found = card_modules(backbone, role, roles[role])
    elif role in ROLES:
        found = [name for name, module in modules.items() if _has_role(name, module, role, modules)]
    else:
        pattern = role.removeprefix("backbone.")
        found = [name for name, module in modules.items() if fnmatchcase(name, pattern) and adaptable(module)]
    chosen = [name for name in found if not _embeds_patches(name, modules[name], channels)]
    if not chosen:
        only = f" but the patch embedding (`{found[0]}`), which is never adapted" if found else " that can be adapted"
        raise UsageProblem(
            f"`--targets {role}` matches no module{only}",
            where="--targets",
            hint=_what_exists(backbone, role, roles, modules, channels),
            code="no-targets",
        )
    return chosen


def default_role(backbone: nn.Module, roles: Mapping[str, Sequence[str]], *, channels: int = 3) -> str:
    """`qkv` for networks that attend, `conv` for convolutional ones, as the card or the modules' types have it."""
    for role in ("qkv", "conv"):
        if role in roles:
            return role
    if roles:
        return next(iter(roles))
    modules = dict(backbone.named_modules())
    for role in ("qkv", "attn", "conv"):
        if any(
            _has_role(name, module, role, modules) and not _embeds_patches(name, module, channels)
            for name, module in modules.items()
        ):
            return role
    return "all-linear"


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
        fitting = [
            name for name in named if (_convolves(name, modules) if role == "conv" else adaptable(modules[name]))
        ]
        if not named:
            raise _bad(role, f"`{pattern}` matches no module")
        if not fitting:
            kind = "a convolution without groups" if role == "conv" else "a linear layer or convolution"
            raise _bad(role, f"`{pattern}` matches {_few(named)}, none of them {kind}")
        if role != "conv" and len(fitting) < len(named):
            wrong = [name for name in named if name not in fitting]
            raise _bad(role, f"`{pattern}` also matches {_few(wrong)}, which cannot be adapted")
        found.update(dict.fromkeys(fitting))
    return list(found)


def adaptable(module: nn.Module) -> bool:
    """Whether low-rank factors can be added to a module and merged into its weight.

    Not to grouped convolutions (peft would need a rank divisible by the groups), not to dilated ones (peft's factors
    are not dilated), and not where the weight is standardised first, so that a sum of weights is no sum of outputs.
    """
    if isinstance(module, nn.Conv2d):
        plain = module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
        return plain and "Std" not in type(module).__name__
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _has_role(name: str, module: nn.Module, role: str, modules: Mapping[str, nn.Module]) -> bool:
    # Small networks that turn distances into a bias of the attention are no part of what it computes.
    if not adaptable(module) or any(word in name.lower() for word in _POSITIONS):
        return False
    match role:
        case "conv":
            return _convolves(name, modules)
        case "all-linear":
            return not isinstance(module, nn.Conv2d)
        case "mlp":
            return any(_called(above, modules, _MLP_PARENTS) for above in _above(name))
        case "qkv" | "attn":
            attends = any(_called(above, modules, ("attn", "attention")) for above in _above(name))
            own = set(name.lower().split(".")[-2:])  # the layer itself, or the linear layer inside a layer with a norm
            return attends and (role == "attn" or bool(own & _QUERY_KEY_VALUE))
    return False


def _convolves(name: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether it is an adaptable convolution over positions; a gate's convolution sees one pooled pixel."""
    module = modules[name]
    gated = any(_called(above, modules, _GATES, by_name=False) for above in _above(name))
    return isinstance(module, nn.Conv2d) and adaptable(module) and not gated


def _above(name: str) -> Iterable[str]:
    """Names of the modules around one, the innermost first."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _called(name: str, modules: Mapping[str, nn.Module], words: Sequence[str], *, by_name: bool = True) -> bool:
    own, kind = name.rpartition(".")[2].lower(), type(modules[name]).__name__.lower()
    return any(word in kind or (by_name and word in own) for word in words)


def _embeds_patches(name: str, module: nn.Module, channels: int) -> bool:
    """A convolution that cuts the picture into patches, by its name or by its stride."""
    if any("patch_embed" in part for part in name.lower().split(".")):
        return True
    if not isinstance(module, nn.Conv2d):
        return False
    cuts = tuple(module.kernel_size) == tuple(module.stride) and max(module.kernel_size) > 1
    return cuts and module.in_channels == channels


def _what_exists(
    backbone: nn.Module,
    role: str,
    roles: Mapping[str, Sequence[str]],
    modules: Mapping[str, nn.Module],
    channels: int,
) -> str:
    offered = []
    for name in dict.fromkeys((*roles, *ROLES)):
        try:
            if name != role:
                offered.append(f"{name} ({len(target_modules(backbone, name, roles, channels=channels))})")
        except UsageProblem:
            continue
    names = [
        name for name, module in modules.items() if adaptable(module) and not _embeds_patches(name, module, channels)
    ]
    close = nearest(role, names) or tuple(names[:3])
    return f"roles with their modules: {', '.join(offered) or 'none'}; modules such as {_few(close)}"


def _bad(role: str, reason: str) -> UsageProblem:
    return UsageProblem(f"`lora_targets.{role}`: {reason}", where="the card", code="bad-targets")


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in list(names)[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
