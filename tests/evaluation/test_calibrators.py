"""Calibrators against independent solvers, and the promises made about them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression

from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.evaluation.calibrator import METHODS, apply_calibrator
from medcli.evaluation.calibrator_file import calibrator_from_dict, calibrator_to_dict, read_calibrator
from medcli.evaluation.calibrator_fits import beta_features
from medcli.evaluation.calibrators import FEWEST_ISOTONIC, cross_fit, fit_calibrator
from medcli.evaluation.predictions import Predictions, load_predictions, save_predictions
from medcli.evaluation.scores import sigmoid, softmax

TARGETS = {
    "binary": Target("binary", ("no", "yes")),
    "multiclass": Target("multiclass", ("a", "b", "c", "d")),
    "ordinal": Target("ordinal", ("0", "1", "2", "3")),
    "multilabel": Target("multilabel", ("mass", "nodule", "hernia")),
    "multioutput": Target(
        "multioutput", (), (Output("grade", ("0", "1", "2"), ordinal=True), Output("side", ("l", "r")))
    ),
}


def drawn(task: str, n: int = 400, heat: float = 2.0, seed: int = 0, **more: Any) -> Predictions:
    """Labels drawn from softmax(z) or sigmoid(z), logits heat * z: the true temperature is `heat`."""
    random = np.random.default_rng(seed)
    target = TARGETS[task]
    shape = (n, *target.logits_shape)
    z = random.normal(scale=1.5, size=shape)
    if task == "multilabel":
        labels: Any = (random.random(shape) < expit(z - 1)).astype(np.float32)
        z -= 1
    elif task == "multioutput":
        z[:, 1, 2] = -np.inf
        labels = np.stack([draw(random, z[:, 0]), draw(random, z[:, 1])], axis=1)
    else:
        labels = draw(random, z)
        if task == "ordinal":
            z = np.log(softmax(z))
    ids = np.array([f"case{seed}-{row}" for row in range(n)])
    patients = np.array([f"p{seed}-{row // 2}" for row in range(n)])
    return Predictions(ids, labels, z * heat, target, split="val", data_name="drawn", patients=patients, **more)


def draw(random: np.random.Generator, z: Any) -> Any:
    return (
        (random.random((len(z), 1)) > softmax(z).cumsum(axis=1)).sum(axis=1).clip(max=z.shape[1] - 1).astype(np.int64)
    )


def nll(logits: Any, labels: Any) -> float:
    return float(-np.take_along_axis(log_softmax(logits, axis=1), labels[:, None], axis=1).mean())


@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal"])
@pytest.mark.parametrize("heat", [0.2, 1.0, 7.0])
def test_temperature_is_where_an_independent_search_finds_the_minimum(task: str, heat: float) -> None:
    predictions = drawn(task, heat=heat)
    found = fit_calibrator("temperature", predictions).fits[0].parameters["temperature"][0]

    def loss(a: Any) -> float:
        return nll(predictions.logits / np.exp(a[0]), predictions.labels)

    best = minimize(loss, [0.0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-15})
    assert found == pytest.approx(float(np.exp(best.x[0])), rel=1e-5)
    assert found == pytest.approx(heat, rel=0.25)
    step = 1e-4
    slope = (loss([np.log(found) + step]) - loss([np.log(found) - step])) / (2 * step)
    assert abs(slope) < 1e-7


@pytest.mark.parametrize("task", sorted(TARGETS))
@pytest.mark.parametrize("scale", [0.05, 3.0, 12.0])
def test_scaled_logits_scale_the_temperature_and_leave_the_probabilities(task: str, scale: float) -> None:
    predictions = drawn(task, heat=1.3)
    other = replace(predictions, logits=predictions.logits * scale)
    one, two = fit_calibrator("temperature", predictions), fit_calibrator("temperature", other)
    for first, second in zip(one.fits, two.fits, strict=True):
        ratio = second.parameters["temperature"][0] / first.parameters["temperature"][0]
        assert ratio == pytest.approx(scale, rel=1e-9)
    same = apply_calibrator(one, predictions).logits, apply_calibrator(two, other).logits
    np.testing.assert_allclose(*same, rtol=1e-8)


@pytest.mark.parametrize("task", sorted(TARGETS))
@pytest.mark.parametrize("heat", [0.03, 0.5, 1.0, 40.0])
def test_a_temperature_never_changes_what_is_predicted(task: str, heat: float) -> None:
    predictions = drawn(task, n=2000, heat=heat)
    predictions = replace(predictions, logits=predictions.logits.astype(np.float32))
    # Rows in which the two highest logits are neighbouring numbers, and rows in which they are equal.
    if task != "multilabel":
        rows = predictions.logits.reshape(len(predictions), -1, predictions.logits.shape[-1])
        rows[:300, :, 1] = np.nextafter(rows[:300, :, 0], np.float32(np.inf))
        rows[300:400, :, 1] = rows[300:400, :, 0]
    calibrated = apply_calibrator(fit_calibrator("temperature", predictions), predictions)
    if task == "multilabel":
        np.testing.assert_array_equal(sigmoid(calibrated.logits) > 0.5, sigmoid(predictions.logits) > 0.5)
    else:
        before, after = softmax(predictions.logits).argmax(axis=-1), softmax(calibrated.logits).argmax(axis=-1)
        np.testing.assert_array_equal(before, after)


def test_bounds_are_hit_and_said() -> None:
    n = 100
    labels = np.arange(n) % 3
    right = np.where(labels[:, None] == np.arange(3), 2.0, -1.0)
    target = Target("multiclass", ("a", "b", "c"))
    ids = np.arange(n).astype(str)
    cold = fit_calibrator("temperature", Predictions(ids, labels, right, target)).fits[0]
    assert cold.parameters["temperature"] == (0.01,)
    assert "lower bound" in cold.note
    hot = fit_calibrator("temperature", Predictions(ids, labels, -right, target)).fits[0]
    assert hot.parameters["temperature"] == (100.0,)
    assert "upper bound" in hot.note


def test_vector_is_no_worse_than_an_independent_search() -> None:
    predictions = drawn("multiclass", n=800)
    shifted = replace(predictions, logits=predictions.logits * [1.0, 2.0, 0.7, 1.0] + [0.5, 0.0, -1.0, 0.3])
    fit = fit_calibrator("vector", shifted)
    calibrated = apply_calibrator(fit, shifted).logits
    centred = shifted.logits - shifted.logits.mean(axis=1, keepdims=True)

    def loss(x: Any) -> float:
        return nll(centred * x[:4] + x[4:], shifted.labels)

    best = minimize(loss, np.r_[np.ones(4), np.zeros(4)], method="BFGS", options={"gtol": 1e-7})
    assert nll(calibrated, shifted.labels) == pytest.approx(best.fun, abs=1e-9)
    one = fit_calibrator("temperature", shifted)
    assert nll(calibrated, shifted.labels) < nll(apply_calibrator(one, shifted).logits, shifted.labels)


@pytest.mark.parametrize("positive", [0, 1])
def test_platt_is_that_of_scikit_learn(positive: int) -> None:
    predictions = drawn("binary", heat=3.0)
    predictions = replace(predictions, target=Target("binary", ("no", "yes"), positive=positive))
    fit = fit_calibrator("platt", predictions)
    margin = predictions.logits[:, positive] - predictions.logits[:, 1 - positive]
    reference = _SigmoidCalibration().fit(margin, predictions.labels == positive)
    assert fit.fits[0].parameters["slope"][0] == pytest.approx(-reference.a_, rel=1e-4)
    assert fit.fits[0].parameters["offset"][0] == pytest.approx(-reference.b_, abs=1e-4)
    ours = softmax(apply_calibrator(fit, predictions).logits)[:, positive]
    np.testing.assert_allclose(ours, reference.predict(margin), atol=1e-5)


def test_beta_is_the_constrained_minimum() -> None:
    predictions = drawn("multilabel", n=600, heat=2.5)
    fits = fit_calibrator("beta", predictions).fits
    for index, fit in enumerate(fits):
        features = beta_features(predictions.logits[:, index])
        y = predictions.labels[:, index]
        soft = np.where(y > 0.5, (y.sum() + 1) / (y.sum() + 2), 1 / (len(y) - y.sum() + 2))

        def loss(x: Any, features: Any = features, soft: Any = soft) -> float:
            return float((np.logaddexp(0, features @ x) - soft * (features @ x)).mean())

        best = minimize(loss, [1.0, 1.0, 0.0], method="L-BFGS-B", bounds=[(0, None), (0, None), (None, None)])
        ours = np.array([fit.parameters[name][0] for name in ("a", "b", "c")])
        assert (ours[:2] >= 0).all()
        assert loss(ours) <= best.fun + 1e-9


def test_beta_never_turns_the_order_round() -> None:
    predictions = drawn("multilabel", n=400)
    turned = replace(predictions, logits=-predictions.logits)
    for fit in fit_calibrator("beta", turned).fits:
        assert fit.parameters["a"][0] >= 0
        assert fit.parameters["b"][0] >= 0


def test_separated_cases_have_a_finite_map() -> None:
    labels = (np.arange(60) % 2).astype(np.int64)
    logits = np.where(labels[:, None] == np.arange(2), 5.0, -5.0)
    predictions = Predictions(np.arange(60).astype(str), labels, logits, TARGETS["binary"])
    for method in ("platt", "beta"):
        chances = softmax(apply_calibrator(fit_calibrator(method, predictions), predictions).logits)[:, 1]
        np.testing.assert_allclose(np.unique(chances.round(6)), [1 / 32, 31 / 32], atol=1e-4)


def test_isotonic_is_that_of_scikit_learn_inside_the_ends() -> None:
    predictions = drawn("multilabel", n=1500)
    predictions = replace(predictions, logits=predictions.logits.round(1))
    calibrated = sigmoid(apply_calibrator(fit_calibrator("isotonic", predictions), predictions).logits)
    for index in range(3):
        z, y = predictions.logits[:, index], predictions.labels[:, index]
        reference = IsotonicRegression(out_of_bounds="clip").fit(z, y).predict(z)
        np.testing.assert_allclose(calibrated[:, index], np.clip(reference, 1 / 1502, 1501 / 1502), atol=1e-9)


def test_isotonic_needs_many_cases() -> None:
    few = drawn("binary", n=FEWEST_ISOTONIC - 1)
    with pytest.raises(UsageProblem, match=f"isotonic needs {FEWEST_ISOTONIC}") as caught:
        fit_calibrator("isotonic", few)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("task", "method"),
    [("multilabel", "vector"), ("multiclass", "platt"), ("ordinal", "beta"), ("multioutput", "isotonic")],
)
def test_methods_that_do_not_suit_the_target_are_refused(task: str, method: Any) -> None:
    with pytest.raises(UsageProblem) as caught:
        fit_calibrator(method, drawn(task))
    assert caught.value.code == "other-method"
    assert caught.value.hint


def test_missing_labels_are_left_out_and_rare_ones_keep_their_scores() -> None:
    predictions = drawn("multilabel", n=300)
    labels = predictions.labels.copy()
    labels[100:, 0] = np.nan
    labels[:, 2] = 0.0
    holes = replace(predictions, labels=labels)
    fitted = fit_calibrator("platt", holes)
    alone = fit_calibrator(
        "platt",
        replace(
            predictions, **{name: getattr(predictions, name)[:100] for name in ("ids", "labels", "logits", "patients")}
        ),
    )
    assert fitted.fits[0].parameters == alone.fits[0].parameters
    assert fitted.fits[0].cases == 100
    assert not fitted.fits[2].parameters
    assert "one class" in fitted.fits[2].note
    calibrated = apply_calibrator(fitted, holes)
    np.testing.assert_array_equal(calibrated.logits[:, 2], holes.logits[:, 2])
    assert (calibrated.logits[:, 0] != holes.logits[:, 0]).any()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"labels": np.full(400, -1)}, "no-labels"),
        ({"labels": np.ones(400, dtype=np.int64)}, "too-few-cases"),
        ({"labels": np.r_[np.arange(19) % 2, np.full(381, -1)]}, "too-few-cases"),
        ({"calibrated": "platt, fitted on val"}, "calibrated-already"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(change: Any, code: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        fit_calibrator("temperature", replace(drawn("binary"), **change))
    assert caught.value.code == code
    assert caught.value.hint


def test_impossible_classes_and_certain_labels_stay_finite() -> None:
    predictions = drawn("multiclass")
    logits = predictions.logits.copy()
    logits[:50, 3] = -np.inf
    one = replace(predictions, logits=logits)
    for method in ("temperature", "vector"):
        assert np.isfinite(apply_calibrator(fit_calibrator(method, one), one).logits).all()
    labels = drawn("multilabel")
    certain = labels.logits.copy()
    certain[:5], certain[5:9] = np.inf, -np.inf
    two = replace(labels, logits=certain)
    for method in ("temperature", "platt", "beta"):
        assert np.isfinite(apply_calibrator(fit_calibrator(method, two), two).logits).all()


def test_outputs_are_calibrated_each_by_itself_and_stay_padded() -> None:
    predictions = drawn("multioutput", n=600)
    logits = predictions.logits.copy()
    logits[:, 1] *= 3
    fitted = fit_calibrator("temperature", replace(predictions, logits=logits))
    grade, side = (fit.parameters["temperature"][0] for fit in fitted.fits)
    assert side > 2 * grade
    assert np.isneginf(apply_calibrator(fitted, predictions).logits[:, 1, 2]).all()


def test_cross_fit_never_shows_a_case_the_map_of_its_patient() -> None:
    predictions = drawn("multilabel", n=400)
    found = cross_fit("platt", predictions, 5, seed=3)
    for patient in np.unique(predictions.patients):
        assert len(set(found.part[predictions.patients == patient].tolist())) == 1
    sizes = np.bincount(found.part)
    assert sizes.max() - sizes.min() <= 2
    for held, fold in enumerate(found.folds):
        rest = found.part != held
        again = fit_calibrator(
            "platt",
            replace(
                predictions,
                **{name: getattr(predictions, name)[rest] for name in ("ids", "labels", "logits", "patients")},
            ),
        )
        assert [fit.parameters for fit in again.fits] == [fit.parameters for fit in fold.fits]
        own = apply_calibrator(fold, predictions).logits[~rest]
        np.testing.assert_array_equal(found.predictions.logits[~rest], own)
    assert "cross-fitted by patient in 5 parts" in found.predictions.calibrated
    with pytest.raises(UsageProblem, match="cannot be dealt"):
        cross_fit("platt", predictions, 201)


def test_a_label_that_one_part_cannot_fit_is_calibrated_nowhere() -> None:
    predictions = drawn("multilabel", n=400)
    labels = predictions.labels.copy()
    labels[:, 1] = 0
    labels[:12, 1] = 1  # six patients: some part of five leaves fewer than five images
    rare = replace(predictions, labels=labels, patients=np.repeat([f"p{n}" for n in range(50)], 8))
    found = cross_fit("platt", rare, 5)
    assert not found.calibrator.fits[1].parameters
    assert "parts" in found.calibrator.fits[1].note
    np.testing.assert_array_equal(found.predictions.logits[:, 1], rare.logits[:, 1])


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("task", ["binary", "multilabel", "multiclass", "multioutput"])
def test_json_gives_the_same_calibrator_back(method: Any, task: str, tmp_path: Path) -> None:
    if method == "vector" and task == "multilabel":
        pytest.skip("labels have no vector")
    if method in {"platt", "beta", "isotonic"} and task in {"multiclass", "multioutput"}:
        pytest.skip("for two answers only")
    fitted = fit_calibrator(method, drawn(task, n=1200))
    path = tmp_path / "calibrator.json"
    path.write_text(json.dumps(calibrator_to_dict(fitted)))
    assert read_calibrator(path) == fitted


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("schema", "medcli-calibrator/9", "schema"),
        ("method", "magic", "method"),
        ("fits", [], "one fit for each"),
        ("fitted_on", {}, "fitted on"),
        ("target", {"task": "nothing"}, "task"),
    ],
)
def test_a_damaged_file_is_refused(key: str, value: Any, what: str, tmp_path: Path) -> None:
    document = calibrator_to_dict(fit_calibrator("temperature", drawn("binary")))
    document[key] = value
    path = tmp_path / "calibrator.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageProblem, match=what) as caught:
        read_calibrator(path)
    assert caught.value.code == "bad-calibrator"


@pytest.mark.parametrize("temperature", [[0.0], [-1.0], ["1"], [1.0, 2.0], "1", [float("nan")]])
def test_values_no_fit_can_have_made_are_refused(temperature: Any) -> None:
    document = calibrator_to_dict(fit_calibrator("temperature", drawn("binary")))
    document["fits"][0]["parameters"] = {"temperature": temperature}
    with pytest.raises(ValueError, match="fit"):
        calibrator_from_dict(document)


def test_another_target_and_a_second_calibration_are_refused() -> None:
    fitted = fit_calibrator("temperature", drawn("binary"))
    with pytest.raises(UsageProblem, match="another target"):
        apply_calibrator(fitted, drawn("multiclass"))
    once = apply_calibrator(fitted, drawn("binary"))
    with pytest.raises(UsageProblem, match="calibrated already"):
        apply_calibrator(fitted, once)


def test_predictions_remember_that_they_are_calibrated(tmp_path: Path) -> None:
    predictions = drawn("binary")
    once = apply_calibrator(fit_calibrator("temperature", predictions), predictions)
    save_predictions(tmp_path / "one.npz", once)
    assert load_predictions(tmp_path / "one.npz").calibrated == "temperature, fitted on val"
    save_predictions(tmp_path / "two.npz", predictions)
    assert load_predictions(tmp_path / "two.npz").calibrated == ""
