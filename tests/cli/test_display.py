"""What a training looks like in a log and on a terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest

from medcli.cli.display import DisplayTraining, LineTraining, duration, epoch_line
from medcli.cli.output import Output
from medcli.settings.groups import OutputSettings


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def play(progress: Any, epochs: int = 2, first_epoch: int = 0) -> None:
    progress.start(epochs=epochs, steps=4, images=32, first_epoch=first_epoch)
    for epoch in range(first_epoch, epochs):
        for step in range(4):
            progress.step(epoch=epoch, step=step, loss=0.5, images=8)
        progress.epoch(
            epoch=epoch,
            metrics={"train_loss": 0.25, "auc": 0.875, "loss": 0.4},
            monitor="auc",
            best=epoch == 0,
            seconds=1.0,
            images_per_second=1234.4,
        )
    progress.finish()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3725, "1:02:05"), (-1, "0:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_line_says_of_what_the_time_is_left() -> None:
    line = epoch_line(
        epoch=2,
        epochs=30,
        metrics={"train_loss": 0.43125, "auc": 0.912},
        monitor="auc",
        best=True,
        images_per_second=812.3,
        elapsed=41,
        remaining=370,
    )
    assert line == (
        "epoch  3/30  loss 0.4313  val auc 0.9120 (best)  812 images/s  0:41 elapsed, 6:10 left of 30 epochs"
    )


def test_a_figure_that_is_no_number_is_shown_as_such() -> None:
    line = epoch_line(
        epoch=0, epochs=1, metrics={"auc": float("nan")}, monitor="auc", best=False,
        images_per_second=1, elapsed=0, remaining=0,
    )  # fmt: skip
    assert "val auc nan" in line
    assert "left" not in line


def test_one_line_per_epoch_in_a_log() -> None:
    lines: list[str] = []
    play(LineTraining(lines.append))
    assert len(lines) == 2
    assert "left of 2 epochs" in lines[0]
    assert "left" not in lines[1]


def test_a_resumed_training_counts_on() -> None:
    lines: list[str] = []
    play(LineTraining(lines.append), epochs=5, first_epoch=3)
    assert [line.split("  ")[0] for line in lines] == ["epoch 4/5", "epoch 5/5"]


def test_the_display_keeps_the_lines_and_names_speed_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(DisplayTraining, "REFRESH", 0.0)
    screen = Terminal()
    play(DisplayTraining(screen, colour=False))
    shown = screen.getvalue()
    assert "images/s" in shown
    assert "left of 2 epochs" in shown
    assert shown.count("val auc 0.8750") == 2


@pytest.mark.parametrize(
    ("flags", "terminal", "kind"),
    [
        ({}, True, "DisplayTraining"),
        ({}, False, "LineTraining"),
        ({"no_progress": True}, True, "LineTraining"),
        ({"quiet": True}, True, "NoProgress"),
        ({"json": True}, False, "NoProgress"),
        ({"json": True, "verbose": True}, False, "LineTraining"),
    ],
)
def test_who_sees_what(flags: dict[str, bool], terminal: bool, kind: str) -> None:
    stream = Terminal() if terminal else io.StringIO()
    chosen = Output(OutputSettings(**flags), "train", stderr=stream).training_progress()
    assert type(chosen).__name__ == kind
    play(chosen)
