"""How a running training looks: a live display on a terminal, one line per epoch in a log file.

Both say of what the remaining time is the remainder, and both name the figure that chooses the best epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["DisplayTraining", "LineTraining", "duration", "epoch_line"]

LOSS_NAMES = ("train_loss", "loss")


def duration(seconds: float) -> str:
    """`seconds` as `m:ss` or `h:mm:ss`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def epoch_line(
    *,
    epoch: int,
    epochs: int,
    metrics: Mapping[str, float],
    monitor: str,
    best: bool,
    images_per_second: float,
    elapsed: float,
    remaining: float,
) -> str:
    """One epoch in one line; `epoch` counts from 0, times are in seconds."""
    width = len(str(epochs))
    parts = [f"epoch {epoch + 1:>{width}}/{epochs}"]
    loss = next((metrics[name] for name in LOSS_NAMES if name in metrics), None)
    if loss is not None:
        parts.append(f"loss {loss:.4f}")
    figure = metrics.get(monitor, metrics.get(f"val_{monitor}"))
    if figure is not None:
        parts.append(f"val {monitor} {figure:.4f}{' (best)' if best else ''}")
    parts.append(f"{images_per_second:.0f} images/s")
    left = f", {duration(remaining)} left of {epochs} epochs" if epoch + 1 < epochs else ""
    parts.append(f"{duration(elapsed)} elapsed{left}")
    return "  ".join(parts)


class LineTraining:
    """Writes one line per epoch.

    Args:
        write: takes one line of text.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._epochs = 0
        self._first = 0
        self._began = 0.0

    def start(self, *, epochs: int, steps: int, images: int, first_epoch: int) -> None:
        self._epochs, self._first, self._began = epochs, first_epoch, time.monotonic()

    def step(self, *, epoch: int, step: int, loss: float, images: int) -> None:
        pass

    def epoch(
        self,
        *,
        epoch: int,
        metrics: Mapping[str, float],
        monitor: str,
        best: bool,
        seconds: float,
        images_per_second: float,
    ) -> None:
        elapsed = time.monotonic() - self._began
        done = epoch + 1 - self._first
        self._write(
            epoch_line(
                epoch=epoch,
                epochs=self._epochs,
                metrics=metrics,
                monitor=monitor,
                best=best,
                images_per_second=images_per_second,
                elapsed=elapsed,
                remaining=elapsed / max(1, done) * (self._epochs - epoch - 1),
            )
        )

    def finish(self) -> None:
        pass


class DisplayTraining:
    """Shows a bar of the epoch that runs, below the lines of those that ended.

    Args:
        stream: the terminal.
        colour: whether it may be coloured.
    """

    REFRESH = 0.1  # seconds; batches of a small network are far shorter, and drawing must not slow them down

    def __init__(self, stream: IO[str], *, colour: bool) -> None:
        self._stream = stream
        self._colour = colour
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._epochs = self._steps = self._first = 0
        self._seen = 0
        self._began = self._epoch_began = self._drawn = 0.0
        self._lines = LineTraining(self._print)

    def start(self, *, epochs: int, steps: int, images: int, first_epoch: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._lines.start(epochs=epochs, steps=steps, images=images, first_epoch=first_epoch)
        self._epochs, self._steps, self._first = epochs, max(1, steps), first_epoch
        self._began = self._epoch_began = time.monotonic()
        console = Console(file=self._stream, no_color=not self._colour, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[facts]}", markup=False),
            console=console,
            transient=True,
            auto_refresh=False,
        )
        self._task = self._bar.add_task(f"epoch {first_epoch + 1}/{epochs}", total=self._steps, facts="")
        self._bar.start()

    def step(self, *, epoch: int, step: int, loss: float, images: int) -> None:
        now = time.monotonic()
        self._seen += images
        if self._bar is None or self._task is None or now - self._drawn < self.REFRESH:
            return
        self._drawn = now
        rate = self._seen / max(1e-9, now - self._epoch_began)
        done = (epoch - self._first) * self._steps + step + 1
        total = (self._epochs - self._first) * self._steps
        left = (now - self._began) / done * (total - done)
        facts = f"loss {loss:.4f}  {rate:.0f} images/s  {duration(left)} left of {self._epochs} epochs"
        description = f"epoch {epoch + 1}/{self._epochs}"
        self._bar.update(self._task, completed=step + 1, description=description, facts=facts, refresh=True)

    def epoch(
        self,
        *,
        epoch: int,
        metrics: Mapping[str, float],
        monitor: str,
        best: bool,
        seconds: float,
        images_per_second: float,
    ) -> None:
        self._lines.epoch(
            epoch=epoch,
            metrics=metrics,
            monitor=monitor,
            best=best,
            seconds=seconds,
            images_per_second=images_per_second,
        )
        self._seen, self._epoch_began = 0, time.monotonic()

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, soft_wrap=True)
