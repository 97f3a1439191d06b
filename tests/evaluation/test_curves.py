"""Curves against scikit-learn's, and what pictures do with names from data."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from medcli.data.target import Target
from medcli.evaluation.curves import separation, separations
from medcli.evaluation.discrimination import rank_auc
from medcli.evaluation.panels import literal
from medcli.evaluation.predictions import Predictions


@pytest.mark.parametrize("rounded", [False, True])
def test_small_curves_are_scikit_learns(rounded: bool) -> None:
    random = np.random.default_rng(0)
    truth = random.random(150) < 0.3
    scores = random.normal(size=150) + truth
    scores = scores.round(1) if rounded else scores
    found = separation(scores, truth)
    assert found is not None
    false, hits, _ = roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.false_rate, false)
    np.testing.assert_allclose(found.hit_rate, hits)
    precision, recall, _ = precision_recall_curve(truth, scores)
    np.testing.assert_allclose(found.recall[::-1], recall[:-1])
    np.testing.assert_allclose(found.precision[::-1], precision[:-1])
    assert found.auc == pytest.approx(roc_auc_score(truth, scores))
    assert found.auprc == pytest.approx(average_precision_score(truth, scores))


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_the_area_by_ranks_is_scikit_learns(decimals: int) -> None:
    random = np.random.default_rng(2)
    truth = random.random(300) < 0.2
    scores = np.round(random.normal(size=300) + truth, decimals)
    assert rank_auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    certain = np.where(scores == scores.max(), np.inf, scores)
    assert rank_auc(certain, truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert np.isnan(rank_auc(np.where(truth, scores, np.nan), truth))
    assert np.isnan(rank_auc(scores, truth | True))


def test_large_curves_are_thinned_but_lie_on_the_whole_one() -> None:
    random = np.random.default_rng(1)
    truth = random.random(20_000) < 0.1
    scores = random.normal(size=20_000) + truth
    found = separation(scores, truth)
    assert found is not None
    assert len(found.false_rate) <= 303
    false, hits, _ = roc_curve(truth, scores, drop_intermediate=False)
    points = set(zip(false.tolist(), hits.tolist(), strict=True))
    assert all(point in points for point in zip(found.false_rate.tolist(), found.hit_rate.tolist(), strict=True))
    assert np.trapezoid(found.hit_rate, found.false_rate) == pytest.approx(found.auc, abs=2e-3)
    assert found.hit_rate[-1] == 1


def test_what_cannot_be_told_apart_has_no_curve() -> None:
    assert separation([0.1, 0.9], [True, True]) is None
    ids, target = np.array(["a", "b", "c"]), Target("multilabel", ("never", "always", "mixed"))
    labels = np.array([[0, 1, 1], [0, 1, 0], [0, np.nan, np.nan]], dtype=np.float32)
    found = separations(Predictions(ids, labels, np.zeros((3, 3), np.float32), target))
    assert [(one.name, one.n, one.positives) for one in found] == [("mixed", 2, 1)]


def test_names_are_drawn_as_they_are() -> None:
    assert literal("$x$") == r"\$x\$"
    assert literal("a\nb\x00") == "a b "
    assert len(literal("n" * 100)) == 22
