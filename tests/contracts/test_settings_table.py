"""One flag, one meaning: every option comes from the settings table, and all of them can be seen."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

from medcli.cli.app import COMMAND_TABLE
from medcli.settings.commands import COMMANDS
from medcli.settings.fields import all_fields
from medcli.testing.command import RunCli

COMMANDS_FOLDER = Path(import_module("medcli.cli.commands").__file__ or "").parent


def test_every_command_of_the_settings_can_be_typed() -> None:
    assert set(COMMAND_TABLE) == set(COMMANDS)


def test_no_two_groups_use_one_name() -> None:
    assert all_fields()


def test_no_two_flags_of_a_command_share_a_spelling() -> None:
    for command in COMMANDS.values():
        spellings = [field.flag for field in command.fields.values()]
        spellings += [field.option.short for field in command.fields.values() if field.option.short]
        assert len(spellings) == len(set(spellings)), command.name


def test_no_command_defines_an_option_or_prints() -> None:
    for file in COMMANDS_FOLDER.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert not any(name.split(".")[0] in {"typer", "click", "argparse"} for name in names), file.name
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"print", "Positional", "Option"}, f"{file.name}:{node.lineno}"


@pytest.mark.parametrize("command", COMMAND_TABLE)
def test_every_flag_of_a_command_is_in_its_help(command: str, run_cli: RunCli) -> None:
    outcome = run_cli(*command.split(), "--help", in_process=True)
    assert outcome.code == 0, outcome.stderr
    shown = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", outcome.stdout))
    for field in COMMANDS[command].fields.values():
        assert field.flag in shown
        assert not field.option.short or field.option.short in shown
    assert max(map(len, outcome.stdout.splitlines())) <= 80 or "Examples:" in outcome.stdout


@pytest.mark.parametrize("command", COMMAND_TABLE)
def test_every_command_shows_examples_that_its_own_parser_accepts(command: str, run_cli: RunCli) -> None:
    """The flags of each example exist; whether it works is tried by the end-to-end tests."""
    from medcli.cli.help import describe

    module, _, name = COMMAND_TABLE[command].reference.partition(":")
    examples = describe(getattr(import_module(module), name).__doc__).examples
    assert examples, f"`medcli {command} --help` has no example"
    known = {field.flag for field in COMMANDS[command].fields.values()}
    known |= {f"--no-{flag[2:]}" for flag in known} | {
        field.option.short for field in COMMANDS[command].fields.values()
    }
    for example in examples:
        assert example.startswith(f"medcli {command}"), example
        for flag in re.findall(r"(?<=\s)--?[a-zA-Z][\w-]*", example):
            assert flag in known, example
