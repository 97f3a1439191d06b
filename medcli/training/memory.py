"""Running out of memory, said as the setting to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

from medcli.errors import RunFailure
from medcli.settings.groups import ComputeSettings, TrainingSettings

__all__ = ["Sized", "explain_out_of_memory"]


class Sized(Protocol):
    """What decides how much memory a training takes."""

    @property
    def training(self) -> TrainingSettings: ...

    @property
    def compute(self) -> ComputeSettings: ...

    @property
    def image_size(self) -> int: ...


@contextmanager
def explain_out_of_memory(plan: Sized) -> Iterator[None]:
    """Turn a device's or the machine's out-of-memory error into advice.

    Raises:
        RunFailure: naming the settings that need less memory, the gentlest first.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise RunFailure(_sentence(plan), hint=_advice(plan), code="out-of-memory") from error
    except RuntimeError as error:
        # The CPU allocator and MPS report it as a plain RuntimeError.
        if not any(words in str(error).lower() for words in ("not enough memory", "allocate memory", "out of memory")):
            raise
        raise RunFailure(_sentence(plan), hint=_advice(plan), code="out-of-memory") from error


def _sentence(plan: Sized) -> str:
    size = plan.image_size
    return f"out of memory with batches of {plan.compute.batch_size} images of {size} × {size} pixels"


def _advice(plan: Sized) -> str:
    advice = []
    batch = plan.compute.batch_size
    if batch > 1:
        advice.append(f"`--batch-size {batch // 2} --accumulate {plan.training.accumulate * 2}` learns the same")
    if not plan.training.grad_checkpointing:
        advice.append("`--grad-checkpointing`")
    if plan.compute.precision == "fp32":
        advice.append("`--precision bf16`")
    advice.append(f"`--image-size {max(32, plan.image_size // 2)}`")
    return "try " + ", ".join(advice)
