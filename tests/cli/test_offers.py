"""What may follow, taken from what stands on the line already."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from medcli.cli.offers import offer


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words(kind: str, incomplete: str, **typed: object) -> list[str]:
    return [value for value, _ in offer(kind, incomplete, typed).values]


def test_columns_come_from_the_tables_typed() -> None:
    Path("a.csv").write_text("image;grade;patient\nx.png;1;p\n", encoding="utf-8")
    with gzip.open("b.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("Image Index\tFinding\n1\t2\n")
    assert words("column", "", data=("a.csv",)) == ["image", "grade", "patient"]
    assert words("column", "gr", data=("site=a.csv",)) == ["grade"]
    assert words("column", "Im", source="b.tsv.gz") == ["Image Index"]
    assert words("column", "grade,pa", data=("a.csv",)) == ["grade,patient"]
    assert words("column", "site=im", data=("site=a.csv",)) == ["site=image"]


def test_a_table_that_cannot_be_read_offers_nothing() -> None:
    Path("broken.csv.gz").write_bytes(b"no gzip at all")
    Path("one.csv").write_text("alone\n1\n", encoding="utf-8")
    Path("utf16.csv").write_bytes("a,b\n".encode("utf-16"))
    assert words("column", "", data=("broken.csv.gz", "one.csv", "utf16.csv", "absent.csv")) == []


def test_classes_come_from_folders_and_from_runs() -> None:
    for place in ("xrays/train/NORMAL", "xrays/train/PNEUMONIA", "xrays/test/NORMAL", "flat/a", "flat/b"):
        Path(place).mkdir(parents=True)
    Path("run").mkdir()
    Path("run/data.json").write_text(json.dumps({"target": {"class_names": ["mild", "severe"]}}), encoding="utf-8")
    Path("damaged").mkdir()
    Path("damaged/data.json").write_text("{", encoding="utf-8")
    assert words("class", "", data=("xrays",)) == ["NORMAL", "PNEUMONIA"]
    assert words("class", "", data=("flat",)) == ["a", "b"]
    assert words("class", "se", run="run") == ["severe"]
    assert words("class", "", run="damaged") == []


def test_weights_are_the_tags_of_the_card() -> None:
    tags = words("weights", "", architecture="resnet18")
    assert tags
    assert words("weights", tags[0][:2], architecture="resnet18")[0].startswith(tags[0][:2])
    assert words("weights", "") == []
    assert offer("weights|path", "", {"architecture": "resnet18"}).files


def test_pages_follow_the_words_before() -> None:
    assert "models" in words("manual", "mod")
    assert words("manual", "sh", argument_words=("models",)) == ["show"]
    assert words("manual", "", argument_words=("train",)) == []


def test_shells_are_those_with_a_script() -> None:
    assert words("shell", "") == ["bash", "zsh", "fish", "powershell"]
