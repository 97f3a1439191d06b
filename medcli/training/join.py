"""How a process enters a training: as the only one, as one of medcli's own, or as a launcher's, and what is refused."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, GradientAccumulationPlugin
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medcli.errors import UsageProblem
from medcli.models.device import Precision, choose_device
from medcli.settings.groups import ComputeSettings, TrainingSettings
from medcli.training.processes import Place, place, refuse_more_than_cores
from medcli.training.team import Team

__all__ = ["everything_learns", "join", "launcher_note", "normalisation_note", "own_device", "to_start"]


class Placed(Protocol):
    """What decides where a training runs."""

    @property
    def training(self) -> TrainingSettings: ...

    @property
    def compute(self) -> ComputeSettings: ...


def to_start(plan: Placed) -> int:
    """How many processes this one must start: 0 where it trains itself, alone or as one that a launcher has started.

    Raises:
        UsageProblem: processes this machine or training cannot have.
    """
    count = plan.training.processes
    if place().of > 1 or count == 1:
        return 0
    refuse_more_than_cores(count)
    own_device(plan, Place(0, count, 0, count))
    return count


def own_device(plan: Placed, where: Place) -> torch.device:
    """The device of one process.

    Raises:
        UsageProblem: more processes than devices, or fewer images in a batch than processes.
    """
    device, count = choose_device(plan.compute.device), plan.training.processes
    if where.of == 1:
        if count > 1:
            raise UsageProblem(
                f"`--processes {count}`: this command trains in one process",
                where="--processes",
                hint="`medcli train`, `finetune` and `lora` start processes",
                code="one-process",
            )
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
        return device
    if count not in (1, where.of):
        raise UsageProblem(
            f"the launcher has started {where.of} processes, and `--processes` says {count}",
            where="--processes",
            hint="leave `--processes` out: under torchrun and `accelerate launch` their own number counts",
            code="two-launchers",
        )
    if plan.compute.batch_size < where.of:
        raise UsageProblem(
            f"`--batch-size {plan.compute.batch_size}` has no image for each of {where.of} processes",
            where="--batch-size",
            hint=f"the batch is shared among the processes: `--batch-size {where.of}` or more",
            code="batch-below-processes",
        )
    if device.type == "cpu":
        return device
    if str(device) != "cuda":
        raise UsageProblem(
            f"`--device {plan.compute.device}` is one device for {where.of} processes",
            where="--device",
            hint="`--device cuda` gives each process its own; `CUDA_VISIBLE_DEVICES=0,2` chooses among them",
            code="one-device",
        )
    if where.local_of > torch.cuda.device_count():
        raise UsageProblem(
            f"{where.local_of} processes need as many GPUs, and {torch.cuda.device_count()} can be seen",
            where="--processes",
            hint=f"`--processes {torch.cuda.device_count()}`, or `--device cpu`",
            code="too-many-processes",
        )
    device = torch.device("cuda", where.local_rank)
    torch.cuda.set_device(device)
    return device


def join(plan: Placed, device: torch.device, precision: Precision) -> tuple[Accelerator, Team]:
    """Find the other processes, if there are any, and the engine for them all.

    Raises:
        UsageProblem: an accelerate configuration that this training cannot follow.
    """
    where = place()
    sharded = _refuse_unknown_engines(plan, device, os.environ) and where.of > 1
    # accelerate keeps one state per process and would refuse a second training with another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    with warnings.catch_warnings():
        # It proposes a number of threads; ours is set by who starts the processes.
        warnings.filterwarnings("ignore", message="OMP_NUM_THREADS")
        accelerator = Accelerator(
            mixed_precision={"fp32": "no"}.get(precision, precision),
            cpu=device.type == "cpu",
            # The loop accumulates itself; a number in somebody's configuration would divide the gradient once more.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            # Blocks that are frozen for some epochs, and parameters that a network has and does not use.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)] if where.of > 1 else None,
        )
    if where.of == 1:
        return accelerator, Team()
    if accelerator.num_processes != where.of:
        raise UsageProblem(
            f"accelerate sees {accelerator.num_processes} processes where the launcher announced {where.of}",
            where="WORLD_SIZE",
            code="bad-launcher",
        )
    sharded = sharded and accelerator.distributed_type is DistributedType.FSDP
    return accelerator, Team(where, dist.new_group(backend="gloo"), sharded)


def _refuse_unknown_engines(plan: Placed, device: torch.device, environ: Mapping[str, str]) -> bool:
    """Whether parameters are to be spread over the processes."""

    def asked(name: str) -> bool:
        return environ.get(name, "").lower() in {"1", "true", "yes"}

    for name, variable in (("DeepSpeed", "ACCELERATE_USE_DEEPSPEED"), ("Megatron-LM", "ACCELERATE_USE_MEGATRON_LM")):
        if asked(variable):
            raise UsageProblem(
                f"medcli does not train with {name}",
                where=variable,
                hint="choose DDP or FSDP (`fsdp_version: 2`) in `accelerate config`",
                code="unknown-engine",
            )
    if not asked("ACCELERATE_USE_FSDP"):
        return False
    if environ.get("FSDP_VERSION", "1") != "2":
        raise UsageProblem(
            "medcli shards parameters with version 2 of FSDP alone",
            where="FSDP_VERSION",
            hint="set `fsdp_version: 2` in the accelerate configuration, or `--fsdp_version 2`",
            code="fsdp-version",
        )
    reasons = (
        (device.type != "cuda", "--device", "FSDP needs GPUs; accelerate does not shard on this device"),
        (plan.training.ema, "--ema", "`--ema` keeps a whole second network, which FSDP is there to avoid"),
        (plan.training.compile, "--compile", "`--compile` and FSDP are not combined"),
    )
    for wrong, where, message in reasons:
        if wrong:
            raise UsageProblem(message, where=where, hint="use DDP (no `--use_fsdp`)", code="fsdp-does-not-fit")
    return True


@contextmanager
def everything_learns(team: Team, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """What gathers gradients watches what learns at this moment; blocks that join in later must be seen as well."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    resting = [parameter for parameter in parameters if not parameter.requires_grad] if team.of > 1 else []
    for parameter in resting:
        parameter.requires_grad_(True)
    yield
    if team.sharded and resting:
        raise UsageProblem(
            "a strategy whose blocks join in later is not combined with FSDP",
            where="--strategy",
            hint="use DDP (no `--use_fsdp`), or another strategy",
            code="fsdp-does-not-fit",
        )
    for parameter in resting:
        parameter.requires_grad_(False)


def normalisation_note(network: nn.Module, team: Team, batch_size: int) -> list[str]:
    """What several processes change: layers that normalise over a batch see what one process holds of it."""
    was = network.training
    learning = any(isinstance(module, _BatchNorm) and module.training for module in network.train().modules())
    network.train(was)
    if team.of == 1 or not learning:
        return []
    return [
        f"BatchNorm normalises over the {team.share.width(batch_size, batch_size)} images of each process, not over "
        f"the batch of {batch_size}, and its running statistics are those of the first process"
    ]


def launcher_note(environ: Mapping[str, str] | None = None) -> list[str]:
    """`accelerate launch --cpu --num_processes N` starts one process and does not say so."""
    variables = os.environ if environ is None else environ
    alone = "ACCELERATE_MIXED_PRECISION" in variables and place(variables).of == 1
    if alone and variables.get("ACCELERATE_USE_CPU", "").lower() == "true":
        return [
            "accelerate has started one process, as it does on CPUs whatever `--num_processes` says; `--processes N` "
            "or torchrun start several"
        ]
    return []
