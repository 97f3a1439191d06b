"""Which blocks of a network learn, how fast, and from which epoch: every strategy as one table of rates.

The rates stand in the optimiser's own groups, so that any schedule keeps their ratios; a schedule that had to know of
layer decay would silently ignore it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from medcli.errors import UsageProblem
from medcli.models.classifier import Classifier
from medcli.settings.groups import StrategySettings, TrainingSettings

__all__ = ["Block", "Tuning", "parameter_groups", "plan_tuning", "render_tuning", "tuning_to_json"]

Rates = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Block:
    """One block of the network, or its head.

    Args:
        name: as the network calls it; `medcli_head` for the head.
        stage: the stage it belongs to.
        depth: distance from the head, which is 0, in blocks or stages.
        parameters: how many numbers it holds.
        names: full names of its parameters.
        rates: (epoch from which it holds, peak learning rate), rising; before the first the block is frozen, and
            without any it is frozen for good.
    """

    name: str
    stage: int
    depth: int
    parameters: int
    names: tuple[str, ...]
    rates: Rates

    def rate(self, epoch: int) -> float | None:
        """Peak learning rate in an epoch (0-based), or None while it is frozen."""
        known = [rate for first, rate in self.rates if first <= epoch]
        return known[-1] if known else None


@dataclass(frozen=True)
class Tuning:
    """How a pretrained network is adapted.

    Args:
        strategy: its name.
        blocks: from input to output, the head last.
        steps: optimiser steps in an epoch; a block that joins in later warms up over as many.
        notes: sentences the user should read.
    """

    strategy: str
    blocks: tuple[Block, ...]
    steps: int
    notes: tuple[str, ...] = ()

    @property
    def keeps_statistics(self) -> bool:
        """Whether BatchNorm goes on with the statistics it came with.

        The head of `lp-ft` is fitted to features under these; under those of a batch it would see others, and the first
        steps would undo the probe (training losses of 26 instead of 1 were seen).
        """
        return self.strategy == "lp-ft"

    def begin_epoch(self, classifier: Classifier, epoch: int) -> None:
        """Freeze and release blocks as the epoch (0-based) wants it."""
        classifier.keep_statistics = self.keeps_statistics
        frozen = frozenset(index for index, block in enumerate(self.blocks[:-1]) if block.rate(epoch) is None)
        if classifier.frozen != frozen:
            classifier.freeze_groups(frozen)

    def set_peaks(self, optimizer: torch.optim.Optimizer, epoch: int, step: int) -> None:
        """Give every group of the optimiser its peak rate at an optimiser step (0-based, over the whole run)."""
        for group in optimizer.param_groups:
            block = self.blocks[group["block"]]
            group["peak_lr"] = (block.rate(epoch) or 0.0) * self._joined(block, step)

    def _joined(self, block: Block, step: int) -> float:
        """The factor with which a block that joined in later rises to its rate."""
        first = block.rates[0][0] * self.steps if block.rates else 0
        return 1.0 if first == 0 else min(1.0, (step - first + 1) / self.steps)


def plan_tuning(classifier: Classifier, strategy: StrategySettings, training: TrainingSettings, steps: int) -> Tuning:
    """The table of a strategy for one network.

    Depth counts from the head, which has depth 0: the last block (or stage) has depth 1. A layer decay d gives depth k
    the rate lr · d^k, as in BEiT (Bao et al. 2022) and RETFound's fine-tuning.

    Args:
        classifier: the network.
        strategy: what was asked for.
        training: learning rate, epochs, stages that stay frozen.
        steps: optimiser steps in an epoch.

    Raises:
        UsageProblem: more stages are to be frozen, or given rates, than there are.
    """
    groups = classifier.layer_groups()
    stages = classifier.stages()
    if training.freeze_layers > stages:
        raise UsageProblem(
            f"{training.freeze_layers} stages cannot be frozen: this backbone has {stages}, the stem included",
            where="--freeze-layers",
            hint="`--strategy frozen` freezes all of them",
            code="bad-stages",
        )
    if len(strategy.stage_lr) > stages:
        raise UsageProblem(
            f"{len(strategy.stage_lr)} rates were named, and this backbone has {stages} stages, the stem included",
            where="--stage-lr",
            hint=f"name at most {stages}",
            code="bad-stages",
        )
    counts = {name: parameter.numel() for name, parameter in classifier.named_parameters()}
    last = len(groups) - 1
    notes: list[str] = []
    joining = _joining(strategy, training, stages, notes) if strategy.strategy == "gradual" else {}
    blocks = []
    for index, group in enumerate(groups):
        by_stage = strategy.decay_by == "stage" or bool(strategy.stage_lr)
        depth = 0 if index == last else (stages - group.stage if by_stage else last - index)
        if index == last:
            rates = _head_rates(strategy, training.lr)
        elif group.stage < training.freeze_layers:
            rates = ()
        else:
            rates = _rates(strategy, training.lr, depth, joining.get(group.stage))
        parameters = sum(counts[name] for name in group.parameters)
        blocks.append(Block(group.name, group.stage, depth, parameters, group.parameters, rates))
    norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in classifier.backbone.modules())
    if strategy.strategy == "lp-ft" and norms:
        notes.append("lp-ft: BatchNorm keeps the statistics that the head is fitted to")
    never = sorted({block.stage for block in blocks if not block.rates})
    if never and strategy.strategy not in {"frozen", "knn"}:
        notes.append(f"stages {', '.join(map(str, never))} of {stages} never learn")
    return Tuning(str(strategy.strategy), tuple(blocks), steps, tuple(notes))


def _head_rates(strategy: StrategySettings, lr: float) -> Rates:
    own = strategy.head_lr or lr
    if strategy.strategy == "lp-ft":
        # After its probe the head is as trained as the rest, and goes on at the same rate.
        return ((0, own), (strategy.probe_epochs, lr)) if strategy.probe_epochs else ((0, lr),)
    if strategy.strategy == "frozen":
        return ((0, lr),)
    if strategy.strategy == "knn":
        return ()
    return ((0, own),)


def _rates(strategy: StrategySettings, lr: float, depth: int, joins: int | None) -> Rates:
    match strategy.strategy:
        case "layerwise" if strategy.stage_lr:
            return ((0, strategy.stage_lr[min(depth, len(strategy.stage_lr)) - 1]),)
        case "layerwise":
            return ((0, lr * strategy.layer_decay**depth),)
        case "gradual":
            return () if joins is None else ((joins, lr),)
        case "lp-ft":
            return ((strategy.probe_epochs, lr),)
        case "full":
            return ((0, lr),)
        case _:
            return ()


def _joining(strategy: StrategySettings, training: TrainingSettings, stages: int, notes: list[str]) -> dict[int, int]:
    """Stage to the epoch at which it joins in, the last stages first."""
    epochs = [epoch for epoch in strategy.unfreeze_at if epoch < training.epochs]
    dropped = [epoch for epoch in strategy.unfreeze_at if epoch >= training.epochs]
    needed = -(-(stages - training.freeze_layers) // strategy.unfreeze_groups)
    if dropped and len(epochs) < needed:
        notes.append(
            f"stages would also join in at epoch {', '.join(map(str, dropped))}; this run ends after {training.epochs} "
            "(`--unfreeze-at` sets the epochs, counted from 0)"
        )
    joined: dict[int, int] = {}
    for turn, epoch in enumerate(epochs):
        first = stages - (turn + 1) * strategy.unfreeze_groups
        for stage in range(max(0, first), stages - turn * strategy.unfreeze_groups):
            joined[stage] = epoch
    return joined


def parameter_groups(
    classifier: Classifier, tuning: Tuning, weight_decay: float, plain: Collection[str]
) -> list[dict[str, Any]]:
    """Groups for the optimiser: two per block at most, norms and biases without weight decay.

    Blocks that never learn are left out; those that join in later are there from the start, so that the optimiser keeps
    its state of the others.

    Args:
        classifier: the network.
        tuning: the rates.
        weight_decay: for the rest.
        plain: names of parameters that are not decayed.
    """
    named = dict(classifier.named_parameters())
    groups = []
    for index, block in enumerate(tuning.blocks):
        if not block.rates:
            continue
        bare = [name for name in block.names if name in plain]
        decayed = [name for name in block.names if name not in plain]
        for names, decay in ((decayed, weight_decay), (bare, 0.0)):
            if names:
                peak = block.rate(0) or 0.0
                own = {"weight_decay": decay, "lr": peak, "peak_lr": peak, "names": names, "block": index}
                groups.append({"params": [named[name] for name in names], **own})
    return groups


def render_tuning(tuning: Tuning) -> str:
    """The table of groups as text: one line per run of blocks that are treated alike."""
    rows = [("blocks", "stage", "parameters", "peak learning rate")]
    start = 0
    for end in range(1, len(tuning.blocks) + 1):
        if end < len(tuning.blocks) and _alike(tuning.blocks[start], tuning.blocks[end]):
            continue
        run = tuning.blocks[start:end]
        name = run[0].name if len(run) == 1 else f"{run[0].name} … {run[-1].name}"
        stages = str(run[0].stage) if run[0].stage == run[-1].stage else f"{run[0].stage}-{run[-1].stage}"
        stages = "head" if run[0] is tuning.blocks[-1] else stages
        rows.append((name, stages, f"{sum(block.parameters for block in run):,}", _shown(run[0].rates)))
        start = end
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(f"  {row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}" for row in rows)


def tuning_to_json(tuning: Tuning) -> dict[str, Any]:
    """The whole table, block by block, as plain JSON."""
    return {
        "strategy": tuning.strategy,
        "blocks": [
            {
                "name": block.name,
                "stage": block.stage,
                "depth": block.depth,
                "parameters": block.parameters,
                "rates": [{"from_epoch": first, "lr": rate} for first, rate in block.rates],
            }
            for block in tuning.blocks
        ],
    }


def _alike(one: Block, other: Block) -> bool:
    return one.rates == other.rates and other.name != "medcli_head"


def _shown(rates: Rates) -> str:
    if not rates:
        return "frozen"
    parts = [f"{rate:.3g}" + (f" from epoch {first}" if first else "") for first, rate in rates]
    return (f"frozen, then {parts[0]}" if rates[0][0] else parts[0]) + "".join(f", then {part}" for part in parts[1:])
