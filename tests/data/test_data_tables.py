"""Tables as spreadsheets and data frames write them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from medcli.data.tables import read_table
from medcli.errors import UsageProblem


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_any_separator(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"id{separator}label\n012{separator}a b\n13{separator}c\n")
    table = read_table(str(path))
    assert table.columns == ("id", "label")
    assert table.rows == (("012", "a b"), ("13", "c"))
    assert table.where(1) == f"{path}:3"


def test_semicolons_with_decimal_commas_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id;score;findings\n1;0,5;A|B\n2;1,5;C\n")
    assert read_table(str(path)).column("findings", "--label-column") == ("A|B", "C")


def test_quotes_byte_order_mark_blank_lines_and_compression(tmp_path: Path) -> None:
    text = '\ufefffile,label\r\n"a, b.png","two\nlines"\r\n\r\nc.png,"say ""x"""\r\n'
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    table = read_table(str(path))
    assert table.columns == ("file", "label")
    assert table.rows == (("a, b.png", "two\nlines"), ("c.png", 'say "x"'))


def test_utf_16_as_excel_exports_it(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes("id\tKlasse\n1\tgrün\n".encode("utf-16"))
    assert read_table(str(tmp_path / "a.tsv")).rows == (("1", "grün"),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"a,b\n", "no rows"),
        (b"a,b\n1,2\n3\n", "1 cells where the header has 2"),
        (b"a,a\n1,2\n", "two columns called `a`"),
        (b"a,b\n1,\xff\xfe\n", "not UTF-8"),
        (b"single\nx\n", "single column"),
        (b'a,b\n1,"2\n', "broken quoting"),
        (b"a,b\n\0\0,1\n", "zero bytes"),
    ],
)
def test_broken_tables(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UsageProblem) as caught:
        read_table(str(tmp_path / "a.csv"))
    assert words in str(caught.value)


def test_a_ragged_row_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(UsageProblem) as caught:
        read_table(str(tmp_path / "a.csv"))
    assert caught.value.where == f"{tmp_path / 'a.csv'}:3"


def test_an_unknown_column_lists_the_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,diagnosis\n1,2\n")
    with pytest.raises(UsageProblem) as caught:
        read_table(str(tmp_path / "a.csv")).column("diagnose", "--label-column")
    assert caught.value.where == "--label-column"
    assert "`image`, `diagnosis`" in caught.value.message
    assert "diagnosis" in (caught.value.hint or "")


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="does not exist"):
        read_table(str(tmp_path / "none.csv"))
    (tmp_path / "a.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(UsageProblem, match="cannot be read"):
        read_table(str(tmp_path / "a.csv.gz"))


def test_columns_in_one_word_are_taken_apart_unless_a_column_has_that_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a,b,"c,d"\n1,2,3\n')
    table = read_table(str(tmp_path / "a.csv"))
    assert table.named(["a, b", "c,d"]) == ("a", "b", "c,d")
    # Left as typed, so that the message about a column that is not there shows what the user wrote.
    assert table.named(["a,x"]) == ("a,x",)
