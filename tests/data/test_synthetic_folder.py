"""`data synth`: a folder that any tool reads, that training takes, and that is never overwritten by accident."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from medcli.data.load import load_data
from medcli.data.synthetic.source import PhantomImages, draw_cases
from medcli.settings.groups import DataSettings
from medcli.testing.command import RunCli


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_set_is_written_and_read_back(run_cli: RunCli) -> None:
    done = run_cli("data", "synth", "--images", "50", "--size", "32", "--seed", "3", "--out", "set")
    assert done.code == 0
    folder = run_cli.directory / "set"
    rows = table(folder)
    assert len(rows) == 50
    assert list(rows[0]) == ["image", "label", "patient", "split"]
    images = PhantomImages(draw_cases(50, 3, task="multiclass"), 3, 32)
    for index in (0, 49):
        with Image.open(folder / rows[index]["image"]) as picture:
            assert (np.asarray(picture) == images.read(index).pixels).all()
    settings = DataSettings(
        data=(str(folder / "labels.csv"),), label_column=("label",), patient_column=("patient",), split_column="split"
    )
    (data,) = load_data(settings)
    assert {split: len(samples) for split, samples in data.splits.items()} == {
        split: sum(row["split"] == split for row in rows) for split in ("train", "val", "test")
    }


def test_the_hint_is_a_command_that_trains_on_it(run_cli: RunCli) -> None:
    done = run_cli(
        "data", "synth", "--images", "50", "--size", "32", "--task", "multilabel", "--out", "set", in_process=True
    )
    assert "medcli train resnet18 --data set/labels.csv" in done.stderr
    assert "--label-column 'enlarged heart'" in done.stderr
    rows = table(run_cli.directory / "set")
    assert {row["effusion"] for row in rows} == {"0", "1"}
    columns = ("opacity", "effusion", "pneumothorax", "enlarged heart")
    settings = DataSettings(
        data=(str(run_cli.directory / "set" / "labels.csv"),),
        image_column=("image",),
        label_column=columns,
        patient_column=("patient",),
        split_column="split",
    )
    (data,) = load_data(settings)
    assert data.target.task == "multilabel"
    assert data.target.class_names == columns


def test_a_folder_with_something_in_it_is_left_alone(run_cli: RunCli) -> None:
    folder = run_cli.directory / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("all of it")
    for flags in ((), ("--overwrite", "--yes")):
        refused = run_cli("data", "synth", "--images", "50", "--size", "16", "--out", "mine", *flags, in_process=True)
        assert refused.code == 2
        assert "`mine` is not empty" in refused.stderr
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_overwriting_replaces_a_set_and_nothing_else(run_cli: RunCli) -> None:
    command = ("data", "synth", "--size", "16", "--out", "set")
    assert run_cli(*command, "--images", "60", in_process=True).code == 0
    folder = run_cli.directory / "set"
    (folder / "images" / "notes.txt").write_text("kept")
    assert run_cli(*command, "--images", "50", in_process=True).code == 2
    assert run_cli(*command, "--images", "50", "--overwrite", "--no-input", in_process=True).code == 2
    assert len(table(folder)) == 60
    assert run_cli(*command, "--images", "50", "--overwrite", "--yes", in_process=True).code == 0
    assert len(table(folder)) == len(list((folder / "images").glob("*.png"))) == 50
    assert (folder / "images" / "notes.txt").read_text() == "kept"


def test_nothing_is_written_when_something_is_wrong(run_cli: RunCli) -> None:
    for wrong, expected in (
        (("--images", "1"), "--images"),
        (("--task", "ordinal"), "no ordinal labels"),
        (("synthetic/chests",), "did you mean `synthetic/chest`"),
        (("--images", "0"), "0"),
    ):
        refused = run_cli("data", "synth", "--out", "set", *wrong, in_process=True)
        assert refused.code == 2
        assert expected in refused.stderr
    assert not (run_cli.directory / "set").exists()


def test_json_names_the_table(run_cli: RunCli) -> None:
    done = run_cli("data", "synth", "--images", "50", "--size", "16", "--json", "--out", "set", in_process=True)
    result = done.json()["result"]
    assert result["table"] == "set/labels.csv"
    assert sum(result["counts"].values()) == sum(result["labels"].values()) == 50
    quiet = run_cli("data", "synth", "--images", "50", "--size", "16", "-q", in_process=True)
    assert quiet.stdout == "synthetic-chest/labels.csv\n"
