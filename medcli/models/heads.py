"""The head medcli puts on every backbone, and the way from its raw outputs to the logits that are stored.

Owning the head is what makes dropout, ordinal losses, adapters and export work alike for every architecture.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from medcli.data.target import Target
from medcli.errors import UsageProblem

__all__ = ["HEAD_KINDS", "Head", "HeadKind", "decode"]

HeadKind = Literal["linear", "corn", "coral", "knn"]
HEAD_KINDS: tuple[HeadKind, ...] = get_args(HeadKind)

_INITIAL_STD = 0.01
_SMALLEST_STEP = 1e-6


class Head(nn.Module):
    """Optional LayerNorm, dropout, linear.

    The first prediction is nearly uniform over the classes, whatever the kind: small weights, and thresholds of an
    ordinal head set to those of equally frequent grades.

    Args:
        feature_dim: D of the features [B, D].
        target: what is predicted.
        kind: `linear`; `corn` (conditional ordinal, Shi et al. 2021); `coral` (shared weights and ordered thresholds,
            Cao et al. 2020; the order is built in, so the cumulative probabilities never cross).
        dropout: probability; the module is always there, also at 0, so that Monte-Carlo dropout finds it.
        norm: whether a LayerNorm comes first.
    """

    def __init__(
        self, feature_dim: int, target: Target, kind: HeadKind = "linear", *, dropout: float = 0.0, norm: bool = False
    ) -> None:
        super().__init__()
        if kind not in HEAD_KINDS or kind == "knn":  # neighbours have a head of their own
            raise UsageProblem(f"`{kind}` is not a kind of head: {', '.join(HEAD_KINDS)}", code="bad-head")
        if kind != "linear" and target.task != "ordinal":
            raise UsageProblem(f"`{kind}` needs ordered classes; the target is {target.task}", code="bad-head")
        if target.num_classes < 1 or (target.task not in {"multilabel", "multioutput"} and target.num_classes < 2):
            raise UsageProblem(
                f"a {target.task} target of {target.num_classes} classes cannot be learned", code="bad-head"
            )
        self.kind = kind
        self.norm = nn.LayerNorm(feature_dim) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self._counts = tuple(len(output.classes) for output in target.outputs) if target.task == "multioutput" else ()
        classes = target.num_classes
        outputs = {"linear": sum(self._counts) or classes, "corn": classes - 1, "coral": 1}[kind]
        self.linear = nn.Linear(feature_dim, outputs, bias=kind != "coral")
        self.first_threshold: nn.Parameter | None = None
        self.threshold_steps: nn.Parameter | None = None
        if kind == "coral":
            self.first_threshold = nn.Parameter(torch.zeros(1))
            self.threshold_steps = nn.Parameter(torch.zeros(classes - 2))
        self._classes = classes
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew; the thresholds are set, not drawn."""
        nn.init.normal_(self.linear.weight, std=_INITIAL_STD)
        if self.linear.bias is not None:
            nn.init.zeros_(self.linear.bias)
        if self.kind == "linear":
            return
        grades = torch.arange(1, self._classes, dtype=torch.float32)
        with torch.no_grad():
            if self.kind == "corn":
                self.linear.bias.copy_(torch.log(self._classes - grades))
            elif self.first_threshold is not None and self.threshold_steps is not None:
                thresholds = torch.log((self._classes - grades) / grades)
                self.first_threshold.copy_(thresholds[:1])
                self.threshold_steps.copy_(torch.log(torch.expm1(thresholds[:-1] - thresholds[1:] - _SMALLEST_STEP)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[B, D] -> [B, K] or [B, L]; [B, O, Kmax] padded with -inf; [B, K-1] for corn and coral."""
        raw: torch.Tensor = self.linear(self.dropout(self.norm(features)))
        if self._counts:
            return _padded(raw, self._counts)
        if self.first_threshold is not None and self.threshold_steps is not None:
            steps = F.softplus(self.threshold_steps) + _SMALLEST_STEP
            return raw + torch.cat([self.first_threshold, self.first_threshold - torch.cumsum(steps, 0)])
        return raw


def _padded(raw: torch.Tensor, counts: tuple[int, ...]) -> torch.Tensor:
    widest = max(counts)
    parts = [
        F.pad(part, (0, widest - part.shape[-1]), value=float("-inf"))
        for part in torch.split(raw, list(counts), dim=-1)
    ]
    return torch.stack(parts, dim=-2)


def decode(raw: torch.Tensor, target: Target, kind: HeadKind = "linear") -> torch.Tensor:
    """Raw outputs of a head -> the logits that are stored, float32, shape [B, *target.logits_shape].

    The outputs of a linear head, and of neighbours, are logits already. Ordinal heads become log class probabilities,
    in log space throughout: corn chains P(y > k | y > k-1) = sigmoid(raw_k), so that log P(y = k) is
    sum_{j<k} log sigmoid(raw_j) plus log sigmoid(-raw_k); coral has P(y > k) = sigmoid(raw_k), whose differences factor
    as sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)).
    """
    raw = raw.float()
    if kind in {"linear", "knn"}:
        return raw
    if raw.shape[-1] != target.num_classes - 1:
        raise UsageProblem(
            f"a {kind} head of {target.num_classes} classes has {target.num_classes - 1} outputs, not {raw.shape[-1]}",
            code="bad-head",
        )
    above, below = F.logsigmoid(raw), F.logsigmoid(-raw)
    if kind == "corn":
        reached = F.pad(torch.cumsum(above, -1), (1, 0))
        return reached + F.pad(below, (0, 1))
    gaps = (raw[..., :-1] - raw[..., 1:]).clamp_min(_SMALLEST_STEP)  # rounding may close a gap the head keeps open
    between = above[..., :-1] + below[..., 1:] + torch.log(-torch.expm1(-gaps))
    return torch.cat([below[..., :1], between, above[..., -1:]], -1)
