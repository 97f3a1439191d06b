"""What a run keeps about its data tells the same data from other data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medcli.data.load import load_data
from medcli.data.record import compare_records, data_record, split_rows
from medcli.data.subset import drop
from medcli.data.target import Output, Target, target_from_dict, target_to_dict
from medcli.settings.groups import DataSettings

Draw = Callable[..., Path]


@pytest.fixture
def settings(tmp_path: Path, draw_image: Draw) -> DataSettings:
    for number in range(24):
        draw_image(tmp_path / "data" / "ab"[number % 2] / f"{number}.png", seed=number)
    return DataSettings(data=(str(tmp_path / "data"),))


def test_a_record_is_json_and_repeats(settings: DataSettings) -> None:
    (data,) = load_data(settings)
    record = data_record(data)
    assert json.loads(json.dumps(record)) == record
    assert compare_records(record, data_record(load_data(settings)[0])) == []
    assert record["splits"]["train"]["classes"] == {"a": 8, "b": 8}
    assert record["made_splits"] is True


def test_every_change_is_told(settings: DataSettings, tmp_path: Path, draw_image: Draw) -> None:
    (data,) = load_data(settings)
    record = data_record(data)
    assert "holds other images" in " ".join(
        compare_records(record, data_record(load_data(replace(settings, split_seed=5))[0]))
    )
    fewer = replace(data, splits={**data.splits, "train": drop(data.splits["train"], [0])})
    assert compare_records(record, data_record(fewer)) == ["train had 16 images and has 15"]
    gone = replace(data, splits={"train": data.splits["train"]})
    assert compare_records(record, data_record(gone)) == ["the val split is gone", "the test split is gone"]
    other = replace(data, target=Target("binary", ("a", "c")))
    assert any(
        "the target was binary (a, b) and is binary (a, c)" in text
        for text in compare_records(record, data_record(other))
    )
    draw_image(Path(data.splits["test"].images.describe(0)), seed=99)
    assert compare_records(record, data_record(data)) == ["the contents of image files in test changed"]


def test_changed_labels_are_told(settings: DataSettings) -> None:
    (data,) = load_data(settings)
    train = data.splits["train"]
    turned = replace(data, splits={**data.splits, "train": replace(train, labels=1 - train.labels)})
    assert compare_records(data_record(data), data_record(turned)) == ["labels in train changed"]


def test_moving_the_folder_changes_nothing(settings: DataSettings, tmp_path: Path) -> None:
    record = data_record(load_data(settings)[0])
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    moved = replace(settings, data=(str(tmp_path / "elsewhere"),))
    assert compare_records(record, data_record(load_data(moved)[0])) == []


@pytest.mark.parametrize(
    "target",
    [
        Target("binary", ("a", "b"), positive=0),
        Target("multioutput", outputs=(Output("x", ("0", "1"), ordinal=True), Output("y", ("u", "v", "w")))),
    ],
)
def test_targets_survive(target: Target) -> None:
    assert target_from_dict(json.loads(json.dumps(target_to_dict(target)))) == target


def test_split_rows(settings: DataSettings) -> None:
    (data,) = load_data(settings)
    header, rows = split_rows(data)
    assert header == ("id", "split", "patient", "label")
    assert len(rows) == 24
    assert all(row[0].split("/")[0] == row[3] for row in rows)
    labels = np.array([[1.0, np.nan]], dtype=np.float32)
    train = replace(data.splits["train"], ids=np.array(["i"]), labels=labels, patients=np.array(["p"]))
    header, rows = split_rows(replace(data, target=Target("multilabel", ("x", "y")), splits={"train": train}))
    assert (header, rows) == (("id", "split", "patient", "x", "y"), [("i", "train", "p", "1", "")])
