"""Everything a run needs to go on as if it had never stopped, in one safetensors file with JSON metadata.

No pickle is written or read: tensors are safetensors, the rest is JSON, and both are replaced atomically.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from medcli.errors import UsageProblem
from medcli.models.tensor_file import write_tensors
from medcli.training.best import Best
from medcli.training.schedules import Plateau
from medcli.training.team import Team, is_spread, spread, spread_like, unspread

__all__ = ["Position", "load_checkpoint", "restore", "save_checkpoint"]

SCHEMA = "medcli-checkpoint/1"


@dataclass(frozen=True)
class Position:
    """Where a training stands, always just after an optimiser step.

    Args:
        epoch: epoch in progress or next, 0-based.
        batch: batches of that epoch already learnt.
        steps: optimiser steps so far.
        loss_sum: sum of this epoch's losses, each times its images.
        seen: images of this epoch already learnt.
        best: the best epoch so far.
        plateau: state of the plateau schedule.
        seconds: training time so far.
    """

    best: Best
    epoch: int = 0
    batch: int = 0
    steps: int = 0
    loss_sum: float = 0.0
    seen: int = 0
    plateau: Plateau = field(default_factory=Plateau)
    seconds: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: where it stands, its tensors, and what exactness depends on."""

    position: Position
    tensors: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    scaler: Mapping[str, Any]
    conditions: Mapping[str, Any]


def conditions(optimizer: torch.optim.Optimizer, device: torch.device) -> dict[str, Any]:
    """What must be equal for a resumed run to be bit-exact."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device.type,
        "fused": bool(optimizer.defaults.get("fused")),
        "processes": dist.get_world_size() if dist.is_initialized() else 1,
    }


def save_checkpoint(
    path: Path | None,
    *,
    position: Position,
    model: nn.Module,
    ema: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    scaler: Mapping[str, Any],
    device: torch.device,
    randomness: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the checkpoint, replacing the last one only when the new one is complete.

    Args:
        path: the file; None where another process of the same training writes it.
        randomness: states of random generators by name; of this process where not given.

    Raises:
        RunFailure: no space, no permission.
    """
    tensors: dict[str, Tensor] = {f"model/{name}": value for name, value in model.state_dict().items()}
    if ema is not None:
        tensors |= {f"ema/{name}": value for name, value in ema.state_dict().items()}
    state = optimizer.state_dict()
    scalars: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
            else:
                scalars.setdefault(str(index), {})[key] = value
    tensors |= Team().randomness(device) if randomness is None else randomness
    metadata = {
        "schema": SCHEMA,
        "position": asdict(position),
        "optimizer": {"groups": state["param_groups"], "scalars": scalars},
        "scaler": dict(scaler),
        "conditions": conditions(optimizer, device),
    }
    # Parameters that are spread over the processes come together here, which takes all of them.
    whole = {name: unspread(value.detach()) for name, value in tensors.items()}
    if path is None:
        return
    own = {name: value.cpu().contiguous().clone() for name, value in whole.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, own, {"medcli": json.dumps(metadata)})


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint back.

    Raises:
        UsageProblem: there is none, or the file is not a whole checkpoint of medcli.
    """
    if not path.is_file():
        raise UsageProblem(
            f"no checkpoint in `{path.parent.parent}`",
            where=str(path),
            hint="start again with `medcli train … --out NEW_DIR`; `--init-from RUN` starts from a run's best weights",
            code="no-checkpoint",
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["medcli"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if metadata["schema"] != SCHEMA:
            raise ValueError(f"schema {metadata['schema']}")
        position = metadata["position"]
        position["best"] = Best(**position["best"])
        position["plateau"] = Plateau(**position["plateau"])
        return Checkpoint(
            Position(**position), tensors, metadata["optimizer"], metadata["scaler"], metadata["conditions"]
        )
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise UsageProblem(
            f"`{path.name}` is not a whole checkpoint: {error}",
            where=str(path),
            hint="start again, or from the best weights with `--init-from RUN`",
            code="bad-checkpoint",
        ) from error


def restore(
    checkpoint: Checkpoint,
    *,
    model: nn.Module,
    ema: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    rank: int = 0,
) -> None:
    """Put weights, optimiser state and random states back in place, those of process `rank` of several."""
    tensors = checkpoint.tensors
    model.load_state_dict(spread_like(_below(tensors, "model/"), model.state_dict()))
    if ema is not None:
        ema.load_state_dict(_below(tensors, "ema/"))
    state: dict[int, dict[str, Any]] = {}
    for name, value in _below(tensors, "optimizer/").items():
        index, key = name.split("/", 1)
        state.setdefault(int(index), {})[key] = value
    for index, entries in checkpoint.optimizer["scalars"].items():
        state.setdefault(int(index), {}).update(entries)
    groups = [
        {key: tuple(value) if key == "betas" else value for key, value in group.items()}
        for group in checkpoint.optimizer["groups"]
    ]
    parameters: list[Tensor] = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for position, moments in state.items():
        for key, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameters[position].shape:
                # Fused kernels walk raw memory: moments must lie as their weights do (channels last), not as stored.
                like = parameters[position]
                moments[key] = spread(value, like) if is_spread(like) else _laid_out(value, like)
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    # A process that was not there before keeps the state that its seed and rank gave it.
    own = f"/{rank}" if rank else ""
    if f"rng/cpu{own}" in tensors:
        torch.set_rng_state(tensors[f"rng/cpu{own}"])
    if device.type == "cuda" and f"rng/cuda{own}" in tensors:
        torch.cuda.set_rng_state(tensors[f"rng/cuda{own}"], device)


def _laid_out(value: Tensor, like: Tensor) -> Tensor:
    return torch.empty_like(like, dtype=value.dtype).copy_(value)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
