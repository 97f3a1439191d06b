"""Ctrl-C and SIGTERM: finish the step, save, leave; a second signal stops at once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from medcli.errors import ExitCode, MedcliError

__all__ = ["Interrupted", "Interruption"]

ECHO = 2.0
"""Seconds within which a signal to one of several processes counts as the same one."""


class Interrupted(MedcliError):
    """Training was stopped by a signal and its state is saved."""

    def __init__(self, number: int, message: str, hint: str) -> None:
        super().__init__(message, hint=hint, code="interrupted")
        self.exit_code = ExitCode.TERMINATED if number == signal.SIGTERM else ExitCode.INTERRUPTED


class Interruption:
    """Notes the first SIGINT or SIGTERM while active; the second one raises `KeyboardInterrupt`.

    Args:
        agree: of several processes that must stop together, the largest of the numbers that they bring; None alone.

    Attributes:
        signal: the signal, or 0; of several processes as of the last time all of them `asked`.
    """

    def __init__(self, agree: Callable[[int], int] | None = None) -> None:
        self.signal = 0
        self._agree = agree
        self._noted, self._at = 0, 0.0
        self._previous: dict[int, Any] = {}

    def asked(self) -> int:
        """The signal, which every process learns of after the same step."""
        if self._agree is not None:
            self.signal = self._agree(self._noted)
        return self.signal

    def __enter__(self) -> Interruption:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._note)
            except ValueError:  # only the main thread may set handlers; elsewhere the caller owns the signals
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the signal protocol)
        # A terminal, a launcher and a scheduler may each tell every process of a group: that is one request.
        again = self._agree is None or time.monotonic() - self._at > ECHO
        if self._noted and again:
            raise KeyboardInterrupt
        self._noted, self._at = number, time.monotonic()
        if self._agree is None:
            self.signal = number
