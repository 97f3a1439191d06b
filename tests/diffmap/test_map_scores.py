"""Every figure of maps of change against a value worked out by hand on 8 x 8 pixels, or against another library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import average_precision_score, roc_auc_score

from medcli.diffmap.froc import RATES
from medcli.diffmap.pixel_ranks import PixelRanks
from medcli.diffmap.scores import CONVENTIONS, MapSet, Scores, figures_with_intervals

NAN = float("nan")


def of(maps: list[np.ndarray], truths: list[np.ndarray], patients: list[str] | None = None, **kwargs: Any) -> Scores:
    ids = tuple(str(number) for number in range(len(maps)))
    names = np.array(patients or [""] * len(maps))
    signed = kwargs.pop("signed", True)
    kwargs = {"threshold": 0.1, **kwargs}
    return Scores(MapSet(ids, names, np.stack(maps), np.stack(truths), signed), **kwargs)


def by_hand() -> tuple[np.ndarray, np.ndarray]:
    """4 pixels denser by 0.2 and 2 less dense by 0.4; the map has 2 of the first, 1 of the second, and 1 wrong sign."""
    truth, found = np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32)
    truth[0, 0:4] = 0.2
    truth[5, 5:7] = -0.4
    found[0, 0:2] = 0.3
    found[0, 2] = -0.1
    found[5, 5] = -0.2
    found[7, 0:2] = 0.2  # nothing there
    return found, truth


def test_figures_of_one_pair_are_as_by_hand() -> None:
    values = of(*([one] for one in by_hand())).values()
    # found at 0.1: 2 + 1 + 1 + 2 = 6 pixels; true: 6; common, whatever the sign: 4
    assert values["dice"] == pytest.approx(8 / 12)
    assert values["iou"] == pytest.approx(4 / 8)
    # denser: found 4 (2 right), true 4; less dense: found 2 (1 right), true 2
    assert values["dice_positive"] == pytest.approx(4 / 8)
    assert values["dice_negative"] == pytest.approx(2 / 4)
    assert values["sign_accuracy"] == pytest.approx(3 / 6)
    errors = np.array([0.1, 0.1, 0.3, 0.2, 0.2, 0.4])
    assert values["mae_changed"] == pytest.approx(errors.mean())
    assert values["rmse_changed"] == pytest.approx(np.sqrt((errors**2).mean()))
    assert values["mae"] == pytest.approx((errors.sum() + 0.4) / 64)
    inside = np.corrcoef([0.3, 0.3, -0.1, 0, -0.2, 0], [0.2, 0.2, 0.2, 0.2, -0.4, -0.4])[0, 1]
    assert values["correlation"] == pytest.approx(inside)
    assert (values["pointing_positive"], values["pointing_negative"]) == (1.0, 1.0)
    assert np.isnan(values["nuisance_area"])
    assert np.isnan(values["image_auroc"])


def test_ranks_and_images_agree_with_the_libraries() -> None:
    found, truth = by_hand()
    values = of([found], [truth]).values()
    for name, sign in (("positive", 1), ("negative", -1)):
        wanted, scores = (sign * truth > 0.02).ravel(), (sign * found).ravel()
        assert values[f"auprc_{name}"] == pytest.approx(average_precision_score(wanted, scores))
        assert values[f"auroc_{name}"] == pytest.approx(roc_auc_score(wanted, scores))
    assert values["auprc"] == pytest.approx((values["auprc_positive"] + values["auprc_negative"]) / 2)
    assert values["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, found, data_range=2), rel=1e-5)
    _, everywhere = structural_similarity(truth.astype(float), found.astype(float), data_range=2, full=True)
    assert values["ssim"] == pytest.approx(everywhere.mean())
    assert all("range 2" in CONVENTIONS[name] for name in ("psnr", "ssim"))


def test_pairs_without_change_enter_the_figures_of_false_change_alone() -> None:
    found, truth = by_hand()
    quiet = np.zeros((8, 8), np.float32)
    loud = quiet.copy()
    loud[0, 0:8] = 0.5
    loud[4, 0:4] = -0.5
    alone = of([found], [truth]).values()
    mixed = of([found, loud, quiet], [truth, quiet, quiet]).values()
    for name in ("dice", "dice_positive", "iou", "auprc", "auroc_positive", "sign_accuracy", "mae_changed"):
        assert mixed[name] == alone[name], name
    # 12 of 64 pixels in two areas, and none: both empty counts as no false area, and never as a perfect Dice
    assert mixed["nuisance_area"] == pytest.approx(12 / 64 / 2)
    assert mixed["nuisance_components"] == 1.0
    # the changed pair's peak (0.3) lies below one quiet pair's (0.5) and above the other's
    assert mixed["image_auroc"] == 0.5
    assert np.isnan(of([quiet], [quiet]).values()["dice"])


def test_a_map_of_nothing_scores_nothing() -> None:
    _, truth = by_hand()
    values = of([np.zeros((8, 8), np.float32)], [truth]).values()
    none = ("dice", "iou", "sign_accuracy", "cpm", "pointing_positive", "pointing_negative")
    assert [values[name] for name in none] == [0.0] * 6
    assert np.isnan(values["correlation"])
    assert values["auprc_positive"] == pytest.approx(4 / 64)


def test_one_sign_alone_leaves_the_other_undefined() -> None:
    found, truth = by_hand()
    values = of([found], [np.maximum(truth, 0)]).values()
    assert np.isnan([values[f"{name}_negative"] for name in ("auprc", "auroc", "dice", "pointing")]).all()
    assert values["auprc"] == values["auprc_positive"]


def test_what_is_not_known_counts_nowhere() -> None:
    found, truth = by_hand()
    hidden, wild = truth.copy(), found.copy()
    hidden[7] = NAN
    wild[7] = 0.9
    assert of([wild], [hidden]).values() == pytest.approx(of([found], [hidden]).values(), nan_ok=True)
    assert of([wild], [hidden]).values()["dice"] == pytest.approx(8 / 10)
    nothing = np.full((8, 8), NAN, np.float32)
    more = of([found, wild], [truth, nothing])
    assert more.values() == pytest.approx(of([found], [truth]).values(), nan_ok=True)
    assert (more.known.tolist(), more.quiet.tolist()) == ([True, False], [False, False])


def test_magnitudes_have_no_signs() -> None:
    found, truth = by_hand()
    values = of([np.abs(found)], [np.abs(truth)], signed=False).values()
    assert values["auprc"] == pytest.approx(
        average_precision_score((np.abs(truth) > 0.02).ravel(), np.abs(found).ravel())
    )
    assert {"auroc_any", "pointing_any"} <= values.keys()
    assert not {"sign_accuracy", "auprc_positive", "dice_negative", "auprc_any"} & values.keys()


def test_findings_are_hit_by_centroid_or_by_overlap_and_false_ones_are_counted() -> None:
    truth, found = np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32)
    truth[0:3, 0:3] = 0.3
    truth[5:8, 5:8] = -0.3
    found[1, 1] = 0.2  # its centroid inside the first
    found[6, 6] = 0.4  # the wrong sign at the second
    found[0, 6] = 0.9  # nothing there
    values = of([found], [truth]).values()
    # cuts: 0.9 false 1; 0.4 false 2; 0.2 hit 1 of 2
    wanted = {rate: 0.5 if rate >= 2 else 0.0 for rate in RATES}
    assert {rate: values[f"froc_{rate:g}"] for rate in RATES} == wanted
    assert values["cpm"] == pytest.approx(sum(wanted.values()) / 7)
    ring = truth.copy()
    ring[1, 1] = 0  # the candidate's centroid is no longer inside, and its overlap is 0 of 9
    assert of([np.where(found == 0.9, 0, found)], [ring]).values()["froc_8"] == 0.0
    wide = np.zeros((8, 8), np.float32)
    wide[0:3, 2:8] = 0.2  # centroid outside; 3 common of 24 in all is an overlap of 0.125
    assert of([wide], [truth]).values()["froc_0.125"] == 0.5
    wide[3, 2:8] = 0.2  # 3 of 30 is 0.1 and still counts
    assert of([wide], [truth]).values()["froc_0.125"] == 0.5
    wide[4, 2:8] = 0.2  # 3 of 36 does not
    assert of([wide], [truth]).values()["froc_8"] == 0.0


def test_a_finding_hit_twice_counts_once_and_rates_are_per_image_of_all_pairs() -> None:
    truth, found, quiet = (np.zeros((8, 8), np.float32) for _ in range(3))
    truth[0:5, 0:5] = 0.3
    found[1, 1] = found[3, 3] = 0.5
    false = quiet.copy()
    false[6, 6] = 0.9
    values = of([found, false], [truth, quiet]).values()
    assert (values["froc_0.25"], values["froc_0.5"]) == (0.0, 1.0)
    curve = of([found, false], [truth, quiet]).froc.curve()
    assert curve.false.tolist() == [0, 0.5, 0.5]
    assert curve.sensitivity.tolist() == [0, 0, 1]


def test_small_areas_are_no_findings() -> None:
    truth, found = np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32)
    truth[0:2, 0:2] = 0.3
    truth[6, 6] = 0.3  # too small to be a finding, yet changed: what is found on it is not false either
    found[0:2, 0:2] = 0.2
    found[5:7, 6] = [0.8, 0.8]
    scores = of([found], [truth], min_area=2)
    assert scores.froc.findings == 1
    assert scores.values()["froc_0.125"] == 1.0


def several(random: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    maps, truths = [], []
    for number in range(24):
        truth = np.zeros((16, 16), np.float32)
        if number % 4:
            row, column = random.integers(0, 11, 2)
            truth[row : row + 5, column : column + 4] = random.choice((-0.2, 0.2))
        truths.append(truth)
        maps.append((0.6 * truth + random.normal(0, 0.05, truth.shape)).astype(np.float32))
    return maps, truths, [f"patient {number // 2}" for number in range(24)]


def test_a_resample_is_as_if_its_pairs_stood_there_so_often() -> None:
    maps, truths, patients = several(np.random.default_rng(1))
    times = np.array([2, 0, 1, 3] * 6)
    scores = of(maps, truths, patients)
    weighted = {name: float(value[0]) for name, value in scores(times[:, None].astype(float)).items()}
    rows = np.repeat(np.arange(24), times).tolist()
    repeated = of([maps[row] for row in rows], [truths[row] for row in rows]).values()
    for name, value in repeated.items():
        near = 0.004 if name.startswith(("auprc", "auroc")) else 1e-9
        assert weighted[name] == pytest.approx(value, abs=near, rel=1e-6), name


def test_intervals_are_of_patients_paired_and_the_same_each_time() -> None:
    maps, truths, patients = several(np.random.default_rng(2))
    good = of(maps, truths, patients)
    poor = of([one + np.random.default_rng(3).normal(0, 0.1, one.shape) for one in maps], truths, patients)
    figures, (gap,) = figures_with_intervals([good, poor], resamples=200, seed=5)
    again, _ = figures_with_intervals([good, poor], resamples=200, seed=5)
    assert {name: one.to_dict() for name, one in figures[0].items()} == {n: o.to_dict() for n, o in again[0].items()}
    for name in ("auprc", "dice", "nuisance_area", "mae", "psnr"):
        one = figures[0][name]
        assert one.low < one.value < one.high, name
    assert gap["auprc"].value == pytest.approx(figures[0]["auprc"].value - figures[1]["auprc"].value)
    assert gap["auprc"].low > 0
    nothing, (same,) = figures_with_intervals([good, good], resamples=50, seed=0)
    assert all(one.value == one.low == one.high == 0 for one in same.values() if not np.isnan(one.value))
    bare, _ = figures_with_intervals([good, good], resamples=0, seed=0)
    assert np.isnan(bare[0]["dice"].low)
    assert bare[0]["dice"].value == nothing[0]["dice"].value


def test_pixels_of_no_pair_have_no_curve() -> None:
    empty = PixelRanks([np.zeros(0)], [np.zeros(0, dtype=bool)])
    assert np.isnan(empty(np.ones((1, 3)))).all()
    assert np.isnan(empty.average_precision)
    everything = PixelRanks([np.array([0.1, 0.2])], [np.array([True, True])])
    assert everything.average_precision == 1
    assert np.isnan(everything.area)
