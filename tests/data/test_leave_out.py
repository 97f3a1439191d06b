"""Cases that a table lists stay out of the splits, which otherwise are as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medcli.data.load import load_data
from medcli.errors import UsageProblem
from medcli.settings.groups import DataSettings

Draw = Callable[..., Path]


@pytest.fixture
def images(tmp_path: Path, draw_image: Draw) -> Path:
    for number in range(40):
        draw_image(tmp_path / "set" / ("sick" if number % 4 == 0 else "healthy") / f"{number}.png", seed=number)
    return tmp_path / "set"


def listing(path: Path, *rows: str, header: str = "data,id") -> str:
    path.write_text("\n".join((header, *rows)) + "\n")
    return str(path)


def identifiers(settings: DataSettings) -> dict[str, set[str]]:
    (data,) = load_data(settings)
    return {split: set(samples.ids.tolist()) for split, samples in data.splits.items()}


def test_drawn_splits_stay_but_for_what_is_listed(images: Path, tmp_path: Path) -> None:
    plain = DataSettings(data=(str(images),))
    before = identifiers(plain)
    gone = {sorted(before["train"])[0], sorted(before["train"])[3], sorted(before["test"])[1]}
    table = listing(tmp_path / "drop.csv", *(f"set,{name}" for name in gone))
    settings = DataSettings(data=plain.data, leave_out=table)
    assert identifiers(settings) == {split: names - gone for split, names in before.items()}
    (data,) = load_data(settings)
    assert any("3 cases left out" in note and "(train 2, test 1)" in note for note in data.notes)


def test_a_table_without_names_of_sets_will_do(images: Path, tmp_path: Path) -> None:
    table = listing(tmp_path / "drop.csv", "sick/0.png,blurred", header="id,why")
    found = identifiers(DataSettings(data=(str(images),), leave_out=table))
    assert sum(map(len, found.values())) == 39
    assert "sick/0.png" not in set().union(*found.values())


def test_a_report_of_clean_data_leaves_nothing_out(images: Path, tmp_path: Path) -> None:
    settings = DataSettings(data=(str(images),))
    table = listing(tmp_path / "drop.csv", header="data,id,split,file,reason")
    assert identifiers(DataSettings(data=settings.data, leave_out=table)) == identifiers(settings)


def test_rows_of_another_set_that_is_read_too(images: Path, tmp_path: Path) -> None:
    table = listing(tmp_path / "drop.csv", "b,sick/0.png")
    first, second = load_data(DataSettings(data=(f"a={images}", f"b={images}"), leave_out=table))
    assert [sum(map(len, one.splits.values())) for one in (first, second)] == [40, 39]


def test_an_impossible_label_may_be_left_out(tmp_path: Path, draw_image: Draw) -> None:
    rows = [f"{draw_image(tmp_path / f'{n}.png', seed=n).name},{n % 2 if n else 'broken'}" for n in range(20)]
    labels = listing(tmp_path / "labels.csv", *rows, header="path,y")
    settings = {"data": (labels,), "image_column": ("path",), "label_column": ("y",), "class_names": ("0", "1")}
    with pytest.raises(UsageProblem, match="broken"):
        load_data(DataSettings(**settings))  # type: ignore[arg-type]
    table = listing(tmp_path / "drop.csv", "0.png,no label", header="id,why")
    (data,) = load_data(DataSettings(**settings, leave_out=table))  # type: ignore[arg-type]
    assert sum(map(len, data.splits.values())) == 19


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        (("set,sick/99.png",), "data,id", "1 of 1 cases that `set` does not have: `sick/99.png`"),
        (("other,sick/0.png",), "data,id", "cases of `other`, and what is read is called `set`"),
        (("sick/0.png,1",), "name,y", "no column `id`"),
        ((), "name,y", "a header and no rows"),
    ],
)
def test_what_does_not_belong_is_refused(
    rows: tuple[str, ...], header: str, words: str, images: Path, tmp_path: Path
) -> None:
    table = listing(tmp_path / "drop.csv", *rows, header=header)
    with pytest.raises(UsageProblem, match=words) as caught:
        load_data(DataSettings(data=(str(images),), leave_out=table))
    assert caught.value.where == "--leave-out"


def test_a_missing_table_names_the_flag(images: Path) -> None:
    with pytest.raises(UsageProblem, match="does not exist") as caught:
        load_data(DataSettings(data=(str(images),), leave_out="nowhere.csv"))
    assert caught.value.where == "--leave-out"
