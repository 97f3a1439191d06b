"""Completion in a real zsh and a real fish: TAB pressed on a terminal; skipped where they are not installed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

PressTab = Callable[[str, str, str], str]

LINES = [
    ("medcli mod", "medcli models"),
    ("medcli models show timm/resnet14", "timm/resnet14t"),
    ("medcli data inspect an", "an\\ image.png"),
    ("medcli train --augment=me", "--augment=medium"),
    ("medcli train resnet18 --data=an", "--data=an\\ image.png"),
    ("medcli train resnet18 --arch-opt st", "stem="),
    ("medcli runs show ", "runs/20260101-train-resnet18-abcd"),
    ("medcli train resnet18 --data labels.csv --label-column gra", "grade"),
]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
@pytest.mark.parametrize(("line", "expected"), LINES)
def test_tab_on_a_terminal(shell: str, line: str, expected: str, press_tab: PressTab) -> None:
    assert expected in press_tab(shell, line, expected)
