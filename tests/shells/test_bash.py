"""Completion in a real bash: the function called as bash calls it, and TAB pressed on a terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from medcli.testing.command import child_environment

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
PressTab = Callable[[str, str, str], str]


def replies(words: list[str], program: Path, place: Path) -> list[str]:
    """COMPREPLY for a command line, with COMP_WORDS set by hand."""
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"""
        eval "$(medcli completion show bash)"
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
def test_tab_on_a_terminal(line: str, expected: str, press_tab: PressTab) -> None:
    assert expected in press_tab("bash", line, expected)
