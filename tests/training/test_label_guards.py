"""Labels that name a side: never wrong after mirroring, either refused or exchanged exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.settings.groups import TrainingSettings
from medcli.training.engine import prepare
from medcli.training.label_guards import Swap, flip_of, plan_swap, refuse_wrong_sides
from medcli.training.plan import Plan

GRADES = ("0", "1", "2", "3")
ZONE_NAMES = ("right_sup", "left_sup", "right_mid", "left_mid", "right_inf", "left_inf")
ZONES = Target("multioutput", outputs=tuple(Output(name, GRADES, ordinal=True) for name in ZONE_NAMES))
ZONE_PAIRS = ("left_sup:right_sup", "left_mid:right_mid", "left_inf:right_inf")
FINDINGS = Target("multilabel", ("nodule left", "nodule right", "effusion"))
ORGANS = Target("multiclass", ("liver", "kidney-left", "kidney-right"))
NAN = float("nan")


def refused(target: Target, swap: Swap | None = None, **settings: Any) -> UsageProblem | None:
    try:
        refuse_wrong_sides(target, TrainingSettings(**settings), swap)
    except UsageProblem as problem:
        return problem
    return None


def test_six_zones_change_sides_exactly() -> None:
    swap = plan_swap(ZONES, ZONE_PAIRS)
    assert swap is not None
    labels = torch.tensor([[0, 1, 2, 3, 1, -1], [0, 1, 2, 3, 1, -1]])
    assert swap(labels, torch.tensor([True, False])).tolist() == [[1, 0, 3, 2, -1, 1], [0, 1, 2, 3, 1, -1]]
    assert torch.equal(swap(swap(labels, torch.tensor([True, True])), torch.tensor([True, True])), labels)
    assert labels.tolist()[0] == [0, 1, 2, 3, 1, -1]


def test_findings_change_sides_with_what_is_missing() -> None:
    swap = plan_swap(FINDINGS, ("nodule left:nodule right",))
    assert swap is not None
    result = swap(torch.tensor([[1.0, NAN, 0.0], [1.0, 0.0, NAN]]), torch.tensor([True, False]))
    assert [[None if math.isnan(x) else x for x in row] for row in result.tolist()] == [[None, 1, 0], [1, 0, None]]


def test_classes_that_are_sides_change_places() -> None:
    swap = plan_swap(ORGANS, ("kidney-left:kidney-right",))
    assert swap is not None
    assert swap(torch.tensor([0, 1, 2, 1]), torch.tensor([True, True, True, False])).tolist() == [0, 2, 1, 1]


@pytest.mark.parametrize("target", [ZONES, FINDINGS, ORGANS])
def test_every_augmentation_that_mirrors_is_refused(target: Target) -> None:
    for flip in ("horizontal", "both"):
        for augment in ("none", "light", "randaugment"):
            assert refused(target, flip=flip, augment=augment) is not None
    for modality in ("fundus", "dermoscopy", "histology", "blood", "tissue", "oct", "ultrasound"):
        assert refused(target, augment="modality", modality=modality) is not None
    for modality in ("chest-xray", "ct", "mri", "mammography"):
        assert refused(target, augment="modality", modality=modality) is None
        assert refused(target, augment="modality", modality=modality, flip="horizontal") is not None
    assert refused(target, flip="vertical") is None
    assert refused(target, augment="randaugment") is None
    for modality in ("oct", "ultrasound"):
        assert refused(target, augment="modality", modality=modality, flip="none") is None


def test_a_turn_by_a_right_angle_is_refused_even_where_labels_change_sides() -> None:
    swap = plan_swap(ZONES, ZONE_PAIRS)
    for modality in ("fundus", "dermoscopy"):
        for flip in (None, "horizontal"):
            problem = refused(ZONES, swap, augment="modality", modality=modality, flip=flip)
            assert problem is not None
            assert problem.code == "turn-breaks-labels"
            assert refused(ZONES, augment="modality", modality=modality, flip="none") is not None
        assert refused(ZONES, swap, augment="light", flip="horizontal") is None


def test_swapping_some_sides_is_not_enough_and_the_hint_names_the_next() -> None:
    problem = refused(ZONES, plan_swap(ZONES, ZONE_PAIRS[:2]), flip="horizontal")
    assert problem is not None
    assert "`right_inf`, `left_inf`" in problem.message
    assert "--swap-on-flip left_inf:right_inf" in str(problem.hint)
    assert refused(ZONES, plan_swap(ZONES, ZONE_PAIRS), flip="horizontal") is None


def test_classes_inside_an_output_stay_where_they_are() -> None:
    sided = Target("multioutput", outputs=(Output("a", ("left", "right")), Output("b", ("left", "right"))))
    assert refused(sided, plan_swap(sided, ("a:b",)), flip="horizontal") is not None


@pytest.mark.parametrize(
    ("pairs", "target", "words"),
    [
        (("left_sup",), ZONES, "no pair"),
        (("left_sup:right_supp",), ZONES, "no label `right_supp`"),
        (("left_sup:right_sup", "left_sup:left_mid"), ZONES, "already has a partner"),
        (("left_sup:left_sup",), ZONES, "already has a partner"),
        (("0:1",), Target("ordinal", GRADES), "no sides"),
        (("a:b",), Target("multioutput", outputs=(Output("a", ("0", "1")), Output("b", GRADES))), "the same classes"),
    ],
)
def test_what_is_no_swap_is_refused(pairs: tuple[str, ...], target: Target, words: str) -> None:
    with pytest.raises(UsageProblem, match=words) as problem:
        plan_swap(target, pairs)
    assert problem.value.where == "--swap-on-flip"
    if "right_supp" in words:
        assert "`right_sup`?" in str(problem.value.hint)


def test_a_swap_that_could_never_act_is_refused() -> None:
    swap = plan_swap(ZONES, ZONE_PAIRS)
    for flip in (None, "none", "vertical"):
        problem = refused(ZONES, swap, flip=flip)
        assert problem is not None
        assert "acts only" in problem.message


def test_names_may_hold_colons() -> None:
    swap = plan_swap(Target("multilabel", ("a:left", "a:right")), ("a:left:a:right",))
    assert swap == Swap((1, 0), classes=False)


def test_the_user_decides_about_mirroring_before_the_kind_of_picture() -> None:
    assert flip_of(TrainingSettings()) == "none"
    assert flip_of(TrainingSettings(augment="modality", modality="oct")) == "horizontal"
    assert flip_of(TrainingSettings(augment="modality", modality="oct", flip="none")) == "none"
    assert flip_of(TrainingSettings(augment="randaugment", modality="oct")) == "none"


def test_the_loop_swaps_the_labels_of_just_the_images_it_mirrors(
    make_plan: Callable[..., Plan], make_archive: Callable[..., Any]
) -> None:
    data = (str(make_archive("sided.npz", labels=2)),)
    plan = make_plan(
        data=data, class_names=("nodule left", "nodule right"), task="multilabel", flip="horizontal",
        swap_on_flip=("nodule left:nodule right",),
    )  # fmt: skip
    parts = prepare(plan).parts
    assert parts.augment is not None
    for batch in parts.batches.epoch(1):
        mirrored = parts.augment.mirrored(batch.index, 1)
        images = parts.augment(batch.images, batch.index, 1)
        for image, original, swapped in zip(images, batch.images, mirrored, strict=True):
            assert torch.equal(image, original.flip(-1) if swapped else original)
        labels = parts.labels(batch, 1)
        assert torch.equal(labels[mirrored], batch.labels[mirrored].flip(1))
        assert torch.equal(labels[~mirrored], batch.labels[~mirrored])
