"""Any training from where it stands to its end: what is restored before the loop, and how far the loop goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import nn

from medcli.runs.directory import RunDirectory
from medcli.settings.groups import TrainingSettings
from medcli.training.checkpoint import Position, conditions, load_checkpoint, restore
from medcli.training.interruption import Interruption
from medcli.training.loop import Course, Journal, Trained, fit
from medcli.training.memory import Sized, explain_out_of_memory
from medcli.training.team import Team, explain_lost

__all__ = ["follow", "prolonged", "take_up", "unwrapped"]


def follow(
    parts: Course,
    plan: Sized,
    journal: Journal,
    position: Position,
    last: int,
    *,
    images: int,
    team: Team | None = None,
) -> Trained:
    """Run the loop from `position` to epoch `last`, to patience, or to a signal.

    Args:
        parts: what learns, from what, and how.
        plan: what memory advice is made from.
        journal: what is kept; its `progress` is told when it begins and ends.
        images: how many an epoch has.
        team: the processes that learn together; None alone.

    Raises:
        RunFailure: a loss that is not finite, or no memory; the sentence says which setting to change.
    """
    team = team or Team()
    journal.progress.start(epochs=last, steps=len(parts.batches), images=images, first_epoch=position.epoch)
    try:
        agree = team.agreed if team.of > 1 else None
        with Interruption(agree) as interruption, explain_out_of_memory(plan), explain_lost(team.of):
            position = fit(parts, position, journal, interruption, last)
            journal.ended(position)
    finally:
        journal.progress.finish()
    finished = position.epoch >= last or position.best.exhausted(parts.settings.patience)
    return Trained(position, 0 if finished else interruption.signal, position.epoch < last)


def prolonged(position: Position, settings: TrainingSettings, extend: int) -> tuple[Position, int]:
    """Where a training that is taken up to go `extend` epochs beyond its plan stands, and its last epoch."""
    if not extend:
        return position, settings.epochs
    # A run that was stopped first finishes what it planned; one that ended early goes on from where it ended.
    patient = position.best.exhausted(settings.patience)
    ended = not position.batch and (position.epoch >= settings.epochs or patient)
    last = (position.epoch if ended else settings.epochs) + extend
    return replace(position, best=replace(position.best, waited=0)), last


def take_up(
    run: RunDirectory,
    *,
    model: nn.Module,
    ema: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    device: torch.device,
    say: Callable[[str], None],
    rank: int = 0,
) -> Position:
    """Restore a run's checkpoint; says what keeps the continuation from being bit-exact.

    Raises:
        UsageProblem: there is none, or it is not whole.
    """
    checkpoint = load_checkpoint(run.checkpoint_file)
    inner = unwrapped(optimizer)
    restore(checkpoint, model=model, ema=ema, optimizer=inner, device=device, rank=rank)
    if checkpoint.scaler and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(dict(checkpoint.scaler))
    now = conditions(inner, device)
    changed = [f"{name} {old} -> {now[name]}" for name, old in checkpoint.conditions.items() if now.get(name) != old]
    if changed:
        say(f"the continuation is exact only up to rounding: {', '.join(changed)}")
    return checkpoint.position


def unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser inside accelerate's wrapper."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner
