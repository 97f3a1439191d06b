"""Weights stand for resamples: weighted figures equal figures of the cases really drawn, and patients stay whole."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from medcli.data.target import Target
from medcli.evaluation.calibration_figures import assess, change
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.report import evaluate
from medcli.evaluation.resampling import RankPlan, clusters_of, interval_kind, percentile_interval, resample_weights
from medcli.evaluation.scores import softmax
from medcli.evaluation.selective import expected_aurc, risk_coverage
from medcli.settings.groups import EvaluationSettings


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10_000), st.sampled_from([1, 2, 8, 1000]))
def test_weighted_areas_equal_sklearns(n: int, seed: int, levels: int) -> None:
    generator = np.random.default_rng(seed)
    scores = np.round(generator.random(n) * levels) / levels
    positive = generator.random(n) < 0.5
    clusters = generator.integers(0, max(1, n // 2), n)
    count = int(clusters.max()) + 1
    weights = generator.integers(0, 3, (count, 4)).astype(np.float64)
    areas, averages = RankPlan(scores, positive, clusters, count)(weights)
    for column in range(4):
        drawn = weights[clusters, column]
        if not drawn[positive].sum() or not drawn[~positive].sum():
            assert np.isnan(areas[column])
            assert np.isnan(averages[column])
            continue
        expected = metrics.roc_auc_score(positive, scores, sample_weight=drawn)
        assert areas[column] == pytest.approx(expected, abs=1e-12)
        expected = metrics.average_precision_score(positive, scores, sample_weight=drawn)
        assert averages[column] == pytest.approx(expected, abs=1e-12)


def labelled(n: int = 120, seed: int = 0) -> Predictions:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, n)
    logits = generator.normal(size=(n, 3)) + np.eye(3)[labels]
    patients = np.array([f"p{i // 3}" for i in range(n)])
    return Predictions(np.arange(n).astype(np.str_), labels, logits, Target("ordinal", tuple("abc")), patients=patients)


def test_intervals_are_those_of_resamples_drawn_one_by_one() -> None:
    made = labelled()
    found = evaluate(made, EvaluationSettings(bootstrap=60), seed=3)
    clusters = clusters_of(made.patients, len(made))
    weights = np.concatenate(list(resample_weights(clusters, 60, 3)), axis=1)
    scores = softmax(made.logits)
    expected: dict[str, list[float]] = {}
    for column in range(60):
        rows = np.repeat(np.arange(len(made)), weights[clusters.index, column].astype(int))
        truth, predicted = made.labels[rows], scores[rows].argmax(1)
        drawn = {
            "accuracy": metrics.accuracy_score(truth, predicted),
            "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted),
            "f1_macro": metrics.f1_score(truth, predicted, average="macro"),
            "f1_weighted": metrics.f1_score(truth, predicted, average="weighted"),
            "qwk": metrics.cohen_kappa_score(truth, predicted, weights="quadratic"),
            "kappa": metrics.cohen_kappa_score(truth, predicted),
            "auc": metrics.roc_auc_score(truth, scores[rows], multi_class="ovr"),
            "nll": metrics.log_loss(truth, scores[rows]),
            "mae": metrics.mean_absolute_error(truth, predicted),
        }
        for name, value in drawn.items():
            expected.setdefault(name, []).append(float(value))
    for name, values in expected.items():
        np.testing.assert_allclose(found.draws[name], values, atol=1e-12, err_msg=name)
        low, high = np.percentile(values, [2.5, 97.5])
        assert (found.figures[name].low, found.figures[name].high) == pytest.approx((low, high))


@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("rate", [0.0, 0.2, 1.0])
def test_aurc_of_a_resample_is_that_of_its_cases_written_out(decimals: int, rate: float) -> None:
    random = np.random.default_rng(4)
    confidence, wrong = np.round(random.random(120), decimals), random.random(120) < rate
    owners = random.integers(0, 40, 120)
    weights = random.integers(0, 4, (40, 6)).astype(np.float64)
    *_, found = RankPlan(-confidence, wrong, owners, 40).with_prefix_risk(weights)
    for drawn, value in zip(weights.T, found, strict=True):
        rows = np.repeat(np.arange(120), drawn[owners].astype(np.int64))
        assert value == pytest.approx(expected_aurc(risk_coverage(confidence[rows], wrong[rows])), abs=1e-12)


def test_a_figure_has_one_kind_of_interval_in_every_command() -> None:
    random = np.random.default_rng(6)
    labels = random.integers(0, 3, 240)
    logits = random.normal(size=(240, 3)) + np.eye(3)[labels]
    patients = np.char.add("p", (np.arange(240) // 2).astype(str))
    made = Predictions(
        np.arange(240).astype(str), labels, logits, Target("multiclass", ("a", "b", "c")), patients=patients
    )
    few = EvaluationSettings(bootstrap=200)
    evaluated, assessed = evaluate(made, few).figures, assess(made, few).figures
    shared = {"ece": "ece_width", **{name: name for name in set(evaluated) & set(assessed)}}
    assert set(shared) >= {"ece", "ece_classwise", "ece_average", "mce", "mce_unfiltered", "brier", "nll"}
    for ours, theirs in shared.items():
        one, other = evaluated[ours], assessed[theirs]
        assert one.interval == other.interval == interval_kind(ours), ours
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-12), ours
        assert one.low <= one.value <= one.high
        assert (one.interval == "centred") == ("centred" in one.remark)
    # Plain percentiles of such a figure lie above it.
    draws = evaluate(made, few).draws["ece"]
    assert draws.mean() > evaluated["ece"].value
    assert assessed["slope"].interval == "sandwich" if "slope" in assessed else True
    assert change(assess(made, few), assess(made, few))["ece_width"].interval == "centred"
    assert evaluate(made, replace(few, bootstrap=0)).figures["ece"].interval == ""


def test_a_resample_has_as_many_patients_as_there_are() -> None:
    made = labelled()
    clusters = clusters_of(made.patients, len(made))
    assert clusters.count == 40
    weights = np.concatenate(list(resample_weights(clusters, 700, 0)), axis=1)
    assert weights.shape == (40, 700)
    assert (weights.sum(axis=0) == 40).all()
    assert weights.mean(axis=1) == pytest.approx(np.ones(40), abs=0.2)
    assert weights.var() == pytest.approx(1 - 1 / 40, rel=0.05)


def test_a_model_that_always_says_the_same_still_has_an_uncertain_accuracy() -> None:
    made = labelled()
    constant = replace(made, logits=np.tile([2.0, 0.0, 0.0], (len(made), 1)), patients=None)
    figure = evaluate(constant, EvaluationSettings(bootstrap=300)).figures["accuracy"]
    spread = 1.96 * np.sqrt(figure.value * (1 - figure.value) / len(made))
    assert figure.high - figure.low == pytest.approx(2 * spread, rel=0.25)


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    made = labelled()
    settings = EvaluationSettings(bootstrap=40)
    first, again, other = (evaluate(made, settings, seed=seed).figures["auc"] for seed in (1, 1, 2))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.value == other.value


def test_images_of_one_patient_widen_the_interval() -> None:
    made = labelled(60)
    copies = 6
    many = replace(
        made,
        ids=np.arange(60 * copies).astype(np.str_),
        labels=np.tile(made.labels, copies),
        logits=np.tile(made.logits, (copies, 1)),
        patients=np.tile(np.arange(60).astype(np.str_), copies),
    )
    settings = EvaluationSettings(bootstrap=400)
    by_patient = evaluate(many, settings).figures["accuracy"]
    by_image = evaluate(replace(many, patients=None), settings).figures["accuracy"]
    once = evaluate(replace(made, patients=None), settings).figures["accuracy"]
    assert by_patient.high - by_patient.low > 1.8 * (by_image.high - by_image.low)
    # Six copies of each case tell no more than one.
    assert by_patient.high - by_patient.low == pytest.approx(once.high - once.low, rel=0.3)


def test_cases_without_a_patient_stand_alone() -> None:
    clusters = clusters_of(np.array(["b", "", "a", "b", ""]), 5)
    assert clusters.count == 4
    assert clusters.index[0] == clusters.index[3]
    assert len(set(clusters.index.tolist())) == 4
    assert sorted(set(clusters.index.tolist())) == [0, 1, 2, 3]
    assert clusters_of(np.array(["", ""]), 2).count == 2
    assert not clusters_of(None, 3).known


def test_failed_resamples_are_counted() -> None:
    labels = np.zeros((30, 2), np.float32)
    labels[:15, 0], labels[0, 1] = 1, 1
    logits = np.random.default_rng(0).normal(size=(30, 2))
    made = Predictions(np.arange(30).astype(np.str_), labels, logits, Target("multilabel", ("often", "once")))
    found = evaluate(made, EvaluationSettings(bootstrap=300))
    failed = found.figures["auc"].failed
    assert failed == int(np.isnan(found.draws["auc"]).sum())
    # A case is missed with probability (1 - 1/30)^30 = 0.36.
    assert 70 < failed < 150
    assert found.figures["brier"].failed == 0


def test_percentiles_need_two_numbers() -> None:
    assert percentile_interval(np.array([0.1, 0.2, np.nan]))[2] == 1
    low, high, failed = percentile_interval(np.array([0.1, np.nan, np.nan]))
    assert np.isnan([low, high]).all()
    assert failed == 2


def test_the_interval_of_a_share_is_close_to_the_textbooks() -> None:
    labels = np.repeat([0, 1], 200)
    predicted = labels.copy()
    predicted[:60] = 1
    made = Predictions(
        np.arange(400).astype(np.str_), labels, 4.0 * np.eye(2)[predicted], Target("binary", ("no", "yes"))
    )
    figure = evaluate(made, EvaluationSettings(bootstrap=4000)).figures["specificity"]
    spread = 1.96 * np.sqrt(0.7 * 0.3 / 200)
    assert (figure.low, figure.high) == pytest.approx((0.7 - spread, 0.7 + spread), abs=0.012)


def test_two_thousand_resamples_of_a_large_set_take_seconds(shared_data: Path) -> None:
    from medcli.prediction.foreign import Columns, read_prediction_table

    path = shared_data / "data" / "nih_chexnet_predictions" / "chexnet_testset_probs_and_labels.csv.gz"
    made = read_prediction_table(str(path), Columns(identifier="Image Index", patient="Patient ID")).predictions
    # Of this process alone, because the machine may be busy with others.
    start = time.process_time()
    found = evaluate(made)
    assert time.process_time() - start < 30
    figure = found.figures["auc"]
    assert found.resamples == 2000
    assert figure.failed == 0
    assert figure.low < 0.8383 < figure.high
    assert found.notes[-1].startswith("accuracy is")
