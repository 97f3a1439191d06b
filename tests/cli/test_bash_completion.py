"""Completion in a real bash: the function called as bash calls it, and TAB pressed on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medcli.cli.completion import Offer, bash_reply, bash_script, words_of
from medcli.testing.command import child_environment

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


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
    (folder / "runs" / "20260101-train-resnet18-abcd").mkdir(parents=True)
    return folder


def replies(words: list[str], program: Path, place: Path) -> list[str]:
    """COMPREPLY for a command line, with COMP_WORDS set by hand."""
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"""
        eval "$(medcli --show-completion bash)"
        complete -p medcli >/dev/null || exit 9
        compopt() {{ :; }}
        COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
        _medcli_completion medcli "${{COMP_WORDS[COMP_CWORD]}}" ''
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    variables = child_environment({"PATH": f"{program}:{os.environ['PATH']}"})
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", script],
        capture_output=True, text=True, timeout=60, cwd=place, env=variables, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def press_tab(line: str, program: Path, place: Path, expected: str) -> str:
    """What an interactive bash shows after `line` and TAB; returns once `expected` is there or time is up."""
    child, screen = pty.fork()
    if child == 0:
        os.chdir(place)
        os.environ.update(
            child_environment(
                {"PATH": f"{program}:{os.environ['PATH']}", "PS1": "$ ", "TERM": "dumb", "INPUTRC": "/dev/null"}
            )
        )
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])

    def read(until: str, seconds: float) -> str:
        text = ""
        end = time.monotonic() + seconds
        while until not in text and time.monotonic() < end:
            if select.select([screen], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    text += os.read(screen, 65536).decode(errors="replace")
        return text

    try:
        setup = 'bind "set show-all-if-ambiguous on"; eval "$(medcli --show-completion bash)"; echo REA""DY\n'
        os.write(screen, setup.encode())
        assert "READY" in read("READY\r\n", 60)
        os.write(screen, line.encode() + b"\t")
        return read(expected, 20)
    finally:
        os.write(screen, b"\x03exit\n")
        os.close(screen)
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["medcli", "tr"], ["train"]),
        (["medcli", "models", ""], ["fetch", "list", "recommend", "show", "verify"]),
        (["medcli", "models", "show", "resnet1"], ["resnet18", "resnet101", "resnet152"]),
        (["medcli", "models", "show", "timm/resnet10t"], ["timm/resnet10t"]),
        (["medcli", "models", "list", "--fam"], ["--family"]),
        (["medcli", "--show-completion", "z"], ["zsh"]),
        (["medcli", "train", "resnet18", "--arch-opt", "st"], ["stem="]),
        (["medcli", "train", "resnet18", "--arch-opt", "stem", "=", "sm"], ["small"]),
        (["medcli", "train", "--preset", "medmnist-off"], ["medmnist-official-28"]),
        (["medcli", "config", "show", "data-c"], ["data-check"]),
    ],
)
def test_words(words: list[str], expected: list[str], program: Path, place: Path) -> None:
    assert sorted(replies(words, program, place)) == sorted(expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("medcli mod", "medcli models "),
        ("medcli data inspect a\\ fo", "a\\ folder/"),
        ('medcli data inspect "an', '"an image.png"'),
        ("medcli data check --data set=an", "set=an\\ image.png "),
        ("medcli runs show r", "runs/"),
        ("medcli runs show ", "runs/20260101-train-resnet18-abcd"),
    ],
)
def test_tab_on_a_terminal(line: str, expected: str, program: Path, place: Path) -> None:
    assert expected in press_tab(line, program, place, expected)


@pytest.mark.parametrize(
    ("joined", "cursor", "before", "incomplete", "kept"),
    [
        ("medcli\ntr", 1, (), "tr", 2),
        ("medcli\n", 1, (), "", 0),
        ("medcli", 1, (), "", 0),
        ("medcli\ntrain\n--loss\n=\nc", 4, ("train",), "--loss=c", 1),
        ("medcli\ntrain\n--loss\n=", 3, ("train",), "--loss=", 0),
        ("medcli\ntrain\n--data\nx\n=\na\\ b", 5, ("train", "--data"), "x=a b", 3),
        ("medcli\ntrain\n--device\ncuda\n:\n0", 5, ("train", "--device"), "cuda:0", 1),
        ("medcli\ntrain\n'half a", 2, ("train",), "half a", 6),
        ("medcli\ntrain\nafter\nignored", 2, ("train",), "after", 5),
    ],
)
def test_words_are_put_together_again(
    joined: str, cursor: int, before: tuple[str, ...], incomplete: str, kept: int
) -> None:
    word = words_of(joined, cursor)
    assert (word.before, word.incomplete, word.kept) == (before, incomplete, kept)


def test_the_reply_holds_only_what_bash_replaces() -> None:
    offer = Offer((("x=synthetic/chest", ""),), files=True)
    assert bash_reply(offer, words_of("medcli\ntrain\n--data\nx\n=\nsyn", 5)).splitlines() == [
        "files",
        "synthetic/chest",
    ]
    assert bash_reply(Offer((("depth=", ""),)), words_of("medcli\ntrain\n--arch-opt\nde", 3)).splitlines() == [
        "nospace",
        "depth=",
    ]


def test_the_script_defines_what_it_registers() -> None:
    assert "_medcli_completion()" in bash_script()
    assert bash_script().rstrip().endswith("complete -F _medcli_completion medcli")
