"""Mixup and cutmix against timm's and against formulas; what follows from where; and labels that are missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import beta, kstest
from timm.data.mixup import Mixup, mixup_target
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor

from medcli.data.batches import Batch
from medcli.data.shares import Share
from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.training.losses import make_criterion
from medcli.training.mixing import Mixed, Mixing, partners
from medcli.training.plan import Plan

ALONE = Share()
CLASSES = Target("multiclass", ("a", "b", "c"))
LABELLED = Target("multilabel", ("x", "y", "z"))
ZONES = Target("multioutput", outputs=(Output("left", ("0", "1", "2")), Output("right", ("no", "yes"))))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(count: int = 6, first: int = 0, size: int = 20) -> Batch:
    images = torch.rand(count, 2, size, size, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.arange(count) % 3, torch.arange(first, first + count))


def blended(kept: float, count: int) -> Mixed:
    partner = partners(count, ALONE)
    return Mixed(kept, None, partner, partner)


def test_a_pair_is_blended_as_timm_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = torch.rand(2, 3, 8, 8)
    timms = Mixup(mixup_alpha=0.3, num_classes=3, label_smoothing=0.1)
    monkeypatch.setattr(timms, "_params_per_batch", lambda: (0.3, False))
    labels, raw = torch.tensor([0, 2]), draw(2, 3).float()
    expected_images, soft = timms(pair.clone(), labels)
    mixed = blended(0.3, 2)
    torch.testing.assert_close(mixed.images(pair), expected_images)
    criterion = make_criterion(CLASSES, "ce", smoothing=0.1)
    torch.testing.assert_close(mixed.loss(criterion, raw, labels), SoftTargetCrossEntropy()(raw, soft))


def test_a_pair_is_patched_as_timm_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = torch.rand(2, 3, 10, 10)
    timms = Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, num_classes=3, label_smoothing=0.0)
    monkeypatch.setattr(timms, "_params_per_batch", lambda: (0.4, True))
    box = (2, 7, 5, 9)
    monkeypatch.setattr("timm.data.mixup.rand_bbox", lambda *args, **kwargs: box)
    labels, raw = torch.tensor([1, 2]), draw(2, 3).float()
    expected_images, soft = timms(pair.clone(), labels)
    mixed = Mixed(1 - 5 * 4 / 100, box, torch.tensor([1, 0]), torch.tensor([1, 0]))
    assert torch.equal(mixed.images(pair), expected_images)
    torch.testing.assert_close(
        mixed.loss(make_criterion(CLASSES, "ce"), raw, labels), SoftTargetCrossEntropy()(raw, soft)
    )


def test_blended_multilabel_targets_are_timms() -> None:
    labels, raw = (draw(2, 3, seed=3) > 0).double(), draw(2, 3)
    soft = mixup_target(labels, 3, lam=0.25, smoothing=0.2, multi_label=True).double()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(raw, soft)
    criterion = make_criterion(LABELLED, "bce", smoothing=0.2)
    torch.testing.assert_close(blended(0.25, 2).loss(criterion, raw, labels), expected, rtol=1e-6, atol=0)


def test_focal_and_class_weights_against_soft_targets() -> None:
    raw, labels = draw(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    weights, kept = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64), 0.7
    order = partners(6, ALONE).numpy()
    own = np.eye(3)[labels.numpy()]
    soft = kept * own + (1 - kept) * own[order]
    log_p = log_softmax(raw.numpy(), axis=1)
    focal = (-soft * (1 - np.exp(log_p)) ** 2 * log_p).sum(axis=1).mean()
    mixed = blended(kept, 6)
    assert mixed.loss(make_criterion(CLASSES, "focal", gamma=2.0), raw, labels).item() == pytest.approx(focal)
    weighed = (-soft * weights.numpy() * log_p).sum() / weights.numpy()[labels.numpy()].sum()
    assert mixed.loss(make_criterion(CLASSES, "ce", weights=weights), raw, labels).item() == pytest.approx(weighed)


@pytest.mark.parametrize("loss", ["bce", "focal", "asl"])
def test_a_label_missing_in_either_image_has_a_gradient_of_exactly_zero(loss: Any) -> None:
    raw = draw(4, 3).requires_grad_()
    labels = torch.tensor([[1.0, 0.0, 1.0]] * 4, dtype=torch.float64)
    labels[0, 2] = labels[3, 0] = float("nan")
    blended(0.6, 4).loss(make_criterion(LABELLED, loss), raw, labels).backward()
    assert raw.grad is not None
    assert (raw.grad == 0).nonzero().tolist() == [[0, 2], [1, 2], [2, 0], [3, 0]]
    assert torch.isfinite(raw.grad).all()


def test_outputs_missing_in_either_image_have_no_gradient() -> None:
    raw = draw(4, 2, 3).requires_grad_()
    labels = torch.tensor([[0, 1], [2, -1], [1, 0], [1, 1]])
    blended(0.6, 4).loss(make_criterion(ZONES, "ce"), raw, labels).backward()
    assert raw.grad is not None
    assert (raw.grad[:2, 1] == 0).all()
    assert (raw.grad[2:, 1, :2] != 0).all()
    assert (raw.grad[:, 0] != 0).all()


def test_partners_are_neighbours_within_each_process() -> None:
    assert partners(5, ALONE).tolist() == [1, 0, 3, 2, 4]
    assert torch.equal(partners(8, Share(0, 2)), partners(8, ALONE))
    assert partners(6, Share(1, 2)).tolist() == [1, 0, 2, 4, 3, 5]
    for count in range(1, 12):
        for of in (1, 2, 3):
            partner = partners(count, Share(0, of))
            assert torch.equal(partner[partner], torch.arange(count))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("count", [7, 8])
def test_processes_together_mix_what_their_pairs_say(mixup: float, cutmix: float, count: int) -> None:
    whole = batch(count)
    mixing = Mixing(mixup, cutmix, 3)
    reference = mixing.draw(whole, 1, Share(0, 2))
    expected = Mixed(reference.kept, reference.box, reference.partner, reference.partner).images(whole.images)
    for rank in range(2):
        share = Share(rank, 2)
        own = torch.from_numpy(share.own(count, count))
        held = Batch(whole.images[own], whole.labels, whole.index, own)
        mine = mixing.draw(held, 1, share)
        assert (mine.kept, mine.box) == (reference.kept, reference.box)
        real = share.counts(count)[rank]
        assert torch.equal(mine.images(held.images)[:real], expected[own[:real]])


def test_what_is_drawn_follows_from_seed_epoch_and_batch() -> None:
    first = Mixing(0.4, 0.0, 0).draw(batch(), 0, ALONE).kept
    assert first == Mixing(0.4, 0.0, 0).draw(batch(), 0, ALONE).kept
    others = [
        Mixing(0.4, 0.0, 1).draw(batch(), 0, ALONE).kept,
        Mixing(0.4, 0.0, 0).draw(batch(), 1, ALONE).kept,
        Mixing(0.4, 0.0, 0).draw(batch(first=6), 0, ALONE).kept,
        Mixing(1.4, 0.0, 0).draw(batch(), 0, ALONE).kept,
    ]
    assert len({first, *others}) == 5


def test_numpys_and_torchs_random_states_are_left_alone() -> None:
    before, state = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[union-attr,index]
    Mixing(0.4, 1.0, 0).draw(batch(), 0, ALONE).images(batch().images)
    assert (before == np.random.get_state()[1]).all()  # type: ignore[index]
    assert torch.equal(state, torch.get_rng_state())


def test_shares_have_their_distribution_and_both_kinds_come_equally_often() -> None:
    drawn = [Mixing(0.4, 0.0, 0).draw(batch(), epoch, ALONE).kept for epoch in range(500)]
    assert kstest(drawn, beta(0.4, 0.4).cdf).pvalue > 0.01
    both = [Mixing(0.4, 1.0, 0).draw(batch(), epoch, ALONE) for epoch in range(500)]
    assert abs(sum(one.box is not None for one in both) - 250) < 45


def test_labels_go_by_the_area_that_was_exchanged() -> None:
    images = batch(2).images
    for epoch in range(30):
        mixed = Mixing(0.0, 1.0, 0).draw(batch(2), epoch, ALONE)
        result = mixed.images(images)
        kept = (result[0] == images[0]).all(dim=0).float().mean().item()
        assert mixed.kept == pytest.approx(kept, abs=1e-6)
        assert ((result[0] == images[0]) | (result[0] == images[1])).all()


@pytest.mark.parametrize("setting", ["mixup", "cutmix", "logit_adjust"])
@pytest.mark.parametrize("loss", ["corn", "coral"])
def test_ranks_are_not_mixed(make_plan: Callable[..., Plan], setting: str, loss: str) -> None:
    words: dict[str, Any] = {"task": "ordinal", "class_names": ("0", "1"), "loss": loss, setting: 0.5}
    with pytest.raises(UsageProblem) as problem:
        make_plan(**words)
    assert f"--{setting.replace('_', '-')}" in problem.value.message
    assert "--loss ce" in str(problem.value.hint)
    make_plan(**{**words, "loss": "ce"})
