"""A head that learns nothing: the training cases whose features point the same way vote.

It shows what the backbone alone is worth, a floor below which no fine-tuning should fall.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcli.data.target import Target
from medcli.errors import UsageProblem

__all__ = ["SMALLEST_SHARE", "NearestHead", "too_many_neighbours"]

SMALLEST_SHARE = 1e-6
"""What a class without a single vote counts as, so that logits stay finite; it moves no probability by more."""


class NearestHead(nn.Module):
    """Features [B, D] -> log shares of the votes of the nearest stored cases, by cosine similarity.

    Every vote counts the same. Classes give the logarithm of their share; a label of multilabel the log odds of the
    share of positives. A case whose label is missing does not vote on it: the next nearest case does.

    Args:
        feature_dim: D.
        target: what is predicted.
    """

    stored: Tensor
    labels: Tensor
    neighbours: Tensor

    def __init__(self, feature_dim: int, target: Target) -> None:
        super().__init__()
        self.target = target
        self.register_buffer("stored", torch.zeros(0, feature_dim))
        self.register_buffer("labels", self._no_labels(0))
        self.register_buffer("neighbours", torch.ones((), dtype=torch.int64))

    def _no_labels(self, cases: int) -> Tensor:
        if self.target.task == "multilabel":
            return torch.zeros(cases, self.target.num_classes)
        shape = (cases, len(self.target.outputs)) if self.target.task == "multioutput" else (cases,)
        return torch.zeros(shape, dtype=torch.int64)

    def make_room(self, cases: int) -> None:
        """Take the shape for that many cases, which a state dict then fills."""
        device = self.stored.device
        self.stored = torch.zeros(cases, self.stored.shape[1], device=device)
        self.labels = self._no_labels(cases).to(device)

    def remember(self, features: Tensor, labels: Tensor, neighbours: int) -> None:
        """Store cases.

        Args:
            features: float32 [n, D].
            labels: [n, ...] as `Target` says.
            neighbours: how many vote.

        Raises:
            UsageProblem: more neighbours than cases.
        """
        if not 1 <= neighbours <= len(features):
            raise too_many_neighbours(neighbours, len(features))
        self.make_room(len(features))
        self.stored.copy_(F.normalize(features.float(), dim=1))
        self.labels.copy_(labels)
        self.neighbours.fill_(neighbours)

    def forward(self, features: Tensor) -> Tensor:
        """[B, D] -> [B, K] or [B, L]; [B, O, Kmax] padded with -inf.

        Raises:
            UsageProblem: nothing is stored yet.
        """
        if not len(self.stored):
            raise UsageProblem(
                "this head has no cases to compare with",
                hint="`medcli finetune ARCH --strategy knn --data …` makes a model that has",
                code="no-neighbours",
            )
        # Half precision would confuse neighbours that lie close together.
        with torch.autocast(features.device.type, enabled=False):
            likeness = F.normalize(features.float(), dim=1) @ self.stored.T
        if self.target.task == "multilabel":
            share = self._shares(likeness, self.labels.nan_to_num(-1).long(), 2)[..., 1]
            share = share.clamp(SMALLEST_SHARE, 1 - SMALLEST_SHARE)
            return share.log() - (1 - share).log()
        if self.target.task == "multioutput":
            raw = self._shares(likeness, self.labels, self.target.num_classes).clamp_min(SMALLEST_SHARE).log()
            for position, output in enumerate(self.target.outputs):
                raw[:, position, len(output.classes) :] = float("-inf")
            return raw
        share = self._shares(likeness, self.labels[:, None], self.target.num_classes)[:, 0]
        return share.clamp_min(SMALLEST_SHARE).log()

    def _shares(self, likeness: Tensor, labels: Tensor, classes: int) -> Tensor:
        """Shares of the votes [B, columns, classes] of labels [n, columns], of which -1 does not vote."""
        count = int(self.neighbours)
        known = labels >= 0
        if bool(known.all()):
            return F.one_hot(labels[likeness.topk(count).indices], classes).float().mean(dim=1)
        columns = []
        for column in range(labels.shape[1]):
            voters = known[:, column].nonzero().squeeze(1)
            if not len(voters):
                columns.append(likeness.new_full((len(likeness), classes), 1 / classes))
                continue
            nearest = likeness[:, voters].topk(min(count, len(voters))).indices
            columns.append(F.one_hot(labels[voters, column][nearest], classes).float().mean(dim=1))
        return torch.stack(columns, dim=1)


def too_many_neighbours(neighbours: int, cases: int) -> UsageProblem:
    """The error for more votes than there are cases."""
    return UsageProblem(
        f"{neighbours} neighbours cannot vote among {cases} training images",
        where="--nearest",
        hint=f"`--nearest {max(1, cases // 2)}` or fewer",
        code="too-many-neighbours",
    )
