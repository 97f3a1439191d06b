"""What each kind of picture bears, and what is left of the published policies, against torchvision and skimage."""

from __future__ import annotations

import colorsys
import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from skimage.color import hed2rgb, rgb2hed
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as T

from medcli.data.augment import MODALITIES, Augmentation, Flip, Strength, modality_named
from medcli.data.augment import augmentation as module
from medcli.data.augment import draws as streams
from medcli.data.augment.draws import EXTRAS, counters_of, uniform
from medcli.data.augment.intensity import add_speckle, bend, recolour, restain
from medcli.data.augment.policies import RAND_LEVEL, RAND_OPERATIONS, Policy, Step, apply_policy, policy_of
from medcli.errors import UsageProblem
from medcli.recommend.rules import rules

KINDS = [
    *(("modality", name) for name in MODALITIES),
    *((policy, name) for policy in ("randaugment", "autoaugment") for name in (None, "chest-xray", "dermoscopy")),
]
RADIOGRAPHS = ("chest-xray", "xray", "mammography")
COLOURED = ("dermoscopy", "histology", "blood")


def pictures(count: int = 8, channels: int = 3, size: int = 24, seed: int = 0) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def smooth(size: int = 64) -> Tensor:
    """A picture that interpolation hardly changes, [1, 1, size, size]."""
    axis = torch.linspace(0, 1, size)
    return (0.5 + 0.3 * torch.sin(5 * axis[:, None] + 2) * torch.cos(4 * axis[None, :]))[None, None]


def numbers(count: int, value: float = 0.5, **named: float) -> Any:
    """Extra random numbers that are all `value` (0.5: nothing happens) but for those named."""
    extra = np.full((count, EXTRAS), value, dtype=np.float32)
    for name, number in named.items():
        extra[:, getattr(streams, name)] = number
    return extra


@pytest.mark.parametrize(("level", "modality"), KINDS)
def test_an_image_changes_the_same_way_in_any_company(level: Any, modality: str | None) -> None:
    images, index, change = pictures(), torch.arange(10, 18), Augmentation(level, "both", 4, modality)
    kept, state = images.clone(), torch.get_rng_state()
    whole = change(images, index, 2)
    assert torch.equal(images, kept)
    assert torch.equal(torch.get_rng_state(), state)
    for rows in ([3], [7, 0], [1, 2, 3, 4, 5]):
        assert torch.equal(whole[rows], change(images[rows], index[rows], 2))


@pytest.mark.parametrize(("level", "modality"), KINDS)
def test_seed_epoch_and_position_each_change_it(level: Any, modality: str | None) -> None:
    images, index = pictures(), torch.arange(8)
    first = Augmentation(level, "none", 0, modality)(images, index, 0)
    for other in (
        Augmentation(level, "none", 1, modality)(images, index, 0),
        Augmentation(level, "none", 0, modality)(images, index, 1),
        Augmentation(level, "none", 0, modality)(images, index + 8, 0),
    ):
        # A policy may leave an image alone.
        assert (first == other).flatten(1).all(dim=1).sum() <= (0 if level == "modality" else 4)


@pytest.mark.parametrize(("level", "modality"), KINDS)
def test_a_grey_view_is_changed_as_one_plane(level: Any, modality: str | None) -> None:
    plane = pictures(channels=1)
    change, index = Augmentation(level, "both", 0, modality), torch.arange(8)
    as_view = change(plane.expand(-1, 3, -1, -1), index, 0)
    assert as_view.stride(1) == 0
    torch.testing.assert_close(as_view[:, :1], change(plane, index, 0), rtol=0, atol=0)


@pytest.mark.parametrize("flip", get_args(Flip))
def test_it_says_which_images_it_mirrors(flip: Flip) -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., 0] = 1
    change = Augmentation("none", flip, 3)
    result = change(image.expand(200, -1, -1, -1), torch.arange(200), 5)
    assert torch.equal(change.mirrored(torch.arange(200), 5), result[:, 0, 0, -1] == 1)
    assert int((result[:, 0, 0, -1] == 1).sum()) == 0 or flip in ("horizontal", "both")


def test_kinds_are_those_that_recommendations_know() -> None:
    assert set(MODALITIES) == set(rules().modalities)
    with pytest.raises(UsageProblem) as problem:
        modality_named("fondus")
    assert "`fundus`?" in str(problem.value.hint)


def test_what_is_safe_is_what_the_literature_calls_safe() -> None:
    for name in RADIOGRAPHS:
        safe = MODALITIES[name].safe
        assert (safe.rotate, safe.shift, safe.scale, safe.gamma, safe.contrast) == (10, 0.05, 0.1, 0.15, 0.15)
        assert (safe.flip, safe.turns, safe.hue, safe.saturation, safe.erase) == ("none", False, 0, 0, 0)
    flips = {name: kind.safe.flip for name, kind in MODALITIES.items()}
    assert flips["ct"] == flips["mri"] == "none"
    assert flips["oct"] == flips["ultrasound"] == flips["fundus"] == "horizontal"
    assert {name for name, kind in MODALITIES.items() if kind.safe.flip == "both"} == {*COLOURED, "tissue"}
    assert MODALITIES["ultrasound"].safe.rotate <= 15
    assert MODALITIES["oct"].safe.rotate <= 10
    assert MODALITIES["fundus"].safe.rotate == 180
    assert MODALITIES["histology"].safe.scale == 0
    assert {name for name, kind in MODALITIES.items() if kind.safe.stain} == {"histology"}
    assert {name for name, kind in MODALITIES.items() if kind.safe.speckle} == {"oct", "ultrasound"}


def test_what_harms_a_kind_of_picture_is_in_none_of_its_policies() -> None:
    for policy in ("randaugment", "autoaugment"):
        for name in MODALITIES:
            left = policy_of(policy, name)
            assert not {"Posterize", "Solarize", "Invert"} & set(left.operations)
            assert left.rotate <= min(30, MODALITIES[name].safe.rotate)
            assert left.shift <= 0.05
            assert left.enhance <= 0.3
        for name in RADIOGRAPHS:
            assert not {"Color", "ShearX", "ShearY"} & set(policy_of(policy, name).operations)
        for name in COLOURED:
            assert not {"Color", "AutoContrast", "Equalize"} & set(policy_of(policy, name).operations)
        assert not {"Equalize", "AutoContrast", "Sharpness"} & set(policy_of(policy, "ct").operations)
        assert "Rotate" in policy_of(policy, "chest-xray").operations


def test_policies_are_the_published_ones_where_no_kind_is_named() -> None:
    rand = policy_of("randaugment", None)
    assert (
        tuple(step.operation for step in rand.rows[0]) == RAND_OPERATIONS == tuple(v2.RandAugment._AUGMENTATION_SPACE)
    )
    assert len(rand.rows) == v2.RandAugment().num_ops
    assert rand.rows[0][1].level == v2.RandAugment().magnitude / (v2.RandAugment().num_magnitude_bins - 1)
    auto = policy_of("autoaugment", None)
    published = v2.AutoAugment()._policies
    pairs = list(zip(*auto.rows, strict=True))
    assert [[(s.operation, s.probability, round(s.level * 9)) for s in pair] for pair in pairs] == [
        [(name, chance, level or 0) for name, chance, level in pair] for pair in published
    ]


def changed(image: Tensor, operation: str, level: float, sign: int, policy: Policy | None = None) -> Tensor:
    """One image [C, H, W] after one operation."""
    whole = Policy(((Step(operation, level=level),),), together=False)
    extra = np.full((1, EXTRAS), 0.1 if sign < 0 else 0.9, dtype=np.float32)
    return apply_policy(image[None], extra, policy or whole)[0]


@pytest.mark.parametrize("level", [RAND_LEVEL, 8 / 9])
@pytest.mark.parametrize("operation", sorted({*RAND_OPERATIONS, "Invert"} - {"Identity"}))
def test_operations_are_torchvisions(operation: str, level: float) -> None:
    size, sign = 63, -1
    space = {**v2.AutoAugment._AUGMENTATION_SPACE}
    table = space[operation][0](10 if level > 0.5 else 31, size, size)
    number = 0.0 if table is None else float(table[8 if level > 0.5 else 9])
    transform = v2.RandAugment(interpolation="bilinear")
    places = {"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"}
    if operation not in places:
        image = pictures(1, 3, size)[0]
        signed = sign * number if space[operation][1] else number
        expected = transform._apply_image_or_video_transform(image, operation, signed, transform.interpolation, {})
        torch.testing.assert_close(changed(image, operation, level, sign), expected, rtol=0, atol=1e-5)
        return
    image = smooth(size)[0]
    if operation == "Rotate":
        expected = T.rotate(image, sign * number, interpolation=T.InterpolationMode.BILINEAR)
    else:
        along = operation[-1] == "X"
        moved = sign * number
        shear = math.degrees(math.atan(moved)) if operation.startswith("Shear") else 0.0
        shift = moved if operation.startswith("Translate") else 0.0
        expected = T.affine(
            image,
            angle=0.0,
            translate=[shift * along, shift * (not along)],
            scale=1.0,
            shear=[shear * along, shear * (not along)],
            interpolation=T.InterpolationMode.BILINEAR,
        )
    result = changed(image, operation, level, sign)
    inside = T.affine(torch.ones_like(image), 0.0, [0, 0], 1.0, [0.0, 0.0]) > 0
    kept = expected > 0  # torchvision leaves black outside, here the border goes on
    assert kept.float().mean() > 0.4
    assert ((result - expected).abs() < 0.02)[kept & inside].float().mean() > 0.97


def test_a_policy_keeps_within_what_its_kind_bears() -> None:
    safe = policy_of("randaugment", "chest-xray")
    one = Policy(
        ((Step("TranslateX", level=1.0),),), False, safe.rotate, safe.shear, safe.shift, safe.enhance, "border"
    )
    image = torch.zeros(1, 40, 40)
    image[:, 18:22, 18:22] = 1
    places = changed(image, "TranslateX", 1.0, 1, one)[0].sum(dim=0).nonzero().flatten()
    assert places.float().mean().item() == pytest.approx(19.5 + 0.05 * 40, abs=0.1)
    bright = Policy(((Step("Brightness", level=1.0),),), False, enhance=0.2)
    grey = torch.full((1, 8, 8), 0.5)
    assert torch.allclose(changed(grey, "Brightness", 1.0, 1, bright), torch.full((1, 8, 8), 0.6))


def test_slots_choose_evenly_and_steps_come_as_often_as_they_should() -> None:
    counters = counters_of(0, 0, torch.arange(4000))
    extra = uniform(counters, EXTRAS, streams.FIRST_EXTRA)
    marks = Policy(((Step("Identity"), Step("Invert", probability=0.5)),), together=False)
    images = torch.full((4000, 1, 1, 1), 0.2)
    assert (apply_policy(images, extra, marks) > 0.5).float().mean().item() == pytest.approx(0.25, abs=0.025)


def test_extra_numbers_are_uniform_and_apart_from_the_others() -> None:
    counters = counters_of(0, 0, torch.arange(4000))
    both = torch.from_numpy(np.hstack([uniform(counters), uniform(counters, EXTRAS, streams.FIRST_EXTRA)]))
    assert (both.mean(dim=0) - 0.5).abs().max() < 0.025
    assert torch.corrcoef(both.T).fill_diagonal_(0).abs().max() < 0.07


def hue_of(image: Tensor) -> np.ndarray[Any, Any]:
    """Hue in degrees of every pixel of [3, H, W]."""
    flat = image.flatten(1).T.tolist()
    return np.array([colorsys.rgb_to_hsv(*pixel)[0] * 360 for pixel in flat])


def skin(size: int = 12) -> Tensor:
    """Skin and a brown lesion with black parts: the colours a dermatologist reads, [1, 3, size, size]."""
    base = torch.tensor([0.80, 0.62, 0.52]).view(1, 3, 1, 1).expand(1, 3, size, size).clone()
    base[..., 3:9, 3:9] = torch.tensor([0.42, 0.26, 0.17]).view(1, 3, 1, 1)
    return base


@pytest.mark.parametrize("level", ["modality", "randaugment", "autoaugment"])
def test_dermoscopy_keeps_its_colours(level: Any) -> None:
    count = 200
    result = Augmentation(level, "none", 1, "dermoscopy")(skin().repeat(count, 1, 1, 1), torch.arange(count), 0)
    hues = np.array([hue_of(one.clamp(0, 1)) for one in result])
    original = hue_of(skin()[0])
    # Places move, so hues are compared as a range: each of the two colours turns by a few degrees at most.
    turned = np.maximum(original.min() - hues.min(axis=1), hues.max(axis=1) - original.max())
    assert turned.max() < 8
    assert (result[:, 0] >= result[:, 1] - 1e-4).all()
    assert (result[:, 1] >= result[:, 2] - 1e-4).all()  # red over green over blue, as in the picture


def test_colours_turn_by_the_angle_while_grey_and_luma_stay() -> None:
    strength = Strength(hue=10, saturation=0.2)
    grey = pictures(4, 1).expand(-1, 3, -1, -1).contiguous()
    extra = numbers(4, HUE=0.99, SATURATION=0.9)
    torch.testing.assert_close(recolour(grey, extra, strength), grey, rtol=0, atol=1e-6)
    images = 0.3 + 0.4 * pictures(4)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    result = recolour(images, extra, strength)
    torch.testing.assert_close((result * weights).sum(1), (images * weights).sum(1), rtol=0, atol=1e-5)

    def chroma(picture: Tensor) -> Tensor:
        red, _, blue = picture.unbind(1)
        luma = (picture * weights).sum(1)
        return torch.complex((red - luma) / 1.402, (blue - luma) / 1.772)

    ratio = chroma(result) / chroma(images)
    assert torch.allclose(ratio.abs(), torch.tensor(1 + 0.2 * 0.8), atol=1e-3)
    assert torch.allclose(ratio.angle().abs().rad2deg(), torch.tensor(9.8), atol=0.05)


def test_stains_are_jittered_in_the_space_of_skimage() -> None:
    random = np.random.default_rng(0)
    amounts = random.uniform(0.01, 0.06, (20, 20, 3))
    rgb = hed2rgb(amounts)
    assert rgb.min() > 0.05
    image = torch.from_numpy(rgb.transpose(2, 0, 1)[None].astype(np.float32))
    extra = numbers(1)
    extra[:, streams.STAIN] = 1.0  # haematoxylin by its largest factor
    result = restain(image, extra, Strength(stain=0.1))
    hed = rgb2hed(rgb)
    hed[..., 0] *= 1.1
    np.testing.assert_allclose(result[0].permute(1, 2, 0).numpy(), hed2rgb(hed), atol=1e-4)


def test_a_white_slide_stays_white() -> None:
    white = torch.ones(50, 3, 4, 4)
    extra = uniform(counters_of(0, 0, torch.arange(50)), EXTRAS, streams.FIRST_EXTRA)
    assert torch.equal(restain(white, extra, MODALITIES["histology"].safe), white)


def test_gain_and_gamma_keep_black_and_follow_their_formula() -> None:
    images = pictures(3, 1)
    images[:, :, :2] = 0
    result = bend(images, numbers(3, GAMMA=0.0, GAIN=1.0), Strength(gamma=0.15, gain=0.1))
    np.testing.assert_allclose(result.numpy(), np.minimum(images.numpy() * 1.1, 1) ** 0.85, rtol=1e-5)
    assert (result[:, :, :2] == 0).all()


def test_speckle_is_in_proportion_to_the_value() -> None:
    counters = counters_of(0, 0, torch.arange(4))
    images = torch.cat([torch.full((4, 1, 40, 40), value) for value in (0.0, 0.2, 0.8)], dim=2)
    result = add_speckle(images, counters, numbers(4, SPECKLE=1.0), Strength(speckle=0.1))
    assert (result[:, :, :40] == 0).all()
    assert result[:, :, 40:80].std().item() == pytest.approx(0.02, rel=0.05)
    assert result[:, :, 80:].std().item() == pytest.approx(0.08, rel=0.05)


def test_quarter_turns_are_exact_and_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(1).expand(400, -1, -1, -1).contiguous()
    monkeypatch.setitem(
        module.__dict__, "MODALITIES", {"one": type(MODALITIES["ct"])(Strength(turns=True), frozenset())}
    )
    monkeypatch.setattr(module, "move", lambda planes, draws, strength: planes)
    result = Augmentation("modality", "none", 0, "one")(images, torch.arange(400), 0)
    counts = [sum(torch.equal(one, images[0].rot90(turns, (-2, -1))) for one in result) for turns in range(4)]
    assert sum(counts) == 400
    assert all(abs(count - 100) < 40 for count in counts)


def test_a_fundus_stays_on_black() -> None:
    size = 48
    axis = torch.linspace(-1, 1, size)
    disc = (axis[:, None] ** 2 + axis[None, :] ** 2 < 0.6).float()
    images = (disc * torch.tensor([0.8, 0.4, 0.2]).view(3, 1, 1)).expand(60, -1, -1, -1)
    for level in ("modality", "randaugment", "autoaugment"):
        result = Augmentation(level, "horizontal", 0, "fundus")(images, torch.arange(60), 0)
        assert result[..., 0, 0].abs().max() == 0
        assert result[:, 0, size // 2, size // 2].min() > 0.3


@pytest.mark.parametrize("name", [name for name in MODALITIES if name != "fundus"])
def test_no_black_corners_are_made(name: str) -> None:
    flat = torch.full((60, 3, 32, 32), 0.6)
    safe = MODALITIES[name].safe
    result = Augmentation("modality", safe.flip, 0, name)(flat, torch.arange(60), 0)
    assert result.min() > 0.2
    assert policy_of("randaugment", name).fill == policy_of("autoaugment", name).fill == safe.fill != "zeros"
