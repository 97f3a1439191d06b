"""Explanations that change the picture and watch the answer: occlusion, and gradients along a path of changes.

They ask nothing of the architecture. Both compare with the picture's own mean grey (or colour), which holds no
structure and, unlike black, is not the outside of the body.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from medcli.errors import UsageProblem
from medcli.explain.questions import Question
from medcli.models.classifier import Classifier
from medcli.registry.layout import install_line

__all__ = ["integrated_gradients", "occlusion", "require_captum"]

_SHARE = 8
_STEPS = 48


def require_captum(method: str) -> None:
    """Check that what this method needs is installed.

    Raises:
        UsageProblem: naming the extra that brings it.
    """
    if find_spec("captum") is None:
        raise UsageProblem(
            f"`{method}` needs the package `captum`, which is not installed",
            where="--method",
            hint=install_line(("medcli[explain]",)),
            code="missing-extra",
        )


def occlusion(classifier: Classifier, images: Tensor, question: Question, *, batch_size: int = 32) -> Tensor:
    """How much the score falls when a square of the picture is hidden (Zeiler & Fergus 2014), [B, S, S], >= 0.

    The square has an eighth of the picture's side and moves by half its side, so that there are about 225 passes.

    Args:
        images: [B, C, S, S], normalised.
        question: whose score falls.
        batch_size: changed pictures per pass.
    """
    attribution = import_module("captum.attr").Occlusion(_scored(classifier, question))
    channels, side = images.shape[1], max(1, round(images.shape[-1] / _SHARE))
    stride = max(1, side // 2)
    fallen: Tensor = attribution.attribute(
        images,
        sliding_window_shapes=(channels, side, side),
        strides=(channels, stride, stride),
        baselines=_mean(images),
        perturbations_per_eval=max(1, batch_size // len(images)),
    )
    return fallen[:, 0].clamp_min(0)


def integrated_gradients(
    classifier: Classifier, images: Tensor, question: Question, *, batch_size: int = 32
) -> tuple[Tensor, float]:
    """Integrated gradients (Sundararajan et al. 2017) from the mean grey to the picture.

    Args:
        images: [B, C, S, S], normalised.
        question: whose score is taken apart.
        batch_size: pictures per pass.

    Returns:
        what speaks for the class, added over channels, [B, S, S], >= 0; and the largest difference between the sum of
        all attributions and the change of the score, as a share of that change: the error of the path's steps.
    """
    method = import_module("captum.attr").IntegratedGradients(_scored(classifier, question))
    start = _mean(images)
    parts, gap = method.attribute(
        images.detach().clone(),
        baselines=start,
        n_steps=_STEPS,
        internal_batch_size=max(batch_size, len(images)),
        return_convergence_delta=True,
    )
    whole = parts.sum((1, 2, 3)) - gap
    error = (gap.abs() / whole.abs().clamp_min(1e-6)).max()
    return parts.detach().sum(1).clamp_min(0), float(error)


def _mean(images: Tensor) -> Tensor:
    return images.mean((2, 3), keepdim=True).expand_as(images)


def _scored(classifier: Classifier, question: Question) -> Any:
    """The score as a module of its own, for captum."""
    return _Scored(classifier, question)


class _Scored(nn.Module):
    def __init__(self, classifier: Classifier, question: Question) -> None:
        super().__init__()
        self.classifier = classifier
        self.question = question

    def forward(self, images: Tensor) -> Tensor:
        return self.question.score(self.classifier.decode(self.classifier(images)))
