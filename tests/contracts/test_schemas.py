"""Every command has a schema, and what it prints with `--json` fits it whole."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from medcli.cli.app import COMMAND_TABLE
from medcli.cli.output import schema_name
from medcli.schemas import schema_of, schema_path
from medcli.testing.command import RunCli


@pytest.mark.parametrize("command", COMMAND_TABLE)
def test_every_command_has_a_valid_schema_of_its_name(command: str) -> None:
    schema = schema_of(command)
    assert schema is not None, f"write {schema_path(command).name}"
    Draft202012Validator.check_schema(schema)
    assert schema["title"] == schema["properties"]["schema"]["const"] == schema_name(command)
    assert schema["properties"]["command"]["const"] == command
    assert schema["properties"]["result"]["type"] == "object"


@pytest.mark.parametrize(
    "words",
    [
        ["models", "list"],
        ["models", "show", "resnet18"],
        ["models", "show", "efficientnet_b0"],
        ["plugins", "list"],
        ["runs", "list"],
        ["config", "show", "train"],
        ["config", "presets"],
        ["help"],
        ["data", "cache"],
        ["benchmark", "--all", "--list"],
    ],
)
def test_a_whole_document_fits(words: list[str], run_cli: RunCli) -> None:
    document = run_cli(*words, "--json", in_process=True).json()
    command = next(name for name in COMMAND_TABLE if " ".join(words).startswith(name))
    Draft202012Validator(schema_of(command)).validate(document)


@pytest.mark.parametrize("command", COMMAND_TABLE)
def test_no_field_is_nothing_but_null(command: str) -> None:
    """Null stands for a value that is not there; a field that allows no other was seen empty once and written down."""

    def empty(part: Any, place: str) -> list[str]:
        if isinstance(part, list):
            return []  # the ways of an `anyOf`
        if not isinstance(part, dict):
            return []
        here = [place] if part.get("type") in ("null", ["null"]) else []
        return here + [found for name, inner in part.items() for found in empty(inner, f"{place}/{name}")]

    assert empty(schema_of(command), "") == []


@pytest.mark.parametrize("command", COMMAND_TABLE)
def test_every_field_says_what_it_holds(command: str) -> None:
    def silent(part: Any, place: str) -> list[str]:
        if isinstance(part, list):
            return [found for inner in part for found in silent(inner, place)]
        if not isinstance(part, dict):
            return []
        fields = part.get("properties", {})
        here = [f"{place}/{name}" for name, inner in fields.items() if not {"description", "$ref"} & inner.keys()]
        inside = {**{key: part[key] for key in part.keys() - {"properties"}}, **fields}
        return here + [found for name, inner in inside.items() for found in silent(inner, f"{place}/{name}")]

    assert silent(schema_of(command), "") == []


def test_a_document_that_lost_a_field_is_noticed(run_cli: RunCli) -> None:
    document = run_cli("models", "list", "--json", in_process=True).json()
    document["result"].pop(next(iter(schema_of("models list")["properties"]["result"]["required"])))  # type: ignore[index]
    assert not Draft202012Validator(schema_of("models list")).is_valid(document)
