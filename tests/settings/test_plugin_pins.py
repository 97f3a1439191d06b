"""`[plugins] require`: a project says which plugins it needs, and nothing runs without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcli.errors import MedcliError
from medcli.settings.resolve import resolve, survey
from medcli.settings.schema import json_schema


def problems(tmp_path: Path, text: str, command: str = "train") -> list[MedcliError]:
    (tmp_path / "medcli.toml").write_text(text)
    return survey(command, {}, cwd=tmp_path)[1]


def test_what_is_installed_passes(tmp_path: Path, fake_plugin) -> None:
    fake_plugin("fake-net", version="1.4")
    for wanted in ("medcli-fake", "medcli-fake>=1.4", "Medcli_Fake>1,<2", 'medcli-absent; python_version < "3"'):
        assert problems(tmp_path, f"[plugins]\nrequire = ['{wanted}']\n") == []
    resolve("train", {}, cwd=tmp_path)


@pytest.mark.parametrize(
    ("wanted", "message", "hint"),
    [
        ("medcli-absent", "requires `medcli-absent`, and it is not installed", "pip install medcli-absent"),
        ("medcli-fake>=2", "requires `medcli-fake>=2`, and version 1.4 is installed", "pip install 'medcli-fake>=2'"),
    ],
)
def test_what_is_missing_or_old_is_named(tmp_path: Path, fake_plugin, wanted: str, message: str, hint: str) -> None:
    fake_plugin("fake-net", version="1.4")
    for command in ("train", "evaluate", "predict", "data check"):
        (problem,) = problems(tmp_path, f'epochs = 3\n\n[plugins]\nrequire = ["{wanted}"]\n', command)
        assert message in problem.message
        assert problem.where == "medcli.toml:4"
        assert problem.hint == hint


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('require = "medcli-echo"', "must be a list"),
        ("require = [3]", "must be a list"),
        ('require = ["medcli echo >"]', "is no requirement"),
        ('requires = ["medcli-echo"]', "unknown key `requires`"),
    ],
)
def test_what_cannot_be_meant_is_said(tmp_path: Path, table: str, message: str) -> None:
    (problem,) = problems(tmp_path, f"[plugins]\n{table}\n")
    assert message in problem.message
    assert problem.where == "medcli.toml:2"


def test_every_problem_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, '[plugins]\nrequire = ["a-b-c", "d-e-f>=1", "x y"]\nother = 1\n')
    assert len(found) == 4


def test_editors_know_the_table() -> None:
    table = json_schema()["properties"]["plugins"]
    assert table["properties"]["require"]["items"] == {"type": "string"}
    assert table["additionalProperties"] is False
