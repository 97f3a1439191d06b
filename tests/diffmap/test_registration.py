"""Registration: known displacements are found again, the same way every time, and failures are said."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import map_coordinates

from medcli.data.synthetic.anatomy import draw_anatomy
from medcli.data.synthetic.frame import FRONTAL, make_frame
from medcli.data.synthetic.rendering import Exposure, attenuation, develop
from medcli.diffmap.agreement import correlation, mutual_information
from medcli.diffmap.registration import LIMIT, register

SIZE = 192


@pytest.fixture(scope="module")
def film() -> npt.NDArray[np.float32]:
    """A phantom with room around it."""
    image = attenuation(make_frame(draw_anatomy(4, 2), FRONTAL, SIZE))
    return develop(image, Exposure(black=0.1, white=1.4, dose=float("inf"), side_marker=False))


def moved(image: npt.NDArray[np.float32], matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The image at matrix @ (row, column, 1): this matrix is what registration of (image, moved) must find."""
    row, column = np.mgrid[: image.shape[0], : image.shape[1]]
    at = np.stack([m[0] * row + m[1] * column + m[2] for m in matrix])
    return map_coordinates(image, at, order=3, mode="nearest", output=np.float32)


def about_centre(turn: float, scale: float, shift: tuple[float, float]) -> npt.NDArray[np.float64]:
    cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    centre = np.full(2, (SIZE - 1) / 2)
    return np.column_stack([linear, centre - linear @ centre + shift])


@pytest.mark.parametrize("shift", [(0, 0), (9, -6), (-23, 31)])
def test_an_integer_shift_is_found_to_a_quarter_of_a_pixel(
    film: npt.NDArray[np.float32], shift: tuple[int, int]
) -> None:
    followup = np.zeros_like(film)
    down, right = shift
    rows, columns = slice(max(0, -down), SIZE - max(0, down)), slice(max(0, -right), SIZE - max(0, right))
    followup[rows, columns] = film[max(0, down) : SIZE + min(0, down), max(0, right) : SIZE + min(0, right)]
    shown = np.zeros(film.shape, bool)
    shown[rows, columns] = True
    found = register(film, followup, followup_valid=shown)
    assert found.quality.shift == pytest.approx(shift, abs=0.25)
    assert np.abs(found.transform.matrix[:, :2] - np.eye(2)).max() < 0.005
    assert (found.valid == shown).mean() > 0.98
    assert np.abs(found.warped - followup)[found.valid].mean() < 0.02
    assert not found.quality.failures


@pytest.mark.parametrize(("turn", "scale", "shift"), [(5, 1.06, (4.0, -7.5)), (-9, 0.93, (-12.0, 6.0))])
def test_a_known_affine_is_found(
    film: npt.NDArray[np.float32], turn: float, scale: float, shift: tuple[float, float]
) -> None:
    wanted = about_centre(np.radians(turn), scale, shift)
    followup = 0.8 * np.clip(moved(film, wanted), 0, 1) ** 1.2 + 0.1  # another exposure on top
    found = register(film, followup)
    error = found.transform.coordinates() - np.stack(
        [m[0] * np.mgrid[:SIZE, :SIZE][0] + m[1] * np.mgrid[:SIZE, :SIZE][1] + m[2] for m in wanted]
    )
    assert np.sqrt((error**2).sum(axis=0).mean()) < 0.5
    assert found.quality.turn == pytest.approx(turn, abs=0.3)
    assert found.quality.scale == pytest.approx(scale, abs=0.005)
    assert found.quality.ncc_after > 0.95 > found.quality.ncc_before
    assert found.quality.mi_after > found.quality.mi_before
    assert found.quality.jacobian_min == pytest.approx(scale**2, abs=0.02)


def test_a_spline_follows_a_bend_without_folding_and_within_its_bound(film: npt.NDArray[np.float32]) -> None:
    row, column = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    bent = np.stack([row + 3 * np.sin(row / 30) * np.sin(column / 25), column + 3 * np.sin(column / 35)])
    followup = map_coordinates(film, bent, order=3, mode="nearest", output=np.float32)
    straight, spline = register(film, followup, "affine"), register(film, followup, "bspline")
    assert spline.quality.ncc_after > straight.quality.ncc_after + 0.02
    assert spline.quality.folding == 0
    assert spline.quality.jacobian_min > 0.2
    assert 0 < spline.quality.absorbed < 1
    assert spline.transform.bend is not None
    assert np.abs(spline.transform.bend).max() <= LIMIT * SIZE * 1.1  # the affine part may stretch it a little
    error = np.hypot(*(spline.transform.coordinates() - bent))[20:-20, 20:-20]
    assert np.median(error) < 1.0


def test_the_same_images_give_the_same_answer(film: npt.NDArray[np.float32]) -> None:
    followup = moved(film, about_centre(0.05, 1.02, (3, 2)))
    first, second = (register(film, followup, "bspline") for _ in range(2))
    assert np.array_equal(first.warped, second.warped)
    assert first.quality == second.quality


def test_none_leaves_the_pixels(film: npt.NDArray[np.float32]) -> None:
    found = register(film, film[::-1].copy(), "none")
    assert np.array_equal(found.warped, film)
    assert found.quality.displacement == (0, 0, 0)


def test_unlike_images_fail(film: npt.NDArray[np.float32]) -> None:
    noise = np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32)
    assert any("agree too little" in reason for reason in register(film, noise).quality.failures)


def test_other_shapes_are_no_pair(film: npt.NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="one shape"):
        register(film, film[:-1])


def test_agreement_measures_match_their_definitions() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.random((2, 30, 40), dtype=np.float32)
    valid = rng.random((30, 40)) < 0.7
    assert correlation(first, second, valid) == pytest.approx(np.corrcoef(first[valid], second[valid])[0, 1], abs=1e-6)
    assert correlation(first, np.ones_like(first), valid) == 0
    # An image tells all about itself: the information is the entropy of its histogram.
    counts, _ = np.histogram(first[valid], bins=32)
    share = counts[counts > 0] / counts.sum()
    assert mutual_information(first, first, valid) == pytest.approx(-(share * np.log(share)).sum(), abs=1e-9)
