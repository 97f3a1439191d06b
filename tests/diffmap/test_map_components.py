"""Connected areas of a map against what a hand counts on a small grid."""

from __future__ import annotations

import numpy as np
import pytest

from medcli.diffmap.components import components


def grid() -> np.ndarray:
    values = np.zeros((8, 8), dtype=np.float32)
    values[1:3, 1:4] = [[0.2, 0.5, 0.2], [0.2, 0.2, 0.2]]
    values[3, 4] = 0.3  # touches (2, 3) by a corner
    values[3, 5] = -0.6  # touches that by an edge, and has the other sign
    values[7, 0] = 0.1
    values[6, 7] = np.nan
    return values


def test_areas_of_one_sign_hang_together_by_edges_and_corners() -> None:
    negative, positive = components(grid(), 0.2)
    assert (negative.sign, negative.area, negative.box, negative.peak_at) == (-1, 1, (3, 5, 4, 6), (3, 5))
    assert negative.peak == negative.mean == pytest.approx(-0.6)
    assert (positive.sign, positive.area, positive.box, positive.peak_at) == (1, 7, (1, 1, 4, 5), (1, 2))
    assert positive.centroid == pytest.approx(((1 * 3 + 2 * 3 + 3) / 7, (6 + 6 + 4) / 7))
    assert (positive.peak, positive.mean) == (pytest.approx(0.5), pytest.approx((5 * 0.2 + 0.5 + 0.3) / 7))
    assert positive.mask.sum() == 7
    assert positive.mask[3, 4]
    assert not positive.mask[3, 5]


def test_small_areas_can_be_left_out_and_a_threshold_includes_itself() -> None:
    assert [one.area for one in components(grid(), 0.1)] == [1, 7, 1]
    assert [one.area for one in components(grid(), 0.1, 2)] == [7]
    assert len(components(np.full((4, 4), 0.25), 0.25)) == 1


def test_nothing_and_not_known_are_no_areas() -> None:
    assert components(np.zeros((8, 8)), 0.1) == ()
    assert components(np.full((8, 8), np.nan), 0.1) == ()
    with pytest.raises(ValueError, match="everything"):
        components(grid(), 0.0)
