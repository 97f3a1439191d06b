"""Folders, tables and archives, as users have them and as they break."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.data.decode import UnreadableImage
from medcli.data.load import load_data
from medcli.data.medmnist import SETS
from medcli.data.sources import npz
from medcli.data.sources.files import find_images, is_image_file
from medcli.errors import UsageProblem
from medcli.settings.groups import DataSettings

Draw = Callable[..., Path]


def load(path: Path | str, **settings: Any) -> Any:
    return load_data(DataSettings(data=(str(path),), **settings))[0]


def refused(path: Path | str, **settings: Any) -> UsageProblem:
    with pytest.raises(UsageProblem) as caught:
        load(path, **settings)
    return caught.value


# --- folders


def _classes(root: Path, draw: Draw, counts: dict[str, int], start: int = 0) -> None:
    for name, count in counts.items():
        for number in range(count):
            draw(root / name / f"p{number // 2}_{number}.png", seed=start + number)


def test_class_folders(tmp_path: Path, draw_image: Draw) -> None:
    _classes(tmp_path, draw_image, {"sick": 20, "healthy": 40})
    (tmp_path / "sick" / "notes.txt").write_text("x")
    (tmp_path / "sick" / ".hidden.png").write_text("x")
    data = load(tmp_path)
    assert data.target.class_names == ("healthy", "sick")
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 42, "val": 9, "test": 9}
    assert data.made_splits
    assert data.channels == 1
    assert any("1 files that are no images" in note for note in data.notes)
    train = data.splits["train"]
    for index in range(len(train)):
        name = train.ids[index]
        assert train.images.describe(index) == str(tmp_path / name)
        assert data.target.class_names[train.labels[index]] == name.split("/")[0]
    assert train.images.read(0).pixels.shape == (16, 16)


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_split_folders(tmp_path: Path, draw_image: Draw, val: str) -> None:
    for split in ("training", val, "TEST"):
        _classes(tmp_path / split, draw_image, {"a": 2, "b": 3})
    data = load(tmp_path)
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 5, "val": 5, "test": 5}
    assert not data.made_splits
    assert "`training` is read as train" in data.notes
    assert len({name for samples in data.splits.values() for name in samples.ids}) == 15


def test_a_missing_val_split_is_drawn_from_train_by_patient(tmp_path: Path, draw_image: Draw) -> None:
    _classes(tmp_path / "train", draw_image, {"a": 40, "b": 40})
    _classes(tmp_path / "test", draw_image, {"a": 4, "b": 4})
    data = load(tmp_path, patient_pattern=r"^(p\d+)_")
    assert len(data.splits["test"]) == 8
    assert len(data.splits["train"]) + len(data.splits["val"]) == 80
    assert not set(data.splits["train"].patients) & set(data.splits["val"].patients)
    assert any("no val split" in note and "by patient" in note for note in data.notes)
    assert any("more than one of the data's own splits" in note for note in data.notes)


def test_images_below_class_folders_and_class_order(tmp_path: Path, draw_image: Draw) -> None:
    for name in ("a", "b", "c"):
        for number in range(8):
            draw_image(tmp_path / name / f"patient{name}{number}" / "1.png", seed=number)
    data = load(tmp_path, class_names=("c", "a", "b"), task="ordinal", patient_pattern="/(patient[^/]+)/")
    assert len(set(data.splits["train"].patients)) == len(data.splits["train"])
    assert data.target.class_names == ("c", "a", "b")
    assert data.target.task == "ordinal"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "holds no images"),
        (["1.png", "2.png"], "no class folders"),
        (["a/1.png", "b/1.png", "loose.png"], "beside its folders"),
        (["train/a/1.png", "val/a/1.png", "other/1.png"], "mixes split folders"),
        (["train/a/1.png", "training/a/1.png"], "two folders for train"),
        (["train/1.png", "test/1.png"], "no class folders"),
        (["only/a/1.png", "only/b/1.png"], "single folder `only`"),
        (["a/1.png", "a/2.png"], "one class only"),
        (["a/1.png", "b/notes.txt"], "class folder `b` holds no images"),
    ],
)
def test_folders_that_are_refused(tmp_path: Path, files: list[str], words: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert words in str(refused(tmp_path))


def test_training_cases_of_one_class(tmp_path: Path, draw_image: Draw) -> None:
    _classes(tmp_path / "train", draw_image, {"a": 9})
    _classes(tmp_path / "val", draw_image, {"a": 2, "b": 2})
    assert refused(tmp_path).code == "one-class"


def test_patterns_that_fail(tmp_path: Path, draw_image: Draw) -> None:
    _classes(tmp_path, draw_image, {"a": 4, "b": 4})
    assert "no regular expression" in str(refused(tmp_path, patient_pattern="(p"))
    assert "no group" in str(refused(tmp_path, patient_pattern="p"))
    assert "8 of 8 file names hold no patient" in str(refused(tmp_path, patient_pattern=r"(q\d)"))


def test_table_flags_need_a_table(tmp_path: Path, draw_image: Draw) -> None:
    _classes(tmp_path, draw_image, {"a": 4, "b": 4})
    assert refused(tmp_path, label_column=("x",)).where == "--label-column"


# --- tables


def _table(tmp_path: Path, draw: Draw, text: str, images: int = 20, suffix: str = ".png") -> Path:
    for number in range(images):
        draw(tmp_path / "images" / f"{number}{suffix}", seed=number)
    (tmp_path / "labels.csv").write_text(text)
    return tmp_path / "labels.csv"


def _rows(count: int = 20, columns: str = "id,grade") -> str:
    return columns + "\n" + "".join(f"{number},{number % 3}\n" for number in range(count))


def test_ids_find_files_in_the_image_folder(tmp_path: Path, draw_image: Draw) -> None:
    data = load(_table(tmp_path, draw_image, _rows()), image_dir=(str(tmp_path / "images"),))
    train = data.splits["train"]
    assert all(Path(train.images.describe(at)).stem == train.ids[at] for at in range(len(train)))
    assert data.target.class_names == ("0", "1", "2")
    assert any("column `id`" in note for note in data.notes)
    assert any("column `grade`, the only one left" in note for note in data.notes)


@pytest.mark.parametrize("text", ["{}", "{}.0", "{}.png", "{}.tif", "images/{}.png", "./images/{}", "sub\\{}.png"])
def test_ways_to_name_an_image(tmp_path: Path, draw_image: Draw, text: str) -> None:
    rows = "file;y\n" + "".join(f"{text.format(number)};{'ab'[number % 2]}\n" for number in range(20))
    data = load(_table(tmp_path, draw_image, rows), image_column=("file",), label_column=("y",))
    assert sum(map(len, data.splits.values())) == 20


def test_ids_keep_their_leading_zeros(tmp_path: Path, draw_image: Draw) -> None:
    for name in ("007", "7"):
        draw_image(tmp_path / f"{name}.png")
    rows = "".join(f"{name},{label}\n" for name, label in [("007", "a"), ("7", "b")] * 6)
    (tmp_path / "t.csv").write_text("id,y\n" + rows)
    data = load(tmp_path / "t.csv", image_column=("id",), split=(0.5, 0.5, 0))
    train = data.splits["train"]
    assert {name.split("#")[0]: label for name, label in zip(train.ids, train.labels, strict=True)} == {
        "007": 0,
        "7": 1,
    }


def test_ambiguous_file_names_are_refused(tmp_path: Path, draw_image: Draw) -> None:
    path = _table(tmp_path, draw_image, _rows())
    draw_image(tmp_path / "images" / "3.tif")
    problem = refused(path, image_column=("id",), label_column=("grade",))
    assert "`3` fits 2 files" in problem.message


def test_an_ambiguous_table_lists_columns_and_flags(tmp_path: Path, draw_image: Draw) -> None:
    rows = "id,age,grade\n" + "".join(f"{number},5,{number % 2}\n" for number in range(20))
    problem = refused(_table(tmp_path, draw_image, rows))
    assert "`id`, `age`, `grade`" in problem.message
    assert "--label-column" in (problem.hint or "")
    problem = refused(_table(tmp_path, draw_image, rows.replace("\n1,", "\n99,")))
    assert "no column names images" in problem.message
    assert "--image-column" in (problem.hint or "")


def test_columns_that_name_the_same_files_are_no_ambiguity(tmp_path: Path, draw_image: Draw) -> None:
    rows = "path,name,y\n" + "".join(f"images/{number}.png,{number},{number % 2}\n" for number in range(20))
    assert len(load(_table(tmp_path, draw_image, rows), label_column=("y",)).splits["train"]) == 14


def test_patients_and_splits_of_a_table(tmp_path: Path, draw_image: Draw) -> None:
    rows = "id,y,who,set\n"
    rows += "".join(f"{n},{n % 2},p{n // 2},{('training', 'Validation', 'test', 'train')[n // 5]}\n" for n in range(20))
    data = load(_table(tmp_path, draw_image, rows), label_column=("y",), patient_column=("who",), split_column="set")
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 10, "val": 5, "test": 5}
    assert data.splits["val"].patients.tolist() == ["p2", "p3", "p3", "p4", "p4"]
    assert any("2 patients are in more than one" in note for note in data.notes)
    unused = load(tmp_path / "labels.csv", label_column=("y",))
    assert any("column `set` looks like a split" in note for note in unused.notes)


def test_an_unknown_split_names_its_line(tmp_path: Path, draw_image: Draw) -> None:
    rows = "id,y,set\n" + "".join(f"{n},{n % 2},{'holdout' if n == 3 else 'train'}\n" for n in range(20))
    problem = refused(_table(tmp_path, draw_image, rows), label_column=("y",), split_column="set")
    assert problem.where == f"{tmp_path / 'labels.csv'}:5"


def test_images_that_do_not_exist(tmp_path: Path, draw_image: Draw) -> None:
    path = _table(tmp_path, draw_image, _rows(23))
    columns = {"image_column": ("id",), "label_column": ("grade",)}
    problem = refused(path, **columns)
    assert "3 of 23 images" in problem.message
    assert f"{path}:22: `20`" in problem.message
    data = load(path, skip_unreadable=True, **columns)
    assert sum(map(len, data.splits.values())) == 20
    assert data.skipped == tuple((f"{path}:{n + 2}: {n}", "no such image") for n in (20, 21, 22))


def test_impossible_labels_in_a_table(tmp_path: Path, draw_image: Draw) -> None:
    path = _table(tmp_path, draw_image, _rows().replace("\n4,1\n", "\n4,bad\n"))
    problem = refused(path, image_column=("id",))
    assert problem.where == f"{path}:6"
    assert "`bad`" in problem.message
    data = load_data(DataSettings(data=(str(path),), image_column=("id",)), lenient=True)[0]
    assert sum(map(len, data.splits.values())) == 19
    assert [entry[:2] for entry in data.extra["impossible"]] == [("4", f"{path}:6")]


def test_repeated_images_get_identifiers_of_their_own(tmp_path: Path, draw_image: Draw) -> None:
    data = load(_table(tmp_path, draw_image, _rows() + "3,0\n3,0\n"), label_column=("grade",))
    ids = {name for samples in data.splits.values() for name in samples.ids}
    assert {"3", "3#2", "3#3"} <= ids
    assert any("2 rows name an image" in note for note in data.notes)


def test_a_pile_of_dicoms_without_suffix_and_a_table(tmp_path: Path) -> None:
    from pydicom.data import get_testdata_file

    source = Path(str(get_testdata_file("MR_small.dcm"))).read_bytes()
    (tmp_path / "pile").mkdir()
    for number in range(12):
        (tmp_path / "pile" / f"1.2.840.{number}").write_bytes(source)
    (tmp_path / "t.csv").write_text("uid,y\n" + "".join(f"1.2.840.{n},{n % 2}\n" for n in range(12)))
    data = load(tmp_path / "t.csv", image_dir=(str(tmp_path / "pile"),), split=(0.5, 0.25, 0.25))
    assert data.splits["train"].images.read(0).pixels.shape == (64, 64)
    assert len(find_images([str(tmp_path / "pile")])) == 12
    assert is_image_file(str(tmp_path / "pile" / "1.2.840.3"))


# --- archives


def _arrays(**changes: Any) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for split, count in (("train", 12), ("val", 4), ("test", 6)):
        arrays[f"{split}_images"] = np.random.default_rng(count).integers(0, 256, (count, 8, 8), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None]
    arrays.update(changes)
    return {key: value for key, value in arrays.items() if value is not None}


def _archive(path: Path, **changes: Any) -> Path:
    np.savez_compressed(path, **_arrays(**changes))
    return path


def test_archive(tmp_path: Path) -> None:
    data = load(_archive(tmp_path / "a.npz"))
    assert data.target.class_names == ("0", "1")
    assert data.splits["val"].ids.tolist() == ["val/0", "val/1", "val/2", "val/3"]
    test = data.splits["test"]
    np.testing.assert_array_equal(test.images.read(5).pixels, _arrays()["test_images"][5])
    assert test.images.describe(5).endswith("a.npz: test_images[5]")
    assert test.images.fingerprint(0) != test.images.fingerprint(1)


def test_a_known_archive_has_names_task_and_finding(tmp_path: Path) -> None:
    data = load(_archive(tmp_path / "BreastMNIST_64.npz"))
    assert data.target.class_names[data.target.positive] == "malignant"
    assert any("positive class: `malignant`" in note for note in data.notes)
    labels = {f"{split}_labels": np.arange(n)[:, None] % 5 for split, n in (("train", 12), ("val", 4), ("test", 6))}
    assert load(_archive(tmp_path / "retinamnist.npz", **labels)).target.task == "ordinal"
    assert load(tmp_path / "retinamnist.npz", task="multiclass").target.task == "multiclass"


def test_facts_agree_with_medmnist() -> None:
    info = pytest.importorskip("medmnist.info").INFO
    tasks = {"multi-class": "multiclass", "binary-class": "binary", "ordinal-regression": "ordinal"}
    for name, facts in SETS.items():
        assert facts.task == tasks.get(info[name]["task"], "multilabel")
        assert len(facts.classes) == len(info[name]["label"])
        theirs = [info[name]["label"][str(position)].lower() for position in range(len(facts.classes))]
        for ours, other in zip(facts.classes, theirs, strict=True):
            assert ours.lower()[:6] == other[:6]


def test_several_label_columns_are_multilabel(tmp_path: Path) -> None:
    labels = {
        f"{split}_labels": np.eye(3, dtype=int)[np.arange(n) % 3]
        for split, n in (("train", 12), ("val", 4), ("test", 6))
    }
    data = load(_archive(tmp_path / "a.npz", **labels))
    assert data.target.task == "multilabel"
    assert data.splits["train"].labels.shape == (12, 3)


def test_an_archive_without_val_gets_one(tmp_path: Path) -> None:
    data = load(_archive(tmp_path / "a.npz", val_images=None, val_labels=None))
    assert len(data.splits["train"]) + len(data.splits["val"]) == 12
    assert any("no val split" in note for note in data.notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_images": None, "val_images": None, "test_images": None}, "has no array `train_images`"),
        ({"train_labels": None}, "has no array `train_labels`"),
        ({"train_images": np.array([{}] * 12, dtype=object)}, "never unpickled"),
        ({"train_labels": np.array(["a"] * 12, dtype=object)}, "never unpickled"),
        ({"train_labels": np.array(["a"] * 12)}, "no numbers"),
        ({"train_labels": np.zeros((11, 1), dtype=int)}, "12 images and its labels 11"),
        ({"train_labels": np.zeros((12, 1, 1), dtype=int)}, "not [n] or [n, L]"),
        ({"train_images": np.zeros((12, 8, 8, 8), dtype=np.uint8)}, "volumes"),
        ({"train_images": np.zeros((12, 9, 8), dtype=np.uint8)}, "`train_images` uint8 (9, 8)"),
        ({"train_images": np.zeros((12, 8, 8), dtype=np.int64)}, "int64"),
        ({"train_labels": np.full((12, 1), 0)}, "one class only"),
        ({"train_labels": np.full((12, 1), -3)}, "no whole number"),
    ],
)
def test_archives_that_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    np.savez(tmp_path / "a.npz", **_arrays(**changes))
    assert words in str(refused(tmp_path / "a.npz"))


def test_not_an_archive(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"x" * 50)
    assert "not an .npz archive" in str(refused(tmp_path / "a.npz"))


def test_decimals_outside_0_1_are_unreadable(tmp_path: Path) -> None:
    images = {
        f"{split}_images": np.full((n, 4, 4), 0.5, dtype=np.float32)
        for split, n in (("train", 12), ("val", 4), ("test", 6))
    }
    images["train_images"][3] = 7
    data = load(_archive(tmp_path / "a.npz", **images))
    assert data.splits["train"].images.read(0).high == 1
    with pytest.raises(UnreadableImage, match=r"train_images\[3\]"):
        data.splits["train"].images.read(3)


def test_pixels_are_read_late_and_not_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _archive(tmp_path / "a.npz")
    data = load(path)
    images = data.splits["train"].images
    assert images.source.arrays[0]._array is None
    first = images.read(0).pixels
    again = pickle.loads(pickle.dumps(images))
    assert again.source.arrays[0]._array is None
    np.testing.assert_array_equal(again.read(0).pixels, first)


def test_a_large_array_is_mapped_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "IN_MEMORY", 100)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = load(_archive(tmp_path / "a.npz"))
    np.testing.assert_array_equal(data.splits["val"].images.read(2).pixels, _arrays()["val_images"][2])
    assert isinstance(data.splits["val"].images.source.arrays[1].array, np.memmap)
    assert list((tmp_path / "cache" / "medcli" / "npz").glob("*.npy"))
