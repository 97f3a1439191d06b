"""Rules between the settings that change images, labels and how often a case is seen; part of `settings.rules`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medcli.settings.rules import Complaint, Situation

__all__ = ["BALANCE_RULES", "REDUCED_BY_MODALITY"]

REDUCED_BY_MODALITY = ("modality", "randaugment", "autoaugment")
"""The augmentations that ask what kind of picture it is."""


def _modality(now: Situation) -> Iterator[Complaint]:
    if now.values["augment"] == "modality" and not now.values["modality"]:
        yield (
            "`--augment modality` needs the kind of picture",
            ("augment",),
            "add `--modality chest-xray`, or whatever it is",
        )


def _twice(now: Situation) -> Iterator[Complaint]:
    if now.values["sampler"] == "balanced" and now.values["logit_adjust"]:
        yield (
            "`--sampler balanced` and `--logit-adjust` exclude each other: both undo how often a class occurs",
            ("sampler", "logit_adjust"),
            "choose one",
        )


def _views(now: Situation) -> Iterator[Complaint]:
    if now.values["feature_views"] is None:
        return
    if now.values["augment"] == "none" and now.values["flip"] in (None, "none"):
        yield (
            "`--feature-views` needs an augmentation: without one every view of an image is the same",
            ("feature_views",),
            "add `--augment light` or leave it out",
        )
    if now.values["swap_on_flip"]:
        yield (
            "`--feature-views` keeps one label for all views of an image, which `--swap-on-flip` would change",
            ("feature_views", "swap_on_flip"),
            "leave one of them out",
        )


def _unmixable(now: Situation) -> Iterator[Complaint]:
    for name in ("mixup", "cutmix"):
        if now.values["strategy"] == "frozen" and now.values[name]:
            yield (
                f"`--{name}` mixes images, and `--strategy frozen` learns from features that are computed once",
                (name, "strategy"),
                f"leave `--{name}` out, or use `--freeze-layers` with `--strategy full`",
            )


BALANCE_RULES = (
    (("augment", "modality"), _modality),
    (("sampler", "logit_adjust"), _twice),
    (("feature_views", "augment", "flip", "swap_on_flip"), _views),
    (("mixup", "cutmix", "strategy"), _unmixable),
)
"""The settings of each rule, and the rule."""
