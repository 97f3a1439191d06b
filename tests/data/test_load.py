"""Names, per-set values, configuration tables, limits, and the paths that lead nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medcli.data.load import load_data
from medcli.data.named_sets import named_sets
from medcli.data.subset import drop, skip, take
from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.settings.groups import DataSettings

Draw = Callable[..., Path]


def _set(root: Path, draw: Draw, count: int = 20) -> Path:
    for number in range(count):
        draw(root / ("sick" if number % 4 == 0 else "healthy") / f"{number}.png", seed=number)
    return root


def test_names_and_values_per_set() -> None:
    settings = DataSettings(
        data=("a=x.csv", "b=y/z.csv", "plain.tar.csv.gz"),
        image_dir=("a=imgs", "b=other"),
        label_column=("grade", "b=dr", "b=dme"),
    )
    sets = named_sets(settings, {})
    assert [(one.name, one.path) for one in sets] == [
        ("a", "x.csv"),
        ("b", "y/z.csv"),
        ("plain.tar", "plain.tar.csv.gz"),
    ]
    assert [one.settings.image_dir for one in sets] == [("imgs",), ("other",), ()]
    assert [one.settings.label_column for one in sets] == [("grade",), ("dr", "dme"), ("grade",)]


def test_configuration_tables_and_flags_above_them() -> None:
    tables = {"site": {"path": "s.csv", "image-dir": "imgs", "label_column": ["a", "b"]}}
    (one,) = named_sets(DataSettings(data=("site",)), tables)
    assert (one.path, one.settings.image_dir, one.settings.label_column) == ("s.csv", ("imgs",), ("a", "b"))
    (one,) = named_sets(DataSettings(data=("site",), label_column=("c",)), tables)
    assert one.settings.label_column == ("c",)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (DataSettings(), "no data was named"),
        (DataSettings(data=("a=x", "a=y")), "two data sets are called `a`"),
        (DataSettings(data=("site=x",), image_dir=("sit=imgs",)), "no data set is called `sit`"),
        (DataSettings(data=("x.csv",), image_column=("a", "b")), "has 2 values"),
    ],
)
def test_names_that_are_refused(settings: DataSettings, words: str) -> None:
    with pytest.raises(UsageProblem, match=words):
        named_sets(settings, {})


def test_unknown_key_of_a_table_names_the_nearest() -> None:
    with pytest.raises(UsageProblem, match="did you mean `image_dir`"):
        named_sets(DataSettings(data=("s",)), {"s": {"path": "x", "image_dri": "y"}})


def test_a_missing_path_offers_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "breastmnist.npz").touch()
    with pytest.raises(UsageProblem) as caught:
        load_data(DataSettings(data=(str(tmp_path / "brestmnist.npz"),)))
    assert "does not exist" in caught.value.message
    assert "breastmnist.npz" in (caught.value.hint or "")


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"x")
    with pytest.raises(UsageProblem, match="neither a folder"):
        load_data(DataSettings(data=(str(tmp_path / "a.parquet"),)))


def test_a_bad_window_is_refused_at_once(tmp_path: Path, draw_image: Draw) -> None:
    with pytest.raises(UsageProblem) as caught:
        load_data(DataSettings(data=(str(_set(tmp_path, draw_image)),), window="wide"))
    assert caught.value.where == "--window"


def test_limit_is_stratified_and_said(tmp_path: Path, draw_image: Draw) -> None:
    (data,) = load_data(DataSettings(data=(str(_set(tmp_path, draw_image, 80)),), limit=8))
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 8, "val": 8, "test": 8}
    assert np.bincount(data.splits["train"].labels).tolist() == [6, 2]
    assert any("limited to train 8 of 56" in note for note in data.notes)


def test_the_split_seed_decides_and_nothing_else(tmp_path: Path, draw_image: Draw) -> None:
    settings = DataSettings(data=(str(_set(tmp_path, draw_image, 40)),))
    first, again = (load_data(settings)[0].splits["test"].ids.tolist() for _ in range(2))
    other = load_data(replace(settings, split_seed=1))[0].splits["test"].ids.tolist()
    assert first == again != other


def test_data_for_a_model_that_exists(tmp_path: Path, draw_image: Draw) -> None:
    """A set with one of the model's classes only can be evaluated; a set with another class cannot."""
    for number in range(5):
        draw_image(tmp_path / "a" / "sick" / f"{number}.png", seed=number)
        draw_image(tmp_path / "b" / "odd" / f"{number}.png", seed=number)
    target = Target("binary", ("healthy", "sick"))
    settings = DataSettings(data=(str(tmp_path / "a"),), split=(0, 0, 1))
    (data,) = load_data(settings, target=target)
    assert data.target == target
    assert data.splits["test"].labels.tolist() == [1] * 5
    with pytest.raises(UsageProblem, match="none of the classes"):
        load_data(replace(settings, data=(str(tmp_path / "b"),)), target=target)


def test_take_drop_and_skip(tmp_path: Path, draw_image: Draw) -> None:
    (data,) = load_data(DataSettings(data=(str(_set(tmp_path, draw_image)),)))
    train = data.splits["train"]
    some = take(take(train, [5, 3, 1]), [2, 0])
    assert some.ids.tolist() == train.ids[[1, 5]].tolist()
    assert some.images.describe(0) == train.images.describe(1)
    np.testing.assert_array_equal(some.images.read(1).pixels, train.images.read(5).pixels)
    assert len(drop(train, [0, 2])) == len(train) - 2
    skipped = skip(data, {"train": [(0, "broken")]})
    assert len(skipped.splits["train"]) == len(train) - 1
    assert skipped.skipped == ((train.images.describe(0), "broken"),)


@pytest.mark.parametrize(
    ("path", "settings", "task", "sizes"),
    [
        ("medmnist/breastmnist.npz", {}, "binary", (546, 78, 156)),
        ("medmnist/pneumoniamnist.npz", {}, "binary", (4708, 524, 624)),
        ("medmnist/retinamnist.npz", {}, "ordinal", (1080, 120, 400)),
        ("kermany_cxr224/dataset", {"patient_pattern": r"^(person\d+|(?:NORMAL2-)?IM-\d+)"}, "binary", None),
        (
            "idrid_grading_512/labels.csv",
            {"label_column": ("dr_grade", "dme_risk"), "split_column": "split"},
            "multioutput",
            None,
        ),
        (
            "nih_cxr14_starter_512/labels_and_chexnet_probs.csv",
            {"label_column": ("Mass", "Hernia", "Effusion"), "patient_column": ("Patient ID",)},
            "multilabel",
            None,
        ),
    ],
)
def test_real_sets(shared_data: Path, path: str, settings: dict, task: str, sizes: tuple | None) -> None:
    (data,) = load_data(DataSettings(data=(str(shared_data / "data" / path),), **settings))
    assert data.target.task == task
    assert tuple(data.splits) == ("train", "val", "test")
    if sizes:
        assert tuple(map(len, data.splits.values())) == sizes
    for samples in data.splits.values():
        assert samples.images.read(0).pixels.ndim in {2, 3}
    if data.splits["train"].patients is not None and data.made_splits:
        assert not set(data.splits["train"].patients) & set(data.splits["val"].patients)
