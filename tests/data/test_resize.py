"""The one definition of resizing, against torch's own interpolation and identities that need no other library."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medcli.data.dataset import Picture, Preprocessing
from medcli.data.resize import normalise, to_planes, to_tensor, untouched_bytes

GREY = Preprocessing(32, 1, (0.5,), (0.25,))
COLOUR = Preprocessing(32, 3, (0.1, 0.2, 0.3), (0.5, 0.25, 0.125))
RNG = np.random.default_rng(0)


def grey(height: int, width: int) -> Picture:
    return Picture(RNG.integers(0, 256, (height, width), dtype=np.uint8), 0, 255)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_squash_is_torchs_antialiased_interpolation(interpolation: str) -> None:
    picture = grey(97, 51)
    expected = F.interpolate(
        torch.from_numpy(picture.pixels)[None, None].float() / 255,
        size=(32, 32),
        mode=interpolation,
        align_corners=False,
        antialias=True,
    )[0]
    assert torch.equal(to_tensor(picture, replace(GREY, interpolation=interpolation)), expected)


def test_bicubic_overshoot_is_not_clamped() -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, 32:] = 255
    result = to_tensor(Picture(pixels, 0, 255), replace(GREY, interpolation="bicubic"))
    assert result.min() < 0
    assert result.max() > 1


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_a_picture_of_the_right_size_is_left_alone(fit: str) -> None:
    picture = grey(32, 32)
    expected = torch.from_numpy(picture.pixels).float() / 255
    assert torch.equal(to_tensor(picture, replace(GREY, fit=fit))[0], expected)


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(np.uint8, 0, 255), (np.uint16, 0, 4095), (np.float32, -1000.0, 400.0)]
)
def test_units_follow_the_declared_range(dtype: type, low: float, high: float) -> None:
    pixels = np.full((32, 32), low, dtype)
    pixels[0, 0] = high
    result = to_tensor(Picture(pixels, low, high), GREY)
    assert result[0, 0, 0] == 1
    assert result[0, 1:].eq(0).all()


def test_sixteen_bits_keep_their_depth_until_resizing() -> None:
    pixels = np.full((64, 64), 20000, np.uint16)
    pixels[:, ::2] += 1
    result = to_tensor(Picture(pixels, 0, 65535), GREY)
    assert result.mean().item() == pytest.approx(20000.5 / 65535, abs=1e-7)


def test_grey_is_repeated_for_three_channels() -> None:
    picture = grey(50, 40)
    three = to_tensor(picture, COLOUR)
    assert three.shape == (3, 32, 32)
    assert three.is_contiguous()
    for plane in three:
        assert torch.equal(plane, to_tensor(picture, GREY)[0])
    assert to_planes(picture, COLOUR).shape == (1, 32, 32)


def test_colour_becomes_grey_by_luma() -> None:
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        pixels = np.zeros((32, 32, 3), np.uint8)
        pixels[..., channel] = 255
        assert to_tensor(Picture(pixels, 0, 255), GREY).flatten()[0].item() == pytest.approx(weight, abs=1e-6)


def test_colour_keeps_the_order_of_its_channels() -> None:
    pixels = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    result = to_tensor(Picture(pixels, 0, 255), COLOUR)
    assert torch.equal(result, torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)


def test_padding_keeps_the_shape_of_a_circle_and_is_black() -> None:
    result = to_tensor(Picture(np.full((20, 80), 255, np.uint8), 0, 255), replace(GREY, fit="pad"))[0]
    assert result[:12].eq(0).all()
    assert torch.allclose(result[12:20], torch.ones(8, 32))
    assert result[20:].eq(0).all()


def test_cropping_takes_the_centre_of_the_longer_side() -> None:
    ramp = np.tile(np.arange(96, dtype=np.float32), (32, 1))
    result = to_tensor(Picture(ramp, 0.0, 1.0), replace(GREY, fit="crop"))[0]
    assert torch.equal(result[0], torch.arange(32, 64).float())


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (2, 3), (33, 31)])
def test_every_shape_becomes_a_finite_square(shape: tuple[int, int], fit: str) -> None:
    result = to_tensor(grey(*shape), replace(COLOUR, fit=fit))
    assert result.shape == (3, 32, 32)
    assert result.isfinite().all()


def test_bytes_stand_for_the_same_values() -> None:
    picture = grey(32, 32)
    kept = untouched_bytes(picture, COLOUR)
    assert kept is not None
    assert torch.equal(torch.from_numpy(kept).float() / 255, to_planes(picture, COLOUR))


@pytest.mark.parametrize(
    "picture",
    [
        grey(32, 31),
        Picture(np.zeros((32, 32), np.uint16), 0, 65535),
        Picture(np.zeros((32, 32), np.uint8), 0, 200),
        Picture(np.zeros((32, 32), np.uint8), 255, 0),
        Picture(np.zeros((32, 32, 3), np.uint8), 0, 255),
    ],
    ids=["size", "depth", "range", "inverted", "colour to grey"],
)
def test_bytes_are_not_kept_where_they_would_lose_something(picture: Picture) -> None:
    assert untouched_bytes(picture, GREY) is None


def test_a_picture_is_not_written_to() -> None:
    pixels = np.full((32, 32), 7.0, np.float32)
    to_tensor(Picture(pixels, 1.0, 9.0), GREY)
    assert (pixels == 7).all()


def test_normalise_by_channel() -> None:
    batch = torch.rand(4, 3, 8, 8)
    result = normalise(batch, COLOUR)
    for channel in range(3):
        expected = (batch[:, channel] - COLOUR.mean[channel]) / COLOUR.std[channel]
        assert torch.allclose(result[:, channel], expected, atol=1e-6)


def test_normalise_takes_one_value_for_all_channels_and_views() -> None:
    plane = torch.rand(2, 1, 8, 8)
    result = normalise(plane.expand(-1, 3, -1, -1), Preprocessing(8, 3, (0.5,), (0.25,)))
    assert result.is_contiguous()
    assert torch.equal(result[:, 2:], (plane - 0.5) / 0.25)
