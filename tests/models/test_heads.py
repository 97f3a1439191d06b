"""Heads against formulas written out naively in float64, and their shapes for every target."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.models.heads import Head, decode

GRADES = Target("ordinal", tuple("abcde"))
ZONES = Target("multioutput", outputs=(Output("left", ("a", "b", "c")), Output("right", ("a", "b"), ordinal=True)))


def sigmoid(values):
    return 1 / (1 + np.exp(-values.astype(np.float64)))


def corn_by_hand(raw):
    above = sigmoid(raw)
    classes = raw.shape[1] + 1
    chances = []
    for grade in range(classes):
        reached = np.prod(above[:, :grade], axis=1)
        chances.append(reached * (1 - above[:, grade]) if grade < classes - 1 else reached)
    return np.stack(chances, 1)


def coral_by_hand(raw):
    above = np.concatenate([np.ones((len(raw), 1)), sigmoid(raw), np.zeros((len(raw), 1))], 1)
    return above[:, :-1] - above[:, 1:]


def test_corn_chains_conditional_probabilities():
    raw = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3
    np.testing.assert_allclose(decode(raw, GRADES, "corn").exp().numpy(), corn_by_hand(raw.numpy()), atol=1e-6)


def test_coral_takes_differences_of_cumulative_probabilities():
    raw = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).sort(descending=True).values * 3
    np.testing.assert_allclose(decode(raw, GRADES, "coral").exp().numpy(), coral_by_hand(raw.numpy()), atol=1e-6)


@pytest.mark.parametrize("kind", ["corn", "coral"])
@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
def test_ordinal_probabilities_sum_to_one_even_when_extreme(kind, scale):
    raw = torch.randn(200, 4, generator=torch.Generator().manual_seed(1)).sort(descending=True).values * scale
    logits = decode(raw, GRADES, kind)
    assert not logits.isnan().any()
    torch.testing.assert_close(logits.double().exp().sum(-1), torch.ones(200, dtype=torch.float64), atol=2e-6, rtol=0)


def test_extreme_tails_keep_their_logarithm():
    logits = decode(torch.tensor([[-200.0, -200.0, -200.0, -200.0]]), GRADES, "corn")
    assert logits[0, 4] == -800
    logits = decode(torch.tensor([[-100.0, -101.0, -102.0, -103.0]]), GRADES, "coral")
    assert logits[0, 4] == pytest.approx(-103)
    assert logits.isfinite().all()


@pytest.mark.parametrize("kind", ["corn", "coral", "linear"])
def test_first_prediction_is_nearly_uniform(kind):
    torch.manual_seed(0)
    head = Head(64, GRADES, kind)
    chances = decode(head(torch.zeros(1, 64)), GRADES, kind).softmax(-1)
    torch.testing.assert_close(chances, torch.full((1, 5), 0.2), atol=1e-4, rtol=0)


def test_coral_thresholds_stay_ordered_whatever_is_learned():
    head = Head(8, GRADES, "coral")
    assert head.threshold_steps is not None
    with torch.no_grad():
        head.threshold_steps.copy_(torch.tensor([-40.0, 5.0, -3.0]))
    raw = head(torch.randn(20, 8))
    assert (raw[:, :-1] > raw[:, 1:]).all()
    shared = raw - raw[:, :1]
    torch.testing.assert_close(shared, shared[:1].expand_as(shared), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("target", "kind", "shape"),
    [
        (Target("binary", ("a", "b")), "linear", (3, 2)),
        (Target("multiclass", tuple("abc")), "linear", (3, 3)),
        (GRADES, "linear", (3, 5)),
        (GRADES, "corn", (3, 4)),
        (GRADES, "coral", (3, 4)),
        (Target("multilabel", tuple("abcd")), "linear", (3, 4)),
        (Target("multilabel", ("a",)), "linear", (3, 1)),
        (ZONES, "linear", (3, 2, 3)),
    ],
)
def test_raw_and_stored_shapes(target, kind, shape):
    raw = Head(16, target, kind)(torch.randn(3, 16))
    assert raw.shape == shape
    logits = decode(raw, target, kind)
    assert logits.dtype == torch.float32
    assert logits.shape == (3, *target.logits_shape)


def test_missing_classes_of_an_output_are_minus_infinity_and_train():
    head = Head(16, ZONES)
    raw = head(torch.randn(4, 16))
    assert (raw[:, 1, 2] == float("-inf")).all()
    assert raw[:, 1, :2].isfinite().all()
    nn.functional.cross_entropy(raw.flatten(0, 1), torch.tensor([0, 1, 2, 0, 1, 1, 0, 0])).backward()
    assert head.linear.weight.grad is not None
    assert head.linear.weight.grad.isfinite().all()
    assert head.linear.out_features == 5


def test_six_zone_head_of_csi_has_the_published_size():
    zones = Target("multioutput", outputs=tuple(Output(f"zone{i}", tuple("01234")) for i in range(6)))
    assert sum(p.numel() for p in Head(2048, zones).parameters()) == 61_470
    assert sum(p.numel() for p in Head(1024, zones).parameters()) == 30_750


def test_dropout_is_a_module_even_at_zero():
    head = Head(8, GRADES)
    assert [type(module) for module in head.modules()].count(nn.Dropout) == 1
    assert isinstance(Head(8, GRADES, norm=True).norm, nn.LayerNorm)
    head.dropout.p = 0.5
    ones = torch.ones(1, 8)
    assert not torch.equal(head(ones), head(ones))


def test_half_precision_raw_outputs_are_decoded_in_float32():
    raw = torch.tensor([[3.0, 1.0, -1.0, -3.0]])
    torch.testing.assert_close(decode(raw.bfloat16(), GRADES, "corn"), decode(raw, GRADES, "corn"))


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (Target("multiclass", tuple("abc")), "corn"),
        (Target("multilabel", tuple("abc")), "coral"),
        (Target("multiclass", ("a",)), "linear"),
        (GRADES, "quadratic"),
    ],
)
def test_heads_that_make_no_sense_are_refused(target, kind):
    with pytest.raises(UsageProblem):
        Head(8, target, kind)


def test_decoding_the_wrong_number_of_outputs_is_refused():
    with pytest.raises(UsageProblem, match="4 outputs, not 5"):
        decode(torch.zeros(1, 5), GRADES, "corn")
