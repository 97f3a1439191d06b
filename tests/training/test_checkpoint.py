"""Stop and go on: bit for bit what an uninterrupted run would have learnt, also in the middle of an epoch."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medcli.errors import UsageProblem
from medcli.training.best import Best
from medcli.training.checkpoint import Position, load_checkpoint, restore, save_checkpoint
from medcli.training.engine import Prepared, prepare
from medcli.training.following import unwrapped
from medcli.training.interruption import Interruption
from medcli.training.loop import fit
from medcli.training.plan import Plan

MakePlan = Callable[..., Plan]

LIVELY: dict[str, Any] = {
    "augment": "heavy",
    "flip": "both",
    "dropout": 0.3,
    "drop_path": 0.2,
    "ema": True,
    "accumulate": 2,
    "batch_size": 4,
    "lr": 0.01,
    "epochs": 4,
    "warmup_epochs": 0.5,
}


BALANCED: dict[str, Any] = {
    "augment": "randaugment",
    "modality": "dermoscopy",
    "sampler": "balanced",
    "mixup": 0.4,
    "cutmix": 1.0,
}
"""What draws cases, operations and mixtures: nothing of it may depend on how far a process has come."""


class Files:
    """A journal that writes real checkpoints, and can raise the signal after so many steps."""

    def __init__(self, prepared: Prepared, path: Path, interruption: Interruption, stop_at: int = 0) -> None:
        self.prepared, self.path, self.interruption, self.stop_at = prepared, path, interruption, stop_at
        self.progress = self
        self.rows: list[dict[str, Any]] = []
        self.steps = 0

    def start(self, **facts: Any) -> None: ...

    def step(self, **facts: Any) -> None:
        self.steps += 1
        if self.steps == self.stop_at:
            self.interruption.signal = signal.SIGINT

    def epoch(self, **facts: Any) -> None: ...

    def finish(self) -> None: ...

    def validate(self, network: nn.Module) -> dict[str, float]:
        return {"loss": 1.0, "auc": 0.5}

    def improved(self, position: Position) -> None: ...

    def epoch_done(self, row: dict[str, Any]) -> None:
        self.rows.append({key: value for key, value in row.items() if key not in {"seconds", "images_per_second"}})

    def save(self, position: Position) -> None:
        parts = self.prepared.parts
        save_checkpoint(
            self.path,
            position=position,
            model=parts.classifier,
            ema=parts.ema.module if parts.ema else None,
            optimizer=unwrapped(parts.optimizer),
            scaler={},
            device=self.prepared.device,
        )


def everything(prepared: Prepared) -> dict[str, torch.Tensor]:
    parts = prepared.parts
    found = {f"model.{name}": value for name, value in parts.classifier.state_dict().items()}
    if parts.ema is not None:
        found |= {f"ema.{name}": value for name, value in parts.ema.module.state_dict().items()}
    for index, entries in unwrapped(parts.optimizer).state_dict()["state"].items():
        found |= {f"optimizer.{index}.{key}": value for key, value in entries.items()}
    return found


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("stop_at", [1, 4, 6, 7])
@pytest.mark.parametrize("more", [{}, BALANCED], ids=["plain", "balanced"])
def test_stop_and_resume_is_bit_exact(
    make_plan: MakePlan, tmp_path: Path, stop_at: int, optimizer: str, more: dict[str, Any]
) -> None:
    plan = make_plan(**{"optimizer": optimizer, **LIVELY, **more})

    whole = prepare(plan)
    calm = Interruption()
    reference = Files(whole, tmp_path / "whole" / "last.safetensors", calm)
    fit(whole.parts, Position(Best("auc")), reference, calm, 4)

    first = prepare(plan)
    stopped = Interruption()
    before = Files(first, tmp_path / "c" / "last.safetensors", stopped, stop_at)
    at = fit(first.parts, Position(Best("auc")), before, stopped, 4)
    assert at.steps < 12

    torch.manual_seed(999)
    second = prepare(plan)
    checkpoint = load_checkpoint(tmp_path / "c" / "last.safetensors")
    assert checkpoint.position.steps == at.steps
    restore(
        checkpoint,
        model=second.parts.classifier,
        ema=second.parts.ema.module if second.parts.ema else None,
        optimizer=unwrapped(second.parts.optimizer),
        device=second.device,
    )
    after = Files(second, tmp_path / "d" / "last.safetensors", Interruption())
    fit(second.parts, checkpoint.position, after, Interruption(), 4)

    expected, got = everything(whole), everything(second)
    assert expected.keys() == got.keys()
    different = [name for name in expected if not torch.equal(expected[name], got[name])]
    assert not different
    assert before.rows + after.rows == reference.rows


def test_a_second_signal_stops_at_once() -> None:
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        assert interruption.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_old_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_no_checkpoint_is_never_a_fresh_start(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem) as problem:
        load_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert problem.value.code == "no-checkpoint"


@pytest.mark.parametrize("damage", ["cut", "text", "foreign"])
def test_a_damaged_checkpoint_is_refused(make_plan: MakePlan, tmp_path: Path, damage: str) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "c" / "last.safetensors"
    prepared = prepare(make_plan())
    Files(prepared, path, Interruption()).save(Position(Best("auc")))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "text":
        path.write_text("not a checkpoint")
    else:
        save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UsageProblem) as problem:
        load_checkpoint(path)
    assert problem.value.code == "bad-checkpoint"
