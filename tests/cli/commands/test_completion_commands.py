"""`completion show` and `completion install`: the script, where the shell looks, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcli.cli.completion import SHELLS, script
from medcli.testing.command import RunCli


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: RunCli) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.mark.parametrize("shell", SHELLS)
def test_show_prints_the_script_and_nothing_else(shell: str, run_cli: RunCli) -> None:
    assert run_cli("completion", "show", shell, in_process=True).stdout.rstrip() == script(shell).rstrip()


@pytest.mark.parametrize(
    ("shell", "startup"),
    [
        ("bash", ".bashrc"),
        ("zsh", ".zshrc"),
        ("fish", None),
        ("powershell", ".config/powershell/Microsoft.PowerShell_profile.ps1"),
    ],
)
def test_install_twice_changes_nothing_the_second_time(
    shell: str, startup: str | None, home: Path, run_cli: RunCli
) -> None:
    first = run_cli("completion", "install", shell, "--yes", "--json", in_process=True).json()["result"]
    files = {path: path.read_text(encoding="utf-8") for path in home.rglob("*") if path.is_file()}
    assert Path(first["script"]).read_text(encoding="utf-8") == script(shell)
    assert first["startup"] == (None if startup is None else str(home / startup))
    assert first["line_added"] is (startup is not None)
    second = run_cli("completion", "install", shell, "--yes", "--json", in_process=True).json()["result"]
    assert (second["written"], second["line_added"]) == (False, False)
    assert {path: path.read_text(encoding="utf-8") for path in home.rglob("*") if path.is_file()} == files


def test_a_start_up_file_is_kept_and_only_changed_with_consent(home: Path, run_cli: RunCli) -> None:
    home.mkdir()
    (home / ".bashrc").write_text("alias ll='ls -l'", encoding="utf-8")
    refused = run_cli("completion", "install", "bash", in_process=True)
    assert refused.code == 0
    assert ".bashrc" in refused.stderr
    assert (home / ".bashrc").read_text(encoding="utf-8") == "alias ll='ls -l'"
    run_cli("completion", "install", "bash", "--yes", in_process=True)
    lines = (home / ".bashrc").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "alias ll='ls -l'"
    assert lines[-1].startswith("source ")


def test_an_unknown_shell_exits_2(run_cli: RunCli) -> None:
    outcome = run_cli("completion", "install", "tcsh", in_process=True)
    assert outcome.code == 2
    assert "`zsh`" in outcome.stderr
