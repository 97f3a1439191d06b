"""What is generated and committed says what the code says today; `make generate` mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcli.cli.app import program
from medcli.cli.completion import SCRIPTS, script
from medcli.cli.manual import manuals

ROOT = Path(__file__).resolve().parents[2]


def test_the_manual_pages_are_current() -> None:
    expected = manuals(program())
    assert {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "man").glob("*.1")} == expected


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_completion_scripts_are_current(shell: str) -> None:
    assert (ROOT / "completions" / SCRIPTS[shell]).read_text(encoding="utf-8") == script(shell)
