"""The balanced sampler: every class equally often, from seed and epoch alone, and resumed exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from medcli.data.order import earlier, epoch_order
from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.training.engine import prepare
from medcli.training.plan import Plan
from medcli.training.sampling import balanced_chances, refuse_absent_classes

THREE = Target("multiclass", ("a", "b", "c"))
LABELS = np.array([0] * 90 + [1] * 9 + [2] * 1)


def test_every_class_is_equally_likely_and_so_is_every_image_of_it() -> None:
    chances = balanced_chances(THREE, LABELS)
    assert chances.sum() == pytest.approx(1)
    assert [chances[np.equal(LABELS, kind)].sum() for kind in range(3)] == pytest.approx([1 / 3] * 3)
    assert np.ptp(chances[LABELS == 0]) == 0


def test_draws_come_as_often_as_that() -> None:
    chances = balanced_chances(THREE, LABELS)
    drawn = np.concatenate([LABELS[epoch_order(len(LABELS), 0, epoch, chances)] for epoch in range(60)])
    assert np.bincount(drawn) / len(drawn) == pytest.approx([1 / 3] * 3, abs=0.02)


def test_the_order_follows_from_seed_and_epoch_and_is_as_long_as_ever() -> None:
    chances = balanced_chances(THREE, LABELS)
    order = epoch_order(100, 3, 7, chances)
    assert len(order) == 100
    assert (order == epoch_order(100, 3, 7, chances)).all()
    assert (order != epoch_order(100, 3, 8, chances)).any()
    assert (order != epoch_order(100, 4, 7, chances)).any()
    assert (np.sort(epoch_order(100, 3, 7)) == np.arange(100)).all()


def test_multilabel_images_count_for_their_rarest_label() -> None:
    target = Target("multilabel", ("common", "rare"))
    labels = np.array([[1, 0]] * 6 + [[1, 1]] * 2 + [[0, 0]] * 3 + [[np.nan, 0]], dtype=np.float32)
    expected = np.array([1 / 8] * 6 + [1 / 2] * 2 + [1 / 4] * 4)  # 8 common, 2 rare, 4 with neither
    assert balanced_chances(target, labels) == pytest.approx(expected / expected.sum())
    never = Target("multilabel", ("common", "rare", "never"))
    assert balanced_chances(never, np.c_[labels, np.zeros(12)]) == pytest.approx(expected / expected.sum())


def test_an_absent_class_and_several_outputs_are_refused() -> None:
    with pytest.raises(UsageProblem, match="`b`, `c`") as problem:
        refuse_absent_classes(THREE, np.zeros(4))
    assert "--class-weights balanced" in str(problem.value.hint)
    zones = Target("multioutput", outputs=(Output("l", ("0", "1")), Output("r", ("0", "1"))))
    with pytest.raises(UsageProblem, match="one label per image"):
        balanced_chances(zones, np.zeros((3, 2)))


def test_how_often_a_case_came_before() -> None:
    order = np.array([4, 1, 4, 4, 0, 1])
    seen: Counter[int] = Counter()
    expected = []
    for case in order:
        expected.append(seen[case])
        seen[case] += 1
    assert earlier(order).tolist() == expected
    assert earlier(np.arange(5)).tolist() == [0] * 5


def test_batches_resume_exactly_and_repeated_images_are_augmented_anew(make_plan: Callable[..., Plan]) -> None:
    prepared = prepare(make_plan(sampler="balanced", limit=10, batch_size=4, augment="light"))
    batches = prepared.batches["train"]
    whole = list(batches.epoch(3))
    assert sum(len(batch.index) for batch in whole) == len(batches.samples)
    for start in range(len(whole)):
        for one, other in zip(whole[start:], batches.epoch(3, start=start), strict=True):
            assert torch.equal(one.keys, other.keys)
            assert torch.equal(prepared.parts.images(one, 3), prepared.parts.images(other, 3))
    keys = torch.cat([batch.keys for batch in whole])
    cases = torch.cat([batch.index for batch in whole])
    assert len(keys.unique()) == len(keys) > len(cases.unique())
    images = torch.cat([prepared.parts.images(batch, 3) for batch in whole])
    twice = next(int(case) for case in cases if (cases == case).sum() > 1)
    first, second = images[cases == twice][:2]
    assert not torch.equal(first, second)


def test_validation_sees_every_image_once(make_plan: Callable[..., Plan]) -> None:
    prepared = prepare(make_plan(sampler="balanced"))
    ordered = torch.cat([batch.index for batch in prepared.batches["train"].in_order().epoch(0)])
    assert torch.equal(ordered, torch.arange(len(prepared.batches["train"].samples)))
