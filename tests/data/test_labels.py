"""Label text to targets: what is understood, what is refused, and that nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from medcli.data.labels import Labelled, LabelRules, read_labels
from medcli.data.sources.cases import LabelColumn
from medcli.data.target import Output, Target
from medcli.errors import UsageProblem


def read(*columns: Sequence[str], **rules: Any) -> Labelled:
    named = [LabelColumn(name, cells) for name, cells in zip("abcdefgh", columns, strict=False)]
    return read_labels(named, lambda row: f"t.csv:{row + 2}", LabelRules(**rules))


def test_text_classes_are_sorted() -> None:
    labelled = read(["sick", "healthy", "sick", "other"])
    assert labelled.target == Target("multiclass", ("healthy", "other", "sick"))
    assert labelled.labels.tolist() == [2, 0, 2, 1]
    assert labelled.labels.dtype == np.int64


def test_two_classes_are_binary_and_the_positive_one_is_said() -> None:
    labelled = read(["NORMAL", "PNEUMONIA"])
    assert labelled.target == Target("binary", ("NORMAL", "PNEUMONIA"), positive=1)
    assert any("`PNEUMONIA`" in note for note in labelled.notes)
    assert read(["NORMAL", "PNEUMONIA"], positive="NORMAL").target.positive == 0


def test_numbers_sort_as_numbers_and_spreadsheet_decimals_are_whole() -> None:
    cells = [str(value) for value in range(12)] + ["3.0", "10.00"]
    labelled = read(cells, task="ordinal")
    assert labelled.target.class_names[9:] == ("9", "10", "11")
    assert labelled.labels[-2:].tolist() == [3, 10]
    assert labelled.target.task == "ordinal"


def test_numbers_from_one_keep_their_names() -> None:
    labelled = read(["1", "2", "3"])
    assert labelled.target.class_names == ("1", "2", "3")
    assert labelled.labels.tolist() == [0, 1, 2]


def test_named_classes_number_from_zero() -> None:
    labelled = read(["0", "2", "mild"], class_names=("none", "mild", "severe"))
    assert labelled.labels.tolist() == [0, 2, 1]
    labelled = read(["2", "1", "3"], class_names=("1", "2", "3"))
    assert labelled.labels.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("cells", "rules", "row", "words"),
    [
        (["0", "1", "2", "x"], {}, 3, "is no number"),
        (["0", "1", "1", "-2"], {}, 3, "no whole number"),
        (["0", "1", "1", "0.5"], {}, 3, "no whole number"),
        (["0", "1", "1", "7"], {}, 3, "out of range"),
        (["0", "1", "2"], {"class_names": ("a", "b")}, 2, "out of range"),
        (["healthy", "sick", "sik"], {"class_names": ("healthy", "sick")}, 2, "did you mean `sick`"),
    ],
)
def test_impossible_labels_name_file_and_line(cells: list[str], rules: Any, row: int, words: str) -> None:
    labelled = read(cells, **rules)
    assert [problem.where for problem in labelled.bad] == [f"t.csv:{row + 2}"]
    assert words in labelled.bad[0].reason
    assert not labelled.keep[row]


def test_gaps_everywhere_are_no_classes() -> None:
    with pytest.raises(UsageProblem, match="leave gaps"):
        read(["61", "4", "33", "70"])


def test_free_text_is_no_label() -> None:
    with pytest.raises(UsageProblem, match="it is no label"):
        read([f"image {number}" for number in range(60)])


@pytest.mark.parametrize("cells", [["a", "a", "a"], ["3", "3"], ["a", "", ""]])
def test_one_class_only(cells: list[str]) -> None:
    with pytest.raises(UsageProblem, match="one class only"):
        read(cells)


def test_empty_and_ignored_cases_are_left_out_and_said() -> None:
    labelled = read(["a", "b", "", "ungradable", "nan"], ignored=("ungradable",))
    assert labelled.target.class_names == ("a", "b")
    assert labelled.keep.tolist() == [True, True, False, False, False]
    assert any("3 cases without a label" in note for note in labelled.notes)


def test_multilabel_keeps_missing_labels() -> None:
    labelled = read(["0", "1", "", "1.0"], ["1", "nan", "", "-1"])
    assert labelled.target == Target("multilabel", ("a", "b"))
    np.testing.assert_array_equal(labelled.labels, [[0, 1], [1, np.nan], [np.nan, np.nan], [1, np.nan]])
    assert labelled.labels.dtype == np.float32
    assert labelled.keep.tolist() == [True, True, False, True]
    assert any("uncertain" in note for note in labelled.notes)


def test_multilabel_refuses_other_values() -> None:
    labelled = read(["0", "1"], ["1", "2"], task="multilabel")
    assert labelled.bad[0].where == "t.csv:3"
    assert "none of 0, 1" in labelled.bad[0].reason


def test_labels_in_one_cell() -> None:
    labelled = read(["A|B", "No Finding", "B", ""], task="multilabel", ignored=("No Finding",))
    assert labelled.target.class_names == ("A", "B")
    np.testing.assert_array_equal(labelled.labels, [[1, 1], [0, 0], [0, 1], [np.nan, np.nan]])


def test_six_lung_zones_with_an_ungradable_class() -> None:
    """Grades 0-3, 4 for ungradable, empty for missing: both never reach the loss."""
    names = ("normal", "mild", "moderate", "severe", "ungradable")
    zones = [["0", "3", "4", ""], ["1", "2", "4", "0"]]
    by_name = read(*zones, class_names=names, ignored=("ungradable",), ordinal_columns=("a", "b"))
    assert by_name.target.outputs == tuple(Output(zone, names[:4], ordinal=True) for zone in "ab")
    assert by_name.labels.tolist() == [[0, 1], [3, 2], [-1, -1], [-1, 0]]
    assert by_name.keep.tolist() == [True, True, False, True]
    by_number = read(["0", "1", "2", "3", "4"], ["3", "2", "1", "0", ""], ignored=("4",))
    assert [output.classes for output in by_number.target.outputs] == [("0", "1", "2", "3")] * 2
    assert by_number.labels[4].tolist() == [-1, -1]


def test_an_ignored_class_in_the_middle_keeps_the_numbers_right() -> None:
    labelled = read(["0", "1", "2"], class_names=("low", "unsure", "high"), ignored=("unsure",))
    assert labelled.target.class_names == ("low", "high")
    assert labelled.labels.tolist() == [0, -1, 1]


@pytest.mark.parametrize(
    ("columns", "rules", "words"),
    [
        ([["a", "b", "c"]], {"task": "binary"}, "two classes"),
        ([["a", "b"], ["a", "b"]], {"task": "ordinal"}, "one label column"),
        ([["a", "b", "c"]], {"positive": "a"}, "needs two classes"),
        ([["a", "b"]], {"positive": "c"}, "not one of the classes"),
        ([["a", "b"]], {"ordinal_columns": ("z",)}, "not one of the label columns"),
        ([["a", "b"]], {"class_names": ("a", "a")}, "twice"),
    ],
)
def test_contradictions(columns: Any, rules: Any, words: str) -> None:
    with pytest.raises(UsageProblem, match=words):
        read(*columns, **rules)


def test_labels_of_other_data_are_read_as_the_models_target() -> None:
    target = Target("binary", ("NORMAL", "PNEUMONIA"), positive=0)
    labelled = read(["PNEUMONIA", "PNEUMONIA"], expected=target)
    assert labelled.target == target
    assert labelled.labels.tolist() == [1, 1]
    assert read(["COVID"], expected=target).bad
    with pytest.raises(UsageProblem, match="not those the model was trained for"):
        read(["0", "1"], ["1", "0"], expected=Target("multilabel", ("x", "y")))


def test_ordinal_columns_in_one_word_are_taken_apart_unless_a_column_has_that_name() -> None:
    cells = (["0", "1", "2"], ["0", "1", "2"])
    assert [output.ordinal for output in read(*cells, ordinal_columns=("a, b",)).target.outputs] == [True, True]
    odd = [LabelColumn("a,b", cells[0]), LabelColumn("c", cells[1])]
    outputs = read_labels(odd, lambda row: f"t.csv:{row}", LabelRules(ordinal_columns=("a,b",))).target.outputs
    assert [output.ordinal for output in outputs] == [True, False]
