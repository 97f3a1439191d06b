"""Where a transformer attends: one block's attention, or how attention carries patches through all blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from medcli.errors import UsageProblem
from medcli.explain.layers import feature_grid, reads_patches
from medcli.explain.questions import Question
from medcli.models.classifier import Classifier

__all__ = ["Reading", "attention_map", "gradient_rollout", "reading", "rollout", "rollout_map"]

_MOST_PREFIX = 32


@dataclass(frozen=True)
class Reading:
    """How the tokens of a network become an answer.

    Args:
        grid: rows and columns of the patches.
        prefix: tokens before them.
        pooled: whether the answer is read from the patches' mean; otherwise from the first token.
    """

    grid: tuple[int, int]
    prefix: int
    pooled: bool

    def as_map(self, relevance: Tensor) -> Tensor:
        """Rows of how much each token takes from each other, [B, N, N] -> what the answer takes from patches [B, h, w].

        What prefix tokens hold back is left out.
        """
        rows = relevance[:, self.prefix :].mean(1) if self.pooled else relevance[:, 0]
        return rows[:, self.prefix :].reshape(len(rows), *self.grid)


def reading(classifier: Classifier, images: Tensor, question: Question, tokens: int) -> Reading:
    """Find out how `tokens` tokens lie in the picture and which of them the answer is read from.

    Raises:
        UsageProblem: they are not the patches of the picture.
    """
    grid = feature_grid(classifier, images)
    if grid is None:
        height, width = images.shape[-2:]
        for prefix in range(min(_MOST_PREFIX, tokens)):
            rows = round(((tokens - prefix) * height / width) ** 0.5)
            if rows and rows * round(rows * width / height) == tokens - prefix:
                return Reading((rows, (tokens - prefix) // rows), prefix, pooled=not prefix)
        raise _no_patches(tokens)
    prefix = tokens - grid[0] * grid[1]
    if not 0 <= prefix <= _MOST_PREFIX:
        raise _no_patches(tokens)
    if not prefix:
        return Reading(grid, 0, pooled=True)
    return Reading(grid, prefix, pooled=reads_patches(classifier, images, question))


def attention_map(classifier: Classifier, images: Tensor, block: int) -> Tensor:
    """Attention of one block, its heads averaged, [B, N, N].

    Raises:
        UsageProblem: the backbone has no attention over the whole picture, or no such block.
    """
    return classifier.attention_maps(images, layer=block).mean(1)


def rollout(attentions: Iterable[Tensor]) -> Tensor:
    """Attention rollout (Abnar & Zuidema 2020): how much of each token's input ends in each token, [B, N, N].

    Every block passes half of a token on as it is and mixes half by its attention; the rows of the result sum to 1.

    Args:
        attentions: of the blocks in order, heads averaged, [B, N, N] each.

    Raises:
        ValueError: there are none.
    """
    carried: Tensor | None = None
    for attention in attentions:
        step = attention.float()
        step = (step + torch.eye(step.shape[-1], device=step.device)) / 2
        step = step / step.sum(-1, keepdim=True)
        carried = step if carried is None else step @ carried
    if carried is None:
        raise ValueError("no attention to roll out")
    return carried


def rollout_map(classifier: Classifier, images: Tensor) -> Tensor:
    """Rollout of every block of a classifier for images [B, C, S, S], [B, N, N]."""
    watch = getattr(classifier.backbone, "watch_attention", None)
    if watch is not None:
        with torch.no_grad(), watch(lambda attention: attention.mean(1)) as caught:
            classifier(images)
        return rollout(caught)
    return rollout(_one_by_one(classifier, images))


def gradient_rollout(classifier: Classifier, images: Tensor, question: Question) -> Tensor:
    """Attention that speaks for one class (Chefer, Gur & Wolf 2021, self-attention), [B, N, N].

    In every block the positive part of attention times its gradient, its heads averaged, is added along the paths that
    lead to the answer.

    Raises:
        UsageProblem: the backbone does not show its attention with gradients.
    """
    watch = getattr(classifier.backbone, "watch_attention", None)
    if watch is None:
        raise UsageProblem(
            "this backbone does not show its attention with gradients",
            where="--method gradient-rollout",
            hint="`--method rollout`, or `--method occlusion`",
            code="no-gradient",
        )
    with torch.enable_grad(), watch() as caught:
        raw = classifier(images.detach().clone().requires_grad_())
        score = question.score(classifier.decode(raw)).sum()
        gradients = torch.autograd.grad(score, caught)
    tokens = caught[0].shape[-1]
    relevance = torch.eye(tokens, device=images.device).expand(len(images), -1, -1)
    for attention, gradient in zip(caught, gradients, strict=True):
        step = (attention.detach() * gradient).clamp_min(0).mean(1)
        relevance = relevance + step @ relevance
    return relevance - torch.eye(tokens, device=images.device)


def _one_by_one(classifier: Classifier, images: Tensor) -> Iterable[Tensor]:
    """Attention of a backbone that shows one block at a time; it does not say how many there are."""
    block = 0
    while True:
        try:
            attention = attention_map(classifier, images, block)
        except (UsageProblem, IndexError):
            if not block:
                raise
            return
        yield attention
        block += 1


def _no_patches(tokens: int) -> UsageProblem:
    return UsageProblem(
        f"the {tokens} tokens of this backbone are not the patches of the picture",
        hint="`--method occlusion` works for any network",
        code="no-attention",
    )
