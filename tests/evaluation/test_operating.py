"""Thresholds are chosen elsewhere and frozen; what they achieve, are worth and gain is what one finds by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.evaluation.clinical import (
    DecisionSection,
    OperatingSection,
    Reference,
    Request,
    SubgroupSection,
    clinical_sections,
)
from medcli.evaluation.decision import decision_curve
from medcli.evaluation.operating import Rule, choose_threshold, operating_point, parse_rule
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.questions import Question, questions_of
from medcli.evaluation.subgroups import banded, subgroups

SENS, SPEC = Rule("sens", 0.95), Rule("spec", 0.9)


def binary(n: int = 400, seed: int = 0, positive: int = 1, calibrated: str = "") -> Predictions:
    generator = np.random.default_rng(seed)
    margin = generator.normal(size=n) - 0.5
    truth = generator.random(n) < 1 / (1 + np.exp(-margin))
    labels = np.where(truth, positive, 1 - positive)
    logits = np.zeros((n, 2))
    logits[:, positive] = margin
    patients = np.array([f"p{i // 2}" for i in range(n)])
    target = Target("binary", ("a", "b"), positive=positive)
    return Predictions(np.arange(n).astype(np.str_), labels, logits, target, patients=patients, calibrated=calibrated)


def question(scores: list[float] | np.ndarray, truth: list[int] | np.ndarray) -> Question:
    n = len(scores)
    values, happened = np.array(scores, float), np.array(truth, bool)
    called = values > 0.5
    confidence = np.maximum(values, 1 - values)
    return Question("", np.arange(n), np.arange(n), False, called != happened, confidence, happened, values)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(2, 40), st.integers(0, 10_000), st.sampled_from([2, 5, 1000]), st.sampled_from([0.5, 0.9, 0.95, 1.0])
)
def test_a_chosen_threshold_meets_its_rule_and_the_next_one_does_not(
    n: int, seed: int, levels: int, share: float
) -> None:
    generator = np.random.default_rng(seed)
    scores = np.round(generator.random(n) * levels) / levels
    truth = generator.random(n) < 0.5
    truth[:2] = True, False
    at = choose_threshold(scores, truth, Rule("sens", share))
    assert np.mean(scores[truth] >= at) >= share - 1e-9
    higher = scores[scores > at]
    if len(higher):
        assert np.mean(scores[truth] >= higher.min()) < share
    at = choose_threshold(scores, truth, Rule("spec", share))
    assert np.mean(scores[~truth] < at) >= share - 1e-9
    lower = scores[scores < at]
    if len(lower):
        assert np.mean(scores[~truth] < lower.max()) < share


def test_a_count_that_is_exact_in_decimals_is_enough() -> None:
    scores = np.arange(20) / 20
    assert choose_threshold(scores, np.ones(20, bool), SENS) == scores[1]


def test_a_side_that_does_not_occur_gives_no_threshold() -> None:
    assert math.isnan(choose_threshold([0.1], [False], SENS))
    assert math.isnan(choose_threshold([0.1], [True], SPEC))
    assert choose_threshold([], [], Rule("score", 0.3)) == 0.3


def test_a_two_by_two_table_by_hand() -> None:
    """30 of 40 found, 12 of 60 alarmed for nothing: the textbook's figures."""
    scores = [0.9] * 30 + [0.1] * 10 + [0.9] * 12 + [0.1] * 48
    found = operating_point(question(scores, [1] * 40 + [0] * 60), 0.5, Rule("score", 0.5), (0.01, 0.5))
    assert found.counts == (30, 12, 10, 48)
    assert (found.sensitivity.value, found.specificity.value) == (0.75, 0.8)
    assert found.ppv.value == pytest.approx(30 / 42)
    assert found.npv.value == pytest.approx(48 / 58)
    assert found.likelihood_ratios == pytest.approx((3.75, 0.3125))
    assert found.odds_ratio == pytest.approx(12)
    assert found.alerts == 42
    exact = stats.binomtest(30, 40).proportion_ci(method="exact")
    assert (found.sensitivity.low, found.sensitivity.high) == pytest.approx((exact.low, exact.high))
    rare, even = found.at
    assert rare.ppv[0] == pytest.approx(0.0075 / (0.0075 + 0.2 * 0.99))
    assert rare.npv[0] == pytest.approx(0.8 * 0.99 / (0.8 * 0.99 + 0.25 * 0.01))
    assert even.ppv[0] == pytest.approx(0.75 / 0.95)
    assert rare.ppv[1] < rare.ppv[0] < rare.ppv[2]


def test_ppv_at_the_prevalence_of_the_cases_is_theirs_and_its_interval_covers() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        truth = generator.random(150) < 0.4
        scores = np.where(truth, generator.random(150) < 0.8, generator.random(150) < 0.1) * 0.8 + 0.1
        found = operating_point(question(scores, truth), 0.5, Rule("score", 0.5), (0.1, float(truth.mean())))
        low, high = found.at[0].ppv[1:]
        covered += low <= 0.08 / (0.08 + 0.09) <= high
        assert found.at[1].ppv[0] == pytest.approx(found.ppv.value)
    assert covered / 200 > 0.94


def test_nothing_called_gives_dashes_not_errors() -> None:
    found = operating_point(question([0.1, 0.2], [1, 0]), 0.5, Rule("score", 0.5), (0.1,))
    assert math.isnan(found.ppv.value)
    assert json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("text", ["sens", "sens=95", "sens=0", "spec=-1", "ppv=0.9", "0.5", "sens=x", "score=nan"])
def test_a_rule_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_rule(text)
    assert caught.value.code == "bad-operating-point"


@pytest.mark.parametrize("positive", [0, 1])
def test_thresholds_come_from_other_cases_and_stay(positive: int) -> None:
    val, test = binary(seed=1, positive=positive), binary(seed=2, positive=positive)
    section = clinical_sections(test, Request((SENS, SPEC), Reference(val, "val"), (0.1,)))[0]
    assert isinstance(section, OperatingSection)
    own, judged = questions_of(val)[0], questions_of(test)[0]
    assert own.scores is not None
    assert own.truth is not None
    assert judged.scores is not None
    for point in section.points:
        assert point.threshold == choose_threshold(own.scores, own.truth, point.rule)
        assert sum(point.counts[:2]) == (judged.scores >= point.threshold).sum()
    text = section.text(verbose=True)
    assert "chosen on val and frozen" in text
    assert "too good" not in text
    marked = clinical_sections(test, Request((SENS,), Reference(test, "test.npz", same=True)))[0]
    assert "too good" in marked.text(verbose=False)
    assert marked.to_dict()["chosen_on_these_cases"]


def test_the_first_rule_decides_what_is_referred() -> None:
    val, test = binary(seed=1), binary(seed=2)
    operating, selective, *_ = clinical_sections(test, Request((SENS,), Reference(val, "val")))
    point = operating.to_dict()["points"][0]
    row = selective.to_dict()["questions"][0]["referral"][0]
    assert row["missed"] == point["missed"]
    assert row["risk"]["count"] == point["missed"] + point["false_positives"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"reference": None}, "no-reference"),
        ({"reference": Reference(replace(binary(), target=Target("binary", ("x", "y"))), "val")}, "other-target"),
        ({"reference": Reference(binary(calibrated="temperature"), "val")}, "other-calibration"),
    ],
)
def test_cases_that_cannot_choose_are_refused(change: dict[str, Reference | None], code: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        clinical_sections(binary(seed=3), replace(Request((SENS,)), **change))  # type: ignore[arg-type]
    assert caught.value.code == code


def test_a_target_without_yes_or_no_is_refused() -> None:
    made = Predictions(np.array(["1"]), np.array([0]), np.zeros((1, 3)), Target("multiclass", tuple("abc")))
    with pytest.raises(UsageProblem, match="yes-or-no"):
        clinical_sections(made, Request((Rule("score", 0.3),)))


def test_a_label_the_other_cases_lack_has_no_threshold_and_says_so() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random((80, 2)) < 0.4).astype(np.float32)
    target = Target("multilabel", ("x", "rare"))
    made = Predictions(np.arange(80).astype(np.str_), labels, generator.normal(size=(80, 2)), target)
    other = replace(made, labels=labels * np.array([1, 0], np.float32))
    section = clinical_sections(made, Request((SENS,), Reference(other, "val"), (0.1,)))[0]
    assert isinstance(section, OperatingSection)
    assert math.isnan(section.points[1].threshold)
    assert "no threshold could be chosen for `rare`" in section.text(verbose=False)
    assert json.dumps(section.to_dict(), allow_nan=False)


def test_a_decision_curve_by_hand() -> None:
    """Ten cases, four sick; from 0.25 on three sick and two well are called."""
    scores = [0.9, 0.6, 0.3, 0.1, 0.8, 0.4, 0.2, 0.1, 0.1, 0.05]
    curve = decision_curve(question(scores, [1] * 4 + [0] * 6))
    at = curve.at(0.25)
    assert curve.model[at] == pytest.approx(3 / 10 - 2 / 10 * (0.25 / 0.75))
    assert curve.treat_all[at] == pytest.approx(4 / 10 - 6 / 10 * (0.25 / 0.75))
    assert curve.model[curve.at(0.95)] == 0
    # A score of exactly the threshold is acted on.
    assert curve.model[curve.at(0.9)] == pytest.approx(1 / 10)
    for threshold in (0.01, 0.5, 0.99):
        odds, place = threshold / (1 - threshold), curve.at(threshold)
        called = np.array(scores) >= threshold
        truth = np.arange(10) < 4
        expected = (called & truth).mean() - (called & ~truth).mean() * odds
        assert curve.model[place] == pytest.approx(expected)
        terms = (called & truth) - (called & ~truth) * odds
        assert curve.error[place] == pytest.approx(np.std(terms, ddof=1) / math.sqrt(10))


def test_decision_curves_need_calibrated_scores() -> None:
    raw = next(one for one in clinical_sections(binary()) if isinstance(one, DecisionSection))
    assert raw.curves == ()
    assert "not calibrated" in raw.text(verbose=False)
    assert raw.to_dict()["refused"]
    made = binary(4000, calibrated="temperature, fitted on val")
    section = next(one for one in clinical_sections(made) if isinstance(one, DecisionSection))
    (curve,) = section.curves
    low, high = curve.useful
    assert low < curve.prevalence < high
    assert "temperature" in section.text(verbose=False)
    # Scores that are the truth's own probabilities never do harm.
    assert (curve.model + 1.96 * curve.error >= 0).all()


def test_repeated_cases_do_not_narrow_a_net_benefit() -> None:
    made = question(np.random.default_rng(0).random(60), np.arange(60) % 3 == 0)
    tiled = question(np.tile(made.scores, 4), np.tile(made.truth, 4))  # type: ignore[arg-type]
    tiled = replace(tiled, owners=np.tile(np.arange(60), 4), known=True)
    np.testing.assert_allclose(decision_curve(tiled).error, decision_curve(made).error, rtol=1e-9)


def test_subgroups_by_hand_and_small_cells_withheld() -> None:
    made = binary(400, seed=5)
    values = ["F"] * 180 + ["M"] * 190 + ["X"] * 20 + [""] * 10
    asked = questions_of(made)
    found = subgroups("sex", values, asked)
    rows = {row.group: row for row in found.rows}
    assert list(rows) == ["F", "M", "X", "(not known)"]
    assert rows["X"].withheld == rows["(not known)"].withheld == "fewer than 30 cases"
    assert rows["F"].sensitivity is not None
    one = asked[0]
    assert one.truth is not None
    inside = np.arange(400) < 180
    called = one.wrong != one.truth
    assert rows["F"].sensitivity.value == pytest.approx(called[inside & one.truth].mean())
    assert found.groups[0] == ("F", 180, 90)
    assert found.gap is not None
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert '"group": "X", "n": null' in text
    assert '"n": 20' not in text
    section = next(one for one in clinical_sections(made, Request(groups={"sex": values})) if one.name == "subgroups")
    assert isinstance(section, SubgroupSection)
    assert "withheld: fewer than 30 cases" in section.text(verbose=False)


def test_a_group_with_few_positives_is_withheld() -> None:
    scores, truth = np.linspace(0, 1, 100), np.arange(100) % 20 == 0
    found = subgroups("site", ["A"] * 100, [question(scores, truth)])
    assert found.rows[0].withheld == "fewer than 10 with the finding"
    assert found.gap is None


def test_gaps_of_halves_of_one_population_are_chance() -> None:
    apart = 0
    for seed in range(100):
        made = binary(200, seed)
        found = subgroups("half", ["A" if i % 4 < 2 else "B" for i in range(200)], questions_of(made))
        assert found.gap is not None
        apart += found.gap[2].low > 0
    assert apart <= 12


def test_numbers_of_many_values_become_bands() -> None:
    cells, note = banded([str(age) for age in range(100)])
    assert "4 bands" in note
    assert sorted(np.unique(cells, return_counts=True)[1].tolist()) == [25, 25, 25, 25]
    assert "0 to 24" in cells
    cells, note = banded(["1", "2", "NA"] * 3)
    assert note == ""
    assert set(cells) == {"1", "2", "(not known)"}
    cells, note = banded([f"site {i}" for i in range(20)])
    assert len(set(cells)) == 20


def grades(seed: int, n: int = 300, calibrated: str = "") -> Predictions:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 5, n)
    logits = -((np.arange(5) - (labels + generator.normal(size=n))[:, None]) ** 2)
    patients = np.array([f"p{i // 2}" for i in range(n)])
    ids = np.array([f"{seed}-{i}" for i in range(n)])
    target = Target("ordinal", ("none", "mild", "moderate", "severe", "proliferative"))
    return Predictions(ids, labels, logits, target, patients=patients, calibrated=calibrated)


@pytest.mark.parametrize("cut", ["2", ">=2", ">=moderate"])
def test_grades_are_cut_in_two_on_other_cases_and_frozen(cut: str) -> None:
    val, test = grades(1, calibrated="yes"), grades(2, calibrated="yes")
    rule = parse_rule(f"sens=0.9@{cut}")
    assert parse_rule(str(rule)) == rule
    found = {one.name: one for one in clinical_sections(test, Request((rule,), Reference(val, "val"), (0.1,)))}
    section = found["operating_points"]
    assert isinstance(section, OperatingSection)
    (point,) = section.points
    # The same grades as two classes of their own.
    scores = [np.exp(one.logits) / np.exp(one.logits).sum(axis=1, keepdims=True) for one in (val, test)]
    chosen = choose_threshold(scores[0][:, 2:].sum(axis=1), val.labels >= 2, Rule("sens", 0.9))
    called, truth = scores[1][:, 2:].sum(axis=1) >= chosen - 1e-12, test.labels >= 2
    assert point.threshold == pytest.approx(chosen)
    assert (point.name, section.chosen_on) == (">=moderate", "val")
    assert point.counts == (
        (called & truth).sum(),
        (called & ~truth).sum(),
        (~called & truth).sum(),
        (~called & ~truth).sum(),
    )
    curves = found["decision_curves"]
    assert isinstance(curves, DecisionSection)
    assert [one.name for one in curves.curves] == [">=moderate"]
    assert curves.curves[0].prevalence == pytest.approx(truth.mean())
    # Answers that are referred are grades as before.
    without = next(one for one in clinical_sections(test) if one.name == "selective")
    assert found["selective"].to_dict()["questions"] == without.to_dict()["questions"]


@pytest.mark.parametrize(
    ("rule", "code", "hint"),
    [
        ("sens=0.9", "no-cut", "sens=0.9@moderate"),
        ("sens=0.9@0", "unknown-class", "`@mild`"),
        ("sens=0.9@none", "unknown-class", "`@mild`"),
        ("sens=0.9@5", "unknown-class", "`@proliferative`"),
        ("sens=0.9@bad", "unknown-class", "`@mild`"),
    ],
)
def test_a_cut_that_parts_no_grades_is_refused(rule: str, code: str, hint: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        clinical_sections(grades(2), Request((parse_rule(rule),), Reference(grades(1), "val")))
    assert caught.value.code == code
    assert hint in str(caught.value.hint)


def test_only_grades_can_be_cut() -> None:
    for made in (binary(), replace(grades(2), target=Target("multiclass", ("a", "b", "c", "d", "e")))):
        with pytest.raises(UsageProblem) as caught:
            clinical_sections(made, Request((Rule("score", 0.5, "1"),)))
        assert caught.value.code == "not-for-this-target"
    with pytest.raises(UsageProblem) as caught:
        parse_rule("sens=0.9@")
    assert caught.value.code == "bad-operating-point"
