"""Which modules of a backbone an adapter goes to: by role, as the card says it or as the modules' types show it.

By name alone one hits the wrong ones (`proj` is also the patch embedding's; `conv1` is also a container), and some
types cannot be adapted without changing what they compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from medcli.errors import UsageProblem, listed, nearest
from medcli.lora_modules import above, adaptable, called, card_modules, convolves

__all__ = ["ROLES", "default_role", "target_modules"]

ROLES = ("qkv", "attn", "mlp", "conv", "all-linear")

_QUERY_KEY_VALUE = frozenset(
    {"qkv", "q", "k", "v", "kv", "qk", "query", "key", "value"}
    | {f"{name}_proj" for name in ("qkv", "q", "k", "v", "kv", "in")}
    | {f"to_{name}" for name in ("qkv", "q", "k", "v", "kv")}
)
_MLP_PARENTS = ("mlp", "ffn", "feedforward", "feed_forward", "swiglu")
_POSITIONS = ("cpb_mlp", "rel_pos", "rel_bias")


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


def _has_role(name: str, module: nn.Module, role: str, modules: Mapping[str, nn.Module]) -> bool:
    # Small networks that turn distances into a bias of the attention are no part of what it computes.
    if not adaptable(module) or any(word in name.lower() for word in _POSITIONS):
        return False
    match role:
        case "conv":
            return convolves(name, modules)
        case "all-linear":
            return not isinstance(module, nn.Conv2d)
        case "mlp":
            return any(called(one, modules, _MLP_PARENTS) for one in above(name))
        case "qkv" | "attn":
            attends = any(called(one, modules, ("attn", "attention")) for one in above(name))
            own = set(name.lower().split(".")[-2:])  # the layer itself, or the linear layer inside a layer with a norm
            return attends and (role == "attn" or bool(own & _QUERY_KEY_VALUE))
    return False


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
    return f"roles with their modules: {', '.join(offered) or 'none'}; modules such as {listed(close)}"
