"""Per-epoch figures against scikit-learn, and no exception whatever the split lacks."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from medcli.data.target import Output, Target
from medcli.evaluation.monitor import monitor_metrics
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.scores import sigmoid, softmax

RNG = np.random.default_rng(11)


def predictions(labels: np.ndarray, logits: np.ndarray, target: Target) -> Predictions:
    return Predictions(np.arange(len(labels)).astype(np.str_), labels, logits, target)


def test_ordinal_figures_equal_sklearn() -> None:
    labels = RNG.integers(0, 4, 300)
    logits = RNG.normal(size=(300, 4)) + 1.5 * np.eye(4)[labels]
    found = monitor_metrics(predictions(labels, logits, Target("ordinal", tuple("abcd"))))
    scores, predicted = softmax(logits), logits.argmax(1)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, scores, multi_class="ovr"), abs=1e-12)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert found["f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert found["qwk"] == pytest.approx(metrics.cohen_kappa_score(labels, predicted, weights="quadratic"))
    assert found["nll"] == pytest.approx(metrics.log_loss(labels, scores))
    assert 0 <= found["ece"] <= 1


def test_binary_auc_is_of_the_positive_class() -> None:
    labels = RNG.integers(0, 2, 90)
    logits = RNG.normal(size=(90, 2)) + np.eye(2)[labels]
    for positive in (0, 1):
        found = monitor_metrics(predictions(labels, logits, Target("binary", ("a", "b"), positive=positive)))
        expected = metrics.roc_auc_score(labels == positive, softmax(logits)[:, positive])
        assert found["auc"] == pytest.approx(expected, abs=1e-12)
        assert "qwk" not in found


def test_multilabel_uses_observed_entries_and_labels_that_can_be_judged() -> None:
    labels = RNG.integers(0, 2, (120, 3)).astype(np.float32)
    labels[:, 2] = 0
    labels[::3, 0] = np.nan
    logits = RNG.normal(size=(120, 3))
    found = monitor_metrics(predictions(labels, logits, Target("multilabel", ("a", "b", "never"))))
    seen = ~np.isnan(labels[:, 0])
    expected = [
        metrics.roc_auc_score(labels[seen, 0], logits[seen, 0]),
        metrics.roc_auc_score(labels[:, 1], logits[:, 1]),
    ]
    assert found["auc"] == pytest.approx(np.mean(expected), abs=1e-12)
    called = sigmoid(logits) > 0.5
    rates = [(called[seen, 0] == labels[seen, 0]).mean(), *(called[:, 1:] == labels[:, 1:]).mean(axis=0)]
    assert found["accuracy"] == pytest.approx(np.mean(rates))


def test_multioutput_is_the_mean_over_outputs() -> None:
    target = Target("multioutput", (), (Output("left", ("0", "1", "2"), True), Output("right", ("no", "yes"))))
    labels = np.stack([RNG.integers(0, 3, 80), RNG.integers(-1, 2, 80)], axis=1)
    logits = RNG.normal(size=(80, 2, 3))
    logits[:, 1, 2] = -np.inf
    found = monitor_metrics(predictions(labels, logits, target))
    first = monitor_metrics(predictions(labels[:, 0], logits[:, 0], Target("ordinal", ("0", "1", "2"))))
    known = labels[:, 1] >= 0
    second = monitor_metrics(predictions(labels[known, 1], logits[known, 1, :2], Target("multiclass", ("no", "yes"))))
    assert found["accuracy"] == pytest.approx((first["accuracy"] + second["accuracy"]) / 2)
    assert found["qwk"] == pytest.approx(first["qwk"])


@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_absent_classes_never_raise(task: str, n: int) -> None:
    names = ("a", "b") if task == "binary" else ("a", "b", "c")
    labels = np.zeros((n, 3), np.float32) if task == "multilabel" else np.zeros(n, np.int64)
    found = monitor_metrics(predictions(labels, np.zeros((n, len(names))), Target(task, names)))  # type: ignore[arg-type]
    assert np.isnan(found["auc"]) or n
    if task != "multiclass":
        assert np.isnan(found["auc"])
