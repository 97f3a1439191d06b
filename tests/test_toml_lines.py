"""Line numbers of keys in every way TOML can write them."""

from __future__ import annotations

from medcli.toml_lines import find_lines

TEXT = '''# comment
api = 1
include = ["a", # [not a table]
  "b"]

[one]
"quoted key" = 1
a.b.c = 2
text = """
[not.a.table]
key = 3
"""
after = \'\'\'x\'\'\'
hash = "# no [comment"
items = [
  { tag = "x" }, # first
  # nothing
  { tag = "y", deep = [
    1,
  ] },
]
[one."two.three"]
k = { inner = 1 }

[[many]]
k = 1
[[many]]
k = 2
[many.below]
k = 3
["quo\u0074ed".deep.er]
'''


def test_lines_of_tables_keys_and_items():
    lines = find_lines(TEXT)
    assert lines["api",] == 2
    assert lines["include",] == 3
    assert lines["one",] == 6
    assert lines["one", "quoted key"] == 7
    assert lines["one", "a", "b", "c"] == lines["one", "a"] == 8
    assert lines["one", "text"] == 9
    assert ("one", "key") not in lines
    assert ("not", "a", "table") not in lines
    assert lines["one", "after"] == 13
    assert lines["one", "hash"] == 14
    assert lines["one", "items", "0"] == 16
    assert lines["one", "items", "1"] == 18
    assert lines["one", "two.three"] == 22
    assert lines["one", "two.three", "k"] == 23
    assert lines["many", "0", "k"] == 26
    assert lines["many", "1", "k"] == 28
    assert lines["many", "1", "below", "k"] == 30
    assert lines["quoted", "deep"] == lines["quoted", "deep", "er"] == 31


def test_the_text_is_what_a_parser_reads():
    import tomli

    values = tomli.loads(TEXT)
    for path in find_lines(TEXT):
        inner = values
        for key in path:
            inner = inner[int(key)] if isinstance(inner, list) else inner[key]
