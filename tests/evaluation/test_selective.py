"""Areas against golden values, definitions and each other; bounds against scipy; no order of cases changes a figure."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.evaluation.clinical import Reference, Request, SelectiveSection, clinical_sections
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.proportions import clopper_pearson, effective_size, proportion
from medcli.evaluation.questions import Question, questions_of
from medcli.evaluation.referral import Deferral, parse_deferral, referral_at, selective
from medcli.evaluation.report import evaluate
from medcli.evaluation.scores import softmax
from medcli.evaluation.selective import (
    decision_confidence,
    expected_aurc,
    identity_augrc,
    risk_coverage,
    spearman_of_errors,
)
from medcli.settings.groups import EvaluationSettings

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "metrics.json"


def asked(
    confidence: list[float] | np.ndarray, wrong: list[int] | np.ndarray, patients: np.ndarray | None = None
) -> Question:
    n = len(confidence)
    owners = np.arange(n) if patients is None else patients
    return Question("", np.arange(n), owners, patients is not None, np.array(wrong, bool), np.array(confidence, float))


@pytest.mark.parametrize("fixture", ["one_sided", "cross"])
def test_golden_values(shared_data: Path, fixture: str) -> None:
    made = json.loads((shared_data / "golden" / "metrics.json").read_text())[fixture]
    logits, labels = np.array(made["logits"]), np.array(made["labels"])
    expected = made["expected"]
    scores = softmax(logits)
    confidence, wrong = scores.max(axis=1), scores.argmax(axis=1) != labels
    curve = risk_coverage(confidence, wrong)
    assert curve.augrc == pytest.approx(expected["augrc"], abs=1e-9)
    assert curve.aurc_trapezoid == pytest.approx(expected["aurc_fdshifts"], abs=1e-9)
    found = selective(asked(confidence, wrong))
    assert found.values["auroc_error"] == pytest.approx(expected["auroc_f"], abs=1e-9)
    assert found.values["augrc"] == pytest.approx(expected["augrc_identity"], abs=1e-9)
    rounded = risk_coverage(np.round(confidence, 1), wrong)
    assert rounded.augrc == pytest.approx(expected["augrc_ties"], abs=1e-9)
    assert rounded.aurc_trapezoid == pytest.approx(expected["aurc_fdshifts_ties"], abs=1e-9)
    if fixture == "one_sided":
        # Twenty cases have a confidence of exactly 1: in the order of the file they give the published figure, which
        # any other order changes in the third digit.
        in_file = np.cumsum(wrong[np.argsort(-confidence, kind="stable")]) / np.arange(1, 501)
        assert in_file.mean() == pytest.approx(0.23884, abs=1e-5)
        generator = np.random.default_rng(0)
        orders = [np.lexsort((generator.random(500), -confidence)) for _ in range(4000)]
        means = [np.mean(np.cumsum(wrong[order]) / np.arange(1, 501)) for order in orders]
        assert expected_aurc(curve) == pytest.approx(np.mean(means), abs=4 * np.std(means) / np.sqrt(4000))
        assert found.values["e_augrc"] == pytest.approx(0.070544, abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10_000), st.sampled_from([1, 2, 5, 1000]), st.floats(0, 1))
def test_augrc_is_its_identity_and_aurc_the_mean_over_orders(n: int, seed: int, levels: int, rate: float) -> None:
    generator = np.random.default_rng(seed)
    confidence = np.round(generator.random(n) * levels) / levels
    wrong = generator.random(n) < rate
    curve = risk_coverage(confidence, wrong)
    share = wrong.mean()
    auroc = metrics.roc_auc_score(wrong, -confidence) if 0 < share < 1 else math.nan
    assert curve.augrc == pytest.approx(float(identity_augrc(auroc, share)), abs=1e-12)
    by_hand = []
    for _ in range(1 if len(np.unique(confidence)) == n else 400):
        order = np.lexsort((generator.random(n), -confidence))
        by_hand.append(np.mean(np.cumsum(wrong[order]) / np.arange(1, n + 1)))
    assert expected_aurc(curve) == pytest.approx(np.mean(by_hand), abs=1e-12 if len(by_hand) == 1 else 0.05)
    order = generator.permutation(n)
    again = risk_coverage(confidence[order], wrong[order])
    np.testing.assert_array_equal(again.errors, curve.errors)
    doubled = risk_coverage(np.tile(confidence, 2), np.tile(wrong, 2))
    assert doubled.augrc == pytest.approx(curve.augrc, abs=1e-12)
    assert doubled.aurc_trapezoid == pytest.approx(curve.aurc_trapezoid, abs=1e-12)


def test_aurc_over_all_orders_of_a_small_tie() -> None:
    # Orders of the tie: wrong first, or right first, after one right answer.
    curve = risk_coverage([0.9, 0.5, 0.5], [0, 1, 0])
    assert expected_aurc(curve) == pytest.approx(((0 + 1 / 2 + 1 / 3) + (0 + 0 + 1 / 3)) / 2 / 3)


def test_coverage_at_risk_finds_the_end_where_the_surest_answer_is_wrong() -> None:
    curve = risk_coverage(np.linspace(1, 0.01, 100), np.arange(100) == 0)
    assert curve.coverage[curve.at_risk(0.05)] == 1.0
    assert curve.at_risk(0.005) == -1
    found = selective(asked(np.linspace(1, 0.01, 100), np.arange(100) == 0))
    assert found.coverage_at[0.05][0] == 1.0
    coverage, threshold, bounds = found.coverage_at[0.01]
    assert (coverage, threshold, bounds.n) == (1.0, 0.01, 100)


def test_no_threshold_has_a_risk_low_enough_where_all_are_wrong() -> None:
    found = selective(asked([0.9, 0.8, 0.8], [1, 1, 1]))
    assert found.coverage_at[0.1][:2] == (0.0, math.inf)
    assert found.values["augrc"] == 0.5
    assert math.isnan(found.values["auroc_error"])
    assert found.values["e_aurc"] == pytest.approx(0)


def test_all_correct_and_one_case() -> None:
    found = selective(asked([0.9, 0.8, 0.7], [0, 0, 0]))
    assert found.values["augrc"] == found.values["aurc"] == 0
    assert found.coverage_at[0.01][0] == 1.0
    assert found.risk_at[1.0].high == pytest.approx(stats.beta.ppf(0.975, 1, 3))
    for wrong in (0, 1):
        alone = selective(asked([0.9], [wrong]))
        assert alone.values["aurc"] == wrong
        assert json.dumps(alone.to_dict(), allow_nan=False)
        assert [row.risk.n for row in alone.table] == [1, 0, 0, 0, 0, 0]


def test_the_known_ranking_is_the_best_one() -> None:
    found = selective(asked([0.9, 0.8, 0.7, 0.6], [0, 0, 1, 1]))
    assert found.values["e_augrc"] == pytest.approx(0)
    assert found.values["auroc_error"] == found.values["aupr_error"] == 1


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 10), (10, 10), (1, 1), (45, 300)])
def test_clopper_pearson_is_scipys(count: int, n: int) -> None:
    expected = stats.binomtest(count, n).proportion_ci(method="exact")
    assert clopper_pearson(count, n) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert math.isnan(clopper_pearson(0, 0)[0])


def test_patients_widen_an_interval_by_their_design_effect() -> None:
    generator = np.random.default_rng(0)
    happened = np.repeat(generator.random(100) < 0.3, 5)
    owners = np.repeat(np.arange(100), 5)
    assert effective_size(happened, owners) == pytest.approx(99)
    assert effective_size(happened, None) == effective_size(happened, np.arange(500)) == 500
    assert effective_size(np.ones(500, bool), owners) == 100
    wide, narrow = proportion(happened, owners), proportion(happened, None)
    assert wide.value == narrow.value
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(math.sqrt(5), rel=0.05)
    # Cases of a patient that have nothing in common are nearly independent.
    mixed = generator.random(500) < 0.3
    assert effective_size(mixed, owners) > 380


def test_clustered_intervals_cover() -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        rates = generator.beta(2, 6, 60)
        happened = (generator.random((60, 4)) < rates[:, None]).reshape(-1)
        found = proportion(happened, np.repeat(np.arange(60), 4))
        hits += found.low <= 0.25 <= found.high
    assert 0.93 <= hits / 400 <= 0.995


def test_referral_table_by_hand() -> None:
    """Ten positives, four of them missed; the two least sure of those, and a false alarm, go to the reader."""
    logits = np.array([3.0] * 6 + [-0.1, -0.2, -2, -3] + [-4] * 9 + [0.05])
    labels = np.array([1] * 10 + [0] * 10)
    made = Predictions(
        np.arange(20).astype(np.str_), labels, np.stack([np.zeros(20), logits], 1), Target("binary", ("no", "yes"))
    )
    (question,) = questions_of(made)
    row = next(row for row in selective(question, (0.0, 0.15)).table if row.share == 0.15)
    assert row.referred == pytest.approx(0.15)
    assert (row.risk.count, row.risk.n, row.missed) == (2, 17, 2)
    assert row.sensitivity is not None
    assert row.found is not None
    assert row.sensitivity.value == pytest.approx(6 / 8)
    assert row.found.value == pytest.approx(8 / 10)
    assert row.specificity is not None
    assert row.specificity.value == 1
    first = selective(question).table[0]
    assert first.found is not None
    assert (first.missed, first.found.value) == (4, 0.6)


def test_equal_confidences_are_referred_together_and_patients_counted() -> None:
    question = asked([0.9, 0.8, 0.8, 0.8, 0.7], [0, 1, 0, 0, 1], np.array([0, 0, 1, 2, 2]))
    found = selective(question, (0.3,)).table[0]
    assert (found.risk.n, found.referred) == (1, pytest.approx(0.8))
    assert found.kept_patients == 0
    assert referral_at(question, 0.8).kept_patients == 2


def test_confidence_of_a_decision() -> None:
    scores = np.array([0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
    np.testing.assert_array_equal(decision_confidence(scores), np.maximum(scores, 1 - scores))
    shifted = decision_confidence(scores, 0.3)
    assert shifted[2] == pytest.approx(0.5)
    assert shifted[0] == shifted[-1] == 1
    np.testing.assert_allclose(decision_confidence(scores, 0.5 + 1e-12), decision_confidence(scores), atol=1e-9)


def test_spearman_is_scipys_and_clustered_where_patients_repeat() -> None:
    generator = np.random.default_rng(2)
    confidence, wrong = generator.random(80), generator.random(80) < 0.3
    expected = stats.spearmanr(1 - confidence, wrong)
    assert spearman_of_errors(confidence, wrong) == pytest.approx((expected.statistic, expected.pvalue))
    assert math.isnan(spearman_of_errors(np.ones(5), np.array([0, 1, 0, 1, 0]))[0])
    alone = selective(asked(confidence, wrong)).values
    assert alone["spearman_p"] == pytest.approx(expected.pvalue)
    # The same case ten times is no more evidence.
    repeated = asked(np.tile(confidence, 10), np.tile(wrong, 10), np.tile(np.arange(80), 10))
    assert selective(repeated).values["spearman_p"] == pytest.approx(expected.pvalue, abs=0.1)


def test_deferral_by_confidence_budget_and_cost() -> None:
    question = asked([0.9, 0.8, 0.7, 0.6], [0, 0, 1, 1])
    assert parse_deferral("below=0.75").threshold(question) == 0.75
    assert parse_deferral("budget=0.5").threshold(question) == 0.8
    assert parse_deferral("cost=100:2").threshold(question) == 0.8
    assert parse_deferral("cost=1:2").threshold(question) == 0.6
    assert parse_deferral("cost=100:0").threshold(question) == 0.8
    assert Deferral("cost", 100, 2).learns
    assert str(parse_deferral("cost=100:2")) == "cost=100:2"


@pytest.mark.parametrize(
    "text", ["budget", "below=2", "budget=-1", "cost=3", "cost=0:1", "cost=1:x", "most=0.2", "below=nan"]
)
def test_a_rule_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_deferral(text)
    assert caught.value.code == "bad-deferral"


def multilabel(n: int = 300, seed: int = 0) -> Predictions:
    generator = np.random.default_rng(seed)
    truth = (generator.random((n, 3)) < 0.3).astype(np.float32)
    logits = generator.normal(size=(n, 3)) + 2 * truth - 1
    truth[:, 2] = 0
    truth[generator.random((n, 3)) < 0.1] = np.nan
    return Predictions(np.arange(n).astype(np.str_), truth, logits, Target("multilabel", tuple("xyz")))


def test_labels_are_judged_on_their_observed_entries_even_one_never_positive() -> None:
    made = multilabel()
    (section,) = [one for one in clinical_sections(made) if isinstance(one, SelectiveSection)]
    for index, one in enumerate(section.questions):
        assert one.n == (~np.isnan(made.labels[:, index])).sum()
    never = section.questions[2].table[0]
    assert never.sensitivity is not None
    assert math.isnan(never.sensitivity.value)
    assert json.dumps(section.to_dict(), allow_nan=False)
    assert "z " in section.text(verbose=False)
    figure = evaluate(made, EvaluationSettings(bootstrap=20)).figures["augrc"]
    assert figure.value == pytest.approx(np.mean([one.values["augrc"] for one in section.questions]), abs=1e-12)
    assert figure.low < figure.value < figure.high


def test_outputs_and_grades_have_referral_tables_without_sensitivity() -> None:
    generator = np.random.default_rng(3)
    target = Target("multioutput", (), (Output("left", tuple("012"), True), Output("right", ("no", "yes"))))
    logits = generator.normal(size=(90, 2, 3))
    logits[:, 1, 2] = -np.inf
    labels = np.stack([generator.integers(-1, 3, 90), generator.integers(0, 2, 90)], axis=1)
    (section,) = clinical_sections(Predictions(np.arange(90).astype(np.str_), labels, logits, target))
    assert section.name == "selective"
    text = section.text(verbose=True)
    assert "left" in text
    assert "found" not in text


def test_a_cost_is_chosen_on_other_cases_and_frozen() -> None:
    made, other = multilabel(seed=1), multilabel(seed=2)
    wanted = Request(deferrals=(Deferral("cost", 100, 2),))
    with pytest.raises(UsageProblem, match="chosen on other cases"):
        clinical_sections(made, wanted)
    found = clinical_sections(made, Request(deferrals=wanted.deferrals, reference=Reference(other, "val")))[0]
    assert isinstance(found, SelectiveSection)
    chosen = wanted.deferrals[0].threshold(questions_of(other)[0])
    assert found.deferred[0].result.threshold == chosen
    assert "chosen on val" in found.text(verbose=False)


def test_figures_of_single_answers_agree_with_their_section() -> None:
    generator = np.random.default_rng(4)
    labels = generator.integers(0, 3, 120)
    logits = generator.normal(size=(120, 3)) + np.eye(3)[labels]
    patients = np.array([f"p{i // 3}" for i in range(120)])
    made = Predictions(
        np.arange(120).astype(np.str_), labels, logits, Target("multiclass", tuple("abc")), patients=patients
    )
    found = evaluate(made, EvaluationSettings(bootstrap=500))
    (section,) = clinical_sections(made)
    assert isinstance(section, SelectiveSection)
    for name in ("augrc", "auroc_error", "aupr_error"):
        assert found.value(name) == pytest.approx(section.questions[0].values[name], abs=1e-12)
    figure = found.figures["auroc_error"]
    assert section.questions[0].auroc.interval == pytest.approx((figure.low, figure.high), abs=0.03)
