"""Which training images are drawn how often: every class as often as the others, however rare it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.target import Target
from medcli.errors import UsageProblem

__all__ = ["balanced_chances", "refuse_absent_classes"]


def balanced_chances(target: Target, labels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The chance of each training image at every draw, such that each class is drawn equally often.

    For multilabel an image counts for the rarest label it has, and an image without any for a group of its own; the
    chance is in proportion to 1 over the size of that label or group, so that rare labels are seen often, though not
    equally often (images have several).

    Args:
        target: what is predicted.
        labels: the training labels, shaped as `Target` says.

    Returns:
        float64 [n], of sum 1.

    Raises:
        UsageProblem: multioutput.
    """
    if target.task == "multioutput":
        raise UsageProblem(
            "a balanced sampler needs one label per image; this target has "
            f"{len(target.outputs)}, whose rare classes fall on different images",
            where="--sampler",
            hint="use `--class-weights balanced`, which weighs every output by itself",
            code="sampler-does-not-fit",
        )
    if target.task == "multilabel":
        positive = labels == 1
        sizes = positive.sum(axis=0)
        # A label that is missing is not known to be positive.
        rarest = np.where(positive, sizes, len(labels) + 1).min(axis=1, initial=len(labels) + 1)
        without = rarest > len(labels)
        chances = 1.0 / np.where(without, without.sum(), rarest)
    else:
        counts = np.bincount(labels.astype(np.int64), minlength=target.num_classes)
        chances = 1.0 / counts[labels.astype(np.int64)]
    normed: npt.NDArray[np.float64] = chances / chances.sum()
    return normed


def refuse_absent_classes(target: Target, labels: npt.NDArray[Any]) -> None:
    """A class without a training image cannot be drawn as often as the others.

    Raises:
        UsageProblem: such a class; of multilabel, whose labels share images, never.
    """
    if target.task == "multilabel":
        return
    counts = np.bincount(labels.astype(np.int64), minlength=target.num_classes)
    absent = [f"`{target.class_names[position]}`" for position in np.flatnonzero(counts == 0)]
    if absent:
        raise UsageProblem(
            f"the training split has no image of {', '.join(absent)}, which cannot be drawn as often as the others",
            where="--sampler",
            hint="draw other splits with `--split-seed`, or use `--class-weights balanced`",
            code="sampler-without-class",
        )
