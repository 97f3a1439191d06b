"""The sink: which stream carries what, in each of its manners."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.cli.options import Flags
from medcli.cli.output import Output, colour_allowed, plain, schema_name
from medcli.errors import ExitCode, UsageProblem
from medcli.settings.groups import OutputSettings


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _answers_fit_their_schemas() -> None:
    """Answers made up here belong to no command."""


def speak(**flags: Any) -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Output(OutputSettings(**flags), "models list", stdout=out, stderr=err), out, err


def test_the_answer_alone_is_on_stdout() -> None:
    output, out, err = speak()
    output.note("a note")
    output.warn("careful")
    output.hint("medcli runs list")
    output.answer({"n": 1}, "one")
    assert out.getvalue() == "one\n"
    assert err.getvalue() == "a note\nwarning: careful\nhint: medcli runs list\n"


def test_json_is_one_document_and_nothing_else() -> None:
    output, out, err = speak(json=True)
    output.note("a note")
    output.warn("careful")

    def text() -> str:
        raise AssertionError("nobody reads this")

    output.answer({"auc": float("nan")}, text, run_dir="runs/x", status=ExitCode.PARTIAL)
    assert err.getvalue() == ""
    assert json.loads(out.getvalue()) == {
        "schema": "medcli/models-list/1",
        "command": "models list",
        "status": "partial",
        "run_dir": "runs/x",
        "result": {"auc": None},
        "warnings": ["careful"],
    }


def test_quiet_prints_the_identifier_and_keeps_warnings() -> None:
    output, out, err = speak(quiet=True)
    output.note("a note")
    output.hint("do this")
    output.warn("careful")
    output.answer({}, "a long table", identifier="runs/x")
    assert out.getvalue() == "runs/x\n"
    assert err.getvalue() == "warning: careful\n"


def test_details_need_verbose() -> None:
    for verbose, expected in ((False, ""), (True, "more\n")):
        output, _, err = speak(verbose=verbose)
        output.detail("more")
        assert err.getvalue() == expected


def test_plain_values() -> None:
    @dataclass(frozen=True)
    class Point:
        x: float
        where: Path

    value = {
        "array": np.array([1.0, np.nan]),
        "scalar": np.float32(0.5),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "point": Point(float("inf"), Path("a")),
        "names": {"b", "a"},
        1: (1, 2),
        "status": ExitCode.PARTIAL,
    }
    assert plain(value) == {
        "array": [1.0, None],
        "scalar": 0.5,
        "count": 3,
        "flag": True,
        "point": {"x": None, "where": "a"},
        "names": ["a", "b"],
        "1": [1, 2],
        "status": 3,
    }
    json.dumps(plain(value), allow_nan=False)


def test_a_table_aligns_numbers_to_the_right() -> None:
    output, _, _ = speak()
    assert output.table(["name", "n"], [["a", 5], ["bbb", 12], ["c", None]]).splitlines() == [
        "name   n",
        "a      5",
        "bbb   12",
        "c      -",
    ]
    assert output.table(["name"], []) == "name"


@pytest.mark.parametrize(
    ("stream", "no_color", "variables", "allowed"),
    [
        (Terminal(), False, {}, True),
        (io.StringIO(), False, {}, False),
        (Terminal(), True, {}, False),
        (Terminal(), False, {"NO_COLOR": "1"}, False),
        (Terminal(), False, {"NO_COLOR": ""}, True),
        (Terminal(), False, {"TERM": "dumb"}, False),
    ],
)
def test_colour(stream: io.StringIO, no_color: bool, variables: dict[str, str], allowed: bool) -> None:
    assert colour_allowed(stream, no_color, variables) is allowed


def test_a_question_needs_somebody() -> None:
    assert speak(yes=True)[0].confirm("remove it?")
    with pytest.raises(UsageProblem, match="nobody can be asked"):
        speak()[0].confirm("removing it")
    with pytest.raises(UsageProblem) as caught:
        speak(no_input=True)[0].confirm("removing it")
    assert caught.value.where == "--no-input"


@pytest.mark.parametrize(("typed", "answer"), [("y\n", True), ("Yes\n", True), ("\n", False), ("n\n", False)])
def test_a_question_on_a_terminal(typed: str, answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin, stderr = Terminal(typed), Terminal()
    monkeypatch.setattr("sys.stdin", stdin)
    assert Output(OutputSettings(), "x", stderr=stderr).confirm("remove it?") is answer
    assert stderr.getvalue() == "remove it? [y/N] "


def test_what_the_stream_cannot_encode_is_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    Output(OutputSettings(), "x", stdout=stream).answer({}, "5 µm of 眼")
    assert raw.getvalue() == b"5 um of \\u773c\n"


def test_variables_of_the_terminal_reach_the_settings() -> None:
    variables = {"MEDCLI_DEBUG": "1", "NO_COLOR": "yes", "MEDCLI_NO_PROGRESS": "0"}
    settings = Flags({"json": True, "epochs": 3}).output(variables)
    assert (settings.debug, settings.no_color, settings.no_progress, settings.json) == (True, True, False, True)


def test_schema_names_are_one_word() -> None:
    assert schema_name("data check") == "medcli/data-check/1"


def test_a_counter_is_for_terminals_only() -> None:
    output, _, err = speak()
    output.progress("images read", 2)(1)
    assert err.getvalue() == ""
    screen = Terminal()
    show = Output(OutputSettings(), "x", stderr=screen).progress("images read", 2)
    show(1)
    assert "1/2 images read" in screen.getvalue()
