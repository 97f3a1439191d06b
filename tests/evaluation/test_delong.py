"""DeLong's variance against the slow definition, against resampling, and by patient where patients repeat."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from medcli.evaluation.delong import area_under_roc, compare_areas, holm, mean_area


def made(n: int = 90, seed: int = 0, levels: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.random(n) < 0.4
    first = np.round(levels * (generator.normal(size=n) + truth)) / levels
    second = np.round(levels * (0.6 * first + generator.normal(size=n) + 0.6 * truth)) / levels
    return truth, first, second


def slow(truth: np.ndarray, *scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas and their covariance as DeLong, DeLong and Clarke-Pearson (1988) write them."""
    positives, negatives = np.flatnonzero(truth), np.flatnonzero(~truth)
    v10, v01 = [], []
    for values in scores:
        kernel = np.array(
            [[(values[i] > values[j]) + (values[i] == values[j]) / 2 for j in negatives] for i in positives]
        )
        v10.append(kernel.mean(axis=1))
        v01.append(kernel.mean(axis=0))
    covariance = np.cov(v10) / len(positives) + np.cov(v01) / len(negatives)
    return np.array([values.mean() for values in v10]), np.atleast_2d(covariance)


def test_areas_and_variances_are_those_of_the_definition() -> None:
    truth, first, second = made()
    areas, covariance = slow(truth, first, second)
    one, other = area_under_roc(first, truth), area_under_roc(second, truth)
    assert one.value == pytest.approx(metrics.roc_auc_score(truth, first), abs=1e-12)
    assert (one.value, other.value) == pytest.approx(tuple(areas), abs=1e-12)
    assert one.error**2 == pytest.approx(covariance[0, 0], abs=1e-12)
    assert one.influence @ other.influence == pytest.approx(covariance[0, 1], abs=1e-12)
    found = compare_areas(one, other)
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.z == pytest.approx((areas[1] - areas[0]) / error)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.z)))
    assert (found.low, found.high) == pytest.approx((found.value - 1.959964 * error, found.value + 1.959964 * error))


def test_the_interval_is_that_of_ten_thousand_resamples() -> None:
    truth, first, _ = made(400, 1)
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(10_000):
        chosen = generator.integers(0, 400, 400)
        ranks = stats.rankdata(first[chosen])
        count = truth[chosen].sum()
        draws.append((ranks[truth[chosen]].sum() - count * (count + 1) / 2) / (count * (400 - count)))
    assert area_under_roc(first, truth).interval == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), abs=0.006)


def test_repeated_cases_of_a_patient_are_no_further_evidence() -> None:
    truth, first, second = made()
    alone = area_under_roc(first, truth)
    patients = np.tile(np.arange(90), 5)
    repeated = area_under_roc(np.tile(first, 5), np.tile(truth, 5), patients, 90)
    assert repeated.value == pytest.approx(alone.value, abs=1e-12)
    assert repeated.error == pytest.approx(alone.error, rel=1e-9)
    naive = area_under_roc(np.tile(first, 5), np.tile(truth, 5))
    assert naive.error == pytest.approx(alone.error / math.sqrt(5), rel=0.02)
    other = area_under_roc(np.tile(second, 5), np.tile(truth, 5), patients, 90)
    once = compare_areas(alone, area_under_roc(second, truth))
    assert compare_areas(repeated, other).p == pytest.approx(once.p)


def test_by_patient_as_obuchowski_writes_it() -> None:
    generator = np.random.default_rng(3)
    patients = np.repeat(np.arange(60), 3)
    truth = generator.random(180) < np.repeat(generator.beta(1, 2, 60), 3)
    scores = generator.normal(size=180) + truth + np.repeat(generator.normal(size=60), 3)
    area = metrics.roc_auc_score(truth, scores)
    v10 = np.array([np.mean((s > scores[~truth]) + (s == scores[~truth]) / 2) for s in scores[truth]])
    v01 = np.array([np.mean((s < scores[truth]) + (s == scores[truth]) / 2) for s in scores[~truth]])
    m, n = truth.sum(), (~truth).sum()
    x = np.bincount(patients[truth], v10 - area, 60)
    y = np.bincount(patients[~truth], v01 - area, 60)
    with_positive, with_negative = len(np.unique(patients[truth])), len(np.unique(patients[~truth]))
    s10 = with_positive / ((with_positive - 1) * m) * (x**2).sum()
    s01 = with_negative / ((with_negative - 1) * n) * (y**2).sum()
    s11 = 60 / 59 * (x * y).sum()
    variance = s10 / m + s01 / n + 2 * s11 / (m * n)
    assert area_under_roc(scores, truth, patients, 60).error ** 2 == pytest.approx(variance, rel=0.01)


def test_clustered_intervals_cover_and_independent_ones_would_not() -> None:
    generator = np.random.default_rng(4)
    hits = naive = 0
    # 60 patients with five films each, finding and score shared by the films: the area is that of one film each.
    true = stats.norm.cdf(1 / math.sqrt(2))
    patients = np.repeat(np.arange(60), 5)
    for _ in range(300):
        sick = generator.random(60) < 0.5
        scores = np.repeat(generator.normal(size=60) * 0.95 + sick, 5) + generator.normal(size=300) * math.sqrt(
            1 - 0.95**2
        )
        truth = np.repeat(sick, 5)
        low, high = area_under_roc(scores, truth, patients, 60).interval
        hits += low <= true <= high
        low, high = area_under_roc(scores, truth).interval
        naive += low <= true <= high
    assert hits / 300 > 0.9
    assert naive / 300 < 0.75


def test_what_cannot_be_judged_is_undefined() -> None:
    assert math.isnan(area_under_roc([0.1, 0.2], [True, True]).value)
    one = area_under_roc([0.1, 0.9], [False, True])
    assert one.value == 1
    assert math.isnan(one.interval[0])
    assert math.isnan(compare_areas(one, one).p)
    truth, first, _ = made()
    same = compare_areas(area_under_roc(first, truth), area_under_roc(first, truth))
    assert (same.value, same.z, same.p) == (0, 0, 1)


def test_a_mean_of_areas_carries_their_covariance() -> None:
    truth, first, second = made()
    _, covariance = slow(truth, first, second)
    mean = mean_area([area_under_roc(first, truth), area_under_roc(second, truth)])
    assert mean.error**2 == pytest.approx(covariance.sum() / 4)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    found = holm([0.01, math.nan, 0.9])
    assert found[0] == pytest.approx(0.02)
    assert math.isnan(found[1])
    assert holm([]) == []
