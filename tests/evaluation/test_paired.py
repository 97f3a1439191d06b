"""The difference of two models, judged on the same resampled patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.evaluation.paired import paired_areas, paired_difference
from medcli.evaluation.predictions import Predictions
from medcli.settings.groups import EvaluationSettings

SETTINGS = EvaluationSettings(bootstrap=200)


def make(seed: int, n: int = 120, strength: float = 1.0) -> Predictions:
    labels = np.random.default_rng(7).integers(0, 2, n)
    noise = np.random.default_rng(seed).normal(size=n)
    score = (strength * (labels - 0.5) + noise).astype(np.float32)
    ids = np.array([f"case {i}" for i in range(n)])
    patients = np.array([f"p{i // 3}" for i in range(n)])
    logits = np.stack([-score / 2, score / 2], axis=1)
    return Predictions(ids, labels, logits, Target("binary", ("no", "yes")), patients=patients)


def test_a_model_does_not_differ_from_itself() -> None:
    found = paired_difference(make(1), make(1), "auc", SETTINGS)
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert (found.n, found.patients, found.left_out) == (120, 40, 0)


def test_the_value_is_the_difference_of_the_figures() -> None:
    one, other = make(1), make(2, strength=3.0)
    found = paired_difference(one, other, "auc", SETTINGS)
    expected = [roc_auc_score(each.labels, each.logits[:, 1]) for each in (one, other)]
    assert [found.first, found.second] == pytest.approx(expected)
    assert found.value == pytest.approx(expected[1] - expected[0])
    assert found.low < found.value < found.high
    assert found.low > 0


def test_the_interval_is_that_of_a_bootstrap_written_by_hand() -> None:
    one, other = make(1), make(2)
    found = paired_difference(one, other, "accuracy", EvaluationSettings(bootstrap=4000))
    gain = (other.logits.argmax(1) == other.labels).astype(float) - (one.logits.argmax(1) == one.labels)
    per_patient = gain.reshape(40, 3)
    majority = one.labels.reshape(40, 3).sum(1) >= 2
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(4000):
        parts = [generator.choice(np.flatnonzero(majority == side), (majority == side).sum()) for side in (True, False)]
        draws.append(per_patient[np.concatenate(parts)].mean())
    assert [found.low, found.high] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.02)


def test_pairing_is_by_case_whatever_the_order() -> None:
    one, other = make(1), make(2)
    order = np.random.default_rng(0).permutation(len(other))
    assert other.patients is not None
    shuffled = replace(
        other,
        ids=other.ids[order],
        labels=other.labels[order],
        logits=other.logits[order],
        patients=other.patients[order],
    )
    assert paired_difference(one, shuffled, "auc", SETTINGS) == paired_difference(one, other, "auc", SETTINGS)


def test_cases_of_one_alone_are_left_out_and_counted() -> None:
    one, other = make(1), make(2)
    assert other.patients is not None
    part = replace(
        other, ids=other.ids[:90], labels=other.labels[:90], logits=other.logits[:90], patients=other.patients[:90]
    )
    found = paired_difference(one, part, "auc", SETTINGS)
    assert (found.n, found.left_out) == (90, 30)


def test_without_resamples_there_is_no_interval() -> None:
    found = paired_difference(make(1), make(2), "auc", EvaluationSettings(bootstrap=0))
    assert np.isnan(found.low)


def test_what_cannot_be_paired_is_refused() -> None:
    one, other = make(1), make(2)
    for changed, part in (
        (replace(other, target=Target("binary", ("a", "b"))), "different targets"),
        (replace(other, ids=np.array([f"else {i}" for i in range(120)])), "share no case"),
        (replace(other, labels=1 - other.labels), "different labels"),
    ):
        with pytest.raises(UsageProblem, match=part):
            paired_difference(one, changed, "auc", SETTINGS)
    with pytest.raises(UsageProblem, match="no figure"):
        paired_difference(one, other, "nonsense", SETTINGS)


def test_areas_are_compared_as_delong_does_by_patient() -> None:
    one, other = make(1), make(2, strength=3.0)
    found = paired_difference(one, other, "auc", SETTINGS)
    assert found.areas is not None
    assert found.areas.overall.value == pytest.approx(found.value)
    assert (found.areas.overall.low, found.areas.overall.high) == pytest.approx((found.low, found.high), abs=0.03)
    assert found.areas.classes == {}
    assert paired_difference(one, other, "accuracy", SETTINGS).areas is None
    same = paired_difference(one, one, "auc", SETTINGS)
    assert same.areas is not None
    assert same.areas.overall.p == 1
    # Every case three times is the same patient three times: no further evidence.
    alone = replace(one, patients=None), replace(other, patients=None)
    times = np.repeat(np.arange(120), 3)
    tripled = [
        replace(
            each,
            ids=np.array([f"{row} {case}" for row, case in enumerate(times)]),
            labels=each.labels[times],
            logits=each.logits[times],
            patients=times.astype(np.str_),
        )
        for each in alone
    ]
    once, thrice = paired_areas(*alone), paired_areas(*tripled)
    assert once is not None
    assert thrice is not None
    assert thrice.overall.p == pytest.approx(once.overall.p)


def test_many_labels_are_adjusted_and_one_without_positives_is_left_out() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random((200, 4)) < 0.4).astype(np.float32)
    labels[:, 3] = 0
    weak = generator.normal(size=(200, 4)).astype(np.float32)
    strong = weak + 3 * labels * np.array([1, 0, 0, 0], np.float32)
    target = Target("multilabel", tuple("abcd"))
    one, other = (Predictions(np.arange(200).astype(np.str_), labels, logits, target) for logits in (weak, strong))
    found = paired_areas(one, other)
    assert found is not None
    assert list(found.classes) == ["a", "b", "c"]
    assert found.adjusted["a"] < 0.001
    assert found.adjusted["b"] == 1
    assert found.overall.value == pytest.approx(found.classes["a"].value / 3)
