"""What layer groups promise: freezing, layer-wise rates and gradual unfreezing count in them, so they must add up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from medcli.errors import listed
from medcli.plugin import LayerGroup
from medcli.testing.checks.subject import Subject
from medcli.testing.checks.verdict import fail, skip

if TYPE_CHECKING:
    from torch import nn

__all__ = ["complete", "first_uses", "order"]

# Tables and tokens that a network may read early whatever block they belong to.
_EXEMPT = re.compile(
    r"pos(ition)?_?(al_?)?(embed|enc|bias|table)|position|rel(ative)?_pos"
    r"|(cls|class|dist|distillation|reg|register|mask)_?(token|embed)|prompt"
)


def complete(subject: Subject) -> str:
    """Once and all; every module named exists."""
    network = subject.outline()
    groups = _groups(network)
    counted = Counter(name for group in groups for name in group.parameters)
    known = [name for name, _ in network.named_parameters()]
    said = [
        f"{what}: {listed(sorted(names), 5)}"
        for what, names in (
            ("parameters in no group", [name for name in known if name not in counted]),
            ("parameters in more than one group", [name for name, count in counted.items() if count > 1]),
            ("names of no parameter", [name for name in counted if name not in set(known)]),
            (
                "names of no module",
                [name for group in groups for name in group.modules if name not in dict(network.named_modules())],
            ),
            ("groups without a parameter", [group.name for group in groups if not group.parameters]),
        )
        if names
    ]
    twice = [name for name, count in Counter(name for group in groups for name in group.modules).items() if count > 1]
    if twice:
        said.append(f"modules in more than one group: {listed(sorted(twice), 5)}")
    if said:
        fail("; ".join(said))
    return f"{len(groups)} groups, {len(known)} parameters"


def order(subject: Subject) -> str:
    """Stages count up from 0 without a gap, and each group is first used after the one before it."""
    network = subject.network()
    groups = _groups(network)
    previous = 0
    for index, group in enumerate(groups):
        if (index == 0 and group.stage != 0) or group.stage not in (previous, previous + 1):
            fail(
                f"stages start at 0 and rise by one at most, but `{group.name}` is of stage {group.stage} "
                f"after stage {previous}"
                if index
                else f"the first group is stage 0, the stem, but `{group.name}` is of stage {group.stage}"
            )
        previous = group.stage
    uses = first_uses(subject, network)
    used = [
        (group.name, min(times))
        for group in groups
        if (times := [uses[name] for name in group.parameters if name in uses and not _EXEMPT.search(name)])
    ]
    for (before, early), (after, late) in pairwise(used):
        if late < early:
            fail(f"groups are ordered from input to output, but `{after}` comes after `{before}` and is used before it")
    if len(used) < len(groups):
        return f"{len(used)} of {len(groups)} groups could be watched"
    return f"{len(groups)} groups in {previous + 1} stages"


def first_uses(subject: Subject, network: nn.Module) -> dict[str, int]:
    """Name of each parameter to the position of the first operation of a forward pass that takes it as an argument.

    Operations are watched, not modules, because some networks hand a layer's weight to a function themselves.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    names = {id(parameter): name for name, parameter in network.named_parameters()}
    seen: dict[str, int] = {}

    class Watch(TorchFunctionMode):
        count = 0

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            # Looking at a weight (its shape, its type) is not using it.
            if getattr(function, "__name__", "") != "__get__":
                self.count += 1
                for value in _flat((*args, *(kwargs or {}).values())):
                    if id(value) in names:
                        seen.setdefault(names[id(value)], self.count)
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():
        network(*subject.inputs(1))
    return seen


def _flat(values: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if isinstance(value, list | tuple):
            found += _flat(value)
        else:
            found.append(value)
    return found


def _groups(network: nn.Module) -> tuple[LayerGroup, ...]:
    if not hasattr(network, "layer_groups"):
        fail(f"`{type(network).__name__}` has no `layer_groups()`")
    groups = tuple(network.layer_groups())  # type: ignore[operator]
    if not all(isinstance(group, LayerGroup) for group in groups):
        fail("`layer_groups()` must give `medcli.plugin.LayerGroup`s")
    if not groups:
        if not any(True for _ in network.parameters()):
            skip("it has no parameters")
        fail("`layer_groups()` is empty")
    return groups
