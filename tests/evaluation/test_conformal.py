"""Sets keep their promise by simulation, where the plain quantile of other tools does not; small sets are refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.evaluation.calibration_result import Sets, calibrate
from medcli.evaluation.conformal import (
    METHODS,
    Cell,
    Method,
    apply_conformal,
    conformal_from_dict,
    fit_conformal,
    order_statistic,
    smallest_count,
)
from medcli.evaluation.coverage import set_coverage
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.scores import softmax
from medcli.settings.groups import EvaluationSettings

NAMES = tuple("abcd")


def drawn(n: int, seed: int, classes: int = 4, start: int = 0) -> Predictions:
    generator = np.random.default_rng(seed)
    logits = 1.5 * generator.normal(size=(n, classes))
    labels = (softmax(logits / 1.5).cumsum(axis=1) < generator.random((n, 1))).sum(axis=1).clip(0, classes - 1)
    return Predictions(
        np.arange(start, start + n).astype(np.str_), labels, logits, Target("multiclass", NAMES[:classes])
    )


def take(made: Predictions, rows: np.ndarray) -> Predictions:
    patients = None if made.patients is None else made.patients[rows]
    return replace(made, ids=made.ids[rows], labels=made.labels[rows], logits=made.logits[rows], patients=patients)


@pytest.mark.parametrize(
    ("n", "miscoverage", "k"), [(9, 0.1, 9), (8, 0.1, 9), (19, 0.05, 19), (20, 0.1, 19), (99, 0.01, 99), (9, 0.3, 7)]
)
def test_the_order_statistic_is_exact_where_binary_fractions_are_not(n: int, miscoverage: float, k: int) -> None:
    assert order_statistic(n, miscoverage) == k


@pytest.mark.parametrize("miscoverage", [0.01, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5])
def test_the_smallest_count_is_the_first_that_has_its_order_statistic(miscoverage: float) -> None:
    n = smallest_count(miscoverage)
    assert order_statistic(n, miscoverage) <= n
    assert order_statistic(n - 1, miscoverage) > n - 1


@pytest.mark.parametrize(("n", "plain"), [(20, 0.862), (78, 0.890), (120, 0.893)])
def test_mean_coverage_is_at_least_promised_where_the_plain_quantile_falls_short(n: int, plain: float) -> None:
    """The coverage of a threshold on uniform scores is the threshold itself, so simulating it needs no test set."""
    generator = np.random.default_rng(n)
    scores = generator.random((20_000, n))
    k = order_statistic(n, 0.1)
    exact = np.sort(scores, axis=1)[:, k - 1]
    assert exact.mean() == pytest.approx(k / (n + 1), abs=0.002)
    assert exact.mean() >= 0.9 - 0.001
    assert np.quantile(scores, 0.9, axis=1).mean() == pytest.approx(plain, abs=0.002)
    low, high = Cell("", n, k, 0.0).band()
    assert np.mean((exact >= low) & (exact <= high)) == pytest.approx(0.95, abs=0.006)


@pytest.mark.parametrize("method", METHODS)
def test_simulated_coverage_lies_in_its_band(method: Method) -> None:
    pool = drawn(12_000, 1)
    generator = np.random.default_rng(5)
    inside, covered = [], []
    for _ in range(60):
        order = generator.permutation(len(pool))
        fitted = fit_conformal(take(pool, order[:120]), method=method)
        (found,) = set_coverage(fitted, take(pool, order[120:3000]))
        covered.append(found.covered.value)
        inside.append(found.band[0] <= found.covered.value <= found.band[1])
    assert np.mean(covered) == pytest.approx(order_statistic(120, 0.1) / 121, abs=0.01)
    assert np.mean(inside) > 0.86


def test_randomised_sets_are_smaller_than_full_ones_and_better_models_give_smaller_sets() -> None:
    made = drawn(2000, 2)
    fitted = {method: fit_conformal(made, method=method) for method in METHODS}
    sizes = {method: apply_conformal(one, made).sizes.mean() for method, one in fitted.items()}
    assert sizes["lac"] <= sizes["aps"]
    assert sizes["raps"] <= sizes["aps"] + 0.05
    assert all(0 < size < 4 for size in sizes.values())


def test_lac_is_the_order_statistic_by_hand() -> None:
    made = drawn(50, 3)
    fitted = fit_conformal(made, method="lac", miscoverage=0.2)
    scores = 1 - softmax(made.logits)
    own = np.sort(scores[np.arange(50), made.labels])
    assert fitted.cells[0].threshold == own[math.ceil(51 * 0.8) - 1]
    np.testing.assert_array_equal(apply_conformal(fitted, made).members, scores <= fitted.cells[0].threshold)


def test_no_order_of_cases_changes_a_set() -> None:
    made = drawn(200, 4)
    order = np.random.default_rng(0).permutation(200)
    one, other = fit_conformal(made, method="aps"), fit_conformal(take(made, order), method="aps")
    assert one.cells == other.cells
    sets = apply_conformal(one, made).members
    np.testing.assert_array_equal(sets[order], apply_conformal(one, take(made, order)).members)


def test_thresholds_of_each_class_cover_each_class() -> None:
    fitted = fit_conformal(drawn(6000, 6), by_class=True)
    (found,) = set_coverage(fitted, drawn(6000, 7, start=6000))
    assert len(fitted.cells) == 4
    for one in found.by_class.values():
        assert one.value == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(("n", "miscoverage", "needed"), [(8, 0.1, 9), (18, 0.05, 19), (1, 0.3, 3)])
def test_too_few_cases_are_refused_with_the_number_that_is_enough(n: int, miscoverage: float, needed: int) -> None:
    with pytest.raises(UsageProblem, match=f"needs at least {needed}\n") as caught:
        fit_conformal(drawn(n, 8), miscoverage=miscoverage)
    assert caught.value.code == "too-few-cases"
    assert fit_conformal(drawn(needed, 8), miscoverage=miscoverage).cells[0].k <= needed


def test_the_miscoverage_of_the_hint_is_enough() -> None:
    with pytest.raises(UsageProblem) as caught:
        fit_conformal(drawn(8, 8), miscoverage=0.01)
    offered = float(str(caught.value.hint).split()[1].rstrip("`"))
    assert fit_conformal(drawn(8, 8), miscoverage=offered)


@pytest.mark.parametrize(("n", "miscoverage", "said"), [(60, 0.01, "30 labelled cases"), (12, 0.1, "6 labelled cases")])
def test_who_counts_half_of_the_cases_says_so(n: int, miscoverage: float, said: str) -> None:
    few = EvaluationSettings(bootstrap=0)
    with pytest.raises(UsageProblem, match=said) as caught:
        calibrate("temperature", drawn(n, 8), drawn(50, 9, start=1000), settings=few, sets=Sets("lac", miscoverage))
    assert caught.value.code == "too-few-cases"
    assert f"of {n} cases half fit the calibrator" in str(caught.value.hint)


def test_a_class_too_rare_for_a_threshold_of_its_own_is_named() -> None:
    made = drawn(100, 9)
    with pytest.raises(UsageProblem, match="class `d` has 0 labelled cases"):
        fit_conformal(take(made, np.flatnonzero(made.labels != 3)), by_class=True)


def test_one_image_of_each_patient_calibrates() -> None:
    made = drawn(90, 10)
    repeated = replace(made, patients=np.array([f"p{i // 3}" for i in range(90)]))
    fitted = fit_conformal(repeated)
    assert fitted.cells[0].n == 30
    assert "one case of each patient" in fitted.notes[0]
    shuffled = take(repeated, np.random.default_rng(3).permutation(90))
    assert fit_conformal(shuffled).cells == fitted.cells


def test_labels_have_thresholds_of_their_own_and_missing_entries_do_not_count() -> None:
    generator = np.random.default_rng(11)
    logits = generator.normal(size=(400, 3))
    labels = (generator.random((400, 3)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    labels[:100, 1] = np.nan
    labels[:, 2] = np.nan
    labels[:5, 2] = 0
    made = Predictions(np.arange(400).astype(np.str_), labels, logits, Target("multilabel", tuple("xyz")))
    fitted = fit_conformal(made)
    assert [cell.n for cell in fitted.cells] == [400, 300, 5]
    assert fitted.cells[2].threshold == math.inf
    assert "z" in fitted.notes[-1]
    found = set_coverage(fitted, made)
    assert [one.name for one in found] == ["x", "y", "z"]
    assert found[0].covered.value == pytest.approx(0.9, abs=0.01)
    assert found[2].covered.value == 1
    assert found[2].sizes == (0, 0, 5)
    assert apply_conformal(fitted, made).members.shape == (400, 3, 2)
    both = fit_conformal(made, by_class=True)
    assert [cell.name for cell in both.cells[:2]] == ["x/absent", "x/present"]
    assert json.dumps([one.to_dict() for one in found], allow_nan=False)


def test_a_fitted_rule_survives_its_file() -> None:
    fitted = fit_conformal(drawn(40, 12), method="raps", miscoverage=0.05)
    assert conformal_from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False))) == fitted
    with pytest.raises(ValueError, match="damaged"):
        conformal_from_dict({"method": "lac"})
    with pytest.raises(ValueError, match="do not fit"):
        conformal_from_dict({**fitted.to_dict(), "cells": []})


def test_other_targets_are_refused() -> None:
    fitted = fit_conformal(drawn(40, 12))
    with pytest.raises(UsageProblem, match="another target"):
        apply_conformal(fitted, drawn(40, 12, classes=3))
    outputs = Target("multioutput", (), (Output("one", ("0", "1")),))
    made = Predictions(np.array(["1"]), np.zeros((1, 1), np.int64), np.zeros((1, 1, 2)), outputs)
    with pytest.raises(UsageProblem, match="several outputs"):
        fit_conformal(made)


def test_the_band_of_a_share_is_scipys_beta_binomial() -> None:
    cell = Cell("", 78, order_statistic(78, 0.1), 0.5)
    assert cell.band() == pytest.approx(tuple(stats.beta(72, 7).ppf([0.025, 0.975])))
    low, high = cell.band_of_share(156)
    assert stats.betabinom(156, 72, 7).cdf(round(high * 156)) >= 0.975
    assert stats.betabinom(156, 72, 7).cdf(round(low * 156) - 1) <= 0.025
