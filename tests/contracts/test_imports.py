"""The arrows between the packages, checked by import-linter on the contracts in pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[2]


def contracts() -> list[str]:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [contract["id"] for contract in configuration["tool"]["importlinter"]["contracts"]]


def test_every_arrow_points_down(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True, no_logo=True) == 0, capsys.readouterr().out


def test_the_contracts_that_the_design_names_are_there() -> None:
    assert {"layers", "face", "architectures", "light", "thin", "parser"} <= set(contracts())


def test_only_the_sink_prints() -> None:
    """Ruff's T20 looks for `print`; this looks for the other way past the sink."""
    writers = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "medcli").rglob("*.py")
        if any(word in file.read_text(encoding="utf-8") for word in ("sys.stdout.write", "sys.stderr.write", ".echo("))
    }
    assert writers <= {"medcli/cli/output.py"}


def test_core_tests_stand_on_no_real_plugin() -> None:
    """Their double is medcli-echo; a plugin's own tests lie beside it."""
    real = re.compile(r"^\s*(?:from|import)\s+(medcli_(?:chexnet|raddino|retfound|longitudinal))\b", re.MULTILINE)
    here = Path(__file__).resolve().parents[1]
    assert [path.name for path in here.rglob("*.py") if real.search(path.read_text(encoding="utf-8"))] == []
