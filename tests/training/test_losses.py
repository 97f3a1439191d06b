"""Losses against their formulas written out in numpy, and what must never reach a gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, log_expit, log_softmax

from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.training.imbalance import prior_logits
from medcli.training.losses import choose_loss, head_kind, make_criterion

MULTICLASS = Target("multiclass", ("a", "b", "c"))
ORDINAL = Target("ordinal", ("0", "1", "2", "3"))
MULTILABEL = Target("multilabel", ("x", "y", "z"))
ZONES = Target("multioutput", outputs=(Output("left", ("0", "1", "2"), ordinal=True), Output("right", ("no", "yes"))))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cross_entropy_with_weights_is_the_weighted_mean() -> None:
    raw, labels = draw(7, 3), torch.tensor([0, 1, 2, 2, 1, 0, 2])
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    each = -log_softmax(raw.numpy(), axis=1)[np.arange(7), labels.numpy()]
    share = weights.numpy()[labels.numpy()]
    expected = (each * share).sum() / share.sum()
    assert make_criterion(MULTICLASS, "ce", weights=weights)(raw, labels).item() == pytest.approx(expected)


def test_label_smoothing_mixes_in_the_uniform_distribution() -> None:
    raw, labels = draw(5, 3), torch.tensor([0, 1, 2, 2, 1])
    log_p = log_softmax(raw.numpy(), axis=1)
    expected = -(0.9 * log_p[np.arange(5), labels.numpy()] + 0.1 * log_p.mean(axis=1)).mean()
    assert make_criterion(MULTICLASS, "ce", smoothing=0.1)(raw, labels).item() == pytest.approx(expected)
    assert make_criterion(MULTICLASS, "focal", gamma=0.0, smoothing=0.1)(raw, labels).item() == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_down_weights_what_is_already_right(gamma: float) -> None:
    raw, labels = draw(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    log_pt = log_softmax(raw.numpy(), axis=1)[np.arange(6), labels.numpy()]
    expected = (-((1 - np.exp(log_pt)) ** gamma) * log_pt).mean()
    assert make_criterion(MULTICLASS, "focal", gamma=gamma)(raw, labels).item() == pytest.approx(expected)


def test_focal_without_focus_is_cross_entropy() -> None:
    raw, labels = draw(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    focal = make_criterion(MULTICLASS, "focal", gamma=0.0, weights=weights)(raw, labels)
    assert focal.item() == pytest.approx(make_criterion(MULTICLASS, "ce", weights=weights)(raw, labels).item())


def test_bce_averages_over_the_labels_that_are_known() -> None:
    raw = draw(4, 3)
    labels = torch.tensor(
        [
            [1.0, 0.0, float("nan")],
            [0.0, float("nan"), float("nan")],
            [1.0, 1.0, float("nan")],
            [0.0, 0.0, float("nan")],
        ],
        dtype=torch.float64,
    )
    z, y = raw.numpy(), labels.numpy()
    each = -(y * log_expit(z) + (1 - y) * log_expit(-z))
    expected = np.mean([np.nanmean(each[:, 0]), np.nanmean(each[:, 1])])
    assert make_criterion(MULTILABEL, "bce")(raw, labels).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", ["bce", "focal", "asl"])
def test_a_missing_label_has_a_gradient_of_exactly_zero(loss: str) -> None:
    raw = draw(4, 3).requires_grad_()
    labels = torch.tensor([[1.0, 0.0, 1.0]] * 4, dtype=torch.float64)
    labels[1, 2] = labels[3, 0] = float("nan")
    make_criterion(MULTILABEL, loss, smoothing=0.0)(raw, labels).backward()
    assert raw.grad is not None
    assert raw.grad[1, 2].item() == 0.0
    assert raw.grad[3, 0].item() == 0.0
    assert (raw.grad != 0).sum().item() == 10


def test_positive_weight_multiplies_the_positive_term_alone() -> None:
    raw = draw(5, 3)
    labels = (draw(5, 3, seed=1) > 0).double()
    weights = torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64)
    z, y = raw.numpy(), labels.numpy()
    expected = -(weights.numpy() * y * log_expit(z) + (1 - y) * log_expit(-z)).mean()
    assert make_criterion(MULTILABEL, "bce", weights=weights)(raw, labels).item() == pytest.approx(expected)


def test_asymmetric_loss_follows_its_paper() -> None:
    raw, labels = draw(5, 3), (draw(5, 3, seed=2) > 0).double()
    p, y = expit(raw.numpy()), labels.numpy()
    shifted = np.maximum(p - 0.05, 0)
    expected = -(y * (1 - p) ** 1 * np.log(p) + (1 - y) * shifted**4 * np.log(1 - shifted)).mean()
    assert make_criterion(MULTILABEL, "asl")(raw, labels).item() == pytest.approx(expected)


def test_logit_adjustment_adds_the_logarithm_of_the_prior_times_tau() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])
    tau, raw, truth = 1.5, draw(5, 3), torch.tensor([0, 1, 2, 2, 1])
    prior = np.array([0.6, 0.3, 0.1])
    adjustment = tau * torch.from_numpy(prior_logits(MULTICLASS, labels)).double()
    shifted = raw.numpy() + tau * np.log(prior)
    expected = -log_softmax(shifted, axis=1)[np.arange(5), truth.numpy()].mean()
    criterion = make_criterion(MULTICLASS, "ce", adjustment=adjustment)
    assert criterion(raw, truth).item() == pytest.approx(expected, rel=1e-6)
    pairwise = make_criterion(MULTICLASS, "ce", adjustment=torch.full((3,), 7.0, dtype=torch.float64))
    assert pairwise(raw, truth).item() == pytest.approx(make_criterion(MULTICLASS, "ce")(raw, truth).item())


def test_priors_count_known_labels_and_an_absent_class_once() -> None:
    missing = float("nan")
    labels = np.array([[1, 0, 0], [0, 0, missing], [1, 0, 1], [1, missing, missing]])
    np.testing.assert_allclose(prior_logits(MULTILABEL, labels), np.log([3 / 1, 1 / 3, 1 / 1]), rtol=1e-6)
    zones = prior_logits(ZONES, np.array([[0, 1], [0, -1], [1, 1], [-1, 0]]))
    np.testing.assert_allclose(zones, [np.log([2 / 4, 1 / 4, 1 / 4]), [*np.log([1 / 3, 2 / 3]), 0.0]], rtol=1e-6)
    raw = draw(4, 2, 3).requires_grad_()
    padding = torch.zeros(2, 3, dtype=torch.float64)
    padding[1, 2] = -torch.inf
    criterion = make_criterion(ZONES, "ce", adjustment=torch.from_numpy(zones).double())
    criterion(raw + padding, torch.tensor([[0, 1], [0, -1], [1, 1], [-1, 0]])).backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()


def test_adjusted_labels_that_are_missing_still_have_no_gradient() -> None:
    raw = draw(2, 3).requires_grad_()
    labels = torch.tensor([[1.0, 0.0, float("nan")], [0.0, float("nan"), 1.0]], dtype=torch.float64)
    make_criterion(MULTILABEL, "bce", adjustment=torch.tensor([1.0, -2.0, 0.5]))(raw, labels).backward()
    assert raw.grad is not None
    assert (raw.grad == 0).nonzero().tolist() == [[0, 2], [1, 1]]


def test_corn_asks_each_question_of_the_cases_that_reach_it() -> None:
    raw, labels = draw(6, 3), torch.tensor([0, 1, 2, 3, 3, 0])
    z, y = raw.numpy(), labels.numpy()
    total = count = 0.0
    for k in range(3):
        reached = y >= k
        above = (y[reached] > k).astype(float)
        total += -(above * log_expit(z[reached, k]) + (1 - above) * log_expit(-z[reached, k])).sum()
        count += reached.sum()
    assert make_criterion(ORDINAL, "corn")(raw, labels).item() == pytest.approx(total / count)


def test_coral_asks_every_question_of_every_case() -> None:
    raw, labels = draw(6, 3), torch.tensor([0, 1, 2, 3, 3, 0])
    above = (labels.numpy()[:, None] > np.arange(3)).astype(float)
    z = raw.numpy()
    expected = -(above * log_expit(z) + (1 - above) * log_expit(-z)).sum(axis=1).mean()
    assert make_criterion(ORDINAL, "coral")(raw, labels).item() == pytest.approx(expected)


def padded(raw: torch.Tensor) -> torch.Tensor:
    raw = raw.clone()
    raw[:, 1, 2] = -torch.inf
    return raw


def test_multioutput_is_the_mean_of_its_outputs_and_ignores_minus_one() -> None:
    raw = draw(4, 2, 3)
    labels = torch.tensor([[0, 1], [2, -1], [-1, 0], [1, -1]])
    one = -log_softmax(raw[:, 0].numpy(), axis=1)[[0, 1, 3], [0, 2, 1]].mean()
    two = -log_softmax(raw[:, 1, :2].numpy(), axis=1)[[0, 2], [1, 0]].mean()
    assert make_criterion(ZONES, "ce")(padded(raw), labels).item() == pytest.approx((one + two) / 2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_multioutput_padding_and_missing_labels_have_no_gradient(smoothing: float) -> None:
    free = draw(4, 2, 3).requires_grad_()
    mask = torch.zeros(2, 3, dtype=torch.float64)
    mask[1, 2] = -torch.inf
    labels = torch.tensor([[0, 1], [2, -1], [-1, 0], [1, -1]])
    make_criterion(ZONES, "ce", smoothing=smoothing)(free + mask, labels).backward()
    assert free.grad is not None
    assert torch.isfinite(free.grad).all()
    assert (free.grad[:, 1, 2] == 0).all()
    assert (free.grad[2, 0] == 0).all()
    assert (free.grad[1, 1] == 0).all()


def test_a_batch_without_any_label_has_a_zero_gradient() -> None:
    free = draw(2, 2, 3).requires_grad_()
    make_criterion(ZONES, "ce")(free, torch.full((2, 2), -1)).backward()
    assert free.grad is not None
    assert (free.grad == 0).all()
    multilabel = draw(2, 3).requires_grad_()
    make_criterion(MULTILABEL, "bce")(multilabel, torch.full((2, 3), float("nan"), dtype=torch.float64)).backward()
    assert multilabel.grad is not None
    assert (multilabel.grad == 0).all()


def test_the_loss_fits_the_task() -> None:
    assert choose_loss(ORDINAL, None) == "corn"
    assert choose_loss(MULTILABEL, None) == "bce"
    assert choose_loss(MULTICLASS, "focal") == "focal"
    assert head_kind("corn") == "corn"
    assert head_kind("focal") == "linear"
    with pytest.raises(UsageProblem) as problem:
        choose_loss(MULTICLASS, "bce")
    assert "--loss ce" in str(problem.value)
