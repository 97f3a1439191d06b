"""Augmentation: a function of (seed, epoch, position) alone, of known geometry, and within the documented ranges."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from medcli.data.augment import LEVELS, Augmentation, Flip, Level, Strength
from medcli.data.augment import augmentation as module
from medcli.data.augment import draws as streams_of
from medcli.data.augment.draws import STREAMS, counters_of
from medcli.data.augment.draws import uniform as uniform_numbers

EVERY = [level for level in get_args(Level) if level != "none"]


def pictures(count: int = 8, channels: int = 1, size: int = 24) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def only(monkeypatch: pytest.MonkeyPatch, **ranges: Any) -> Augmentation:
    """An augmentation that does one thing."""
    monkeypatch.setattr(module, "LEVELS", {**LEVELS, "light": Strength(**ranges)})
    return Augmentation("light", "none", 0)


def drawn(monkeypatch: pytest.MonkeyPatch, value: float, **streams: float) -> None:
    """Every random number is `value` (0.5: nothing happens), but for the streams named."""

    def uniform(counters: Any) -> Any:
        draws = torch.full((len(counters), STREAMS), value).numpy()
        for name, number in streams.items():
            draws[:, getattr(streams_of, name)] = number
        return draws

    monkeypatch.setattr(module, "uniform", uniform)


def test_none_does_nothing() -> None:
    images = pictures()
    assert torch.equal(Augmentation("none", "none", 3)(images, torch.arange(8), 1), images)


@pytest.mark.parametrize("level", EVERY)
def test_an_image_changes_the_same_way_in_any_company(level: Level) -> None:
    images, index, change = pictures(), torch.arange(10, 18), Augmentation(level, "both", 4)
    whole = change(images, index, 2)
    for rows in ([3], [7, 0], [1, 2, 3, 4, 5]):
        assert torch.equal(whole[rows], change(images[rows], index[rows], 2))


@pytest.mark.parametrize("level", EVERY)
def test_seed_epoch_and_position_each_change_it(level: Level) -> None:
    images, index = pictures(), torch.arange(8)
    first = Augmentation(level, "none", 0)(images, index, 0)
    assert torch.equal(first, Augmentation(level, "none", 0)(images, index, 0))
    for other in (
        Augmentation(level, "none", 1)(images, index, 0),
        Augmentation(level, "none", 0)(images, index, 1),
        Augmentation(level, "none", 0)(images, index + 8, 0),
    ):
        assert not (first == other).flatten(1).all(dim=1).any()


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    Augmentation("heavy", "both", 0)(pictures(), torch.arange(8), 0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("level", EVERY)
def test_a_grey_view_is_changed_as_one_plane(level: Level) -> None:
    plane = pictures()
    change, index = Augmentation(level, "both", 0), torch.arange(8)
    as_view = change(plane.expand(-1, 3, -1, -1), index, 0)
    assert as_view.stride(1) == 0
    assert torch.equal(as_view, change(plane.repeat(1, 3, 1, 1), index, 0))


def test_input_is_not_written_to() -> None:
    images = pictures()
    kept = images.clone()
    Augmentation("heavy", "both", 0)(images, torch.arange(8), 0)
    assert torch.equal(images, kept)


@pytest.mark.parametrize(
    ("flip", "allowed"),
    [("horizontal", [(), (-1,)]), ("vertical", [(), (-2,)]), ("both", [(), (-1,), (-2,), (-1, -2)])],
)
def test_flips_are_exact_and_fair(flip: Flip, allowed: list[tuple[int, ...]]) -> None:
    images = pictures(1, 3).expand(400, -1, -1, -1).contiguous()
    result = Augmentation("none", flip, 0)(images, torch.arange(400), 0)
    counts = [sum(torch.equal(one, images[0].flip(axes)) for one in result) for axes in allowed]
    assert sum(counts) == 400
    expected = 400 / len(allowed)
    assert all(abs(count - expected) < 4 * math.sqrt(expected) for count in counts)


def test_a_rotation_by_a_right_angle_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    change = only(monkeypatch, rotate=90)
    drawn(monkeypatch, 0.5, ROTATE=1.0)
    images = pictures(2, 3)
    assert torch.allclose(change(images, torch.arange(2), 0), images.rot90(1, (-2, -1)), atol=1e-5)


def test_a_rotation_keeps_distances_on_an_oblong_image(monkeypatch: pytest.MonkeyPatch) -> None:
    change = only(monkeypatch, rotate=90)
    drawn(monkeypatch, 0.5, ROTATE=1.0)
    image = torch.zeros(1, 1, 21, 41)
    image[0, 0, 10, 25] = 1  # five pixels right of the centre
    result = change(image, torch.arange(1), 0)[0, 0]
    assert (result == result.max()).nonzero().tolist() == [[5, 20]]  # five pixels above it


def test_a_shift_is_a_share_of_the_side(monkeypatch: pytest.MonkeyPatch) -> None:
    change = only(monkeypatch, shift=0.25)
    drawn(monkeypatch, 0.5, SHIFT_X=1.0)
    images = pictures(2)
    result = change(images, torch.arange(2), 0)
    assert torch.allclose(result[..., :18], images[..., 6:], atol=1e-5)
    assert torch.allclose(result[..., 18:], images[..., -1:].expand(-1, -1, -1, 6), atol=1e-5)  # the border goes on


def test_a_zoom_enlarges(monkeypatch: pytest.MonkeyPatch) -> None:
    change = only(monkeypatch, scale=1.0)
    drawn(monkeypatch, 0.5, SCALE=1.0)
    image = torch.zeros(1, 1, 24, 24)
    image[..., 9:15, 9:15] = 1
    assert change(image, torch.arange(1), 0).sum().item() == pytest.approx(4 * 36, rel=0.01)


def test_contrast_turns_about_mid_grey_and_brightness_shifts(monkeypatch: pytest.MonkeyPatch) -> None:
    change = only(monkeypatch, contrast=0.5, brightness=0.1)
    drawn(monkeypatch, 0.5, CONTRAST=1.0, BRIGHTNESS=0.0)
    images = pictures(2)
    assert torch.allclose(change(images, torch.arange(2), 0), (images - 0.5) * 1.5 + 0.5 - 0.1, atol=1e-5)


def test_noise_has_its_standard_deviation_and_no_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    change = only(monkeypatch, noise=0.1)
    drawn(monkeypatch, 0.5, NOISE=1.0)
    flat = torch.full((6, 1, 64, 64), 0.5)
    noise = change(flat, torch.arange(6), 0) - flat
    assert noise.mean().item() == pytest.approx(0, abs=0.003)
    for one in noise:
        assert one.std().item() == pytest.approx(0.1, rel=0.05)
    flattened = noise.flatten(1)
    assert torch.corrcoef(flattened).fill_diagonal_(0).abs().max() < 0.06
    assert abs(torch.corrcoef(torch.stack([flattened[0, :-1], flattened[0, 1:]]))[0, 1]) < 0.06


def test_erasing_covers_rectangles_as_often_and_as_large_as_said(monkeypatch: pytest.MonkeyPatch) -> None:
    change = only(monkeypatch, erase=0.5, erase_area=(0.1, 0.2))
    images = torch.zeros(400, 1, 40, 40)
    erased = change(images, torch.arange(400), 0)[:, 0] == 0.5
    shares = erased.flatten(1).float().mean(dim=1)
    hit = shares > 0
    assert abs(int(hit.sum()) - 200) < 40
    assert 0.08 < shares[hit].min() < shares[hit].max() < 0.23
    for one in erased[hit][:20]:
        rows, columns = one.any(dim=1), one.any(dim=0)
        assert int(one.sum()) == int(rows.sum()) * int(columns.sum())


def test_uniform_numbers_are_uniform() -> None:
    draws = torch.from_numpy(uniform_numbers(counters_of(0, 0, torch.arange(4000))))
    assert draws.min() >= 0
    assert draws.max() < 1
    assert (draws.mean(dim=0) - 0.5).abs().max() < 0.025
    assert (draws.var(dim=0) - 1 / 12).abs().max() < 0.006
    assert torch.corrcoef(draws.T).fill_diagonal_(0).abs().max() < 0.07


def test_levels_grow() -> None:
    ranges = ("shift", "rotate", "scale", "contrast", "brightness")
    for name in ranges:
        values = [getattr(LEVELS[level], name) for level in get_args(Level)]
        assert values == sorted(set(values))


def test_light_is_what_a_radiograph_bears() -> None:
    assert (LEVELS["light"].rotate, LEVELS["light"].shift, LEVELS["light"].scale) == (10, 0.05, 0.10)
    assert LEVELS["light"].contrast == 0.15
