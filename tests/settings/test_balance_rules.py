"""Settings of balancing, mixing and augmenting that contradict each other or could not act."""

from __future__ import annotations

from typing import Any

import pytest

from medcli.errors import Problems, UsageProblem
from medcli.settings.resolve import resolve

NOBODY = {"HOME": "/nowhere"}


def complaint(given: dict[str, Any], command: str) -> str:
    try:
        resolve(command, given, environ=NOBODY)
    except Problems as several:
        return " / ".join(problem.message for problem in several.problems)
    except UsageProblem as problem:
        return problem.message
    return ""


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"augment": "modality"}, "needs the kind of picture"),
        ({"modality": "ct"}, "`--modality` acts only with"),
        ({"modality": "ct", "augment": "heavy"}, "`--modality` acts only with"),
        ({"sampler": "balanced", "logit_adjust": 1.0}, "both undo how often a class occurs"),
        ({"mixup": -0.1}, "at least 0"),
        ({"cutmix": -1.0}, "at least 0"),
        ({"logit_adjust": -1.0}, "at least 0"),
        ({"sampler": "even"}, "`balanced`"),
        ({"augment": "randomaugment"}, "`randaugment`"),
    ],
)
@pytest.mark.parametrize("command", ["train", "finetune"])
def test_a_contradiction_is_said(given: dict[str, Any], part: str, command: str) -> None:
    strategy = {"strategy": "full"} if command == "finetune" else {}
    assert part in complaint(given | strategy, command)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"mixup": 0.2}, "`--mixup` mixes images"),
        ({"cutmix": 0.2}, "`--cutmix` mixes images"),
        ({"feature_views": 2, "augment": "none"}, "needs an augmentation"),
        ({"feature_views": 2, "augment": "none", "flip": "none"}, "needs an augmentation"),
        ({"feature_views": 2, "flip": "horizontal", "swap_on_flip": ("a:b",)}, "keeps one label for all views"),
    ],
)
def test_features_that_are_computed_once_are_not_mixed(given: dict[str, Any], part: str) -> None:
    assert part in complaint({"strategy": "frozen", **given}, "finetune")


@pytest.mark.parametrize(
    "given",
    [
        {"augment": "modality", "modality": "ct"},
        {"augment": "randaugment", "modality": "oct", "flip": "horizontal"},
        {"augment": "autoaugment"},
        {"sampler": "balanced", "mixup": 0.2, "cutmix": 1.0},
        {"logit_adjust": 1.0, "class_weights": "balanced"},
        {"flip": "horizontal", "swap_on_flip": ("a:b", "c:d")},
    ],
)
def test_what_fits_is_left_alone(given: dict[str, Any]) -> None:
    assert not complaint(given, "train")


def test_several_pairs_may_stand_in_one_text() -> None:
    environ = {**NOBODY, "MEDCLI_SWAP_ON_FLIP": "a:b,c:d"}
    assert resolve("train", {"flip": "horizontal"}, environ=environ).values["swap_on_flip"] == ("a:b", "c:d")
