"""From batches of images to predictions in the order of the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from medcli.data.dataset import Preprocessing, Samples
from medcli.data.resize import normalise
from medcli.data.target import Target
from medcli.errors import RunFailure
from medcli.evaluation.predictions import Predictions
from medcli.models.heads import decode

if TYPE_CHECKING:
    from medcli.data.batches import Batch
    from medcli.models.heads import HeadKind

__all__ = ["autocast", "predict_batches", "raw_to_logits", "suits_channels_last"]

_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device | str, precision: str) -> AbstractContextManager[Any]:
    """Mixed precision for one forward pass: `auto` is bf16 or fp16 on a CUDA device and fp32 elsewhere."""
    kind = torch.device(device).type
    if precision == "auto":
        if kind != "cuda":
            return nullcontext()
        precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device_type=kind, dtype=_PRECISIONS[precision])


def suits_channels_last(model: nn.Module) -> bool:
    """Whether the network is convolutional throughout, so that NHWC memory makes it faster.

    A transformer has one or two convolutions (its patches) and gains nothing.
    """
    return sum(isinstance(module, nn.Conv2d) for module in model.modules()) > 3


def predict_batches(
    model: nn.Module,
    batches: Iterable[Batch],
    samples: Samples,
    *,
    target: Target,
    preprocessing: Preprocessing,
    head_kind: HeadKind = "linear",
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    split: str = "",
    data_name: str = "",
    on_batch: Callable[[int], None] | None = None,
) -> Predictions:
    """Run the network over a split.

    The model is put into eval mode for the duration and back into the mode it had; weights are not touched. Images
    follow the model's own memory layout.

    Args:
        model: on `device` already; images [B, C, S, S] -> raw head outputs.
        batches: one pass, such as `batches.epoch(0)`, in any order; every sample must come exactly once.
        samples: the split, for identifiers, labels and patients.
        target: what is predicted.
        preprocessing: with which the batches were made; normalisation happens here.
        head_kind: how raw outputs become logits.
        device: where to run.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        split: stored in the predictions.
        data_name: stored in the predictions.
        on_batch: told the number of images after every batch.

    Raises:
        RunFailure: code `not-finite` when an output is no number; code `incomplete` when samples were left out.
    """
    count = len(samples)
    logits = np.zeros((count, *target.logits_shape), dtype=np.float32)
    seen = np.zeros(count, dtype=bool)
    layout = _layout(model)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                images = batch.images.to(device, non_blocking=True)
                images = normalise(images, preprocessing).contiguous(memory_format=layout)
                with autocast(device, precision):
                    raw = model(images)
                index = batch.index.cpu().numpy()
                logits[index] = raw_to_logits(raw, target, head_kind)
                seen[index] = True
                if on_batch is not None:
                    on_batch(len(index))
    finally:
        model.train(was_training)
    if not seen.all():
        missing = samples.ids[~seen]
        raise RunFailure(
            f"{len(missing)} of {count} images were not predicted, first `{missing[0]}`",
            where=split or None,
            code="incomplete",
        )
    _refuse_nan(logits, samples.ids)
    return Predictions(
        ids=np.asarray(samples.ids, dtype=np.str_),
        labels=samples.labels,
        logits=logits,
        target=target,
        split=split,
        data_name=data_name,
        patients=None if samples.patients is None else np.asarray(samples.patients, dtype=np.str_),
    )


def raw_to_logits(raw: torch.Tensor, target: Target, head_kind: HeadKind) -> npt.NDArray[np.float32]:
    """Stored logits of raw head outputs, always computed in float32."""
    result: npt.NDArray[np.float32] = decode(raw.float(), target, head_kind).float().cpu().numpy()
    return result


def _layout(model: nn.Module) -> torch.memory_format:
    for parameter in model.parameters():
        if parameter.ndim == 4 and max(parameter.shape[2:]) > 1:
            last = parameter.is_contiguous(memory_format=torch.channels_last)
            return torch.channels_last if last and not parameter.is_contiguous() else torch.contiguous_format
    return torch.contiguous_format


def _refuse_nan(logits: npt.NDArray[np.float32], ids: npt.NDArray[np.str_]) -> None:
    bad = (np.isnan(logits) | np.isposinf(logits)).reshape(len(logits), -1).any(axis=1)
    if bad.any():
        raise RunFailure(
            f"the network's output for `{ids[bad.argmax()]}` is not a number ({int(bad.sum())} of {len(ids)} images)",
            hint="try `--precision fp32`, or a lower learning rate if this is the middle of a training",
            code="not-finite",
        )
