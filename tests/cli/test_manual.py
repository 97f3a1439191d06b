"""Manual pages: complete, well-formed, and made from what `--help` shows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from medcli.cli.app import COMMAND_TABLE, GROUPS, program
from medcli.cli.manual import manual_name, manuals, write
from medcli.settings.commands import COMMANDS

PAGES = manuals(program())


def plain(roff: str) -> str:
    """The text without fonts and escapes."""
    for escape in ("\\fB", "\\fI", "\\fR", "\\&"):
        roff = roff.replace(escape, "")
    roff = re.sub(r"\\\[u([0-9A-F]{4})\]", lambda found: chr(int(found[1], 16)), roff)
    return (
        roff.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\").replace("\\(ha", "^").replace("\\(ti", "~")
    )


def test_every_command_and_group_has_a_page() -> None:
    assert set(PAGES) == {f"{manual_name(name)}.1" for name in ("", *COMMAND_TABLE, *GROUPS)}


@pytest.mark.parametrize("command", COMMAND_TABLE)
def test_a_page_names_every_option_with_its_help(command: str) -> None:
    text = " ".join(plain(PAGES[f"{manual_name(command)}.1"]).split())
    for field in COMMANDS[command].fields.values():
        assert field.flag in text
        assert " ".join(field.option.help.replace("`", "").split()) in text


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_what_a_reader_expects(name: str) -> None:
    headings = [line[4:] for line in PAGES[name].splitlines() if line.startswith(".SH ")]
    expected = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "FILES", "EXIT STATUS", "SEE ALSO"]
    assert [one for one in headings if one in expected] == expected
    assert "EXAMPLES" in headings


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_has_nothing_to_say(tmp_path: Path) -> None:
    write(tmp_path, program())
    done = subprocess.run(
        ["mandoc", "-T", "lint", *sorted(map(str, tmp_path.glob("*.1")))], capture_output=True, text=True, check=False
    )
    assert done.stdout + done.stderr == ""


def test_a_line_of_text_is_never_a_macro() -> None:
    for name, page in PAGES.items():
        for line in page.splitlines():
            assert not line.startswith("'"), name
            if line.startswith("."):
                assert line.split()[0] in {".TH", ".SH", ".SS", ".TP", ".PP", ".nf", ".fi", '.\\"'}, (name, line)


def test_pages_of_commands_that_are_gone_are_removed(tmp_path: Path) -> None:
    (tmp_path / "medcli-gone.1").write_text("old", encoding="utf-8")
    write(tmp_path, program())
    assert {path.name for path in tmp_path.iterdir()} == set(PAGES)
