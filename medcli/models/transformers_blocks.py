"""Blocks and stages of transformers' networks, which unlike timm's do not say where they are to be cut."""

from __future__ import annotations

from torch import nn

__all__ = ["cut_blocks"]


def cut_blocks(network: nn.Module, *, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """(stage, block within it) of every parameter, in definition order from input to output.

    The longest list of parts that a network is made of decides: in a plain ViT its blocks, each a stage of its own; in
    a hierarchical network its stages, each cut again along its own list of like blocks. What is defined before belongs
    to the stem, or within a stage to its first block; what comes after belongs to the last block.

    Args:
        network: any network.
        prefix: put before every name, such as `net.`.
    """
    path = _main_list(network)
    cuts: dict[str, tuple[int, ...]] = {}
    last: tuple[int, ...] = (0, 0)
    inner: dict[int, str] = {}
    for name, _ in network.named_parameters():
        if path and name.startswith(f"{path}."):
            number, _, rest = name.removeprefix(f"{path}.").partition(".")
            stage = int(number)
            if stage not in inner:
                inner[stage] = _like_blocks(network.get_submodule(f"{path}.{number}"))
            blocks = inner[stage]
            inside = bool(blocks) and rest.startswith(f"{blocks}.")
            block = int(rest.removeprefix(f"{blocks}.").partition(".")[0]) if inside else 0
            new = (stage + 1, block)
            last = new if inside or last[0] != stage + 1 else last
        cuts[prefix + name] = last
    return cuts


def _main_list(module: nn.Module) -> str:
    """Path of the outermost list of parts that holds most parameters, empty where there is none."""
    found: dict[str, int] = {}
    for name, part in module.named_modules():
        outer = any(name.startswith(f"{other}.") for other in found)
        if name and not outer and isinstance(part, (nn.ModuleList, nn.Sequential)) and _size(part):
            found[name] = _size(part)
    return max(found, key=lambda name: found[name], default="")


def _like_blocks(stage: nn.Module) -> str:
    """Path of the list within a stage that holds most of it and consists of parts of one kind; else empty."""
    path = _main_list(stage)
    if not path:
        return ""
    parts = stage.get_submodule(path)
    kinds = {type(part) for part in parts.children()}
    # A part with a list of its own inside a block (an MLP written as a sequence) is of several kinds.
    return path if len(kinds) == 1 and 2 * _size(parts) > _size(stage) else ""


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
