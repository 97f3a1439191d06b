"""Class weights from the training labels, because rare findings would otherwise hardly count."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target
from medcli.errors import UsageProblem

__all__ = ["LARGEST_POSITIVE_WEIGHT", "class_weights"]

LARGEST_POSITIVE_WEIGHT = 20.0
"""Cap on a label's positive weight: beyond it a handful of cases would steer the whole network."""

EFFECTIVE_BETA = 0.9999
"""Beta of the effective number of samples (Cui et al., CVPR 2019)."""


def class_weights(rule: str, target: Target, labels: npt.NDArray[Any]) -> npt.NDArray[np.float32] | None:
    """Weights for the loss, or None for `none`.

    Args:
        rule: `none`, `balanced` (inverse frequency), `sqrt` (its square root), `effective`, or a list of numbers.
        target: what is predicted.
        labels: the training labels, shaped as `Target` says.

    Returns:
        [K], [O, Kmax] for multioutput, or the positive weight per label [L] for multilabel. Rules are scaled so that
        the weights average 1 over the training cases; a list is used as it is.

    Raises:
        UsageProblem: unknown rule, or a list of the wrong length.
    """
    if rule == "none":
        return None
    if rule in {"balanced", "sqrt", "effective"}:
        if target.task == "multilabel":
            return _positive_weights(rule, labels)
        if target.task == "multioutput":
            rows = np.ones((len(target.outputs), target.num_classes), dtype=np.float32)
            for position, output in enumerate(target.outputs):
                known = labels[:, position]
                rows[position, : len(output.classes)] = _scaled(rule, known[known >= 0], len(output.classes))
            return rows
        return _scaled(rule, labels, target.num_classes)
    return _listed(rule, target)


def _scaled(rule: str, labels: npt.NDArray[Any], size: int) -> npt.NDArray[np.float32]:
    counts = np.bincount(labels.astype(np.int64), minlength=size).astype(np.float64)
    present = np.maximum(counts, 1)
    if rule == "balanced":
        weights = 1 / present
    elif rule == "sqrt":
        weights = 1 / np.sqrt(present)
    else:
        weights = (1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA**present)
    weights[counts == 0] = 0
    scaled: npt.NDArray[np.float32] = (weights * counts.sum() / np.maximum((weights * counts).sum(), 1e-12)).astype(
        np.float32
    )
    return scaled


def _positive_weights(rule: str, labels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    positive = np.nansum(labels == 1, axis=0).astype(np.float64)
    negative = np.nansum(labels == 0, axis=0).astype(np.float64)
    if rule == "effective":
        ratio = (1 - EFFECTIVE_BETA ** np.maximum(negative, 1)) / (1 - EFFECTIVE_BETA ** np.maximum(positive, 1))
    else:
        ratio = negative / np.maximum(positive, 1)
        ratio = np.sqrt(ratio) if rule == "sqrt" else ratio
    capped: npt.NDArray[np.float32] = np.clip(ratio, 1 / LARGEST_POSITIVE_WEIGHT, LARGEST_POSITIVE_WEIGHT).astype(
        np.float32
    )
    return capped


def _listed(rule: str, target: Target) -> npt.NDArray[np.float32]:
    try:
        values = [float(part) for part in rule.split(",")]
    except ValueError:
        raise UsageProblem(
            f"class weights `{rule}` are neither a rule nor numbers",
            hint="use `--class-weights balanced`, `sqrt`, `effective`, or one number per class such as `1,1,0.3`",
            code="bad-class-weights",
        ) from None
    if len(values) != target.num_classes or min(values) < 0 or sum(values) == 0:
        raise UsageProblem(
            f"class weights `{rule}`: {len(values)} numbers for {target.num_classes} classes, none below 0 "
            "and not all 0, are needed"
            if len(values) == target.num_classes
            else f"class weights `{rule}` has {len(values)} numbers, the target has {target.num_classes} classes",
            hint=f"classes in order: {', '.join(target.class_names) or 'see `medcli data check`'}",
            code="bad-class-weights",
        )
    weights = np.asarray(values, dtype=np.float32)
    return np.tile(weights, (len(target.outputs), 1)) if target.task == "multioutput" else weights
