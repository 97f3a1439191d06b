"""Losses: functions from raw outputs and labels to one number, in which missing labels never take part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from medcli.data.target import Target
from medcli.errors import UsageProblem

__all__ = ["LOSSES", "Criterion", "LossName", "choose_loss", "head_kind", "make_criterion"]

LossName = Literal["ce", "focal", "bce", "asl", "corn", "coral"]
Criterion = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, tuple[LossName, ...]] = {
    "binary": ("ce", "focal"),
    "multiclass": ("ce", "focal"),
    "ordinal": ("corn", "coral", "ce", "focal"),
    "multilabel": ("bce", "focal", "asl"),
    "multioutput": ("ce", "focal"),
}
"""Losses that a task can use, its default first."""


@dataclass(frozen=True)
class AsymmetricFocus:
    """Constants of the asymmetric loss (Ridnik et al., ICCV 2021, section 3)."""

    negative: float = 4.0
    positive: float = 1.0
    margin: float = 0.05


def choose_loss(target: Target, name: LossName | None) -> LossName:
    """The loss to use: `name` where the task allows it, else the task's default.

    Raises:
        UsageProblem: when the loss does not fit the task.
    """
    allowed = LOSSES[target.task]
    if name is None:
        return allowed[0]
    if name not in allowed:
        raise UsageProblem(
            f"loss `{name}` does not fit a {target.task} target",
            hint=f"use one of {', '.join(f'`--loss {loss}`' for loss in allowed)}",
            code="loss-does-not-fit",
        )
    return name


def head_kind(loss: LossName) -> Literal["linear", "corn", "coral"]:
    """Which head a loss needs."""
    if loss == "corn":
        return "corn"
    return "coral" if loss == "coral" else "linear"


def make_criterion(
    target: Target,
    loss: LossName,
    *,
    weights: Tensor | None = None,
    gamma: float = 2.0,
    smoothing: float = 0.0,
    adjustment: Tensor | None = None,
) -> Criterion:
    """The criterion `(raw outputs, labels) -> mean loss` of a target.

    Args:
        target: what is predicted; it fixes the shapes (see `Target` and `medcli.models.heads`).
        loss: one of `LOSSES[target.task]`.
        weights: per class [K] (or [O, Kmax] for multioutput), or the positive weight per label [L]; None for none.
        gamma: focusing strength of `focal`.
        smoothing: label smoothing.
        adjustment: added to the raw outputs, shaped like those of one case: logit adjustment (Menon et al., ICLR 2021).

    The labels of multioutput that are -1 and the labels of multilabel that are NaN have a gradient of exactly zero.
    """
    if adjustment is not None:
        plain = make_criterion(target, loss, weights=weights, gamma=gamma, smoothing=smoothing)
        return lambda raw, labels: plain(raw + adjustment, labels)
    if target.task == "multilabel":
        return _multilabel(loss, weights, gamma, smoothing)
    if target.task == "multioutput":
        return _multioutput(target, loss, weights, gamma, smoothing)
    if loss in {"corn", "coral"}:
        return _corn(weights) if loss == "corn" else _coral(weights)
    return lambda raw, labels: _class_loss(raw, labels, loss, weights, gamma, smoothing)


def _class_loss(
    raw: Tensor, labels: Tensor, loss: LossName, weights: Tensor | None, gamma: float, smoothing: float
) -> Tensor:
    if loss == "ce":
        return F.cross_entropy(raw, labels, weight=weights, label_smoothing=smoothing)
    log_p = F.log_softmax(raw, dim=1)
    log_pt = log_p.gather(1, labels[:, None]).squeeze(1)
    focus = (1 - log_pt.exp()).pow(gamma)
    each = F.nll_loss(log_p, labels, weight=weights, reduction="none")
    if smoothing:
        spread = -log_p.mean(dim=1) if weights is None else -(log_p * weights).mean(dim=1)
        each = (1 - smoothing) * each + smoothing * spread
    denominator = each.new_tensor(float(len(labels))) if weights is None else weights[labels].sum()
    return (focus * each).sum() / denominator


def _multioutput(target: Target, loss: LossName, weights: Tensor | None, gamma: float, smoothing: float) -> Criterion:
    sizes = [len(output.classes) for output in target.outputs]

    def criterion(raw: Tensor, labels: Tensor) -> Tensor:
        total, outputs = raw.new_zeros(()), 0
        for position, size in enumerate(sizes):
            known = labels[:, position] >= 0
            if not bool(known.any()):
                continue
            own = None if weights is None else weights[position, :size]
            total = total + _class_loss(
                raw[known, position, :size], labels[known, position], loss, own, gamma, smoothing
            )
            outputs += 1
        # A batch without a single label still needs a graph, with a gradient of zero.
        return total / outputs if outputs else raw[:, :, 0].sum() * 0.0

    return criterion


def _multilabel(loss: LossName, weights: Tensor | None, gamma: float, smoothing: float) -> Criterion:
    focus = AsymmetricFocus()

    def criterion(raw: Tensor, labels: Tensor) -> Tensor:
        known = ~labels.isnan()
        truth = torch.where(known, labels, torch.zeros_like(labels)).to(raw.dtype)
        goal = truth * (1 - smoothing) + 0.5 * smoothing if smoothing else truth
        if loss == "asl":
            each = _asymmetric(raw, goal, focus)
            if weights is not None:
                each = each * (1 + truth * (weights - 1))
        else:
            each = F.binary_cross_entropy_with_logits(raw, goal, pos_weight=weights, reduction="none")
            if loss == "focal":
                p = raw.sigmoid()
                each = each * (1 - (p * truth + (1 - p) * (1 - truth))).pow(gamma)
        # Per-label denominators: a label that is often missing weighs as much as one that never is.
        each = torch.where(known, each, torch.zeros_like(each))
        counts = known.sum(dim=0)
        means = each.sum(dim=0) / counts.clamp(min=1)
        return means.sum() / (counts > 0).sum().clamp(min=1)

    return criterion


def _asymmetric(raw: Tensor, goal: Tensor, focus: AsymmetricFocus) -> Tensor:
    p = raw.sigmoid()
    shifted = (1 - p + focus.margin).clamp(max=1)
    positive = goal * F.logsigmoid(raw) * (1 - p).pow(focus.positive)
    negative = (1 - goal) * shifted.clamp(min=1e-8).log() * (1 - shifted).pow(focus.negative)
    return -(positive + negative)


def _corn(weights: Tensor | None) -> Criterion:
    """Conditional ordinal regression (Shi, Cao, Raschka 2021): task k learns P(y > k | y > k-1) on the cases y >= k."""

    def criterion(raw: Tensor, labels: Tensor) -> Tensor:
        steps = torch.arange(raw.shape[1], device=raw.device)
        asked = labels[:, None] >= steps
        above = (labels[:, None] > steps).to(raw.dtype)
        each = F.binary_cross_entropy_with_logits(raw, above, reduction="none")
        share = asked.to(raw.dtype) if weights is None else asked * weights[labels][:, None]
        return (each * share).sum() / share.sum()

    return criterion


def _coral(weights: Tensor | None) -> Criterion:
    """Rank-consistent ordinal regression (Cao, Mirjalili, Raschka 2020): every case answers every `y > k`."""

    def criterion(raw: Tensor, labels: Tensor) -> Tensor:
        steps = torch.arange(raw.shape[1], device=raw.device)
        above = (labels[:, None] > steps).to(raw.dtype)
        each = F.binary_cross_entropy_with_logits(raw, above, reduction="none").sum(dim=1)
        if weights is None:
            return each.mean()
        return (each * weights[labels]).sum() / weights[labels].sum()

    return criterion
