"""The one way to fail: an error is a value that says what is wrong, where it came from and what to do next.

Every layer raises these; only `medcli.cli.errors` turns them into text, JSON and an exit status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import IntEnum

__all__ = ["EXIT_MEANINGS", "ExitCode", "MedcliError", "Problems", "RunFailure", "UsageProblem", "listed", "nearest"]


class ExitCode(IntEnum):
    """What the process tells the shell; the only place where these numbers stand."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    LIMIT = 4
    # Between the processes of one training; the one that started them reports what the others died of.
    LOST = 75
    INTERRUPTED = 130
    TERMINATED = 143


EXIT_MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed while running",
    ExitCode.USAGE: "bad usage or configuration (nothing was written)",
    ExitCode.PARTIAL: "finished but some items failed",
    ExitCode.LIMIT: "a requested limit was not met",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
    ExitCode.TERMINATED: "ended from outside",
}


class MedcliError(Exception):
    """An error with its parts kept apart.

    Args:
        message: what is wrong, lower-case start, no full stop, literals in backticks.
        where: the origin of the offending value (flag, variable, file:line, plugin and version), or None.
        hint: a command or an action that mends it, or None.
        code: a stable slug for scripts, such as `unknown-architecture`.
    """

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None, code: str = "error") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        parts = [self.message]
        if self.where:
            parts.append(f"from: {self.where}")
        if self.hint:
            parts.append(f"hint: {self.hint}")
        return "\n".join(parts)


class UsageProblem(MedcliError):
    """Wrong usage, configuration or input found before anything was written; exit status 2."""

    exit_code = ExitCode.USAGE


class RunFailure(MedcliError):
    """Something failed while running; exit status 1."""

    exit_code = ExitCode.FAILED


class Problems(UsageProblem):
    """Several usage problems found in one pass, reported together."""

    def __init__(self, problems: Iterable[MedcliError]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{len(self.problems)} problems", code="problems")

    def __str__(self) -> str:
        return "\n\n".join(str(problem) for problem in self.problems)


def nearest(word: str, known: Iterable[str], limit: int = 3) -> tuple[str, ...]:
    """The known words that look most like `word`, best first."""
    return tuple(get_close_matches(word, list(known), n=limit, cutoff=0.6))


def listed(names: Iterable[str], most: int = 3) -> str:
    """Names for a message in backticks: the first `most`, and how many more there are."""
    quoted = [f"`{name}`" for name in names]
    return ", ".join(quoted[:most]) + (f" and {len(quoted) - most} more" if len(quoted) > most else "")
