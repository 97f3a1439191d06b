"""A table in a narrow terminal: texts wrap in their column, columns give way from the right and are named."""

from __future__ import annotations

import pytest

from medcli.cli.tables import facts_text, table_text

COLUMNS = ("name", "M params", "weights", "summary")
ROWS = [
    ("resnet18", 11.18, "imagenet", "residual network of eighteen layers, quick on a CPU"),
    ("efficientnet_b0", None, "-", "mobile blocks with squeeze and excitation"),
]


def test_without_a_width_every_row_is_one_line() -> None:
    lines = table_text(COLUMNS, ROWS).splitlines()
    assert len(lines) == 3
    assert lines[1] == "resnet18            11.18  imagenet  residual network of eighteen layers, quick on a CPU"
    assert lines[2].startswith("efficientnet_b0         -  -")


@pytest.mark.parametrize("width", [30, 40, 60, 70, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = table_text(COLUMNS, ROWS, width)
    table = [line for line in text.splitlines() if not line.startswith("(")]
    assert max(map(len, table)) <= width
    for row in ROWS:
        assert row[0] in text


def test_a_long_text_wraps_in_its_own_column_and_loses_no_word() -> None:
    lines = table_text(COLUMNS, ROWS, 60).splitlines()
    start = lines[0].index("summary")
    assert all(line[:start].strip() == "" or line[: start - 2].rstrip() in line for line in lines)
    words = " ".join(line[start:].strip() for line in lines[1:]).split()
    assert words == [word for row in ROWS for word in str(row[3]).split()]
    assert "no room" not in lines[-1]


def test_columns_that_have_no_room_are_named() -> None:
    text = table_text(COLUMNS, ROWS, 30)
    assert text.splitlines()[-1] == "(no room here for: weights, summary; a wider terminal or `--json` shows all)"
    assert "imagenet" not in text


def test_the_first_column_stays_whole_whatever_the_width() -> None:
    assert "efficientnet_b0" in table_text(COLUMNS, ROWS, 5)


def test_numbers_stand_to_the_right_and_never_wrap() -> None:
    lines = table_text(("n", "count"), [("a", 1), ("b", 20_000)], 8).splitlines()
    assert lines == ["n  count", "a      1", "b  20000"]


def test_a_word_longer_than_a_line_is_broken() -> None:
    path = "/" + "x" * 90
    lines = table_text(("kind", "where"), [("runs", path)], 50).splitlines()
    assert max(map(len, lines)) <= 50
    assert "".join(line[6:] for line in lines[1:]) == path


def test_a_table_without_rows_is_its_heading() -> None:
    assert table_text(("name", "size"), [], 80) == "name  size"


def test_facts_wrap_beside_their_name() -> None:
    rows = [("family", "ResNet"), ("normalisation", "mean 0.485, 0.456, 0.406; standard deviation 0.229, 0.224, 0.225")]
    assert facts_text(rows, 40).splitlines() == [
        "family         ResNet",
        "normalisation  mean 0.485, 0.456, 0.406;",
        "               standard deviation 0.229,",
        "               0.224, 0.225",
    ]
    assert facts_text(rows).splitlines()[1].endswith("0.225")
