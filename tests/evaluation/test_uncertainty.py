"""Uncertainty by members against definitions written out case by case, its golden values, and its limits."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.evaluation.members import equal_weights, fitted_weights, mean_logits, member_scores, pooled
from medcli.evaluation.predictions import Predictions, load_predictions, save_predictions
from medcli.evaluation.scores import probabilities, sigmoid, softmax
from medcli.evaluation.uncertainty import MEASURES, uncertainties, uncertainty_of
from medcli.evaluation.uncertainty_section import uncertainty_section

THREE = Target("multiclass", ("a", "b", "c"))
GRADES = Target("ordinal", ("0", "1", "2", "3"))
LABELS = Target("multilabel", ("x", "y"))
BOTH = Target("multioutput", outputs=(Output("zone", ("no", "yes"), False), Output("grade", ("0", "1", "2"), True)))


def made(target: Target, members: int = 5, cases: int = 60, seed: int = 0) -> Predictions:
    random = np.random.default_rng(seed)
    logits = random.normal(scale=1.5, size=(members, cases, *target.logits_shape)).astype(np.float32)
    for index, output in enumerate(target.outputs):
        logits[:, :, index, len(output.classes) :] = -np.inf
    if target.task == "multilabel":
        labels = random.integers(0, 2, (cases, 2)).astype(np.float32)
        labels[::7, 0] = np.nan
    elif target.outputs:
        labels = np.stack([random.integers(-1, len(one.classes), cases) for one in target.outputs], axis=1)
    else:
        labels = random.integers(0, target.num_classes, cases)
    ids = np.array([f"case {index}" for index in range(cases)])
    first = Predictions(ids, labels, logits[0], target, split="test", member_logits=logits)
    return pooled(first)


def entropy(p: np.ndarray) -> float:
    return -sum(value * math.log(value) for value in p.tolist() if value > 0)


def by_hand(scores: np.ndarray) -> dict[str, float]:
    """One case: scores [m, K]."""
    mean = scores.mean(axis=0)
    votes = [int(one.argmax()) for one in scores]
    total, own = entropy(mean), np.mean([entropy(one) for one in scores])
    pairs = list(combinations(votes, 2))
    most = max(votes.count(vote) for vote in votes)
    return {
        "total": total,
        "aleatoric": float(own),
        "epistemic": total - float(own),
        "std": float(scores[:, mean.argmax()].std()),
        "variation_ratio": 1 - most / len(votes),
        "disagreement": sum(one != other for one, other in pairs) / len(pairs),
    }


def test_every_measure_is_its_definition() -> None:
    predictions = made(THREE)
    (found,) = uncertainties(predictions)
    scores = softmax(predictions.member_logits)
    for case in range(len(predictions)):
        for name, value in by_hand(scores[:, case]).items():
            assert found.measure(name)[case] == pytest.approx(value, abs=1e-12), name
    assert np.allclose(found.mean, probabilities(predictions), atol=1e-12)
    assert np.allclose(found.class_variance, scores.var(axis=0), atol=1e-12)


def test_golden_values() -> None:
    """Two members that contradict each other, two that agree: worked out with paper and logarithms."""
    scores = np.array([[[0.9, 0.1], [0.9, 0.1]], [[0.1, 0.9], [0.9, 0.1]]])
    found = uncertainty_of(scores)
    own = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert own == pytest.approx(0.325082973391448, abs=1e-15)
    assert found.total == pytest.approx([math.log(2), own], abs=1e-15)
    assert found.aleatoric == pytest.approx([own, own], abs=1e-15)
    assert found.epistemic == pytest.approx([0.368064207168497, 0.0], abs=1e-15)
    assert found.std == pytest.approx([0.4, 0.0], abs=1e-15)
    assert found.variance == pytest.approx([0.16, 0.0], abs=1e-15)
    assert found.variation_ratio.tolist() == [0.5, 0.0]
    assert found.disagreement.tolist() == [1.0, 0.0]


def test_sure_members_that_differ_are_all_epistemic() -> None:
    found = uncertainty_of(np.array([[[1.0, 0.0]], [[0.0, 1.0]]]))
    assert found.aleatoric[0] == 0
    assert found.epistemic[0] == found.total[0] == pytest.approx(math.log(2))


@pytest.mark.parametrize("target", [THREE, GRADES, LABELS, BOTH, Target("binary", ("no", "yes"))])
def test_disagreement_is_never_negative_and_clones_have_none(target: Target) -> None:
    predictions = made(target, members=7)
    for one in uncertainties(predictions):
        assert (one.epistemic >= 0).all()
        assert np.allclose(one.total, one.aleatoric + one.epistemic, atol=1e-11)
    alone = replace(predictions, logits=predictions.member_logits[0], member_logits=None)
    clones = pooled(replace(predictions, member_logits=np.stack([predictions.member_logits[0]] * 5)))
    assert np.allclose(probabilities(clones), probabilities(alone), atol=1e-14)
    for one in uncertainties(clones):
        for name in ("epistemic", "variation_ratio", "disagreement"):
            assert not one.measure(name).any(), name
        assert one.std.max() < 1e-12


def test_order_of_members_does_not_matter() -> None:
    predictions = made(GRADES)
    turned = pooled(replace(predictions, member_logits=predictions.member_logits[::-1]))
    (one,), (other,) = uncertainties(predictions), uncertainties(turned)
    for name in MEASURES:
        assert np.allclose(one.measure(name), other.measure(name), atol=1e-12)


def test_grades_add_up_and_are_those_of_the_mean_score() -> None:
    (found,) = uncertainties(made(GRADES))
    assert found.grades is not None
    steps = np.arange(4)
    expected = np.sqrt((found.mean * steps**2).sum(1) - (found.mean @ steps) ** 2)
    assert np.allclose(found.grades.total, expected, atol=1e-12)
    assert np.allclose(found.grades.total**2, found.grades.aleatoric**2 + found.grades.epistemic**2, atol=1e-12)


def test_many_cases_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = made(GRADES)
    (whole,) = uncertainties(predictions)
    monkeypatch.setattr("medcli.evaluation.uncertainty.CELLS", 100)
    (parts,) = uncertainties(predictions)
    for name in MEASURES:
        assert np.allclose(whole.measure(name), parts.measure(name), atol=1e-14)


def test_weights_count_a_member_as_often_as_they_say() -> None:
    predictions = made(THREE, members=2)
    thirds = pooled(predictions, [2 / 3, 1 / 3])
    first, second = predictions.member_logits
    thrice = pooled(replace(predictions, member_logits=np.stack([first, first, second])))
    assert np.allclose(thirds.logits, thrice.logits, atol=1e-12)
    (one,), (other,) = uncertainties(thirds), uncertainties(thrice)
    for name in ("total", "aleatoric", "epistemic", "std", "variation_ratio"):
        assert np.allclose(one.measure(name), other.measure(name), atol=1e-12), name
    # Of two members every pair is the same one, however they are weighted.
    assert set(np.round(one.disagreement, 12).tolist()) <= {0.0, 1.0}


def test_the_mean_is_of_probabilities_even_where_they_are_0_and_1() -> None:
    certain = np.array([[[0.0, -np.inf]], [[-np.inf, 0.0]]])
    assert softmax(mean_logits(certain, Target("binary", ("no", "yes"))))[0] == pytest.approx([0.5, 0.5])
    labels = np.array([[[np.inf, 2.0]], [[np.inf, -1.0]]])
    mean = sigmoid(mean_logits(labels, LABELS))
    assert mean[0] == pytest.approx([1.0, (sigmoid(2.0) + sigmoid(-1.0)) / 2])
    far = np.array([[[800.0, -800.0]], [[800.0, -800.0]]])
    assert mean_logits(far, LABELS)[0] == pytest.approx([800.0, -800.0])


@pytest.mark.parametrize("target", [THREE, LABELS, BOTH])
def test_weights_make_the_labels_likeliest(target: Target) -> None:
    predictions = made(target, members=3, cases=400)
    weights = fitted_weights(predictions.member_logits, predictions.labels, target)
    assert weights.sum() == pytest.approx(1)

    def loss(shares: np.ndarray) -> float:
        scores = np.tensordot(shares, member_scores(predictions.member_logits, target), axes=1)
        labels = predictions.labels
        if target.task == "multilabel":
            known = ~np.isnan(labels)
            own = np.where(labels[known] > 0.5, scores[known], 1 - scores[known])
        elif target.outputs:
            rows, columns = np.nonzero(labels >= 0)
            own = scores[rows, columns, labels[rows, columns]]
        else:
            own = scores[np.arange(len(labels)), labels]
        return float(-np.log(own).mean())

    best = loss(weights)
    for other in np.random.default_rng(1).dirichlet(np.ones(3), 200):
        assert best <= loss(other) + 1e-9


def test_weights_of_clones_are_equal_and_a_harmful_member_gets_none() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    good = 2.0 * np.eye(3)[labels] + random.normal(size=(300, 3))
    clones = np.stack([good] * 4)
    assert fitted_weights(clones, labels, THREE) == pytest.approx(equal_weights(4))
    weights = fitted_weights(np.stack([good, -good]), labels, THREE)
    assert weights.tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="label"):
        fitted_weights(clones, np.full(300, -1), THREE)


def test_weights_are_kept_with_predictions(tmp_path) -> None:
    predictions = pooled(made(THREE, members=2), [0.75, 0.25])
    save_predictions(tmp_path / "p.npz", predictions)
    again = load_predictions(tmp_path / "p.npz")
    assert np.array_equal(again.member_weights, [0.75, 0.25])
    assert np.array_equal(again.logits, predictions.logits)
    assert again.logits.dtype == np.float64


def test_predictions_without_members_are_refused_with_a_way_on() -> None:
    alone = replace(made(THREE), member_logits=None)
    assert uncertainty_section(alone) is None
    with pytest.raises(UsageProblem, match="medcli ensemble"):
        uncertainties(alone)


def test_section_finds_the_errors_that_members_disagree_on() -> None:
    """Errors made where members differ: disagreement finds them, and confidence does too."""
    random = np.random.default_rng(3)
    labels = random.integers(0, 3, 200)
    hard = random.random(200) < 0.3
    logits = np.stack([4.0 * np.eye(3)[labels] for _ in range(4)])
    logits[:, hard] = random.normal(scale=3, size=(4, int(hard.sum()), 3))
    ids = np.array([str(index) for index in range(200)])
    predictions = pooled(
        Predictions(ids, labels, logits[0], THREE, member_logits=logits.astype(np.float32), split="test")
    )
    section = uncertainty_section(predictions)
    assert section is not None
    (question,) = section.to_dict()["questions"]
    measures = question["measures"]
    assert measures["epistemic"]["auroc_error"] > 0.9
    assert measures["epistemic"]["mean_wrong"] > measures["epistemic"]["mean_right"]
    assert measures["1 - confidence"]["auroc_error_low"] > 0.8
    text = section.text(verbose=False)
    assert "variation ratio" in text
    assert "4 members" in text


@pytest.mark.parametrize("target", [LABELS, BOTH, GRADES])
def test_section_has_a_row_for_every_question(target: Target) -> None:
    section = uncertainty_section(made(target))
    assert section is not None
    text = section.text(verbose=True)
    names = target.class_names if target.task == "multilabel" else [one.name for one in target.outputs]
    for name in names:
        assert name in text
    assert ("in grades" in text) == (target in (GRADES, BOTH))


def test_one_case_and_cases_without_labels() -> None:
    one = made(THREE, cases=1)
    section = uncertainty_section(one)
    assert section is not None
    assert section.text(verbose=True)
    assert uncertainty_section(replace(one, labels=np.array([-1]))) is None
    (found,) = uncertainties(replace(one, labels=np.array([-1])))
    assert found.total.shape == (1,)
