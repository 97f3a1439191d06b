"""What every test of the core stands on: nobody's settings, no colour, an empty working directory, the shared data."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from medcli.cli.output import Output, plain
from medcli.schemas import schema_of
from medcli.testing.command import forget_user_settings

RECORD = os.environ.get("RECORD_ANSWERS")
SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(autouse=True)
def _nobodys_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep variables, user settings and files of the machine away from the test, and the test's files away from it."""
    forget_user_settings(monkeypatch, tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _answers_fit_their_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold every answer a command gives inside the test against its schema, whether or not JSON was asked for.

    `RECORD_ANSWERS=DIR` also keeps the answers, one a line, for whoever writes a new schema.
    """
    true = Output.answer

    def answer(self: Output, result: Mapping[str, Any], text: Any, **rest: Any) -> None:
        schema = schema_of(self.command)
        told = plain(result)
        if RECORD:
            with (Path(RECORD) / f"{self.command.replace(' ', '-')}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(told) + "\n")
        elif schema is not None:
            validator(self.command).validate(told)
        true(self, result, text, **rest)

    monkeypatch.setattr(Output, "answer", answer)


@cache
def validator(command: str) -> Draft202012Validator:
    """A command's schema, ready to judge."""
    schema = schema_of(command)
    assert schema is not None, command
    return Draft202012Validator(schema["properties"]["result"] | {"$defs": schema.get("$defs", {})})


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder `shared` beside the repository, whose `data/` holds real images; without it the test is skipped."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the folder `shared` beside the repository is absent")
    return SHARED
