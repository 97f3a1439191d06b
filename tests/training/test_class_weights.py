"""Class weights against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.training.class_weights import LARGEST_POSITIVE_WEIGHT, class_weights

THREE = Target("multiclass", ("a", "b", "c"))
LABELS = np.array([0] * 60 + [1] * 30 + [2] * 10)


def test_balanced_is_scikit_learns() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert class_weights("balanced", THREE, LABELS) == pytest.approx(expected, rel=1e-6)


def test_effective_numbers_follow_their_paper() -> None:
    beta, counts = 0.9999, np.array([40_000, 3_000, 20])
    labels = np.repeat(np.arange(3), counts)
    share = (1 - beta) / (1 - beta**counts)  # Cui et al. 2019, equation 2 inverted
    expected = share * counts.sum() / (share * counts).sum()
    assert class_weights("effective", THREE, labels) == pytest.approx(expected, rel=1e-5)
    several = Target("multilabel", ("x",))
    column = np.r_[np.ones(3_000), np.zeros(40_000)].astype(np.float32)[:, None]
    assert class_weights("effective", several, column) == pytest.approx([share[1] / share[0]], rel=1e-5)


@pytest.mark.parametrize("rule", ["balanced", "sqrt", "effective"])
def test_rules_average_one_over_the_cases_and_favour_the_rare(rule: str) -> None:
    weights = class_weights(rule, THREE, LABELS)
    assert weights is not None
    assert weights[LABELS].mean() == pytest.approx(1, rel=1e-5)
    assert weights[0] < weights[1] < weights[2]


def test_an_absent_class_gets_no_weight_and_does_not_break_the_others() -> None:
    weights = class_weights("balanced", THREE, np.array([0, 0, 1]))
    assert weights is not None
    assert weights[2] == 0
    assert np.isfinite(weights).all()


def test_positive_weights_count_known_labels_and_are_capped() -> None:
    target = Target("multilabel", ("x", "y"))
    labels = np.array([[1, 0]] + [[0, 0]] * 3 + [[np.nan, 0]] * 96 + [[np.nan, 1]], dtype=np.float32)
    assert class_weights("balanced", target, labels) == pytest.approx([3.0, LARGEST_POSITIVE_WEIGHT])
    assert class_weights("sqrt", target, labels) == pytest.approx([3**0.5, 10.0])


def test_multioutput_weights_each_column_by_itself() -> None:
    target = Target("multioutput", outputs=(Output("l", ("0", "1", "2")), Output("r", ("no", "yes"))))
    labels = np.array([[0, 0], [1, 0], [2, 0], [-1, 1]])
    weights = class_weights("balanced", target, labels)
    assert weights is not None
    assert weights[0] == pytest.approx([1, 1, 1])
    assert weights[1, :2] == pytest.approx([2 / 3, 2])


def test_a_list_is_used_as_it_is() -> None:
    assert class_weights("1,1,0.3", THREE, LABELS) == pytest.approx([1, 1, 0.3])
    assert class_weights("none", THREE, LABELS) is None


@pytest.mark.parametrize("rule", ["1,2", "heavy", "1,-1,1", "0,0,0"])
def test_a_wrong_list_is_refused(rule: str) -> None:
    with pytest.raises(UsageProblem):
        class_weights(rule, THREE, LABELS)
