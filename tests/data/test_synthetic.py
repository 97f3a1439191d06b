"""The phantoms: the same from the same seed, one anatomy per patient, findings where anatomy puts them, no shortcut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medcli.data.load import load_data
from medcli.data.synthetic.anatomy import Anatomy, draw_anatomy
from medcli.data.synthetic.findings import (
    FINDINGS,
    HEALTHY,
    Effusion,
    Findings,
    Nodule,
    Pneumothorax,
    draw_findings,
)
from medcli.data.synthetic.frame import FRONTAL, Pose, make_frame
from medcli.data.synthetic.rendering import Exposure, attenuation, develop
from medcli.data.synthetic.source import PhantomImages, draw_cases, load_synthetic
from medcli.errors import UsageProblem
from medcli.settings.groups import DataSettings

Array = npt.NDArray[np.floating]  # type: ignore[type-arg]
EXPOSURE = Exposure(0.3, 1.2, side_marker=False)


@pytest.fixture(scope="module")
def patient() -> Anatomy:
    return draw_anatomy(0, 3)


def change(anatomy: Anatomy, findings: Findings, pose: Pose = FRONTAL) -> tuple[Array, Array]:
    """Attenuation with the findings minus without, and where the heart is not: lung, both [96, 96]."""
    frame = make_frame(anatomy, pose, 96)
    return attenuation(frame, findings) - attenuation(frame, HEALTHY), frame.lung


@pytest.fixture(scope="module")
def drawn() -> tuple[Array, npt.NDArray[np.int64], npt.NDArray[np.str_]]:
    """300 images at 64 px, their classes, their patients."""
    cases = draw_cases(300, 0, task="multiclass")
    images = PhantomImages(cases, 0, 64)
    return np.stack([images.draw(index) for index in range(300)]), cases.labels("multiclass"), cases.patients


def test_the_same_seed_draws_the_same_images() -> None:
    first, second = (PhantomImages(draw_cases(6, 5, task="multiclass"), 5, 64) for _ in range(2))
    other = PhantomImages(draw_cases(6, 6, task="multiclass"), 6, 64)
    for index in (4, 0):
        draw_anatomy.cache_clear()
        assert (first.read(index).pixels == second.read(index).pixels).all()
        assert first.fingerprint(index) == second.fingerprint(index)
        assert (first.read(index).pixels != other.read(index).pixels).any()
        assert first.fingerprint(index) != other.fingerprint(index)


def test_the_global_random_state_is_left_alone() -> None:
    before = np.random.get_state()[1]
    PhantomImages(draw_cases(2, 0, task="multiclass"), 0, 64).read(1)
    assert (before == np.random.get_state()[1]).all()  # type: ignore[index]


def test_a_longer_set_begins_with_the_same_cases() -> None:
    short, long = draw_cases(50, 1, task="multiclass"), draw_cases(200, 1, task="multiclass")
    assert (short.patient == long.patient[:50]).all()
    assert (short.study == long.study[:50]).all()


def test_patients_have_one_to_four_images() -> None:
    cases = draw_cases(1000, 0, task="multiclass")
    assert len(set(cases.ids.tolist())) == 1000
    counts = np.bincount(cases.patient)[:-1]
    assert set(counts.tolist()) == {1, 2, 3, 4}


def test_classes_are_balanced_and_labels_follow_the_task() -> None:
    multiclass = draw_cases(2000, 0, task="multiclass")
    assert (multiclass.present.sum(axis=1) <= 1).all()
    assert np.abs(np.bincount(multiclass.labels("multiclass")) - 400).max() < 80
    binary = draw_cases(2000, 0, task="binary")
    assert abs(int(binary.labels("binary").sum()) - 1000) < 100
    multilabel = draw_cases(2000, 0, task="multilabel")
    labels = multilabel.labels("multilabel")
    assert labels.dtype == np.float32
    assert np.abs(labels.mean(axis=0) - 0.3).max() < 0.04
    assert set(labels.sum(axis=1).tolist()) >= {0, 1, 2, 3}


@pytest.mark.parametrize("size", [16, 64, 100, 257])
def test_any_size_is_a_finite_picture_in_range(size: int) -> None:
    image = PhantomImages(draw_cases(2, 0, task="multilabel"), 0, size).draw(1)
    assert image.shape == (size, size)
    assert image.dtype == np.float32
    assert 0 <= image.min() < 0.2
    assert 0.7 < image.max() <= 1


def test_it_is_laid_out_like_a_chest(patient: Anatomy) -> None:
    image = develop(attenuation(make_frame(patient, FRONTAL, 128)), EXPOSURE)
    rows = slice(50, 80)
    lungs = np.concatenate([image[rows, 25:45], image[rows, 85:105]], axis=1).mean()
    mediastinum, abdomen, corner = image[rows, 58:66].mean(), image[112:, 30:98].mean(), image[90:, :4].mean()
    assert corner < 0.1 < lungs < 0.75 * mediastinum
    assert abdomen > 1.3 * lungs
    # The heart lies on the patient's left, which is the image's right.
    heart = attenuation(make_frame(patient, FRONTAL, 128))[70:90]
    assert heart[:, 70:86].mean() > heart[:, 42:58].mean()


def test_larger_images_show_the_same_patient(patient: Anatomy) -> None:
    large = attenuation(make_frame(patient, FRONTAL, 256)).reshape(64, 4, 64, 4).mean(axis=(1, 3))
    small = attenuation(make_frame(patient, FRONTAL, 64))
    assert np.corrcoef(large.ravel(), small.ravel())[0, 1] > 0.99


def test_an_opacity_adds_density_in_the_lung(patient: Anatomy) -> None:
    difference, _ = change(patient, Findings(nodules=(Nodule(-0.45, -0.1, 0.08, 0.2),)))
    row, column = np.unravel_index(int(difference.argmax()), difference.shape)
    assert abs(int(row) - 43) <= 4
    assert abs(int(column) - 26) <= 4
    assert difference.max() == pytest.approx(0.2, rel=0.2)
    assert difference.min() > -1e-5


def test_an_effusion_fills_its_side_from_below(patient: Anatomy) -> None:
    difference, lung = change(patient, Findings(effusions=(Effusion(True, 0.45, 0.5, 0.95),)))
    inside = difference * (lung > 0.5)
    assert inside[:, :40].max() < 1e-5
    assert inside[:40].max() < 1e-5
    assert inside[60:, 55:].max() > 0.2


def test_a_pneumothorax_takes_density_from_the_edge_of_one_lung(patient: Anatomy) -> None:
    difference, lung = change(patient, Findings(pneumothorax=Pneumothorax(False, 0.2, 0.5)))
    assert np.abs(difference[:, 52:]).max() < 1e-5
    edge = (lung > 0.5) & (make_frame(patient, FRONTAL, 96).across > 0.9)
    assert difference[:, :44][edge[:, :44]].mean() < -0.04


def test_an_enlarged_heart_is_wider(patient: Anatomy) -> None:
    difference, _ = change(patient, Findings(heart=1.4))
    wider = (difference > 0.15).any(axis=0)
    assert wider[60:80].any()
    assert difference.mean() > 0


def test_drawn_findings_are_those_named(patient: Anatomy) -> None:
    rng = np.random.default_rng(0)
    for name in FINDINGS:
        found = draw_findings(rng, frozenset({name}), patient)
        shown = {
            "opacity": bool(found.consolidations or found.nodules),
            "effusion": bool(found.effusions),
            "pneumothorax": found.pneumothorax is not None,
            "enlarged heart": found.heart > 1,
        }
        assert [key for key, there in shown.items() if there] == [name]
    assert draw_findings(rng, frozenset(), patient) == HEALTHY


def test_one_finding_does_not_move_another(patient: Anatomy) -> None:
    alone = draw_findings(np.random.default_rng(7), frozenset({"effusion"}), patient)
    together = draw_findings(np.random.default_rng(7), frozenset(FINDINGS), patient)
    assert alone.effusions == together.effusions


def test_one_patient_looks_alike_in_every_pose() -> None:
    """Images of a patient resemble each other more than images of others, once the pose is taken away."""
    plain = [attenuation(make_frame(draw_anatomy(0, number), FRONTAL, 64)) for number in range(8)]
    breath = [attenuation(make_frame(draw_anatomy(0, number), Pose(inspiration=0.03), 64)) for number in range(8)]
    distance = np.array([[np.abs(a - b).mean() for b in breath] for a in plain])
    assert (distance.argmin(axis=1) == np.arange(8)).all()


def test_a_pose_moves_the_picture(patient: Anatomy) -> None:
    still = attenuation(make_frame(patient, FRONTAL, 64))
    moved = attenuation(make_frame(patient, Pose(shift=(2 / 32, 0.0)), 64))  # two pixels of 64
    assert np.abs(moved[:, 2:] - still[:, :-2]).mean() < 0.25 * np.abs(moved - still).mean()


def test_exposure_is_apart_from_the_patient(patient: Anatomy) -> None:
    image = attenuation(make_frame(patient, FRONTAL, 64))
    assert (develop(image, EXPOSURE) == develop(image, EXPOSURE)).all()
    other = develop(image, replace(EXPOSURE, seed=(1,)))
    assert 0 < np.abs(other - develop(image, EXPOSURE)).mean() < 0.05
    assert develop(image, replace(EXPOSURE, curve=0.7)).mean() > develop(image, EXPOSURE).mean()


def one_against_rest(features: Array, labels: npt.NDArray[np.int64]) -> float:
    """Macro AUC of a linear model on these features, three-fold."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=100, tol=1e-2))
    scores = cross_val_predict(model, features, labels, cv=3, method="predict_proba")
    return float(roc_auc_score(labels, scores, multi_class="ovr"))


def test_brightness_and_borders_say_little_and_pixels_much(
    drawn: tuple[Array, npt.NDArray[np.int64], npt.NDArray[np.str_]],
) -> None:
    images, labels, _ = drawn
    brightness = np.stack([images.mean(axis=(1, 2)), images.std(axis=(1, 2))], axis=1)
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)[:, ::4]
    coarse = images.reshape(300, 8, 8, 8, 8).mean(axis=(2, 4)).reshape(300, -1)
    assert one_against_rest(brightness, labels) < 0.66
    assert one_against_rest(border, labels) < 0.64
    # A linear look at coarse pixels sees fluid and hearts, and is far from enough for opacities.
    assert 0.66 < one_against_rest(coarse, labels) < 0.90


def test_every_finding_changes_the_developed_image(patient: Anatomy) -> None:
    frame = make_frame(patient, FRONTAL, 128)
    healthy = develop(attenuation(frame), EXPOSURE)
    for number, name in enumerate(FINDINGS):
        findings = draw_findings(np.random.default_rng(number), frozenset({name}), patient)
        difference = np.abs(develop(attenuation(frame, findings), EXPOSURE) - healthy)
        assert (difference > 0.04).mean() > 0.002, name


def test_the_built_in_set_is_split_by_patient() -> None:
    (data,) = load_data(DataSettings(data=("synthetic/chest",)))
    assert data.target.class_names == ("none", *FINDINGS)
    assert data.channels == 1
    assert data.made_splits
    assert sum(len(samples) for samples in data.splits.values()) == 1000
    seen = [set(samples.patients.tolist()) for samples in data.splits.values() if samples.patients is not None]
    assert len(seen) == 3
    assert sum(map(len, seen)) == len(set.union(*seen))
    assert abs(len(data.splits["train"]) - 700) < 10
    picture = data.splits["val"].images.read(0)
    assert picture.pixels.shape == (128, 128)
    assert picture.pixels.dtype == np.uint8


def test_settings_that_count() -> None:
    small = load_synthetic("synthetic/chest", DataSettings(image_size=28))
    assert small.splits["train"].images.read(0).pixels.shape == (64, 64)
    large = load_synthetic("synthetic/chest", DataSettings(image_size=224))
    assert large.splits["train"].images.read(0).pixels.shape == (224, 224)
    (many,) = load_data(DataSettings(data=("synthetic/chest",), limit=2000))
    assert len(many.splits["train"]) == 2000
    (few,) = load_data(DataSettings(data=("synthetic/chest",), limit=20))
    assert [len(samples) for samples in few.splits.values()] == [20, 20, 20]
    labels = load_synthetic("synthetic/chest", DataSettings(task="multilabel"))
    assert labels.target.task == "multilabel"
    assert labels.splits["train"].labels.shape[1] == 4
    binary = load_synthetic("synthetic/chest", DataSettings(task="binary"))
    assert binary.target.class_names == ("none", "finding")


def test_a_models_target_chooses_the_labels() -> None:
    target = load_synthetic("synthetic/chest", DataSettings(task="multilabel")).target
    assert load_synthetic("synthetic/chest", DataSettings(), target).target == target
    with pytest.raises(UsageProblem, match="labels for"):
        load_synthetic("synthetic/chest", DataSettings(), replace(target, class_names=("a", "b")))


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("synthetic/chests", DataSettings(), "synthetic/chest"),
        ("synthetic/chest", DataSettings(task="ordinal"), "--task"),
        ("synthetic/chest", DataSettings(patient_column=("who",)), "--patient-column"),
        ("synthetic/chest", DataSettings(class_names=("a", "b")), "--class-names"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, settings: DataSettings, expected: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        load_synthetic(name, settings)
    assert expected in str(caught.value)
