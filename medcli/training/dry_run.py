"""One real step before a long run: does it fit, and how long will it take?"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from itertools import islice

import torch

from medcli.training.engine import Prepared
from medcli.training.loop import learn_window
from medcli.training.memory import explain_out_of_memory

__all__ = ["DryRun", "dry_run", "peak_memory"]


@dataclass(frozen=True)
class DryRun:
    """What a training would need.

    Args:
        parameters: all parameters.
        trainable: those that learn.
        device: where it ran.
        precision: with what numbers.
        steps_per_epoch: optimiser steps in an epoch.
        epochs: epochs planned.
        loss: loss of the first step; None where nothing is learnt.
        seconds_per_step: of the second step, after warm-up; includes reading and augmentation.
        hours: estimate for all epochs without validation, and for features that are computed first.
        peak_memory_gib: on the device; of the whole process when the device is the CPU.
    """

    parameters: int
    trainable: int
    device: str
    precision: str
    steps_per_epoch: int
    epochs: int
    loss: float | None
    seconds_per_step: float
    hours: float
    peak_memory_gib: float


def dry_run(prepared: Prepared, steps_per_epoch: int, images: int = 0) -> DryRun:
    """Learn two windows of batches for real and measure the second; writes nothing.

    Args:
        prepared: a plan over a few batches of the data.
        steps_per_epoch: optimiser steps of a whole epoch.
        images: how many go through the backbone where features are computed first.
    """
    learns = prepared.plan.spec.head_kind != "knn"
    parts, accumulate = prepared.parts, prepared.plan.training.accumulate
    on_gpu = prepared.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(prepared.device)
    parts.classifier.train()
    losses, seconds = [], 0.0
    with explain_out_of_memory(prepared.plan):
        for epoch in range(2 if learns else 0):
            began = time.perf_counter()
            window = tuple(islice(parts.batches.epoch(epoch), accumulate))
            losses.append(float(learn_window(parts, window, epoch)))
            seconds = time.perf_counter() - began
    counts = parts.classifier.parameter_counts()
    features, epochs = prepared.features, prepared.plan.training.epochs if learns else 0
    first = features.seconds / features.images * images if features is not None and features.images else 0.0
    return DryRun(
        parameters=counts.total,
        trainable=counts.trainable,
        device=str(prepared.device),
        precision=prepared.precision,
        steps_per_epoch=steps_per_epoch if learns else 0,
        epochs=epochs,
        loss=losses[0] if losses else None,
        seconds_per_step=seconds,
        hours=(first + seconds * steps_per_epoch * epochs) / 3600,
        peak_memory_gib=peak_memory(prepared.device) / 2**30,
    )


def peak_memory(device: torch.device) -> float:
    """The most bytes that were used so far: on the device, or of the whole process where that is the CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(used if sys.platform == "darwin" else used * 1024)
