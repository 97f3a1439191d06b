"""Ctrl-C and SIGTERM: finish the step, save, leave; a second signal stops at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

from medcli.errors import ExitCode, MedcliError

__all__ = ["Interrupted", "Interruption"]


class Interrupted(MedcliError):
    """Training was stopped by a signal and its state is saved."""

    def __init__(self, number: int, message: str, hint: str) -> None:
        super().__init__(message, hint=hint, code="interrupted")
        self.exit_code = ExitCode.TERMINATED if number == signal.SIGTERM else ExitCode.INTERRUPTED


class Interruption:
    """Notes the first SIGINT or SIGTERM while active; the second one raises `KeyboardInterrupt`."""

    def __init__(self) -> None:
        self.signal = 0
        self._previous: dict[int, Any] = {}

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
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
