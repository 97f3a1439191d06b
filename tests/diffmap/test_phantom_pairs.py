"""Synthetic pairs: the map is where and as the change was drawn, and nothing else is ever in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medcli.data.synthetic.anatomy import draw_anatomy
from medcli.data.synthetic.findings import Consolidation, Effusion, Findings, Nodule, Pneumothorax
from medcli.data.synthetic.frame import Frame, Pose, make_frame
from medcli.diffmap.pairs import Drawn, synthetic_pairs
from medcli.diffmap.phantom import DrawnPair, cleaned, draw_phantom_pair
from medcli.diffmap.reading import read_pair
from medcli.diffmap.story import COURSES, KINDS, Change, Course, Story, draw_story, tell

SIZE = 96
DRAWN = Drawn(seed=3, number=5, size=SIZE)


def told(findings: Findings, course: Course, drawn: Drawn = DRAWN, kind: str = "opacity") -> DrawnPair:
    return draw_phantom_pair(drawn, Story((Change(kind, course, findings),)))


def frame_of(pair: DrawnPair, drawn: Drawn = DRAWN) -> Frame:
    """The follow-up's grid in the patient's coordinates."""
    pose = pair.parameters["poses"][1]
    return make_frame(
        draw_anatomy(drawn.seed, drawn.number), Pose(**{**pose, "shift": tuple(pose["shift"])}), drawn.size
    )


NODULE = Findings(nodules=(Nodule(-0.42, -0.2, 0.09, 0.25),))


@pytest.mark.parametrize(("course", "sign"), [("appear", 1), ("grow", 1), ("vanish", -1), ("shrink", -1)])
def test_a_nodule_lies_in_the_map_where_it_lies_in_the_followup(course: Course, sign: int) -> None:
    pair = told(NODULE, course)
    changed = pair.target != 0
    assert changed.any()
    assert (np.sign(pair.target[changed]) == sign).all()
    column, row = frame_of(pair).to_pixels(np.float32(-0.42), np.float32(-0.2))  # type: ignore[arg-type]
    weight = np.abs(pair.target)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    # The smooth wobble of a phantom's outline moves a point by up to a hundredth of the side.
    assert (rows * weight).sum() / weight.sum() == pytest.approx(float(row), abs=1.5)
    assert (columns * weight).sum() / weight.sum() == pytest.approx(float(column), abs=1.5)
    radius = 0.09 * SIZE / 2
    assert changed.sum() < 1.8 * np.pi * radius**2
    if course in {"appear", "vanish"}:
        assert changed.sum() > 0.5 * np.pi * radius**2


def test_growing_changes_less_than_appearing_and_shrinking_is_its_mirror() -> None:
    appear, grow = told(NODULE, "appear"), told(NODULE, "grow")
    assert 0 < np.abs(grow.target).sum() < np.abs(appear.target).sum()
    still = replace(DRAWN, nuisance=0.0)
    # The grey scale follows each film's own range, so mirror images agree up to that.
    forth, back = told(NODULE, "appear", still), told(NODULE, "vanish", still)
    assert np.abs(forth.target + back.target).max() < 0.1 * np.abs(forth.target).max()


def test_an_effusion_rises_from_the_base_of_its_side() -> None:
    pair = told(Findings(effusions=(Effusion(True, 0.4, 0.5, 0.95),)), "appear")
    frame, changed = frame_of(pair), pair.target != 0
    assert (pair.target[changed] > 0).all()
    assert frame.left[changed].mean() > 0.99  # the patient's left is the image's right
    assert frame.y[changed].min() > 0.0
    columns = np.mgrid[:SIZE, :SIZE][1][changed]
    assert columns.mean() > SIZE / 2


def test_air_makes_the_edge_of_its_lung_darker() -> None:
    pair = told(Findings(pneumothorax=Pneumothorax(False, 0.2, 0.5)), "appear")
    frame, negative = frame_of(pair), pair.target < 0
    assert -pair.target[negative].sum() > 2 * pair.target[pair.target > 0].sum()  # the line and denser lung are bright
    assert (~frame.left[negative]).mean() > 0.99
    assert np.median(frame.across[negative]) > 0.6


def test_a_larger_heart_is_denser_at_both_of_its_borders_and_nowhere_else() -> None:
    pair = told(Findings(heart=1.35), "appear")
    frame, changed = frame_of(pair), pair.target != 0
    assert (pair.target[changed] > 0).mean() > 0.97
    assert frame.left[changed].any()
    assert (~frame.left[changed]).any()
    assert frame.away[changed].max() < 0.75
    assert frame.y[changed].min() > -0.5


def test_fluid_overload_is_dense_on_both_sides_of_the_hila() -> None:
    pair = told(Findings(congestion=0.9), "appear")
    frame, changed = frame_of(pair), pair.target != 0
    assert (pair.target[changed] > 0).mean() > 0.97
    assert 0.25 < frame.left[changed].mean() < 0.75
    assert pair.target[changed].mean() < 0.2


def test_what_persists_is_zero_while_the_images_differ() -> None:
    for number in range(4):
        drawn = Drawn(9, number, SIZE, nuisance=3.0, quiet_share=1.0)
        pair = draw_phantom_pair(drawn)
        assert pair.nuisance_only
        assert (pair.target == 0).all()
        assert np.abs(pair.current - pair.prior).mean() > 0.01
    assert (told(NODULE, "persist").target == 0).all()


def test_without_nuisance_only_the_change_and_the_noise_differ() -> None:
    pair = told(Findings(congestion=0.0), "persist", replace(DRAWN, nuisance=0.0))
    assert pair.valid.all()
    assert np.abs(pair.current - pair.prior).max() < 0.25  # noise of two exposures
    assert np.abs(pair.current - pair.prior).mean() < 0.02


def test_devices_and_noise_are_not_in_the_map() -> None:
    busy = told(NODULE, "appear", replace(DRAWN, number=1, nuisance=3.0))
    assert all(busy.parameters["devices"])
    column, row = frame_of(busy, replace(DRAWN, number=1)).to_pixels(np.float32(-0.42), np.float32(-0.2))  # type: ignore[arg-type]
    rows, columns = np.nonzero(busy.target)
    assert len(rows)
    assert np.hypot(rows - float(row), columns - float(column)).max() < 0.13 * SIZE / 2 + 2


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_told_with_every_course(kind: str) -> None:
    anatomy = draw_anatomy(3, 5)
    for course in COURSES:
        change = tell(np.random.default_rng(2), anatomy, kind, course)
        assert (change.before == change.after) == (course == "persist")
        described = change.describe()
        assert described["kind"] == kind
        assert described["course"] == course


def test_fluid_and_air_never_share_a_side() -> None:
    anatomy = draw_anatomy(0, 0)
    seen = 0
    for seed in range(300):
        current = draw_story(np.random.default_rng(seed), anatomy, quiet=True).current
        if current.pneumothorax and current.effusions:
            seen += 1
            assert all(one.left != current.pneumothorax.left for one in current.effusions)
    assert seen > 3


def test_small_far_and_scattered_values_are_no_change() -> None:
    difference = np.zeros((128, 128), np.float32)
    difference[40:50, 40:50] = 0.2
    difference[80:90, 80:90] = 0.01  # below the floor
    difference[20, 20] = 0.3  # a speck
    difference[100:110, 10:20] = 0.2  # nothing changed in the patient there
    near = np.zeros((128, 128), bool)
    near[38:52, 38:52] = near[78:92, 78:92] = near[18:22, 18:22] = True
    kept = cleaned(difference, near)
    assert (kept[40:50, 40:50] == np.float32(0.2)).all()
    assert np.count_nonzero(kept) == 100


def test_the_same_seed_draws_the_same_pairs_and_a_longer_set_begins_with_them() -> None:
    short, long = synthetic_pairs(3, seed=1, size=64), synthetic_pairs(6, seed=1, size=64)
    assert short.pairs == long.pairs[:3]
    first, again = (read_pair(short.pairs[1], 64) for _ in range(2))
    assert np.array_equal(first.baseline, again.baseline)
    assert np.array_equal(first.followup, again.followup)
    assert np.array_equal(first.target, again.target, equal_nan=True)  # type: ignore[arg-type]
    other = read_pair(synthetic_pairs(3, seed=2, size=64).pairs[1], 64)
    assert not np.array_equal(first.baseline, other.baseline)


def test_six_pairs_fill_every_split() -> None:
    assert {pair.split for pair in synthetic_pairs(6).pairs} == {"train", "val", "test"}
    shares = [
        sum(pair.split == part for pair in synthetic_pairs(1300).pairs) / 1300 for part in ("train", "val", "test")
    ]
    assert shares == pytest.approx([9 / 13, 2 / 13, 2 / 13], abs=0.001)


def test_the_share_of_quiet_pairs_is_kept() -> None:
    quiet = [draw_phantom_pair(Drawn(0, n, 32, quiet_share=0.5)).nuisance_only for n in range(40)]
    assert 12 <= sum(quiet) <= 28


def test_clouds_shrink_about_their_middle() -> None:
    x = np.array([0.3, 0.5], np.float32)
    cloud = Consolidation(x, x, np.array([0.5, 0.5], np.float32), 0.1, 0.03, 0.2)
    small = Change("opacity", "shrink", Findings(consolidations=(cloud,)), small=0.25).after.consolidations[0]
    assert small.x.mean() == pytest.approx(0.4)
    assert np.ptp(small.x) == pytest.approx(0.1)
    assert small.radius == pytest.approx(0.05)
