"""Losses of maps against the same by hand and scikit-image; masks; figures of change against counted pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity as reference_ssim
from sklearn.metrics import average_precision_score

from medcli.diffmap.losses import MapLoss, PictureLoss, slopes, spectra, structural_similarity
from medcli.diffmap.masking import Masking, Ramp
from medcli.diffmap.metrics import best_threshold, change_precision, false_area

NAN = float("nan")


def test_changed_pixels_count_ten_times_and_unknown_ones_nothing() -> None:
    truth = torch.tensor([[[[0.0, 0.5], [0.0, NAN]]]])
    found = torch.tensor([[[[0.1, 0.3], [0.0, 9.0]]]], requires_grad=True)
    loss, terms = MapLoss(scale=2.0, l1=1.0, l2=3.0)(found, truth)
    # Errors 0.2 and 0.4 after scaling, weights 1 and 10, three known pixels.
    assert terms["l1"].item() == pytest.approx((0.2 + 10 * 0.4) / 3)
    assert terms["l2"].item() == pytest.approx((0.2**2 + 10 * 0.4**2) / 3)
    assert loss.item() == pytest.approx(terms["l1"].item() + 3 * terms["l2"].item())
    loss.backward()
    assert found.grad is not None
    assert found.grad[0, 0, 1, 1] == 0
    plain, _ = MapLoss("l1-l2", scale=2.0, l2=0.0)(found, truth)
    assert plain.item() == pytest.approx((0.2 + 0.4) / 3)


def test_a_map_without_any_truth_has_no_loss() -> None:
    loss, _ = MapLoss(gradient=1.0)(torch.rand(1, 1, 16, 16), torch.full((1, 1, 16, 16), NAN))
    assert loss.item() == 0


def test_similarity_is_that_of_scikit_image() -> None:
    random = np.random.default_rng(0)
    one = random.random((2, 40, 33)).astype(np.float64)
    other = (one + 0.2 * random.random(one.shape)).clip(0, 1)
    ours = structural_similarity(torch.from_numpy(one)[:, None], torch.from_numpy(other)[:, None], 2.0)
    theirs = []
    for a, b in zip(one, other, strict=True):
        _, whole = reference_ssim(
            a, b, data_range=2.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        theirs.append(whole[5:-5, 5:-5].mean())
    assert ours.item() == pytest.approx(np.mean(theirs), abs=1e-6)


def test_slopes_and_spectra_see_what_a_mean_does_not() -> None:
    edge = torch.zeros(1, 1, 16, 16)
    edge[..., 8:] = 1.0
    assert slopes(edge, edge + 0.3).item() == pytest.approx(0.0, abs=1e-6)
    assert slopes(edge, torch.zeros_like(edge)).item() > 0.01
    assert spectra(edge, edge.roll(3, -1)).item() == pytest.approx(0.0, abs=1e-6)
    assert spectra(edge, 1.5 * edge).item() > 0.01


def test_only_hidden_pixels_of_a_picture_count() -> None:
    picture, hidden = torch.rand(2, 1, 16, 16), torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    hidden[:, :, :4, :4] = True
    found = torch.where(hidden, picture + 0.25, torch.rand_like(picture))
    loss, _ = PictureLoss(ssim=0.0)(found, picture, hidden)
    assert loss.item() == pytest.approx(0.25)
    whole, terms = PictureLoss(ssim=1.0, gradient=1.0, fourier=1.0)(found, picture, hidden)
    assert set(terms) == {"l1", "l2", "ssim", "gradient", "fourier"}
    assert whole.item() > loss.item()


def test_the_chance_rises_stays_and_falls() -> None:
    ramp = Ramp(0.7, 1000)
    found = [ramp.at(step) for step in (0, 50, 150, 250, 600, 650, 750, 999)]
    assert found == pytest.approx([0.05, 0.05, 0.375, 0.7, 0.7, 0.7, 0.375, 0.375])
    assert ramp.at(700) == pytest.approx(0.5375)


def test_masks_hide_what_their_mode_says() -> None:
    index = torch.arange(400)
    single = Masking("single", 4, 0)(index, 0, 0.7, 32)
    assert (single.flatten(1).sum(1) == 64).all()
    spots = single[:, 0, ::8, ::8].flatten(1).float().mean(0).reshape(4, 4)
    assert spots[1:3, 1:3].mean() > spots[[0, 0, 3, 3], [0, 3, 0, 3]].mean()
    board = Masking("checkerboard", 4, 0)(index, 0, 0.7, 32)
    assert (board.flatten(1).sum(1) == 512).all()
    assert (board[:, 0, 0, 0] != board[:, 0, 0, 8]).all()
    share = Masking("random", 4, 0)(index, 0, 0.3, 32)[:, 0, ::8, ::8].float().mean()
    assert share.item() == pytest.approx(0.3, abs=0.03)
    assert Masking("random", 4, 0)(index, 0, 0.0, 32).flatten(1).any(1).all()


def test_masks_follow_from_image_and_epoch_alone() -> None:
    masking = Masking("random", 4, 3)
    alone = masking(torch.tensor([7]), 2, 0.5, 16)
    assert torch.equal(alone[0], masking(torch.tensor([1, 7, 9]), 2, 0.5, 16)[1])
    assert not torch.equal(alone, masking(torch.tensor([7]), 3, 0.5, 16))


def test_change_is_counted_in_changed_pairs_alone() -> None:
    random = np.random.default_rng(1)
    truth = np.zeros((3, 8, 8), dtype=np.float32)
    truth[0, :2], truth[1, 6:, :4], truth[0, 0, 0] = 0.3, -0.2, np.nan
    maps = (truth + random.normal(0, 0.15, truth.shape)).astype(np.float32)
    maps[0, 0, 0] = 5
    found = change_precision(list(maps), list(truth))
    valid = ~np.isnan(truth[:2])
    assert found.pairs == 2
    assert found.positive == pytest.approx(average_precision_score(truth[:2][valid] > 0.02, maps[:2][valid]))
    assert found.negative == pytest.approx(average_precision_score(truth[:2][valid] < -0.02, -maps[:2][valid]))
    assert found.mean == pytest.approx((found.positive + found.negative) / 2)
    assert np.isnan(change_precision([maps[2]], [truth[2]]).mean)


def test_false_area_is_counted_in_unchanged_pairs_alone() -> None:
    truth = np.zeros((2, 4, 5), dtype=np.float32)
    truth[1, 0, 0] = 0.5
    truth[0, 0] = np.nan
    maps = np.zeros_like(truth)
    maps[0, 0], maps[0, 1, :3], maps[1] = 1, -0.4, 1
    assert false_area(list(maps), list(truth), 0.4) == pytest.approx(3 / 15)
    assert np.isnan(false_area([maps[1]], [truth[1]], 0.4))


def test_the_best_threshold_separates() -> None:
    truth = np.zeros((1, 10, 10), dtype=np.float32)
    truth[0, :3] = -0.3
    maps = np.where(truth < 0, -0.5, 0.2).astype(np.float32)
    assert 0.2 < best_threshold(list(maps), list(truth)) <= 0.5
