"""What every test of the core stands on: nobody's settings, no colour, an empty working directory, the shared data."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcli.testing.command import forget_user_settings

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(autouse=True)
def _nobodys_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep variables, user settings and files of the machine away from the test, and the test's files away from it."""
    forget_user_settings(monkeypatch, tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder `shared` beside the repository, whose `data/` holds real images; without it the test is skipped."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the folder `shared` beside the repository is absent")
    return SHARED
