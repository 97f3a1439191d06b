"""What data say about themselves, against figures counted by hand; and what they do not say stays unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medcli.errors import UsageProblem
from medcli.recommend.candidates import Candidate
from medcli.recommend.request import situation
from medcli.recommend.rules import rules
from medcli.recommend.situation import Situation
from medcli.recommend.survey import survey
from medcli.settings.groups import DataSettings


def look(*data: str | Path, **settings: Any) -> Situation:
    return survey(DataSettings(data=tuple(map(str, data)), **settings), rules(), Situation())


def archive(path: Path, labels: list[int], side: int = 28, colour: bool = False) -> Path:
    arrays: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        shape = (len(labels), side, side, 3) if colour else (len(labels), side, side)
        arrays[f"{split}_images"] = np.zeros(shape, dtype=np.uint8)
        arrays[f"{split}_labels"] = np.array(labels, dtype=np.uint8)[:, None]
    np.savez(path, **arrays)
    return path


def picture(path: Path, value: int = 0, mode: str = "L", size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(path)


def scan(path: Path, modality: str, part: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    header.Modality, header.PhotometricInterpretation = modality, "MONOCHROME2"
    if part:
        header.BodyPartExamined = part
    header.Rows, header.Columns, header.SamplesPerPixel, header.PixelRepresentation = 24, 32, 1, 0
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.PixelData = np.zeros((24, 32), dtype=np.uint16).tobytes()
    header.save_as(path, enforce_file_format=True)


def test_a_medmnist_file_tells_everything(tmp_path: Path) -> None:
    found = look(archive(tmp_path / "breastmnist.npz", [0] * 5 + [1] * 15))
    assert (found.images, found.task, found.classes, found.channels, found.side) == (20, "binary", 2, 1, 28)
    assert found.imbalance == pytest.approx(3.0)
    assert (found.modality, found.known_set) == ("ultrasound", "breastmnist")
    assert any("`breastmnist` is a set of MedMNIST" in note for note in found.notes)


def test_the_size_in_a_medmnist_name_does_not_hide_it(tmp_path: Path) -> None:
    found = look(archive(tmp_path / "RetinaMNIST_64.npz", [0, 1, 2, 3, 4] * 2, side=64, colour=True))
    assert (found.modality, found.known_set, found.task, found.side) == ("fundus", "retinamnist", "ordinal", 64)
    assert found.channels == 3


def test_an_archive_of_another_name_says_nothing_of_its_kind(tmp_path: Path) -> None:
    found = look(archive(tmp_path / "mydata.npz", [0, 1, 1, 2] * 5))
    assert (found.modality, found.known_set) == (None, None)
    assert any("--task ordinal" in note for note in found.notes)


@pytest.mark.parametrize("name", ["pathmnist", "chestmnist.npz", "DermaMNIST"])
def test_a_set_with_a_guide_is_known_by_its_name_alone(name: str) -> None:
    found = look(name)
    known = rules().sets[name.lower().removesuffix(".npz")]
    assert (found.images, found.modality, found.task) == (known.train, known.modality, known.task)
    assert found.typed["data"] == (f"{name.lower().removesuffix('.npz')}.npz",)
    assert any("no such file here" in note for note in found.notes)


def test_other_absent_files_are_an_error() -> None:
    with pytest.raises(UsageProblem, match="does not exist"):
        look("bloodmnist.npz")


def test_class_folders_say_size_and_imbalance_but_not_their_kind(tmp_path: Path) -> None:
    for name, count in (("sick", 6), ("well", 24)):
        for number in range(count):
            picture(tmp_path / f"cxr/train/{name}/{number}.png")
    picture(tmp_path / "cxr/val/sick/0.png")
    picture(tmp_path / "cxr/val/well/0.png")
    found = look(tmp_path / "cxr")
    assert (found.images, found.task, found.side) == (30, "binary", 30)
    assert found.imbalance == pytest.approx(4.0)
    assert found.modality is None


def test_a_table_of_several_labels_counts_positives(tmp_path: Path) -> None:
    rows = ["image,mass,hernia,split"]
    for number in range(20):
        picture(tmp_path / f"{number}.png", mode="RGB")
        rows.append(f"{number}.png,{int(number < 10)},{int(number < 2)},{'train' if number < 16 else 'val'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    found = look(
        tmp_path / "labels.csv", image_column=("image",), label_column=("mass", "hernia"), split_column="split"
    )
    assert (found.images, found.task, found.classes, found.channels) == (16, "multilabel", 2, 3)
    assert found.imbalance == pytest.approx(10 / 2)
    assert found.typed["label_column"] == ("mass", "hernia")
    assert found.typed["split_column"] == "split"


@pytest.mark.parametrize(
    ("modality", "part", "kind", "said"),
    [
        ("CR", "CHEST", "chest-xray", "BodyPartExamined CHEST"),
        ("DX", "", "xray", "`--modality chest-xray` if of the chest"),
        ("CR", "HAND", "xray", "HAND stated"),
        ("CT", "CHEST", "ct", "Modality CT"),
        ("OPT", "", "oct", "Modality OPT"),
        ("US", "", "ultrasound", "Modality US"),
        ("DMS", "", "dermoscopy", "Modality DMS"),
        ("XA", "", None, "Modality XA"),
    ],
)
def test_dicom_headers_say_the_kind(tmp_path: Path, modality: str, part: str, kind: str | None, said: str) -> None:
    for name in ("a", "b"):
        for number in range(4):
            scan(tmp_path / f"set/{name}/{number}.dcm", modality, part)
    found = look(tmp_path / "set")
    assert found.modality == kind
    assert any(said in note for note in found.notes)


def test_dicom_files_of_several_kinds_are_none(tmp_path: Path) -> None:
    for number in range(4):
        scan(tmp_path / f"set/a/{number}.dcm", "CT")
        scan(tmp_path / f"set/b/{number}.dcm", "MR")
    found = look(tmp_path / "set")
    assert found.modality is None
    assert any("several modalities (CT, MR)" in note for note in found.notes)


def test_images_without_labels_are_counted(tmp_path: Path) -> None:
    for number in range(5):
        scan(tmp_path / f"loose/{number}.dcm", "CR", "CHEST")
    found = look(tmp_path / "loose")
    assert (found.images, found.modality, found.task, found.imbalance) == (5, "chest-xray", None, None)
    assert (found.channels, found.side) == (1, 24)
    assert found.typed == {"data": ("TABLE.csv",), "image_dir": (str(tmp_path / "loose"),)}


def test_labels_that_name_a_side_are_noticed(tmp_path: Path) -> None:
    for name in ("kidney-left", "kidney-right"):
        for number in range(10):
            picture(tmp_path / f"organs/{name}/{number}.png")
    assert look(tmp_path / "organs").sided
    for name in ("leftover", "bright"):
        for number in range(10):
            picture(tmp_path / f"others/{name}/{number}.png")
    assert not look(tmp_path / "others").sided


def test_drawn_pictures_are_of_no_kind() -> None:
    found = look("synthetic/chest")
    assert found.modality is None
    assert any("drawn" in note for note in found.notes)


def test_one_data_set_at_a_time() -> None:
    with pytest.raises(UsageProblem, match="one data set at a time"):
        look("a.npz", "b.npz")


def ask(offered: tuple[Candidate, ...], **given: Any) -> Situation:
    return situation(given, offered, rules())


def test_a_flag_counts_more_than_the_data_and_says_so(tmp_path: Path, offered: tuple[Candidate, ...]) -> None:
    path = archive(tmp_path / "breastmnist.npz", [0, 1] * 10)
    found = ask(offered, data=(str(path),), images=900, modality="CXR")
    assert (found.images, found.modality) == (900, "chest-xray")
    assert any("`--images` says 900, the data 20" in note for note in found.notes)
    assert any("`--modality` says chest-xray, the data ultrasound" in note for note in found.notes)


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("cxr", "chest-xray"),
        ("Chest X-ray", "chest-xray"),
        ("chest_xray", "chest-xray"),
        ("skin", "dermoscopy"),
        ("US", "ultrasound"),
        ("MR", "mri"),
        ("histopathology", "histology"),
        ("OCT", "oct"),
    ],
)
def test_usual_words_for_a_kind_are_understood(offered: tuple[Candidate, ...], word: str, kind: str) -> None:
    assert ask(offered, modality=word).modality == kind


def test_an_unknown_kind_is_refused_with_what_is_known(offered: tuple[Candidate, ...]) -> None:
    with pytest.raises(UsageProblem) as caught:
        ask(offered, modality="fundsu")
    assert str(caught.value.hint).startswith("did you mean `fundus`?")
    with pytest.raises(UsageProblem) as caught:
        ask(offered, modality="thermography")
    assert "`dermoscopy`" in str(caught.value.hint)


def test_columns_without_data_are_refused(offered: tuple[Candidate, ...]) -> None:
    with pytest.raises(UsageProblem, match="`--label-column` belongs to data"):
        ask(offered, label_column=("grade",))


def test_a_gpu_is_assumed_only_where_nothing_is_said(offered: tuple[Candidate, ...]) -> None:
    assert (ask(offered).gpu_gb, ask(offered).gpu_assumed) == (8, True)
    assert (ask(offered, gpu_memory=0.0).cpu, ask(offered, gpu_memory=0.0).gpu_assumed) == (True, False)


@pytest.mark.parametrize(
    ("name", "images", "task", "imbalance", "modality"),
    [
        ("breastmnist", 546, "binary", 399 / 147, "ultrasound"),
        ("pneumoniamnist", 4_708, "binary", 3494 / 1214, "chest-xray"),
        ("retinamnist", 1_080, "ordinal", 486 / 66, "fundus"),
    ],
)
def test_real_medmnist_files(
    shared_data: Path, name: str, images: int, task: str, imbalance: float, modality: str
) -> None:
    found = look(shared_data / f"data/medmnist/{name}.npz")
    assert (found.images, found.task, found.modality, found.side) == (images, task, modality, 28)
    assert found.imbalance == pytest.approx(imbalance)


def test_real_fundus_photographs_do_not_say_what_they_are(shared_data: Path) -> None:
    found = look(shared_data / "data/idrid_grading_512/labels.csv", label_column=("dr_grade",), split_column="split")
    assert (found.classes, found.channels, found.side, found.modality) == (5, 3, 512, None)


def test_real_radiographs_of_several_body_parts_are_not_called_chests(shared_data: Path) -> None:
    found = look(shared_data / "data/dicom_cxr")
    assert (found.images, found.modality) == (6, "xray")
    assert any("CSPINE" in note for note in found.notes)
