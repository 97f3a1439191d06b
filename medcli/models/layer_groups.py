"""Blocks and stages of a network: what freezing, layer-wise rates and gradual unfreezing count in.

timm describes most of its networks with patterns; the others are cut along their containers in definition order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from medcli.plugin import LayerGroup

__all__ = ["group_layers"]


def group_layers(network: nn.Module, *, prefix: str = "") -> tuple[LayerGroup, ...]:
    """Cut a network into blocks, ordered from input to output.

    Every parameter and every module with a state of its own is in exactly one block.

    Args:
        network: any module; timm's `group_matcher` is used where it has one.
        prefix: put before every name, such as `net.`.
    """
    names = [name for name, _ in network.named_parameters()]
    if not names:
        return ()
    cuts = _by_patterns(network, names) or _by_containers(network, names)
    members: dict[int, list[str]] = {}
    for name in names:
        members.setdefault(cuts[name][0], []).append(name)
    order = sorted(members)
    modules = _modules_of(network, {name: order.index(cuts[name][0]) for name in names})
    stages = _dense_stages([min(cuts[name][1] for name in members[key]) for key in order])
    return tuple(
        LayerGroup(
            name=_label(members[key], first=position == 0),
            stage=stages[position],
            parameters=tuple(prefix + name for name in members[key]),
            modules=tuple(prefix + name for name in modules.get(position, ())),
        )
        for position, key in enumerate(order)
    )


def _by_patterns(network: nn.Module, names: Sequence[str]) -> dict[str, tuple[int, int]] | None:
    """(block, stage) of each parameter by timm's own patterns, or None where the network has none."""
    from timm.models._manipulate import group_with_matcher

    matcher = getattr(network, "group_matcher", None)
    if matcher is None:
        return None
    try:
        fine, coarse = matcher(coarse=False), matcher(coarse=True)
    except (AssertionError, AttributeError, NotImplementedError, TypeError):
        return None
    pairs = [(name, name) for name in names]
    block: dict[str, int] = group_with_matcher(iter(pairs), fine, reverse=True)
    stage: dict[str, int] = group_with_matcher(iter(pairs), coarse, reverse=True)
    # timm puts whatever no pattern names after everything else (a last norm, a convolution before the head): it is
    # a block of its own, but a user who counts stages does not count it as one.
    left_over = {name for name in names if not _is_named(name, coarse)}
    if left_over and len(left_over) < len(names):
        last = max(stage[name] for name in names if name not in left_over)
        stage.update(dict.fromkeys(left_over, last))
    return {name: (block[name], stage[name]) for name in names}


def _is_named(name: str, patterns: Any) -> bool:
    if not isinstance(patterns, Mapping):
        return True
    for pattern in patterns.values():
        if pattern is None:
            continue
        expressions = [pattern] if isinstance(pattern, str) else [part[0] for part in pattern]
        if any(re.match(expression, name) for expression in expressions):
            return True
    return False


def _by_containers(network: nn.Module, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """(block, stage) by containers: a top-level part is a stage, an entry of a container inside it is a block."""
    modules = dict(network.named_modules())
    stages: dict[str, int] = {}
    blocks: dict[tuple[str, str], int] = {}
    cuts = {}
    for name in names:
        path = name.split(".")[:-1]
        depth = 2 if path and _is_container(modules[path[0]]) else 1
        stage_key = ".".join(path[:depth])
        block_key = ""
        for position in range(depth, len(path)):
            if _is_container(modules[".".join(path[:position])]) and len(modules[".".join(path[:position])]) > 1:
                block_key = ".".join(path[: position + 1])
                break
        stage = stages.setdefault(stage_key if path else "", len(stages))
        cuts[name] = (blocks.setdefault((stage_key, block_key), len(blocks)), stage)
    return cuts


def _is_container(module: nn.Module) -> bool:
    return type(module) in (nn.Sequential, nn.ModuleList)


def _dense_stages(stages: Iterable[int]) -> list[int]:
    """Numbers that never fall and leave no gap, so that the K first stages are always the K lowest numbers."""
    dense: list[int] = []
    seen: int | None = None
    for stage in stages:
        if seen is None:
            dense.append(0)
        else:
            dense.append(dense[-1] + (1 if stage > seen else 0))
        seen = stage if seen is None else max(seen, stage)
    return dense


def _modules_of(network: nn.Module, block_of: Mapping[str, int]) -> dict[int, list[str]]:
    """Modules of each block: those whose parameters all lie in it, and the parameterless ones beside them."""
    inside: dict[str, set[int]] = {}
    for name, block in block_of.items():
        path = name.split(".")[:-1]
        for depth in range(len(path) + 1):
            inside.setdefault(".".join(path[:depth]), set()).add(block)
    modules: dict[int, list[str]] = {}
    previous = 0
    for name, _ in network.named_modules():
        if not name:
            continue
        blocks = inside.get(name)
        if blocks is None:
            # Dropout, activations, pooling: they go with the nearest enclosing part that lies in one block, or else
            # with whatever was defined before them.
            around = name
            while around and inside.get(around) is None:
                around = around.rpartition(".")[0]
            enclosing = inside.get(around, set())
            block = next(iter(enclosing)) if around and len(enclosing) == 1 else previous
        elif len(blocks) == 1:
            block = next(iter(blocks))
        else:
            continue
        modules.setdefault(block, []).append(name)
        previous = block
    return modules


def _label(names: Sequence[str], *, first: bool) -> str:
    """The longest path that most of a block's parameters share."""
    shared: Counter[str] = Counter()
    for name in names:
        path = name.split(".")[:-1]
        shared.update({".".join(path[: depth + 1]) for depth in range(len(path))})
    common = [path for path, count in shared.items() if count > (0.99 if first else 0.6) * len(names)]
    return max(common, key=len, default="stem" if first else names[0].rpartition(".")[0] or names[0])
