"""The adapter against the installed Typer: values, errors, help and completion of a command made for the test."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from medcli.cli.errors import HelpWanted, run_guarded
from medcli.cli.help import Description
from medcli.cli.options import Flags, InputsArgument, OptionalArchitecture, RunArgument
from medcli.cli.tree import Command, Group, RootOption
from medcli.cli.typer_adapter import execute
from medcli.errors import ExitCode, MedcliError, Problems, UsageProblem
from medcli.settings.commands import COMMANDS

CALLS: list[SimpleNamespace] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    CALLS.clear()


def learn(architecture: OptionalArchitecture, flags: Flags) -> ExitCode | None:
    """Learn something.

    Details that help nobody here.

    Examples:
        medcli learn resnet18 --epochs 2
    """
    CALLS.append(SimpleNamespace(architecture=architecture, given=dict(flags.given), command=flags.command))
    return ExitCode.PARTIAL if architecture == "partial" else None


def apply(run: RunArgument, inputs: InputsArgument, flags: Flags) -> None:
    """Apply it."""
    CALLS.append(SimpleNamespace(run=run, inputs=inputs, given=dict(flags.given)))


def never() -> Any:
    raise AssertionError("a command was loaded that nobody asked for")


said: list[str] = []
PROGRAM = Group(
    "medcli",
    Description("A program."),
    {
        "learn": Command("learn", "learn something", lambda: learn, lambda: COMMANDS["train"]),
        "apply": Command("apply", "apply it", lambda: apply, lambda: COMMANDS["predict"]),
        "heavy": Command("heavy", "never loaded here", never, lambda: COMMANDS["train"]),
        "things": Group(
            "things",
            Description("things: list"),
            {"list": Command("things list", "list things", lambda: learn, lambda: COMMANDS["models list"])},
        ),
    },
    (RootOption(("--version",), "print the version", said.append),),
    ("The end.",),
)


def run(*words: str) -> int:
    return execute(PROGRAM, words, {})


def problem(*words: str) -> MedcliError:
    with pytest.raises(MedcliError) as caught:
        run(*words)
    return caught.value


def test_only_what_was_typed_is_given() -> None:
    assert run("learn", "resnet18") == 0
    assert CALLS[0].given == {}
    assert CALLS[0].architecture == "resnet18"
    assert CALLS[0].command == "learn"


def test_values_have_the_type_of_their_setting() -> None:
    run("learn", "--epochs", "3", "--lr=1e-4", "--no-ema", "--pretrained", "--loss", "focal", "--out", "a b", "-q")
    assert CALLS[0].architecture is None
    assert CALLS[0].given == {
        "epochs": 3,
        "lr": 1e-4,
        "ema": False,
        "pretrained": True,
        "loss": "focal",
        "out": "a b",
        "quiet": True,
    }


def test_lists_are_repeatable_and_split_at_commas_where_that_is_safe() -> None:
    run("learn", "--split", "0.6,0.2", "--split", "0.2", "--class-names", "a, b", "--data", "x=1,2.csv", "--data", "y")
    assert CALLS[0].given == {"split": (0.6, 0.2, 0.2), "class_names": ("a", "b"), "data": ("x=1,2.csv", "y")}


def test_positionals_may_be_many_and_follow_options() -> None:
    run("apply", "run", "--device", "cpu", "a.png", "b c.png")
    assert (CALLS[0].run, CALLS[0].inputs) == ("run", ("a.png", "b c.png"))


def test_a_command_chooses_its_exit_status() -> None:
    assert run("learn", "partial") == ExitCode.PARTIAL


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--epochs", "0"], "at least 1"),
        (["--epochs", "2.5"], "whole number"),
        (["--lr", "0"], "above 0"),
        (["--lr", "nan"], "number"),
        (["--dropout", "1"], "at most 0.95"),
        (["--loss", "hinge"], "`focal`"),
        (["--split", "0.5,x"], "number"),
        (["--out", ""], "text"),
    ],
)
def test_a_bad_value_names_the_flag(words: list[str], part: str) -> None:
    error = problem("learn", *words)
    assert isinstance(error, UsageProblem)
    assert part in error.message
    assert words[0] in (error.where or "")
    assert CALLS == []


def test_all_bad_values_are_reported_together() -> None:
    error = problem("learn", "--epochs", "0", "--lr", "x", "--loss", "hinge")
    assert isinstance(error, Problems)
    assert len(error.problems) == 3


def test_missing_arguments_are_reported_together() -> None:
    error = problem("apply")
    assert isinstance(error, Problems)
    assert [item.code for item in error.problems] == ["missing-argument"] * 2


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["laern"], "unknown-command", "`medcli learn`"),
        (["things", "lits"], "unknown-command", "`medcli things list`"),
        (["list"], "unknown-command", "`medcli things list`"),
        (["zzz"], "unknown-command", "--help"),
        (["learn", "--epoch", "3"], "unknown-option", "`--epochs`"),
        (["learn", "--learning-rte", "3"], "unknown-option", "--help"),
        (["learn", "-x"], "unknown-option", "--help"),
        (["--epochs", "3"], "unknown-option", "--help"),
        (["learn", "a", "b"], "extra-argument", "`medcli learn --help`"),
        (["learn", "--epochs"], "bad-option", "`medcli learn --help`"),
        (["learn", "--json=1"], "bad-option", "`medcli learn --help`"),
    ],
)
def test_wrong_usage_says_what_was_meant(words: list[str], code: str, hint: str) -> None:
    error = problem(*words)
    assert error.exit_code == ExitCode.USAGE
    assert error.code == code
    assert hint in (error.hint or "")


@pytest.mark.parametrize("words", [[], ["things"]])
def test_a_group_alone_shows_its_help_as_an_error(words: list[str]) -> None:
    error = problem(*words)
    assert isinstance(error, HelpWanted)
    assert error.exit_code == ExitCode.USAGE
    assert "Commands:" in error.message


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("words", [[], ["things"], ["learn"], ["learn", "--epochs", "0"], ["apply"]])
def test_help_wins_and_needs_nothing(words: list[str], flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words, flag) == 0
    assert capsys.readouterr().out.startswith("Usage: medcli ")


def test_a_root_option_answers_at_once() -> None:
    said.clear()
    assert run("--version") == 0
    assert said == [""]


def test_ctrl_c_in_a_command_is_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(flags: Flags) -> None:
        """Stop."""
        raise KeyboardInterrupt

    program = Group(
        "medcli", Description(""), {"x": Command("x", "", lambda: interrupted, lambda: COMMANDS["runs list"])}
    )
    assert run_guarded(lambda: execute(program, ["x"], {}), ["x"], {}) == ExitCode.INTERRUPTED
    assert "interrupted" in capsys.readouterr().err


def complete(*words: str, shell: str = "bash") -> int:
    line = "\n".join(["medcli", *words])
    joined = " ".join(["medcli", *words])
    return execute(
        PROGRAM,
        [],
        {"_MEDCLI_COMPLETE": f"complete_{shell}", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
        | {"_TYPER_COMPLETE_ARGS": joined},
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["l"], ["words", "learn"]),
        ([""], ["words", "learn", "apply", "heavy", "things"]),
        (["things", ""], ["words", "list"]),
        (["--v"], ["words", "--version"]),
        (["learn", "--epo"], ["words", "--epochs"]),
        (["learn", "--no-em"], ["words", "--no-ema"]),
        (["learn", "--loss", "c"], ["words", "ce", "corn", "coral"]),
        (["learn", "--loss", "=", "c"], ["words", "ce", "corn", "coral"]),
        (["learn", "--data", ""], ["files"]),
        (["learn", "--data", "syn"], ["files", "synthetic/chest", "synthetic/chest-pairs"]),
        (["learn", "--data", "a", "=", "syn"], ["files", "synthetic/chest", "synthetic/chest-pairs"]),
        (["learn", "--image-dir", "x"], ["dirs"]),
        (["learn", "--lr", ""], ["words"]),
        (["apply", "run", ""], ["files"]),
        (["apply", "run", "a", "b"], ["files"]),
        (["learn", "--nonsense", "x", "--epo"], ["words", "--epochs"]),
    ],
)
def test_completion_for_bash(words: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert complete(*words) == 0
    assert capsys.readouterr().out.splitlines() == expected


def test_completion_for_zsh_and_fish(capsys: pytest.CaptureFixture[str]) -> None:
    assert complete("le", shell="zsh") == 0
    assert capsys.readouterr().out.splitlines() == ["words", "learn:learn something"]
    assert complete("le", shell="fish") == 0
    assert capsys.readouterr().out.splitlines() == ["words", "learn\tlearn something"]


def test_a_completion_that_fails_offers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert complete("heavy", "--x") == ExitCode.FAILED
    assert capsys.readouterr() == ("", "")
