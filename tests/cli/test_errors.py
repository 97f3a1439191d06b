"""Every way to fail: its words, its stream, its status."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from medcli.cli.errors import as_document, as_text, run_guarded
from medcli.errors import ExitCode, MedcliError, Problems, RunFailure, UsageProblem
from medcli.testing.command import RunCli

PROBLEM = UsageProblem("no column `age`", where="--label-column", hint="medcli data check", code="no-column")


def fails_with(error: BaseException) -> Callable[[], int]:
    def action() -> int:
        raise error

    return action


def test_text_has_what_where_and_a_hint_after_a_blank_line() -> None:
    assert as_text(PROBLEM) == "error: no column `age`\nfrom: --label-column\n\nhint: medcli data check"
    assert as_text(RunFailure("it broke")) == "error: it broke"
    assert "\x1b[" in as_text(PROBLEM, colour=True)


def test_several_problems_are_told_one_below_the_other() -> None:
    text = as_text(Problems([PROBLEM, RunFailure("it broke")]))
    assert text.endswith("hint: medcli data check\n\nerror: it broke")
    assert [item["code"] for item in as_document(Problems([PROBLEM, PROBLEM]))["problems"]] == ["no-column"] * 2


@pytest.mark.parametrize(
    ("error", "status", "part"),
    [
        (PROBLEM, 2, "no column"),
        (RunFailure("it broke"), 1, "it broke"),
        (Problems([PROBLEM]), 2, "no column"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("odd\nthing"), 1, "unexpected ValueError: odd thing"),
        (MemoryError(), 1, "not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 1, "no space left on device: `/x/y`"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "permission denied: `/x`"),
        (RecursionError(), 1, "unexpected RecursionError"),
    ],
)
def test_every_failure_is_words_and_a_status(
    error: BaseException, status: int, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_guarded(fails_with(error), [], {}) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert part in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("arguments", "variables"), [(["--debug"], {}), ([], {"MEDCLI_DEBUG": "1"})])
def test_a_traceback_for_those_who_ask(
    arguments: list[str], variables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_guarded(fails_with(ValueError("odd")), arguments, variables) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.rstrip().endswith("see the traceback")


@pytest.mark.parametrize("error", [PROBLEM, Problems([PROBLEM]), ValueError("odd"), KeyboardInterrupt()])
def test_json_mode_has_one_line_on_stderr(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    run_guarded(fails_with(error), ["train", "--json"], {})
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert {"code", "message", "hint", "where"} <= set(json.loads(line))


def test_json_after_the_end_of_options_is_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    run_guarded(fails_with(PROBLEM), ["predict", "--", "--json"], {})
    assert capsys.readouterr().err.startswith("error:")


def test_an_error_may_bring_its_own_status() -> None:
    class Limit(MedcliError):
        exit_code = ExitCode.LIMIT

    assert run_guarded(fails_with(Limit("too low")), [], {}) == 4


@pytest.mark.parametrize(("leaving", "status"), [(SystemExit(), 0), (SystemExit(143), 143), (SystemExit("bye"), 1)])
def test_leaving_early(leaving: SystemExit, status: int) -> None:
    assert run_guarded(fails_with(leaving), [], {}) == status


def test_a_reader_that_goes_away_is_no_error() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "medcli", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    assert child.stderr.read() == ""
    child.wait(timeout=60)
    child.stderr.close()


def test_wrong_usage_as_a_user_sees_it(run_cli: RunCli) -> None:
    outcome = run_cli("trian")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert outcome.stderr == "error: no command `medcli trian`\n\nhint: did you mean `medcli train`?\n"


def test_wrong_usage_as_a_script_sees_it(run_cli: RunCli) -> None:
    outcome = run_cli("models", "list", "--max-params", "many", "--json")
    assert (outcome.code, outcome.stdout) == (2, "")
    document: dict[str, Any] = json.loads(outcome.stderr)
    assert document["code"] == "bad-value"
    assert "--max-params" in document["where"]
