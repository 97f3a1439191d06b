"""Lines and columns of TOML files."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from medcli.errors import UsageProblem
from medcli.settings.toml_files import parse_toml, read_toml

SAMPLE = '''# a comment = 1
first = 1
"second key" = [
  1, # [not.a.table]
  2,
]
dotted.inner = "x"

[table]  # comment
text = """
[no.table]
key = 3
"""
inline = { a = 1, b = { c = 2 } }

[table.deep."quo ted"]
last = 1979-05-27
[[list]]
item = 1
[[list]]
item = 2
'''


def test_every_key_has_its_line() -> None:
    document = parse_toml(SAMPLE, "f.toml")
    for path, line in {
        ("first",): 2,
        ("second key",): 3,
        ("dotted", "inner"): 7,
        ("table",): 9,
        ("table", "text"): 10,
        ("table", "inline"): 14,
        ("table", "inline", "b", "c"): 14,
        ("table", "deep", "quo ted", "last"): 17,
        ("list",): 18,
    }.items():
        assert document.where(*path) == f"f.toml:{line}"


def test_an_unknown_key_has_the_line_of_its_table() -> None:
    document = parse_toml(SAMPLE, "f.toml")
    assert document.where("table", "absent") == "f.toml:9"
    assert document.where("absent") == "f.toml"


def test_a_table_of_a_file_keeps_the_file_s_lines() -> None:
    below = parse_toml("[tool.other]\nx = 1\n[tool.medcli]\nlr = 2\n[tool.medcli.train]\nlr = 3\n", "p").below(
        "tool", "medcli"
    )
    assert below.values == {"lr": 2, "train": {"lr": 3}}
    assert (below.where("lr"), below.where("train", "lr")) == ("p:4", "p:6")
    assert parse_toml("a = 1", "p").below("a", "b").values == {}


def test_windows_line_ends_count_once() -> None:
    assert parse_toml("a = 1\r\nb = 2\r\n", "f").where("b") == "f:2"


@pytest.mark.parametrize(
    ("text", "place"),
    [("a = \n", "f:1:5"), ("x = 1\ny = [1,\n", "f:3:1"), ("a = 1\na = 2\n", "f:2:6"), ("[t\n", "f:1:3")],
)
def test_broken_toml_names_line_and_column(text: str, place: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_toml(text, "f")
    assert caught.value.where == place
    assert caught.value.code == "broken-toml"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = 1\nb = '\xe4'\n"])
def test_a_file_that_is_no_utf_8(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.toml").write_bytes(content)
    with pytest.raises(UsageProblem, match="UTF-8") as caught:
        read_toml(tmp_path / "f.toml", "f.toml")
    assert caught.value.where == f"f.toml:{content[: content.find(0xE4) + 1].count(10) + 1}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="there is no file"):
        read_toml(tmp_path / "absent.toml")
    with pytest.raises(UsageProblem, match="cannot be read: is a directory"):
        read_toml(tmp_path)


values = st.recursive(
    st.text() | st.integers(-(2**60), 2**60) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1), values, max_size=5))
def test_lines_are_found_in_whatever_is_written(content: dict[str, object]) -> None:
    text = tomli_w.dumps(content)
    document = parse_toml(text, "f")
    assert document.values == content
    for key in content:
        line = int(document.where(key).rpartition(":")[2])
        assert 1 <= line <= text.count("\n") + 1
        assert (key,) in document.lines
