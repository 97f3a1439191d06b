"""A shell as a person uses it: started on a terminal, told to load our script, and TAB pressed."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medcli.testing.command import child_environment

# How each shell is started without a person's own settings, and how it loads the script.
STARTED = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
LOADED = {
    "bash": 'bind "set show-all-if-ambiguous on"; eval "$(medcli completion show bash)"; echo REA""DY',
    "zsh": 'PS1="$ "; eval "$(medcli completion show zsh)"; echo REA""DY',
    "fish": 'medcli completion show fish | source; echo REA""DY',
}

PressTab = Callable[[str, str, str], str]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A folder for PATH that holds `medcli`, whether or not the console script is installed."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "medcli"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m medcli "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working directory with awkward names."""
    folder = tmp_path / "work"
    (folder / "a folder" / "inner").mkdir(parents=True)
    (folder / "an image.png").touch()
    (folder / "labels.csv").write_text("image,grade,patient\nx.png,1,p\n", encoding="utf-8")
    (folder / "runs" / "20260101-train-resnet18-abcd").mkdir(parents=True)
    return folder


@pytest.fixture
def press_tab(program: Path, place: Path) -> PressTab:
    """`press_tab(shell, line, expected)`: what the shell shows after `line` and TAB, once `expected` is there."""

    def press(shell: str, line: str, expected: str) -> str:
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        variables = child_environment(
            {
                "PATH": f"{program}:{os.environ['PATH']}",
                "PS1": "$ ",
                "TERM": "dumb" if shell == "bash" else "xterm",
                "INPUTRC": "/dev/null",
                "HOME": str(place),
                "COLUMNS": "200",
            }
        )
        child, screen = pty.fork()
        if child == 0:
            os.chdir(place)
            os.environ.update(variables)
            os.execvp(STARTED[shell][0], STARTED[shell])
        try:
            os.write(screen, LOADED[shell].encode() + b"\n")
            assert "READY" in _shown(screen, "READY\r", 60)
            os.write(screen, line.encode() + b"\t")
            return _shown(screen, expected, 20)
        finally:
            os.write(screen, b"\x03exit\n")
            os.close(screen)
            os.waitpid(child, 0)

    return press


def _shown(screen: int, until: str, seconds: float) -> str:
    text = ""
    end = time.monotonic() + seconds
    while until not in text and time.monotonic() < end:
        if select.select([screen], [], [], 0.1)[0]:
            with contextlib.suppress(OSError):
                text += os.read(screen, 65536).decode(errors="replace")
    return text
