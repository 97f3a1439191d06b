"""Splits: shares, classes, patients and determinism, also against scikit-learn's grouped folds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from medcli.data.splits import assign, draw, make_splits, split_hash, strata, val_from_train
from medcli.data.target import Output, Target
from medcli.errors import UsageProblem

TARGET = Target("multiclass", ("a", "b", "c"))
SHARES = (0.7, 0.15, 0.15)


def _patients(count: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and patients: one to eight images each, a patient's images share most labels, classes 70/25/5 %."""
    random = np.random.default_rng(seed)
    labels, patients = [], []
    for patient in range(count):
        kind = random.choice(3, p=[0.7, 0.25, 0.05])
        for _ in range(random.integers(1, 9)):
            labels.append(kind if random.random() < 0.9 else random.integers(3))
            patients.append(f"p{patient}")
    return np.array(labels), np.array(patients)


def _worst(labels: np.ndarray, parts: np.ndarray, share: float) -> float:
    """Largest deviation of a part's share of a class, over classes."""
    return max(abs((parts[labels == kind]).mean() - share) for kind in range(3))


def test_shares_are_exact_without_patients() -> None:
    labels = np.repeat([0, 1, 2], [200, 100, 20])
    splits = make_splits(labels, TARGET, None, SHARES, 0)
    for kind, count in ((0, 200), (1, 100), (2, 20)):
        assert (splits[labels == kind] == "train").sum() == round(0.7 * count)
        assert (splits[labels == kind] == "val").sum() == round(0.15 * count)


def test_a_patient_is_never_divided() -> None:
    labels, patients = _patients()
    splits = make_splits(labels, TARGET, patients, SHARES, 3)
    for patient in set(patients):
        assert len(set(splits[patients == patient])) == 1
    assert (splits == "train").mean() == pytest.approx(0.7, abs=0.02)


def test_stratification_is_at_least_as_good_as_sklearns() -> None:
    for seed in range(3):
        labels, patients = _patients(seed=seed)
        ours = assign(strata(labels, TARGET), patients, (0.8, 0.2), seed) == 1
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, patients)
        theirs = np.zeros(len(labels), dtype=bool)
        theirs[next(iter(folds))[1]] = True
        assert _worst(labels, ours, 0.2) <= _worst(labels, theirs, 0.2) + 0.01


def test_the_seed_decides() -> None:
    labels, patients = _patients()
    first = make_splits(labels, TARGET, patients, SHARES, 0)
    assert (first == make_splits(labels, TARGET, patients, SHARES, 0)).all()
    assert (first != make_splits(labels, TARGET, patients, SHARES, 1)).any()


def test_multilabel_keeps_rare_labels_in_every_split() -> None:
    random = np.random.default_rng(0)
    labels = (random.random((800, 5)) < [0.5, 0.3, 0.1, 0.05, 0.02]).astype(np.float32)
    labels[random.random(labels.shape) < 0.1] = np.nan
    target = Target("multilabel", tuple("abcde"))
    splits = make_splits(labels, target, None, SHARES, 0)
    for label in range(5):
        positive = np.flatnonzero(labels[:, label] == 1)
        assert (splits[positive] == "train").mean() == pytest.approx(0.7, abs=0.08)
        assert {"train", "val", "test"} == set(splits[positive])


def test_multioutput_counts_ignored_labels_too() -> None:
    labels = np.stack([np.arange(120) % 3, np.arange(120) % 4 - 1], axis=1)
    target = Target("multioutput", outputs=(Output("x", ("0", "1", "2")), Output("y", ("0", "1", "2"))))
    splits = make_splits(labels, target, None, (0.5, 0.25, 0.25), 0)
    assert (splits[labels[:, 1] == -1] == "val").mean() == pytest.approx(0.25, abs=0.07)


def test_val_is_drawn_from_train_by_patient() -> None:
    labels, patients = _patients()
    splits = val_from_train(labels, TARGET, patients, SHARES, 0)
    assert set(splits) == {"train", "val"}
    assert (splits == "val").mean() == pytest.approx(0.15 / 0.85, abs=0.02)
    assert not set(patients[splits == "val"]) & set(patients[splits == "train"])


def test_a_share_of_zero_leaves_the_split_out() -> None:
    assert set(make_splits(np.array([0, 1] * 10), TARGET, None, (0, 0, 1), 0)) == {"test"}


@pytest.mark.parametrize("shares", [(0.7, 0.3), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1)])
def test_bad_shares(shares: tuple[float, ...]) -> None:
    with pytest.raises(UsageProblem, match="three shares"):
        make_splits(np.array([0, 1] * 10), TARGET, None, shares, 0)


def test_too_few_cases() -> None:
    with pytest.raises(UsageProblem, match="too few"):
        make_splits(np.array([0, 1]), TARGET, None, SHARES, 0)
    with pytest.raises(UsageProblem, match="1 patients"):
        make_splits(np.array([0, 1] * 10), TARGET, np.array(["p"] * 20), SHARES, 0)


def test_draw_keeps_shares_and_order() -> None:
    labels = np.repeat([0, 1, 2], [700, 250, 50])
    chosen = draw(labels, 100, 0)
    assert np.bincount(labels[chosen]).tolist() == [70, 25, 5]
    assert (np.diff(chosen) > 0).all()
    assert (chosen == draw(labels, 100, 0)).all()
    assert (chosen != draw(labels, 100, 1)).any()
    assert len(draw(labels, 5000, 0)) == 1000
    assert len(draw(np.full((40, 2), np.nan), 7, 0)) == 7


def test_hash_is_of_the_assignment_not_of_the_order() -> None:
    one = split_hash(["a", "b"], ["train", "val"])
    assert one == split_hash(["b", "a"], ["val", "train"])
    assert one != split_hash(["a", "b"], ["val", "train"])


def test_the_largest_sets_are_divided_in_seconds() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 30_000)
    splits = make_splits(labels, TARGET, np.arange(30_000).astype(str), SHARES, 0)
    assert (splits == "test").mean() == pytest.approx(0.15, abs=1e-3)
