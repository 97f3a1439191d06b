"""What one of two processes does for `test_team.py`: everything that processes exchange, in one start of torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from medcli.data.batches import Batch
from medcli.data.target import Output, Target
from medcli.training.best import Best
from medcli.training.checkpoint import Position, load_checkpoint, restore, save_checkpoint
from medcli.training.losses import LossName, make_criterion
from medcli.training.processes import place
from medcli.training.team import Team

CLASSES = Target("multiclass", ("a", "b", "c"))
GRADES = Target("ordinal", ("0", "1", "2", "3"))
LABELS = Target("multilabel", ("x", "y", "z"))
ZONES = Target("multioutput", outputs=(Output("left", ("0", "1", "2")), Output("right", ("no", "yes"))))
WEIGHTS = torch.tensor([0.2, 1.0, 3.0])
MISSING = float("nan")

CASES: dict[str, tuple[Target, LossName, tuple[int, ...], dict[str, Any], list[Any]]] = {
    "weighted ce": (CLASSES, "ce", (3,), {"weights": WEIGHTS, "smoothing": 0.1}, [0, 1, 2, 2, 1]),
    "weighted focal": (CLASSES, "focal", (3,), {"weights": WEIGHTS}, [0, 1, 2, 2, 1]),
    "corn": (GRADES, "corn", (3,), {}, [0, 3, 0, 1, 2]),
    "coral": (GRADES, "coral", (3,), {"weights": torch.tensor([1.0, 2.0, 3.0, 4.0])}, [0, 3, 0, 1, 2]),
    "missing labels": (
        LABELS, "bce", (3,), {"weights": WEIGHTS},
        [[1, 0, MISSING], [MISSING] * 3, [0, MISSING, MISSING], [1, 1, MISSING], [0, 1, MISSING]],
    ),
    "asl": (LABELS, "asl", (3,), {}, [[1, 0, 1], [0, 0, 0], [0, 1, MISSING], [1, 1, 0], [0, 1, 1]]),
    "ignored outputs": (ZONES, "ce", (2, 3), {}, [[0, -1], [2, 1], [-1, -1], [1, 0], [2, -1]]),
}  # fmt: skip


def case(name: str) -> tuple[nn.Module, Tensor, Tensor, Any]:
    """A linear network, 5 rows of inputs, their labels and the loss; the same wherever it is asked for."""
    target, loss, shape, options, labels = CASES[name]
    drawn = torch.Generator().manual_seed(len(name))
    network = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 6 if len(shape) > 1 else 3))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=drawn))
    if len(shape) > 1:
        network.append(nn.Unflatten(1, shape))
    truth = torch.tensor(labels, dtype=torch.float32 if target.task == "multilabel" else torch.int64)
    return network, torch.randn(5, 6, generator=drawn), truth, make_criterion(target, loss, **options)


def gradients(name: str, images: int, team: Team) -> list[Tensor]:
    """The gradient of a batch of the first `images` rows."""
    network, inputs, labels, criterion = case(name)
    forward = DistributedDataParallel(network, find_unused_parameters=True) if team.of > 1 else network
    own = torch.from_numpy(team.share.own(images, 4)) if team.of > 1 else None
    batch = Batch(inputs[:images] if own is None else inputs[:images][own], labels[:images], torch.arange(images), own)
    loss = criterion(team.whole(forward(batch.images), batch), batch.labels)
    (loss * team.factor(batch)).backward()
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def sharded_network() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network spread over both processes, one step old."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))
    fully_shard(network, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.ones(2, 7)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return network, optimizer


def main(out: Path) -> None:
    """Write what this process holds after every exchange."""
    dist.init_process_group("gloo")
    team = Team(place(), dist.new_group(backend="gloo"))
    rank = team.place.rank
    facts: dict[str, Any] = {
        "gradients": {(name, images): gradients(name, images, team) for name in CASES for images in (5, 4, 1)},
        "agreed": team.agreed(15 * rank),
        "from first": team.from_first(f"of process {rank}"),
        "states": {name: state.clone() for name, state in team.randomness(torch.device("cpu")).items()},
    }
    order: list[str] = []
    team.one_at_first(
        lambda: (out / "made").write_text("x") if rank == 0 else order.append(str((out / "made").exists()))
    )
    facts["found what the first one made"] = order
    team.draw_apart(0)
    facts["drawn"] = torch.rand(3)

    network, optimizer = sharded_network()
    facts["sharded"] = dict(team.state(network))
    device = torch.device("cpu")
    save_checkpoint(
        out / "last.safetensors" if team.first else None,
        position=Position(Best("auc")), model=network, ema=None, optimizer=optimizer, scaler={}, device=device,
        randomness=team.randomness(device),
    )  # fmt: skip
    dist.barrier()
    other, fresh = sharded_network()
    other(torch.full((2, 7), -1.0)).square().sum().backward()
    fresh.step()
    restore(load_checkpoint(out / "last.safetensors"), model=other, ema=None, optimizer=fresh, device=device, rank=rank)
    facts["restored"] = dict(team.state(other))
    for one, its in ((network, optimizer), (other, fresh)):
        its.zero_grad()
        one(torch.ones(2, 7)).square().sum().backward()
        its.step()
    facts["after"] = [dict(team.state(network)), dict(team.state(other))]
    torch.save(facts, out / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
