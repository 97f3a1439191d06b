"""Answers of members as one: what must agree, what differs is named, what is pooled is the mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medcli.data.target import Target
from medcli.ensemble.joining import Answers, join
from medcli.errors import UsageProblem
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.scores import softmax

TARGET = Target("multiclass", ("a", "b", "c"))


def predictions(seed: int, split: str = "test", cases: int = 40) -> Predictions:
    labels = np.random.default_rng(99).integers(0, 3, cases)
    logits = np.random.default_rng(seed).normal(size=(cases, 3)) + np.eye(3)[labels]
    ids = np.array([f"{split} {index}" for index in range(cases)])
    return Predictions(ids, labels, logits.astype(np.float32), TARGET, split=split, data_name="set")


def answers(seed: int) -> Answers:
    return Answers(f"m{seed}", {split: predictions(seed, split) for split in ("val", "test")})


def test_scores_are_the_mean_of_the_members_scores() -> None:
    members = [answers(seed) for seed in range(4)]
    joined = join(members)
    assert list(joined.by_split) == ["val", "test"]
    mean = np.mean([softmax(one.by_split["test"].logits) for one in members], axis=0)
    assert np.allclose(softmax(joined.by_split["test"].logits), mean, atol=1e-12)
    assert joined.by_split["test"].member_logits is not None
    assert joined.by_split["test"].member_logits.shape == (4, 40, 3)
    assert not joined.notes


def test_weights_come_from_validation_cases() -> None:
    good, bad = answers(0), answers(1)
    bad = Answers("bad", {split: replace(one, logits=-one.logits) for split, one in bad.by_split.items()})
    joined = join([good, bad], "val")
    assert joined.weights[0] > 0.99
    assert joined.by_split["test"].member_weights is not None
    alone = Answers("alone", {"test": good.by_split["test"]})
    with pytest.raises(UsageProblem, match="validation cases"):
        join([alone, replace(alone, name="other")], "val")


def test_the_order_of_cases_may_differ() -> None:
    one, other = answers(0), answers(1)
    test = other.by_split["test"]
    turned = replace(test, ids=test.ids[::-1], labels=test.labels[::-1], logits=test.logits[::-1])
    first = join([one, other]).by_split["test"]
    second = join([one, Answers("turned", {**other.by_split, "test": turned})]).by_split["test"]
    assert np.array_equal(first.logits, second.logits)
    assert np.array_equal(first.ids, second.ids)


def changed(**values: object) -> Answers:
    base = predictions(1)
    return Answers("other", {"test": replace(base, **values)})  # type: ignore[arg-type]


OTHER_LABELS = predictions(1).labels.copy()
OTHER_LABELS[3] = (OTHER_LABELS[3] + 1) % 3


@pytest.mark.parametrize(
    ("other", "code", "said"),
    [
        (changed(target=Target("ordinal", TARGET.class_names)), "other-target", "multiclass and ordinal"),
        (changed(target=Target("multiclass", ("a", "c", "b"))), "other-target", "in another order"),
        (changed(target=Target("multiclass", ("a", "b", "x"))), "other-target", "a, b, x"),
        (changed(ids=np.array([f"site {index}" for index in range(40)])), "other-cases", "40 of the first"),
        (changed(labels=OTHER_LABELS), "other-labels", "first for `test 3`"),
        (Answers("other", {"val": predictions(1, "val")}), "no-split", "`other` has val"),
    ],
)
def test_what_differs_is_named(other: Answers, code: str, said: str) -> None:
    first = Answers("first", {"test": predictions(0)})
    with pytest.raises(UsageProblem) as refused:
        join([first, other])
    assert refused.value.code == code
    assert said in refused.value.message


def test_a_subset_of_the_cases_is_not_enough() -> None:
    base = predictions(1)
    fewer = replace(base, ids=base.ids[:30], labels=base.labels[:30], logits=base.logits[:30])
    with pytest.raises(UsageProblem, match="10 of the first are not among the second"):
        join([Answers("all", {"test": predictions(0)}), Answers("fewer", {"test": fewer})])


def test_clones_and_calibrated_members_are_remarked_upon() -> None:
    one = answers(0)
    (note,) = join([one, Answers("twin", one.by_split)]).notes
    assert "`twin` answers exactly as `m0`" in note
    calibrated = {split: replace(two, calibrated="temperature") for split, two in answers(1).by_split.items()}
    (note,) = join([one, Answers("calm", calibrated)]).notes
    assert "under-confident" in note
    (note,) = join([one, Answers("half", {"test": predictions(2)})]).notes
    assert note.startswith("val is left out: half")
