"""Calibration figures against golden values made with other packages, and at the edges where tools disagree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from medcli.data.target import Target
from medcli.evaluation.calibration import assign_bins, brier_terms, nll_terms, reliability
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.report import evaluate
from medcli.evaluation.scores import sigmoid, softmax
from medcli.settings.groups import EvaluationSettings

EPSILON = float(np.finfo(np.float64).eps)


@pytest.fixture(scope="module", params=["one_sided", "cross"])
def golden(request: pytest.FixtureRequest, shared_data: Path) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    case = json.loads((shared_data / "golden" / "metrics.json").read_text())[request.param]
    return np.array(case["logits"]), np.array(case["labels"]), case["expected"]


@pytest.mark.parametrize("bins", [10, 15])
def test_golden_values(golden: tuple[np.ndarray, np.ndarray, dict[str, float]], bins: int) -> None:
    logits, labels, expected = golden
    target = Target("multiclass", tuple("abcdefgh"[: logits.shape[1]]))
    made = Predictions(np.arange(len(labels)).astype(np.str_), labels, logits, target)
    width = evaluate(made, EvaluationSettings(bins=bins, bootstrap=0))
    mass = evaluate(made, EvaluationSettings(bins=bins, bootstrap=0, binning="mass"))
    assert width.value("accuracy") == pytest.approx(expected["acc"], abs=1e-12)
    assert width.value("ece") == pytest.approx(expected[f"ece_w{bins}"], abs=1e-9)
    assert width.value("ece_average") == pytest.approx(expected[f"ece_avg{bins}"], abs=1e-9)
    assert width.value("mce_unfiltered") == pytest.approx(expected[f"mce_w{bins}"], abs=1e-9)
    assert mass.value("ece") == pytest.approx(expected[f"ece_m{bins}"], abs=1e-9)
    assert width.value("brier") == pytest.approx(expected["brier_sum"], abs=1e-9)
    assert width.value("brier_half") == pytest.approx(expected["brier_sum"] / 2, abs=1e-9)
    # The golden value clips where scikit-learn does; the default clip is larger and only ever lowers the mean.
    own = softmax(logits)[np.arange(len(labels)), labels]
    assert nll_terms(own, EPSILON)[0].mean() == pytest.approx(expected["nll"], abs=1e-9)
    assert width.value("nll") <= expected["nll"] + 1e-9


def test_golden_class_wise_error(shared_data: Path) -> None:
    case = json.loads((shared_data / "golden" / "metrics.json").read_text())["one_sided"]
    labels = np.array(case["labels"])
    made = Predictions(
        np.arange(len(labels)).astype(np.str_), labels, np.array(case["logits"]), Target("multiclass", tuple("abcd"))
    )
    for bins, expected in ((10, 0.070829543), (15, 0.077688871)):
        found = evaluate(made, EvaluationSettings(bins=bins, bootstrap=0))
        assert found.value("ece_classwise") == pytest.approx(expected, abs=1e-9)


def test_bins_are_open_below_and_closed_above() -> None:
    values = [0.0, 0.1, 0.1 + 1e-12, 0.2, 0.95, 1.0]
    assert assign_bins(values, 10, "width").tolist() == [0, 0, 1, 1, 9, 9]


def test_a_confidence_of_one_has_no_bin_of_its_own() -> None:
    # A tool that opens an extra bin for 1.0 finds a gap of 0.5 here; the last bin as a whole has 0.225.
    confidence = np.array([0.95, 0.95, 1.0, 1.0])
    table = reliability(confidence, np.array([True, True, True, False]), 10)
    assert table.count.tolist() == [4]
    assert table.largest() == pytest.approx(0.225)


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.9, 1.0]), min_size=1, max_size=60),
    st.integers(1, 20),
    st.randoms(use_true_random=False),
)
def test_equal_values_share_a_bin_whatever_their_order(values: list[float], bins: int, random: object) -> None:
    for binning in ("width", "mass"):
        index = assign_bins(values, bins, binning)
        assert index.min() >= 0
        assert index.max() < bins
        for value in set(values):
            assert len({found for found, one in zip(index.tolist(), values, strict=True) if one == value}) == 1
        order = np.random.default_rng(len(values)).permutation(len(values))
        np.testing.assert_array_equal(assign_bins(np.array(values)[order], bins, binning), index[order])


def test_equal_mass_bins_without_ties_are_those_of_array_split() -> None:
    values = np.random.default_rng(0).permutation(23) / 23
    index = assign_bins(values, 5, "mass")
    parts = np.array_split(np.sort(values), 5)
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(np.sort(values[index == number]), part)


def test_an_example_worked_out_by_hand() -> None:
    confidence = np.array([0.1, 0.3, 0.5, 0.6, 0.8, 0.9])
    event = np.array([False, True, False, True, True, False])
    table = reliability(confidence, event, 2)
    # Lower bin: mean 0.3 against 1/3; upper bin: mean 23/30 against 2/3.
    assert table.count.tolist() == [3, 3]
    np.testing.assert_allclose(table.gaps, [1 / 30, 1 / 10])
    assert table.ece == pytest.approx(1 / 15)
    assert table.average == pytest.approx(1 / 15)
    assert table.largest() == pytest.approx(1 / 10)
    assert np.isnan(table.largest(minimum=4))


def test_one_sided_bins_give_the_plain_difference() -> None:
    confidence = np.linspace(0.6, 0.99, 40)
    event = np.arange(40) % 3 == 0
    assert reliability(confidence, event, 4).ece == pytest.approx(abs(confidence.mean() - event.mean()))


def test_brier_and_nll_equal_sklearn() -> None:
    generator = np.random.default_rng(2)
    scores, labels = generator.dirichlet(np.ones(4), size=80), generator.integers(0, 4, 80)
    summed = metrics.brier_score_loss(labels, scores, labels=range(4), scale_by_half=False)
    assert brier_terms(scores, labels).mean() == pytest.approx(summed)
    own = scores[np.arange(80), labels]
    assert nll_terms(own)[0].mean() == pytest.approx(metrics.log_loss(labels, scores, labels=range(4)))


def test_clips_are_counted() -> None:
    terms, clipped = nll_terms(np.array([0.5, 0.0, 1e-300]))
    assert clipped == 2
    assert terms[1] == terms[2] == pytest.approx(15 * np.log(10))


def test_infinite_logits_are_certainty() -> None:
    assert sigmoid([np.inf, -np.inf, 0.0, 800.0, -800.0]).tolist() == [1.0, 0.0, 0.5, 1.0, 0.0]
    assert softmax([[0.0, -np.inf], [1e4, 0.0]]).tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_no_cases_are_no_number() -> None:
    for binning in ("width", "mass"):
        table = reliability([], [], 5, binning)
        assert np.isnan([table.ece, table.average, table.largest()]).all()
