"""The processes of one training as one: what they exchange so that all of them learn, decide and stop alike."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from medcli.data.batches import Batch, Batches
from medcli.data.shares import Share
from medcli.data.subset import take
from medcli.errors import ExitCode, RunFailure
from medcli.training.processes import Place

__all__ = ["ProcessLost", "Team", "explain_lost", "is_spread", "spread", "spread_like", "unspread"]

T = TypeVar("T")


class ProcessLost(RunFailure):
    """Another process of this training has ended; it knows why."""

    exit_code = ExitCode.LOST


@contextmanager
def explain_lost(of: int) -> Iterator[None]:
    """Turn what the communication library says about a vanished process into a sentence.

    Raises:
        ProcessLost: another process ended.
    """
    try:
        yield
    except RuntimeError as error:
        words = str(error).lower()
        gone = any(word in words for word in ("connection closed", "connection reset", "broken pipe", "gloo", "nccl"))
        if of == 1 or not (gone or isinstance(error, dist.DistError)):
            raise
        raise ProcessLost("another process of this training has ended", code="process-lost") from error


@dataclass(frozen=True)
class Team:
    """One of the processes that learn together; alone, everything here costs nothing and changes nothing.

    Args:
        place: which process this is.
        group: connects them for small messages between CPUs, so that no GPU is waited for; None alone.
        sharded: whether parameters are spread over the processes (FSDP).
    """

    place: Place = field(default_factory=Place)
    group: Any = None
    sharded: bool = False

    @property
    def of(self) -> int:
        """How many processes there are."""
        return self.place.of

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.place.rank == 0

    @property
    def share(self) -> Share:
        """What of every batch this process takes."""
        return Share(self.place.rank, self.of)

    def whole(self, raw: Tensor, batch: Batch) -> Tensor:
        """Raw outputs [b, ...] of the images held here -> [B, ...] of the whole batch, this process's with gradient.

        A loss of these and of the batch's labels is the loss of one process, whatever it divides by; times the number
        of processes, since their gradients are averaged, its gradient is the gradient of one process.
        """
        if batch.own is None:
            return raw
        counts = self.share.counts(len(batch.index))
        parts = [torch.empty_like(raw) for _ in counts]
        dist.all_gather(parts, raw.detach().contiguous())
        parts[self.place.rank] = raw
        whole = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
        # A process without an image of its own still takes part in the backward pass, with a gradient of zero.
        return whole if counts[self.place.rank] else whole + raw.sum() * 0.0

    def factor(self, batch: Batch) -> int:
        """What a loss is multiplied by before its gradients are averaged over the processes."""
        return 1 if batch.own is None else self.of

    def quiet(self, accelerator: Accelerator, forward: Any, last: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged once per optimiser step, with its last batch."""
        return nullcontext() if last or self.of == 1 else accelerator.no_sync(forward)

    def outputs(self, batches: Batches, judge: Callable[..., Tensor]) -> Tensor:
        """Raw outputs [n, ...] on the CPU of every case of a split, each of which one process computes.

        Batches are those of a single process, so every figure is too.

        Args:
            batches: in the order of the samples.
            judge: (batches of some cases, those cases) -> raw outputs on the CPU.
        """
        if self.of == 1:
            return judge(batches.epoch(0), batches.samples)
        begin, start, stop = self.share.block(len(batches))
        end = begin + -(-len(batches) // self.of)
        rows = batches.rows(0)
        lead = sum(len(one) for one in rows[:begin])
        held = np.concatenate(rows[begin:end])
        moved = (replace(batch, index=batch.index - lead) for batch in batches.epoch(0, begin, end))
        raw = judge(moved, take(batches.samples, held))
        result = raw.new_zeros((len(batches.samples), *raw.shape[1:]))
        if stop > start:
            mine = np.concatenate(rows[start:stop])
            result[mine] = raw[mine - lead]
        with explain_lost(self.of):
            # Every row is zero but in one process; adding zeros keeps a number as it is.
            dist.all_reduce(result, group=self.group)
        return result

    def agreed(self, number: int) -> int:
        """The largest of the numbers that the processes bring."""
        if self.of == 1:
            return number
        # Started by medcli, and that process is gone: nobody would pass a signal on any more.
        parent = os.environ.get("STARTED_BY_MEDCLI")
        if parent is not None and os.getppid() != int(parent):
            number = max(number, signal.SIGTERM)
        value = torch.tensor([number])
        with explain_lost(self.of):
            dist.all_reduce(value, op=dist.ReduceOp.MAX, group=self.group)
        return int(value)

    def from_first(self, value: T) -> T:
        """What the first process holds; the others' value is ignored."""
        if self.of == 1:
            return value
        box = [value]
        with explain_lost(self.of):
            dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def one_at_first(self, work: Callable[[], T]) -> T:
        """Do it in one process of every machine, then in the others, which find what it left on disk."""
        if self.of == 1:
            return work()
        mine = self.place.local_rank == 0
        result, failure = None, None
        if mine:
            try:
                result = work()
            except Exception as error:  # handed on below, when the others know
                failure = error
        failed = self.agreed(int(failure is not None))
        if failure is not None:
            raise failure
        if failed:
            raise ProcessLost("another process of this training has ended", code="process-lost")
        return result if mine else work()  # type: ignore[return-value]

    def same_buffers(self, *networks: nn.Module | None) -> None:
        """Give every process the first one's buffers (statistics of normalisation layers), which are those kept."""
        if self.of == 1:
            return
        with explain_lost(self.of):
            for network in networks:
                for buffer in network.buffers() if network is not None else ():
                    dist.broadcast(buffer, src=0)

    def randomness(self, device: torch.device) -> dict[str, Tensor]:
        """States of the random generators of all processes by name, complete in the first one."""
        own = {"rng/cpu": torch.get_rng_state()}
        if device.type == "cuda":
            own["rng/cuda"] = torch.cuda.get_rng_state(device)
        if self.of == 1:
            return own
        everyone: list[dict[str, Tensor]] = [{} for _ in range(self.of)]
        with explain_lost(self.of):
            dist.all_gather_object(everyone, own, group=self.group)
        states = {f"{name}/{rank}": state for rank, one in enumerate(everyone) for name, state in one.items()}
        return {**states, **everyone[0]}

    def draw_apart(self, seed: int) -> None:
        """Other dropout masks than the first process has, whose own stay those of a single one."""
        if not self.first:
            torch.manual_seed(int(np.random.SeedSequence([seed, self.place.rank]).generate_state(1)[0]))

    def state(self, network: nn.Module) -> Mapping[str, Tensor]:
        """The whole state dict; where parameters are spread all processes must ask at once."""
        return {name: unspread(value) for name, value in network.state_dict().items()}


def is_spread(value: Tensor) -> bool:
    """Whether a tensor is spread over the processes."""
    return isinstance(value, DTensor)


def unspread(value: Tensor) -> Tensor:
    """A whole tensor from one that is spread over the processes, all of which must ask; others as they are."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def spread(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same in every process, spread as `like` is."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def spread_like(values: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same for a state dict; names that `like` lacks are kept."""
    return {name: spread(value, like[name]) if name in like else value for name, value in values.items()}
