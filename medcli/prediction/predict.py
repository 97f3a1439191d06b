"""From batches of images to predictions in the order of the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from medcli.data.dataset import Preprocessing, Samples
from medcli.data.resize import normalise
from medcli.data.target import Target
from medcli.errors import RunFailure
from medcli.evaluation.members import mean_logits
from medcli.evaluation.predictions import Predictions
from medcli.models.device import autocast, choose_precision
from medcli.models.heads import decode

if TYPE_CHECKING:
    from medcli.data.batches import Batch
    from medcli.models.heads import HeadKind

__all__ = [
    "answers_of",
    "as_predictions",
    "memory_layout",
    "predict_batches",
    "raw_outputs",
    "raw_to_logits",
    "suits_channels_last",
]


def suits_channels_last(model: nn.Module) -> bool:
    """Whether the network is convolutional throughout, so that NHWC memory makes it faster.

    A transformer has one or two convolutions (its patches) and gains nothing.
    """
    return sum(isinstance(module, nn.Conv2d) for module in model.modules()) > 3


def raw_outputs(
    model: nn.Module,
    batches: Iterable[Batch],
    samples: Samples,
    *,
    preprocessing: Preprocessing,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    on_batch: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """The raw outputs for a split, float32 [n, ...] on the CPU, in the order of the samples.

    The model is put into eval mode for the duration and back into the mode it had; weights are not touched. Images
    follow the model's own memory layout.

    Args:
        model: on `device` already; images [B, C, S, S] -> raw head outputs.
        batches: one pass, such as `batches.epoch(0)`, in any order; every sample must come exactly once.
        samples: the split.
        preprocessing: with which the batches were made; normalisation happens here.
        device: where to run.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        on_batch: told the number of images after every batch.

    Raises:
        RunFailure: code `incomplete` when samples were left out.
    """
    count = len(samples)
    outputs: torch.Tensor | None = None
    seen = np.zeros(count, dtype=bool)
    layout = memory_layout(model)
    chosen = choose_precision(precision, torch.device(device))
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                images = batch.images.to(device, non_blocking=True)
                images = normalise(images, preprocessing).contiguous(memory_format=layout)
                with autocast(torch.device(device), chosen):
                    raw = model(images)
                if outputs is None:
                    outputs = torch.zeros((count, *raw.shape[1:]))
                outputs[batch.index] = raw.float().cpu()
                seen[batch.index.numpy()] = True
                if on_batch is not None:
                    on_batch(len(batch.index))
    finally:
        model.train(was_training)
    if outputs is None or not seen.all():
        missing = samples.ids[~seen]
        raise RunFailure(
            f"{len(missing)} of {count} images were not predicted, first `{missing[0] if count else None}`",
            code="incomplete",
        )
    return outputs.clone()


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
    """Run the network over a split (see `raw_outputs`) and keep what evaluation needs.

    Args:
        target: what is predicted.
        head_kind: how raw outputs become logits.
        split: stored in the predictions.
        data_name: stored in the predictions.

    Raises:
        RunFailure: code `not-finite` when an output is no number; code `incomplete` when samples were left out.
    """
    raw = raw_outputs(
        model, batches, samples, preprocessing=preprocessing, device=device, precision=precision, on_batch=on_batch
    )
    return as_predictions(raw, samples, target=target, head_kind=head_kind, split=split, data_name=data_name)


def as_predictions(
    raw: torch.Tensor,
    samples: Samples,
    *,
    target: Target,
    head_kind: HeadKind = "linear",
    split: str = "",
    data_name: str = "",
) -> Predictions:
    """Raw head outputs [n, ...] in the order of the samples -> predictions.

    Several answers per case [n, answers, ...] become members, and their mean the logits.

    Raises:
        RunFailure: code `not-finite` when an output is no number.
    """
    logits: npt.NDArray[np.floating[Any]] = raw_to_logits(raw, target, head_kind)
    _refuse_nan(logits, samples.ids)
    members = answers_of(logits, target)
    return Predictions(
        ids=np.asarray(samples.ids, dtype=np.str_),
        labels=samples.labels,
        logits=logits if members is None else mean_logits(members, target),
        member_logits=members,
        target=target,
        split=split,
        data_name=data_name,
        patients=None if samples.patients is None else np.asarray(samples.patients, dtype=np.str_),
    )


def raw_to_logits(raw: torch.Tensor, target: Target, head_kind: HeadKind) -> npt.NDArray[np.float32]:
    """Stored logits of raw head outputs, always computed in float32."""
    result: npt.NDArray[np.float32] = decode(raw.float(), target, head_kind).float().cpu().numpy()
    return result


def answers_of(logits: npt.NDArray[Any], target: Target) -> npt.NDArray[np.float32] | None:
    """Answers [answers, n, ...] of a predictor that gives several per case [n, answers, ...]; else None.

    See `LoadedModel.views`.
    """
    if logits.ndim != len(target.logits_shape) + 2:
        return None
    return np.ascontiguousarray(np.moveaxis(logits, 1, 0), dtype=np.float32)


def memory_layout(model: nn.Module) -> torch.memory_format:
    """The layout of the network's own convolutions, which its images should have too."""
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
