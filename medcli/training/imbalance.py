"""Which balancing, mixing and augmenting settings fit a target, and what they do to its probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medcli.data.augment import Augmentation, modality_named
from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.settings.groups import TrainingSettings
from medcli.training.label_guards import Swap, flip_of, plan_swap, refuse_wrong_sides
from medcli.training.losses import LossName
from medcli.training.mixing import Mixing
from medcli.training.sampling import balanced_chances, refuse_absent_classes

__all__ = [
    "adjustment_of",
    "augmentation_of",
    "balance_notes",
    "distortions",
    "fit_balance",
    "mixing_of",
    "prior_logits",
]


def fit_balance(
    target: Target, loss: LossName, training: TrainingSettings, labels: npt.NDArray[Any] | None
) -> Swap | None:
    """Refuse what does not fit, and say which labels change sides with a mirrored image.

    Args:
        target: what is predicted.
        loss: the loss, chosen to fit the target.
        training: how to learn.
        labels: the training labels, where there are any.

    Raises:
        UsageProblem: ranks that cannot be mixed or shifted, a class that cannot be drawn, an unknown kind of picture,
            augmentation that would make labels wrong.
    """
    if loss in ("corn", "coral"):
        for flag, value in (("--mixup", training.mixup), ("--cutmix", training.cutmix)):
            if value:
                raise _ranks(flag, f"loss `{loss}` asks which rank an image reaches, and a mixture of two has none")
        if training.logit_adjust:
            raise _ranks(
                "--logit-adjust", f"loss `{loss}` has one output per step between grades, so no class to adjust"
            )
    if training.sampler == "balanced" and labels is not None:
        balanced_chances(target, labels)
        refuse_absent_classes(target, labels)
    if training.modality:
        modality_named(training.modality)
    swap = plan_swap(target, training.swap_on_flip)
    refuse_wrong_sides(target, training, swap)
    return swap


def _ranks(flag: str, why: str) -> UsageProblem:
    return UsageProblem(
        f"`{flag}` does not fit: {why}",
        where=flag,
        hint=f"use `--loss ce`, or leave `{flag}` out",
        code="does-not-fit-ranks",
    )


def prior_logits(target: Target, labels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """What logit adjustment adds to the outputs per unit of tau (Menon et al., ICLR 2021): the logarithm of each prior.

    A class without a training image counts as if it had one.

    Returns:
        [K], [O, Kmax] for multioutput (0 where an output has fewer classes), or the log odds of each label [L].
    """
    if target.task == "multilabel":
        positive = np.maximum((labels == 1).sum(axis=0), 1)
        negative = np.maximum((labels == 0).sum(axis=0), 1)
        odds: npt.NDArray[np.float32] = np.log(positive / negative).astype(np.float32)
        return odds
    if target.task == "multioutput":
        rows = np.zeros((len(target.outputs), target.num_classes), dtype=np.float32)
        for position, output in enumerate(target.outputs):
            known = labels[:, position]
            rows[position, : len(output.classes)] = _log_prior(known[known >= 0], len(output.classes))
        return rows
    return _log_prior(labels, target.num_classes)


def adjustment_of(
    training: TrainingSettings, target: Target, labels: npt.NDArray[Any]
) -> npt.NDArray[np.float32] | None:
    """What `--logit-adjust` adds to the raw outputs of every training case, or None; shaped as `prior_logits`."""
    if not training.logit_adjust:
        return None
    scaled: npt.NDArray[np.float32] = (training.logit_adjust * prior_logits(target, labels)).astype(np.float32)
    return scaled


def augmentation_of(training: TrainingSettings, seed: int) -> Augmentation | None:
    """What happens to training images, or None for nothing."""
    flip = flip_of(training)
    if training.augment == "none" and flip == "none":
        return None
    return Augmentation(training.augment, flip, seed, training.modality)


def mixing_of(training: TrainingSettings, seed: int) -> Mixing | None:
    """How batches are mixed, or None for not at all."""
    return Mixing(training.mixup, training.cutmix, seed) if training.mixup or training.cutmix else None


def _log_prior(labels: npt.NDArray[Any], size: int) -> npt.NDArray[np.float32]:
    counts = np.maximum(np.bincount(labels.astype(np.int64), minlength=size), 1)
    prior: npt.NDArray[np.float32] = np.log(counts / counts.sum()).astype(np.float32)
    return prior


def distortions(training: TrainingSettings, loss: LossName) -> tuple[str, ...]:
    """The settings that make the probabilities of a training differ from the frequencies in its data."""
    reasons = (
        (f"`--loss {loss}`", loss in ("focal", "asl")),
        ("`--class-weights`", training.class_weights != "none"),
        ("`--sampler balanced`", training.sampler == "balanced"),
        ("`--logit-adjust`", training.logit_adjust > 0),
        ("`--label-smoothing`", training.label_smoothing > 0),
        ("`--mixup`", training.mixup > 0),
        ("`--cutmix`", training.cutmix > 0),
    )
    return tuple(name for name, acts in reasons if acts)


def balance_notes(training: TrainingSettings, loss: LossName) -> list[str]:
    """Sentences the user should read."""
    notes = []
    if reasons := distortions(training, loss):
        notes.append(
            f"probabilities: {', '.join(reasons)} distort{'s' if len(reasons) == 1 else ''} them, so calibrate on "
            "untouched data (neither resampled nor mixed, not used for training) before reading them as probabilities"
        )
    if training.sampler == "balanced" and training.class_weights in ("balanced", "sqrt", "effective"):
        notes.append(
            f"rare classes count twice more: `--sampler balanced` and `--class-weights {training.class_weights}` both "
            "favour them"
        )
    if training.augment in ("randaugment", "autoaugment") and not training.modality:
        notes.append(
            f"`--augment {training.augment}` is used as published, with posterise, solarise, equalise and colour "
            "changes; `--modality NAME` leaves out what that kind of picture does not bear"
        )
    return notes
