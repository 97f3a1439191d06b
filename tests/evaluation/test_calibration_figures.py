"""Calibration figures against golden values, formulas and independent packages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binom

from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.evaluation.calibration import nll_terms, smooth_ece
from medcli.evaluation.calibration_figures import assess, change
from medcli.evaluation.calibration_plot import draw_reliability
from medcli.evaluation.calibration_result import calibrate
from medcli.evaluation.calibration_text import render_calibration
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.reliability import chance_ece, reliability_curve
from medcli.evaluation.resampling import bootstrap_interval, centred_interval
from medcli.evaluation.scores import softmax
from medcli.evaluation.weak_calibration import weak_calibration
from medcli.prediction.foreign import Columns, read_prediction_table
from medcli.settings.groups import EvaluationSettings

NONE = EvaluationSettings(bootstrap=0)


@pytest.fixture(scope="module", params=["one_sided", "cross"])
def golden(request: pytest.FixtureRequest, shared_data: Path) -> tuple[Predictions, dict[str, float]]:
    one = json.loads((shared_data / "golden" / "metrics.json").read_text())[request.param]
    logits, labels = np.array(one["logits"]), np.array(one["labels"])
    target = Target("multiclass", tuple("abcdef"[: logits.shape[1]]))
    return Predictions(np.arange(len(labels)).astype(str), labels, logits, target), one["expected"]


def labels_of(n: int = 500, seed: int = 1) -> Predictions:
    random = np.random.default_rng(seed)
    z = random.normal(-1, 2, (n, 3))
    y = (random.random((n, 3)) < expit(0.6 * z - 0.3)).astype(np.float32)
    patients = np.array([f"p{row // 2}" for row in range(n)])
    target = Target("multilabel", ("a", "b", "c"))
    return Predictions(np.array([f"{seed}-{row}" for row in range(n)]), y, z, target, "val", "drawn", patients)


@pytest.mark.parametrize("bins", [10, 15])
def test_golden_values(golden: tuple[Predictions, dict[str, float]], bins: int) -> None:
    predictions, expected = golden
    figures = assess(predictions, EvaluationSettings(bootstrap=0, bins=bins)).figures
    names = {"ece_width": f"ece_w{bins}", "ece_mass": f"ece_m{bins}", "mce_unfiltered": f"mce_w{bins}"}
    names |= {"brier": "brier_sum", "ece_smooth": "smece"}
    # The golden likelihood clips where scikit-learn does, at 2.2e-16; the figure says that it clips at 1e-15.
    own = np.take_along_axis(softmax(predictions.logits), predictions.labels[:, None], axis=1)
    assert nll_terms(own, np.finfo(np.float64).eps)[0].mean() == pytest.approx(expected["nll"], abs=1e-9)
    assert figures["nll"].value == pytest.approx(float(-np.log(np.maximum(own, 1e-15)).mean()), abs=1e-12)
    if f"ece_avg{bins}" in expected:
        names["ece_average"] = f"ece_avg{bins}"
    if bins == 15:
        names["ece_debiased"] = "debiased_l2_top"
    for ours, theirs in names.items():
        assert figures[ours].value == pytest.approx(expected[theirs], abs=1e-9), ours
    assert figures["brier_half"].value == pytest.approx(expected["brier_sum"] / 2, abs=1e-9)


def test_the_largest_gap_counts_only_bins_of_ten(golden: tuple[Predictions, dict[str, float]]) -> None:
    predictions, _ = golden
    table = assess(predictions, NONE).parts[0].curve
    assert table is not None
    wanted = max(abs(bar.confidence - bar.events) for bar in table.bars if bar.n >= 10)
    assert assess(predictions, NONE).figures["mce"].value == pytest.approx(wanted, abs=1e-12)


def test_class_wise_error_is_the_mean_over_classes(golden: tuple[Predictions, dict[str, float]]) -> None:
    predictions, _ = golden
    found = assess(predictions, NONE)
    classes = [part.figures["ece_width"].value for part in found.parts[1:]]
    assert len(classes) == predictions.target.num_classes
    assert found.figures["ece_classwise"].value == pytest.approx(float(np.mean(classes)), abs=1e-12)


def test_the_order_of_cases_and_a_second_copy_change_nothing() -> None:
    predictions = labels_of()
    order = np.random.default_rng(0).permutation(len(predictions))
    mixed = replace(
        predictions,
        ids=predictions.ids[order],
        labels=predictions.labels[order],
        logits=predictions.logits[order],
        patients=None,
    )
    twice = replace(
        predictions,
        ids=np.arange(1000).astype(str),
        labels=np.tile(predictions.labels, (2, 1)),
        logits=np.tile(predictions.logits, (2, 1)),
        patients=None,
    )
    base = assess(predictions, NONE).figures
    for other in (assess(mixed, NONE).figures, assess(twice, NONE).figures):
        for name in ("ece_width", "brier", "nll", "ece_smooth"):
            # relplot's smooth error adds a constant to the density, so two copies weigh a little more than one.
            close = 1e-7 if name == "ece_smooth" else 1e-9
            assert other[name].value == pytest.approx(base[name].value, abs=close), name


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_certain_scores_share_the_last_bin(confidence: float) -> None:
    event = np.array([True] * 30 + [False] * 10)
    curve = reliability_curve(np.full(40, confidence), event, 15, "width")
    assert [(bar.n, bar.confidence, bar.events) for bar in curve.bars] == [(40, confidence, 0.75)]
    assert 0 <= smooth_ece(np.full(40, confidence), event) <= 1


def test_one_case_one_class_and_a_label_without_any() -> None:
    one = Predictions(np.array(["x"]), np.array([1]), np.array([[0.0, 2.0]]), Target("binary", ("no", "yes")))
    figures = assess(one, EvaluationSettings(bootstrap=20)).figures
    assert figures["ece_width"].value == pytest.approx(1 - expit(2.0))
    assert np.isnan(assess(one, NONE).parts[1].figures["slope"].value)
    holes = labels_of()
    values = holes.labels.copy()
    values[:, 0], values[:, 1] = np.nan, 0
    found = assess(replace(holes, labels=values), EvaluationSettings(bootstrap=20))
    empty, never, full = found.parts
    assert empty.n == 0
    assert np.isnan(empty.figures["nll"].value)
    assert (never.n, never.events) == (500, 0)
    assert np.isnan(never.figures["slope"].value)
    assert never.figures["observed_expected"].value == 0
    both = (never.figures["nll"].value + full.figures["nll"].value) / 2
    assert found.figures["nll"].value == pytest.approx(both)
    json.dumps(found.to_dict(), allow_nan=False)


def test_intercept_and_slope_are_those_of_a_logistic_regression() -> None:
    random = np.random.default_rng(5)
    z = random.normal(0, 2, 900)
    y = random.random(900) < expit(0.7 * z + 0.4)
    alone = np.arange(900)
    intercept, slope = weak_calibration(z, y, alone)

    def loss(x: Any, slope: float | None = None) -> float:
        moved = (x[0] if slope is None else slope) * z + x[-1]
        return float((np.logaddexp(0, moved) - y * moved).sum())

    both = minimize(loss, [1.0, 0.0], method="BFGS")
    assert slope.value == pytest.approx(both.x[0], abs=1e-4)
    assert intercept.value == pytest.approx(minimize(loss, [0.0], args=(1.0,), method="BFGS").x[0], abs=1e-4)
    # Robust and model-based errors agree where the model is right; two copies of every patient add no information.
    model = np.sqrt(np.diag(both.hess_inv))[0] * 1.96
    assert (slope.high - slope.low) / 2 == pytest.approx(model, rel=0.15)
    doubled = weak_calibration(np.tile(z, 2), np.tile(y, 2), np.tile(alone, 2))[1]
    assert doubled.high - doubled.low == pytest.approx(slope.high - slope.low, rel=1e-6)
    assert np.isnan(weak_calibration(np.arange(-10.0, 10), np.arange(20) >= 10, np.arange(20))[1].value)


def test_the_band_holds_what_chance_alone_does() -> None:
    curve = reliability_curve(np.full(200, 0.2), np.zeros(200, bool), 15, "width")
    (bar,) = curve.bars
    assert (bar.low, bar.high) == pytest.approx((binom.ppf(0.025, 200, 0.2) / 200, binom.ppf(0.975, 200, 0.2) / 200))
    assert sum(curve.histogram) == 200
    random = np.random.default_rng(2)
    scores = random.random(3000)
    limit = chance_ece(scores, 15, "width", draws=2000)
    below = [
        np.sum(
            [
                bar.n * abs(bar.confidence - bar.events)
                for bar in reliability_curve(scores, random.random(3000) < scores, 15, "width").bars
            ]
        )
        / 3000
        < limit
        for _ in range(300)
    ]
    assert 0.9 <= np.mean(below) <= 0.985


def test_intervals_hold_their_estimates_and_patients_widen_them() -> None:
    predictions = labels_of(n=600)
    found = assess(predictions, EvaluationSettings(bootstrap=300))
    for figure in found.figures.values():
        assert np.isnan(figure.low) or figure.low <= figure.value <= figure.high, figure
    copies = replace(
        predictions,
        ids=np.arange(1800).astype(str),
        labels=np.tile(predictions.labels, (3, 1)),
        logits=np.tile(predictions.logits, (3, 1)),
        patients=np.tile(predictions.patients, 3),
    )
    one = assess(copies, EvaluationSettings(bootstrap=300)).figures["nll"]
    alone = assess(replace(copies, patients=None), EvaluationSettings(bootstrap=300)).figures["nll"]
    assert one.high - one.low > 1.4 * (alone.high - alone.low)
    assert change(found, found)["nll"].value == 0
    draws = np.array([0.3, 0.4, 0.5])
    assert centred_interval(0.1, draws)[:2] == pytest.approx((0.005, 0.195))
    assert centred_interval(0.05, draws, floor=0.0)[0] == 0
    # An error of a share is one at most, however wide its draws are.
    wide = np.array([0.2, 0.3, 1.0])
    assert centred_interval(0.9, wide)[1] > 1
    assert bootstrap_interval("mce", 0.9, wide)[:2] == (pytest.approx(0.605), 1.0)
    assert bootstrap_interval("mce", -0.9, -wide, difference=True)[0] == -1.0


def test_calibration_helps_on_cases_it_has_not_seen(tmp_path: Path) -> None:
    val, test = labels_of(seed=1, n=1000), replace(labels_of(seed=2, n=1000), split="test")
    result = calibrate("platt", val, test, settings=EvaluationSettings(bootstrap=100))
    assert result.parts == 0
    assert result.change["nll"].high < 0
    for part in result.after.parts:
        assert part.figures["slope"].value == pytest.approx(1, abs=0.25)
    draw_reliability(result, tmp_path / "plots" / "reliability.png")
    assert (tmp_path / "plots" / "reliability.png").read_bytes()[:4] == b"\x89PNG"
    assert "ece_width" in render_calibration(result, verbose=True)
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["schema"] == "medcli-calibration/1"
    bins = document["after"]["parts"][0]["reliability"]["bins"]
    assert sum(row["n"] for row in bins) == 1000


def test_fitting_on_test_is_refused_and_marked() -> None:
    test = replace(labels_of(), split="test")
    with pytest.raises(UsageProblem) as caught:
        calibrate("platt", test, settings=NONE)
    assert caught.value.code == "test-split"
    assert "--allow-test" in str(caught.value.hint)
    result = calibrate("platt", test, settings=NONE, allow_test=True)
    assert result.to_dict()["fitted_on_test"] is True
    assert result.calibrator.origin.test_allowed
    assert "test split" in result.calibrator.describe()
    assert any("test split" in note for note in result.notes)


def test_predictions_of_different_models_are_refused() -> None:
    val = labels_of()
    other = replace(labels_of(seed=2), target=Target("multilabel", ("a", "c", "b")))
    with pytest.raises(UsageProblem, match="different targets"):
        calibrate("platt", val, other, settings=NONE)
    five = replace(labels_of(seed=2), member_logits=np.zeros((5, 500, 3), np.float32))
    with pytest.raises(UsageProblem, match="mean of 1, those to report on of 5 members"):
        calibrate("platt", val, five, settings=NONE)
    with pytest.raises(UsageProblem, match="500 cases to report on are among those to fit on"):
        calibrate("platt", val, val, settings=NONE)
    shared = calibrate("platt", val, labels_of(seed=2), settings=NONE)
    assert any("250 patients are in both" in note for note in shared.notes)
    blank = replace(labels_of(seed=3), labels=np.full((500, 3), np.nan, np.float32))
    with pytest.raises(UsageProblem) as caught:
        calibrate("platt", val, blank, settings=NONE)
    assert caught.value.code == "no-labels"


@pytest.mark.slow
def test_real_predictions_become_calibrated_without_their_own_patients(shared_data: Path) -> None:
    table = shared_data / "data/nih_chexnet_predictions/chexnet_testset_probs_and_labels.csv.gz"
    columns = Columns(identifier="Image Index", probabilities="prob_*", patient="Patient ID")
    predictions = read_prediction_table(str(table), columns).predictions
    result = calibrate("beta", predictions, settings=NONE)
    assert (result.after.n, result.after.patients) == (22433, 6187)
    for before, after in zip(result.before.parts, result.after.parts, strict=True):
        assert after.figures["slope"].value == pytest.approx(1, abs=0.03), after.name
        assert after.figures["intercept"].value == pytest.approx(0, abs=0.02), after.name
        assert abs(before.figures["slope"].value - 1) > 0.05
    assert result.after.figures["ece_width"].value < 0.3 * result.before.figures["ece_width"].value
    assert result.after.figures["nll"].value < result.before.figures["nll"].value
