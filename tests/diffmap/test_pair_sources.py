"""Pairs from folders, tables and DICOM files; what is written is what is read; every bad input has its own words."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

from medcli.data.decode import UnreadableImage
from medcli.diffmap.checks import check_alignment, check_headers, check_images, settle
from medcli.diffmap.pairs import Drawn, Pair, PairImages, PairSet
from medcli.diffmap.phantom import draw_phantom_pair
from medcli.diffmap.prepared import PairPictures
from medcli.diffmap.preparing import align, prepare
from medcli.diffmap.reading import MAP_MIDDLE, MAP_SCALE, read_image, read_map, read_pair
from medcli.diffmap.sources import PairColumns, columns_of, load_pairs, pair_of_files, with_splits
from medcli.errors import MedcliError, Problems, RunFailure, UsageProblem
from medcli.settings.diffmap_groups import PairTableSettings
from medcli.settings.groups import DataSettings

SIZE = 96


@pytest.fixture(scope="module")
def films() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """A phantom twice."""
    pair = draw_phantom_pair(Drawn(1, 3, SIZE))
    return pair.prior, pair.current


def save(path: Path, image: npt.NDArray[np.float32]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)
    return str(path)


def save_dicom(path: Path, image: npt.NDArray[np.float32], *, inverse: bool = False, **tags: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.rint(image * 4095).astype(np.uint16)
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = pydicom.uid.generate_uid()
    file.Rows, file.Columns = pixels.shape
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME1" if inverse else "MONOCHROME2"
    file.PixelData = (4095 - pixels if inverse else pixels).tobytes()
    file.PixelSpacing = [0.2, 0.3]
    for name, value in {"PatientID": "A", "ViewPosition": "PA", "AcquisitionDate": "20200101", **tags}.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return str(path)


def codes(pair: Pair) -> list[str]:
    return [concern.code for concern in check_headers(pair)]


def image_codes(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> list[str]:
    everything = np.ones(first.shape, bool)
    return [concern.code for concern in check_images(PairImages(first, second, None, everything, everything))]


def test_nifti_of_the_layout_is_read_transposed_and_its_map_as_it_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    home = tmp_path / "case7" / "pair_0"
    home.mkdir(parents=True)
    images = rng.random((2, 40, 60), dtype=np.float32)
    change = (rng.random((40, 60), dtype=np.float32) - 0.5).astype(np.float32)
    for name, image in (("prior", images[0]), ("current", images[1]), ("difference_map", change)):
        # The layout's authors write with an identity affine, which elsewhere would flip the image.
        nib.save(nib.Nifti1Image(image.T, np.eye(4)), home / f"{name}.nii.gz")
    (pair,) = load_pairs(str(tmp_path)).pairs
    assert (pair.identifier, pair.patient) == ("case7/pair_0", "case7")
    assert read_image(pair.baseline).pixels == pytest.approx(images[0])
    read = read_pair(pair, 60)
    assert read.followup[10:50] == pytest.approx(images[1], abs=1e-6)  # padded to a square, not stretched
    assert read.target is not None
    assert read.target[10:50] == pytest.approx(change, abs=1e-6)
    assert not read.valid[:10].any()
    assert np.isnan(read.target[:10]).all()


def test_a_map_of_16_bits_is_read_to_half_a_step(tmp_path: Path) -> None:
    change = np.linspace(-1, 1, 32 * 32, dtype=np.float32).reshape(32, 32)
    Image.fromarray(np.rint(change * MAP_SCALE + MAP_MIDDLE).astype(np.uint16)).save(tmp_path / "map.png")
    assert np.abs(read_map(str(tmp_path / "map.png")) - change).max() <= 0.51 / MAP_SCALE
    with pytest.raises(RunFailure, match="16 bits"):
        read_map(save(tmp_path / "grey.png", np.abs(change)))
    np.save(tmp_path / "map.npy", change * 3)
    with pytest.raises(RunFailure, match="outside"):
        read_map(str(tmp_path / "map.npy"))


def test_a_table_names_its_columns_by_flags(tmp_path: Path, films: tuple[npt.NDArray[np.float32], ...]) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / "img" / name, films[0])
    (tmp_path / "t.csv").write_text("who,early,late,d1,d2\nX,a.png,b.png,2,10\nY,b.png,a.png,7,1\n")
    table = PairTableSettings(baseline_column="early", followup_column="late", date_columns=("d1", "d2"))
    data = DataSettings(patient_column=("who",), image_dir=(str(tmp_path / "img"),))
    columns = columns_of(data, table)
    found = load_pairs(str(tmp_path / "t.csv"), columns)
    assert [pair.patient for pair in found.pairs] == ["X", "Y"]
    assert codes(found.pairs[0]) == ["same-file"]  # 2 comes before 10, as numbers do
    assert "time-order" in codes(found.pairs[1])
    with pytest.raises(UsageProblem, match="no column `baseline`") as caught:
        load_pairs(str(tmp_path / "t.csv"))
    assert caught.value.where == "--baseline-column"
    with pytest.raises(UsageProblem, match="`d1` is not two columns"):
        columns_of(data, PairTableSettings(date_columns=("d1",)))
    (tmp_path / "t.csv").write_text("baseline,followup\nimg/a.png,\n")
    with pytest.raises(UsageProblem, match="one image is missing"):
        load_pairs(str(tmp_path / "t.csv"))
    (tmp_path / "t.csv").write_text("baseline,followup\nimg/a.png,img/c.png\n")
    with pytest.raises(UsageProblem, match=r"`img/c.png` does not exist"):
        load_pairs(str(tmp_path / "t.csv"))


def test_the_open_pairs_are_read(shared_data: Path) -> None:
    table = shared_data / "data" / "cxr_pairs_open" / "pairs.csv"
    columns = PairColumns(patient="patient_id", dates=("day_baseline", "day_followup"), identifier="pair_id")
    found = with_splits(load_pairs(str(table), columns))
    assert len(found) == 190
    assert not any("time-order" in codes(pair) for pair in found.pairs[::10])
    home = {(pair.patient, pair.split) for pair in found.pairs}
    assert len(home) == len({patient for patient, _ in home})
    ready = prepare(found.pairs[0], 128)
    assert ready.quality.ncc_after > ready.quality.ncc_before
    assert ready.images.valid.mean() > 0.5


def test_dicom_images_become_pairs_in_order_of_time(tmp_path: Path, films: tuple[npt.NDArray[np.float32], ...]) -> None:
    save_dicom(tmp_path / "1.dcm", films[0], AcquisitionDate="20210301")
    save_dicom(tmp_path / "2.dcm", films[1], AcquisitionDate="20200101", inverse=True)
    save_dicom(tmp_path / "3.dcm", films[1], AcquisitionDate="20220101", ViewPosition="LL")
    save_dicom(tmp_path / "4.dcm", films[1], PatientID="B")
    (pair,) = load_pairs(str(tmp_path)).pairs
    assert [Path(path).name for path in (pair.baseline, pair.followup)] == ["2.dcm", "1.dcm"]
    assert "A" not in pair.patient
    assert codes(pair) == []
    read = read_pair(pair, SIZE)
    assert read.baseline == pytest.approx(films[1], abs=1 / 4095)  # MONOCHROME1 shows the same
    assert read.spacing_mm == (0.2, 0.3)


def test_headers_that_do_not_match_are_refused_unless_allowed(
    tmp_path: Path, films: tuple[npt.NDArray[np.float32], ...]
) -> None:
    first = save_dicom(tmp_path / "1.dcm", films[0])
    cases = {
        "patient-mismatch": {"PatientID": "SECRET"},
        "view-mismatch": {"ViewPosition": "LL"},
        "time-order": {"AcquisitionDate": "20190101"},
    }
    for code, tags in cases.items():
        second = save_dicom(tmp_path / f"{code}.dcm", films[1], **tags)
        with pytest.raises(UsageProblem) as caught:
            prepare(pair_of_files(first, second), SIZE, "none")
        assert caught.value.code == code
        assert "--allow-mismatch" in str(caught.value)
        assert "SECRET" not in str(caught.value)
        allowed = prepare(pair_of_files(first, second), SIZE, "none", allow_mismatch=True)
        assert code in [concern.code for concern in allowed.concerns]
    both = save_dicom(tmp_path / "both.dcm", films[1], PatientID="Z", ViewPosition="LL")
    with pytest.raises(Problems):
        prepare(pair_of_files(first, both), SIZE, "none")
    with pytest.raises(UnreadableImage, match="two different patients; view `PA` against `LL`"):
        PairPictures((pair_of_files(first, both),), SIZE, "none").read(0)
    for code, tags in {
        "projection-differs": {"ViewPosition": "AP"},
        "laterality-mismatch": {"PatientOrientation": ["R", "F"]},
        "modality-mismatch": {"Modality": "CT"},
    }.items():
        one = save_dicom(tmp_path / f"{code}-1.dcm", films[0], PatientOrientation=["L", "F"], Modality="DX")  # type: ignore[arg-type]
        other = save_dicom(tmp_path / f"{code}-2.dcm", films[1], **{"Modality": "DX", **tags})  # type: ignore[arg-type]
        assert codes(pair_of_files(one, other)) == [code]


@pytest.mark.parametrize(
    ("first", "second", "wrong"),
    [
        ("20200101", "20200301", False),
        ("20200301", "20200101", True),
        ("20190101120000", "20200101", False),  # one header gives the time of day, the other the day alone
        ("20250101", "20200101120000", True),
        ("20200101120000", "20200101", False),
        ("2020-01-02", "2020-01-01 10:30", True),
        ("-23", "-10", False),  # days before admission
        ("-3", "-5", True),
        ("9", "10", False),
        ("2.5", "2", True),
    ],
)
def test_the_order_in_time_is_told_from_dates_and_numbers(first: str, second: str, wrong: bool) -> None:
    assert codes(Pair("1", "a.png", "b.png", dates=(first, second))) == ["time-order"] * wrong


def test_a_file_with_itself_gives_zero_and_says_so(tmp_path: Path, films: tuple[npt.NDArray[np.float32], ...]) -> None:
    path = save(tmp_path / "a.png", films[0])
    ready = prepare(pair_of_files(path, path), SIZE)
    assert [concern.code for concern in ready.concerns] == ["same-file"]
    assert np.array_equal(ready.images.baseline, ready.images.followup)


def test_pixels_that_do_not_match_are_told(films: tuple[npt.NDArray[np.float32], ...]) -> None:
    first, second = films
    assert image_codes(first, second) == []
    assert image_codes(np.ascontiguousarray(first[:, ::-1]), second) == ["mirrored"]
    assert image_codes(1 - first, second) == ["inverted"]
    for turns in (1, 2, 3):
        assert image_codes(np.ascontiguousarray(np.rot90(first, turns)), second) == ["rotated"]
    assert image_codes(np.full_like(first, 0.3), second) == ["blank-image"]
    blank = np.zeros_like(first)
    everything = np.ones(first.shape, bool)
    concerns = check_images(PairImages(blank, second, None, everything, everything))
    with pytest.raises(UsageProblem, match="blank"):
        settle(concerns, allow_mismatch=True)  # nobody can allow a map of nothing


def test_other_sizes_are_told_and_not_stretched(tmp_path: Path, films: tuple[npt.NDArray[np.float32], ...]) -> None:
    wide = save(tmp_path / "wide.png", films[0][20:80])
    whole = save(tmp_path / "whole.png", films[1])
    images = read_pair(pair_of_files(wide, whole), SIZE)
    assert images.baseline_valid.mean() == pytest.approx(60 / SIZE, abs=0.03)
    assert "sizes-differ" in [concern.code for concern in check_images(images, orientation=False)]


def test_noise_cannot_be_aligned(films: tuple[npt.NDArray[np.float32], ...]) -> None:
    noise = np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32)
    everything = np.ones(noise.shape, bool)
    ready = align(PairImages(noise, films[0], None, everything, everything))
    (concern,) = check_alignment(ready.quality, "affine")
    assert (concern.code, concern.weight) == ("alignment-failed", "refuse")


def test_nan_and_missing_files_are_named(tmp_path: Path, films: tuple[npt.NDArray[np.float32], ...]) -> None:
    spoilt = films[0].copy()
    spoilt[3, 4] = np.nan
    nib.save(nib.Nifti1Image(spoilt.T, np.eye(4)), tmp_path / "nan.nii")
    Image.fromarray(spoilt).save(tmp_path / "nan.tif")
    whole = save(tmp_path / "whole.png", films[1])
    for name in ("nan.nii", "nan.tif"):
        with pytest.raises(RunFailure, match="1 pixel that is NaN"):
            read_pair(pair_of_files(str(tmp_path / name), whole), SIZE)
    with pytest.raises(UsageProblem, match="does not exist") as caught:
        pair_of_files(whole, str(tmp_path / "absent.png"))
    assert caught.value.where == "FOLLOWUP"
    (tmp_path / "broken.png").write_bytes(b"\x89PNG not")
    with pytest.raises(RunFailure, match="cannot be read"):
        read_pair(pair_of_files(whole, str(tmp_path / "broken.png")), SIZE)
    (tmp_path / "c" / "pair_0").mkdir(parents=True)
    save(tmp_path / "c" / "pair_0" / "prior.png", films[0])
    with pytest.raises(UsageProblem, match="one image is missing"):
        load_pairs(str(tmp_path / "c"))


def test_splits_keep_patients_together_and_say_where_they_do_not() -> None:
    pairs = tuple(Pair(str(n), "a", "b", patient=f"p{n // 3}") for n in range(30))
    found = with_splits(PairSet("x", pairs), seed=4)
    assert len({(pair.patient, pair.split) for pair in found.pairs}) == 10
    assert {pair.split for pair in found.pairs} == {"train", "val", "test"}
    leaking = (Pair("1", "a", "b", patient="p", split="train"), Pair("2", "a", "b", patient="p", split="test"))
    with pytest.raises(MedcliError, match="stands in train and in test"):
        with_splits(PairSet("x", leaking))
    with pytest.raises(MedcliError, match="have no split"):
        with_splits(PairSet("x", (leaking[0], Pair("3", "a", "b"))))


def test_parameters_of_a_pair_are_json() -> None:
    json.dumps(draw_phantom_pair(Drawn(0, 1, 32)).parameters)
