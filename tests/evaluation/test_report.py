"""Every figure against scikit-learn, MedMNIST's own evaluator and identities; nothing crashes on what a split lacks."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medmnist.evaluator import getACC, getAUC
from sklearn import metrics
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.preprocessing import label_binarize

from medcli.data.target import Output, Target, Task
from medcli.errors import UsageProblem
from medcli.evaluation.figures import Evaluation
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.report import evaluate
from medcli.evaluation.scores import sigmoid, softmax
from medcli.settings.groups import EvaluationSettings

QUICK = EvaluationSettings(bootstrap=0)
NAMES = tuple("abcdefgh")


def ids(n: int) -> np.ndarray:
    return np.array([f"case{i}" for i in range(n)])


def single(task: Task = "multiclass", n: int = 200, classes: int = 4, seed: int = 0, positive: int = 1) -> Predictions:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    # Eighths, so that ties occur and differences of logits are exact: a score and its complement tie alike.
    logits = np.round(8 * (generator.normal(size=(n, classes)) + 1.2 * np.eye(classes)[labels])) / 8
    return Predictions(ids(n), labels, logits, Target(task, NAMES[:classes], positive=positive))


def multilabel(n: int = 150, labels: int = 3, seed: int = 0, missing: bool = True) -> Predictions:
    generator = np.random.default_rng(seed)
    truth = (generator.random((n, labels)) < 0.4).astype(np.float32)
    logits = np.round(8 * (generator.normal(size=(n, labels)) + truth)) / 8
    if missing:
        truth[generator.random((n, labels)) < 0.1] = np.nan
    return Predictions(ids(n), truth, logits, Target("multilabel", NAMES[:labels]))


def multioutput(n: int = 90, seed: int = 0) -> Predictions:
    generator = np.random.default_rng(seed)
    labels = np.stack([generator.integers(-1, 3, n), generator.integers(0, 2, n)], axis=1)
    logits = generator.normal(size=(n, 2, 3))
    logits[:, 1, 2] = -np.inf
    target = Target("multioutput", (), (Output("left", ("0", "1", "2"), True), Output("right", ("no", "yes"))))
    return Predictions(ids(n), labels, logits, target)


EVERY = {
    "binary": single("binary", classes=2),
    "multiclass": single("multiclass"),
    "ordinal": single("ordinal"),
    "multilabel": multilabel(),
    "multioutput": multioutput(),
}


def values(found: Evaluation) -> dict[str, float]:
    return {name: figure.value for name, figure in found.figures.items()}


@pytest.mark.parametrize("task", ["multiclass", "ordinal"])
def test_single_label_figures_equal_sklearn(task: Task) -> None:
    made = single(task)
    found = values(evaluate(made, replace(QUICK, top_k=(2, 3, 4))))
    truth, scores, predicted = made.labels, softmax(made.logits), softmax(made.logits).argmax(1)
    one_hot = label_binarize(truth, classes=range(4))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, predicted, average="macro")
    weighted = metrics.precision_recall_fscore_support(truth, predicted, average="weighted")
    expected = {
        "auc": metrics.roc_auc_score(truth, scores, multi_class="ovr"),
        "auprc": metrics.average_precision_score(one_hot, scores, average="macro"),
        "accuracy": metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted),
        "precision_macro": precision,
        "recall_macro": recall,
        "f1_macro": f1,
        "precision_weighted": weighted[0],
        "recall_weighted": weighted[1],
        "f1_weighted": weighted[2],
        "kappa": metrics.cohen_kappa_score(truth, predicted),
        "brier": metrics.brier_score_loss(truth, scores, labels=range(4), scale_by_half=False),
        "nll": metrics.log_loss(truth, scores),
    }
    if task == "ordinal":
        rounded = np.floor(scores @ np.arange(4) + 0.5).astype(int)
        expected |= {
            "qwk": metrics.cohen_kappa_score(truth, predicted, weights="quadratic", labels=range(4)),
            "qwk_expected": metrics.cohen_kappa_score(truth, rounded, weights="quadratic", labels=range(4)),
            "mae": metrics.mean_absolute_error(truth, predicted),
            "mae_expected": metrics.mean_absolute_error(truth, scores @ np.arange(4)),
            "off_by_2": np.mean(np.abs(truth - predicted) >= 2),
        }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    # scikit-learn breaks ties in top-k another way, so the oracle has none.
    untied = replace(made, logits=made.logits + np.random.default_rng(1).random(made.logits.shape) * 1e-3)
    found = values(evaluate(untied, replace(QUICK, top_k=(2, 3, 4))))
    for k in (2, 3):
        assert found[f"top_{k}_accuracy"] == pytest.approx(metrics.top_k_accuracy_score(truth, untied.logits, k=k))
    assert "top_4_accuracy" not in found


def test_rows_per_class_and_confusion_equal_sklearn() -> None:
    made = single()
    found = evaluate(made, QUICK)
    truth, scores = made.labels, softmax(made.logits)
    predicted = scores.argmax(1)
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(truth, predicted))
    table = metrics.precision_recall_fscore_support(truth, predicted)
    for index, row in enumerate(found.classes):
        assert (row.name, row.positives, row.n) == (NAMES[index], int((truth == index).sum()), len(truth))
        expected = {
            "precision": table[0][index],
            "recall": table[1][index],
            "f1": table[2][index],
            "specificity": metrics.recall_score(truth != index, predicted != index),
            "auc": metrics.roc_auc_score(truth == index, scores[:, index]),
            "auprc": metrics.average_precision_score(truth == index, scores[:, index]),
            "brier": metrics.brier_score_loss(truth == index, scores[:, index]),
        }
        for name, value in expected.items():
            assert row.figures[name].value == pytest.approx(value, abs=1e-12), name
    counts = sum(count for count, _, _ in found.reliability)
    assert counts == len(truth)


@pytest.mark.parametrize("positive", [0, 1])
def test_binary_figures_follow_the_positive_class(positive: int) -> None:
    made = single("binary", classes=2, positive=positive)
    found = values(evaluate(made, QUICK))
    scores = softmax(made.logits)
    truth, predicted = made.labels == positive, scores.argmax(1) == positive
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(truth, scores[:, positive]))
    assert found["auprc"] == pytest.approx(metrics.average_precision_score(truth, scores[:, positive]))
    assert found["sensitivity"] == pytest.approx(metrics.recall_score(truth, predicted))
    assert found["specificity"] == pytest.approx(metrics.recall_score(~truth, ~predicted))
    assert found["precision_positive"] == pytest.approx(metrics.precision_score(truth, predicted))
    assert found["f1_positive"] == pytest.approx(metrics.f1_score(truth, predicted))
    assert found["brier_half"] == pytest.approx(metrics.brier_score_loss(truth, scores[:, positive]))
    phrase = evaluate(made, QUICK).figures["ece_positive"].convention
    assert f"`{NAMES[positive]}`" in phrase


def test_multilabel_figures_are_of_observed_entries() -> None:
    made = multilabel()
    found = evaluate(made, QUICK)
    scores = sigmoid(made.logits)
    columns: dict[str, list[float]] = {}
    for index, row in enumerate(found.classes):
        seen = ~np.isnan(made.labels[:, index])
        truth, own = made.labels[seen, index] > 0.5, scores[seen, index]
        expected = {
            "auc": metrics.roc_auc_score(truth, own),
            "auprc": metrics.average_precision_score(truth, own),
            "accuracy": metrics.accuracy_score(truth, own > 0.5),
            "all_negative": 1 - truth.mean(),
            "f1": metrics.f1_score(truth, own > 0.5),
            "brier": metrics.brier_score_loss(truth, own),
            "nll": metrics.log_loss(truth, own),
        }
        assert row.n == seen.sum()
        for name, value in expected.items():
            assert row.figures[name].value == pytest.approx(value, abs=1e-12), name
            columns.setdefault(name, []).append(float(value))
    for name, figure in (("auc", "auc"), ("f1", "f1_macro"), ("accuracy", "accuracy"), ("nll", "nll")):
        assert found.value(figure) == pytest.approx(np.mean(columns[name]))
    assert any("never predicting any label" in note for note in found.notes)
    assert not found.figures["accuracy"].headline


def test_multioutput_is_the_mean_of_its_outputs() -> None:
    made = multioutput()
    found = evaluate(made, EvaluationSettings(bootstrap=50))
    assert list(found.outputs) == ["left", "right"]
    left, right = found.outputs.values()
    assert found.value("auc") == pytest.approx((left.value("auc") + right.value("auc")) / 2)
    assert found.value("qwk") == left.value("qwk")
    assert left.excluded == (made.labels[:, 0] < 0).sum()
    alone = Predictions(made.ids, made.labels[:, 1], made.logits[:, 1, :2], Target("multiclass", ("no", "yes")))
    assert values(right) == pytest.approx(values(evaluate(alone, QUICK)))
    figure = found.figures["accuracy"]
    assert figure.low < figure.value < figure.high


@pytest.mark.parametrize(
    ("made", "task"),
    [
        (single("binary", classes=2, positive=0), "binary-class"),
        (single("binary", classes=2), "binary-class"),
        (single("multiclass"), "multi-class"),
        (single("ordinal"), "ordinal-regression"),
        (multilabel(missing=False), "multi-label, binary-class"),
    ],
)
def test_medmnists_own_functions_agree(made: Predictions, task: str) -> None:
    found = evaluate(made, QUICK)
    scores = sigmoid(made.logits) if made.target.task == "multilabel" else softmax(made.logits)
    labels = made.labels if made.labels.ndim == 2 else made.labels[:, None]
    assert found.value("auc") == pytest.approx(getAUC(labels, scores, task), abs=1e-6)
    assert found.value("accuracy") == pytest.approx(getACC(labels, scores, task), abs=1e-6)


def test_medmnists_evaluator_agrees_on_its_own_labels(shared_data: Path) -> None:
    from medmnist import Evaluator

    folder = shared_data / "data" / "medmnist"
    for flag, task in (("breastmnist", "binary"), ("retinamnist", "ordinal")):
        judge = Evaluator(flag, "test", root=str(folder))
        labels = judge.labels[:, 0].astype(np.int64)
        classes = int(labels.max()) + 1
        logits = np.random.default_rng(4).normal(size=(len(labels), classes)).astype(np.float32)
        target = Target(task, NAMES[:classes], positive=0)  # type: ignore[arg-type]
        found = evaluate(Predictions(ids(len(labels)), labels, logits, target), QUICK)
        theirs = judge.evaluate(softmax(logits))
        assert found.value("auc") == pytest.approx(theirs.AUC, abs=1e-6)
        assert found.value("accuracy") == pytest.approx(theirs.ACC, abs=1e-6)


@pytest.mark.parametrize("task", EVERY)
def test_order_does_not_matter(task: str) -> None:
    made = EVERY[task]
    order = np.random.default_rng(9).permutation(len(made))
    mixed = replace(made, labels=made.labels[order], logits=made.logits[order])
    settings = replace(QUICK, binning="mass")
    assert values(evaluate(mixed, settings)) == pytest.approx(values(evaluate(made, settings)), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("task", EVERY)
def test_a_doubled_set_has_the_same_figures(task: str) -> None:
    made = EVERY[task]
    twice = replace(
        made,
        ids=ids(2 * len(made)),
        labels=np.concatenate([made.labels, made.labels]),
        logits=np.concatenate([made.logits, made.logits]),
    )
    first, second = values(evaluate(made, QUICK)), values(evaluate(twice, QUICK))
    # The smallest bin that counts has ten cases, and doubling brings more bins over that. AURC is a mean over n
    # prefixes, of which there are twice as many, and moves by a part of 1/n.
    for one in (first, second):
        one.pop("mce", None)
    if "aurc" in first:
        assert second.pop("aurc") == pytest.approx(first.pop("aurc"), abs=1 / len(made))
    assert second == pytest.approx(first, abs=1e-12, nan_ok=True)


def test_renaming_classes_changes_nothing_that_ignores_order() -> None:
    made = single("multiclass")
    made = replace(made, logits=made.logits + np.random.default_rng(3).random(made.logits.shape) * 1e-3)
    swap = np.array([2, 0, 3, 1])
    back = np.argsort(swap)
    renamed = replace(made, labels=back[made.labels], logits=made.logits[:, swap])
    assert values(evaluate(renamed, QUICK)) == pytest.approx(values(evaluate(made, QUICK)), abs=1e-12)


def test_swapping_both_classes_mirrors_sensitivity_and_specificity() -> None:
    made = single("binary", classes=2)
    made = replace(made, logits=made.logits + np.random.default_rng(3).random(made.logits.shape) * 1e-3)
    first = values(evaluate(made, QUICK))
    second = values(evaluate(replace(made, target=replace(made.target, positive=0)), QUICK))
    assert first["sensitivity"] == second["specificity"]
    assert first["auc"] == pytest.approx(second["auc"])
    assert first["accuracy"] == second["accuracy"]


def test_a_class_that_is_absent_is_named_and_costs_only_what_needs_it() -> None:
    made = single("ordinal", classes=5)
    kept = made.labels != 3
    part = replace(made, ids=made.ids[kept], labels=made.labels[kept], logits=made.logits[kept])
    found = evaluate(part, EvaluationSettings(bootstrap=20))
    assert math.isnan(found.value("auc"))
    assert math.isnan(found.classes[3].figures["recall"].value)
    assert any("d" in note and "absent" in note for note in found.notes)
    scores = softmax(part.logits)
    present = [metrics.roc_auc_score(part.labels == k, scores[:, k]) for k in (0, 1, 2, 4)]
    assert found.value("auc_present") == pytest.approx(np.mean(present))
    predicted = scores.argmax(1)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = metrics.balanced_accuracy_score(part.labels, predicted)
    assert found.value("balanced_accuracy") == pytest.approx(expected)
    # Grades keep their distances although one of them never occurs.
    quadratic = metrics.cohen_kappa_score(part.labels, predicted, weights="quadratic", labels=range(5))
    assert found.value("qwk") == pytest.approx(quadratic)
    assert math.isnan(found.figures["auc"].low)
    json.dumps(found.to_dict(), allow_nan=False)


def test_labels_without_positives_or_entries_are_named() -> None:
    made = multilabel(labels=4, missing=False)
    labels = made.labels.copy()
    labels[:, 1], labels[:, 2], labels[:, 3] = 0, 1, np.nan
    found = evaluate(replace(made, labels=labels), EvaluationSettings(bootstrap=20))
    assert math.isnan(found.value("auc"))
    assert found.value("auc_present") == pytest.approx(metrics.roc_auc_score(labels[:, 0], made.logits[:, 0]))
    notes = " ".join(found.notes)
    assert "no positive case, so without an AUC: b" in notes
    assert "no negative case, so without an AUC: c" in notes
    assert "no observed entry, so without an AUC: d" in notes
    assert math.isfinite(found.value("accuracy"))
    json.dumps(found.to_dict(), allow_nan=False)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["binary", "multiclass", "ordinal", "multilabel", "multioutput"]),
    st.integers(1, 12),
    st.integers(0, 10_000),
)
def test_nothing_small_or_odd_raises(task: Task, n: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    if task == "multilabel":
        made = multilabel(n, seed=seed)
        if np.isnan(made.labels).all():
            return
    elif task == "multioutput":
        made = multioutput(n, seed)
    else:
        made = single(task, n, 2 if task == "binary" else 4, seed)
    patients = generator.integers(0, 3, n).astype(np.str_)
    found = evaluate(replace(made, patients=patients), EvaluationSettings(bootstrap=5, bins=3, binning="mass"))
    json.dumps(found.to_dict(), allow_nan=False)
    for name, figure in found.figures.items():
        if not math.isnan(figure.value) and name not in {"kappa", "qwk", "qwk_expected", "nll"}:
            assert -1e-12 <= figure.value <= 4, name


def test_unlabelled_cases_are_left_out_and_counted() -> None:
    made = single(n=50)
    labels = made.labels.copy()
    labels[:5] = -1
    found = evaluate(replace(made, labels=labels), QUICK)
    assert (found.n, found.excluded) == (45, 5)
    rest = replace(made, ids=made.ids[5:], labels=made.labels[5:], logits=made.logits[5:])
    assert values(found) == pytest.approx(values(evaluate(rest, QUICK)), nan_ok=True)
    with pytest.raises(UsageProblem, match="none of the predictions has a label"):
        evaluate(replace(made, labels=np.full(50, -1)), QUICK)


def test_sklearn_would_have_changed_kappa_without_all_grades() -> None:
    """The reason why kappa runs over all grades: with labels left out, the weights shrink."""
    labels, predicted = np.array([0, 0, 2, 2, 4, 4]), np.array([0, 2, 2, 4, 4, 0])
    logits = 5.0 * np.eye(5)[predicted]
    found = evaluate(Predictions(ids(6), labels, logits, Target("ordinal", NAMES[:5])), QUICK)
    expected = metrics.cohen_kappa_score(labels, predicted, weights="quadratic", labels=range(5))
    assert found.value("qwk") == pytest.approx(expected)


def test_precision_of_a_class_never_predicted_is_zero() -> None:
    labels, predicted = np.array([0, 1, 2, 2]), np.array([0, 1, 1, 1])
    made = Predictions(ids(4), labels, np.eye(3)[predicted], Target("multiclass", NAMES[:3]))
    with pytest.warns(UndefinedMetricWarning):
        expected = metrics.precision_score(labels, predicted, average="macro")
    assert evaluate(made, QUICK).value("precision_macro") == pytest.approx(expected)
