"""Every kind of terminal a person may have: narrow and wide, dumb, none at all, UTF-8 or ASCII alone."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from medcli.testing.command import child_environment

COMMANDS = [
    ("--help",),
    ("train", "--help"),
    ("models", "list"),
    ("models", "show", "resnet18"),
    ("help",),
    ("help", "choosing"),
    ("config", "show", "train", "resnet18"),
    ("plugins", "list"),
    ("benchmark", "--all", "--list"),
    ("data", "cache", "list"),
    ("trian",),
]
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ASCII_ALONE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "TERM": "dumb"}
WORDY = re.compile(r"^(hint:|warning:|error:|\(no room|note:)")


def on_terminal(words: tuple[str, ...], columns: int, variables: dict[str, str], folder: Path) -> tuple[int, str]:
    """Exit status and everything shown, stdout and stderr together, on a terminal of that width."""
    environment = child_environment({"TERM": "xterm-256color", **variables})
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        environment.pop(name, None)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-m", "medcli", *words], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder,
        env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux says EIO when the last writer has gone
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    return child.wait(timeout=60), shown.decode("utf-8", "strict").replace("\r\n", "\n")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("columns", [60, 80, 200])
def test_tables_and_help_fit_the_terminal(words: tuple[str, ...], columns: int, tmp_path: Path) -> None:
    status, shown = on_terminal(words, columns, {}, tmp_path)
    assert status == (2 if words == ("trian",) else 0)
    assert "Traceback" not in shown
    plain = CONTROL.sub("", shown)
    # Sentences are left to the terminal, which wraps them without breaking what a person copies; rows are ours.
    rows = [line for line in plain.splitlines() if "  " in line.strip() and not WORDY.match(line)]
    assert not [line for line in rows if len(line) > columns and max(map(len, line.split())) < columns // 2]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_dumb_terminal_with_ascii_alone_shows_readable_text(words: tuple[str, ...], tmp_path: Path) -> None:
    status, shown = on_terminal(words, 80, ASCII_ALONE, tmp_path)
    assert status == (2 if words == ("trian",) else 0)
    assert shown.isascii()
    assert "\x1b" not in shown
    assert not re.search(r"\\u[0-9a-f]{4}|\\x[0-9a-f]{2}", shown)
    assert shown.strip()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_without_a_terminal_nothing_is_wrapped_away_or_coloured(words: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "medcli", *words], stdin=subprocess.DEVNULL, capture_output=True, cwd=tmp_path,
        env=child_environment(ASCII_ALONE | {"TERM": ""}), check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == (2 if words == ("trian",) else 0)
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"no room here" not in done.stdout
    assert b"Traceback" not in done.stderr


def test_a_training_on_a_narrow_terminal_overwrites_its_own_line(tmp_path: Path) -> None:
    words = (
        "train", "timm/test_resnet", "--data", "synthetic/chest", "--limit", "40", "--image-size", "32", "--epochs",
        "2", "--device", "cpu", "--out", "run", "--workers", "0",
    )  # fmt: skip
    status, shown = on_terminal(words, 60, {"OMP_NUM_THREADS": "1"}, tmp_path)
    assert status == 0
    assert "Traceback" not in shown
    overwritten = [CONTROL.sub("", piece) for line in shown.split("\n") for piece in line.split("\r")[:-1]]
    assert any("images/s" in piece for piece in overwritten)
    assert max(map(len, overwritten)) <= 60
