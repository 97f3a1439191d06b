"""Where every failure ends: as text or one JSON line on stderr, and as an exit status.

What is wrong comes first, then where the value came from, then a command that mends it. A traceback is shown with
`--debug` or `MEDCLI_DEBUG=1` alone.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medcli.cli.options import is_set
from medcli.cli.output import BOLD, GREEN, RED, colour_allowed, paint, write_line
from medcli.errors import ExitCode, MedcliError, Problems, RunFailure

__all__ = ["HelpWanted", "Interrupted", "as_document", "as_text", "from_system", "run_guarded"]


class Interrupted(MedcliError):
    """Ctrl-C where nothing had to be saved."""

    exit_code = ExitCode.INTERRUPTED


class HelpWanted(MedcliError):
    """A group of commands was called without one; the message is its help page."""

    exit_code = ExitCode.USAGE


def as_text(error: MedcliError, *, colour: bool = False) -> str:
    """The error for a person."""
    if isinstance(error, HelpWanted):
        return error.message
    if isinstance(error, Problems):
        return "\n\n".join(as_text(problem, colour=colour) for problem in error.problems)
    lines = [f"{paint('error:', RED, colour)} {error.message}"]
    if error.where:
        lines.append(f"{paint('from:', BOLD, colour)} {error.where}")
    if error.hint:
        lines += ["", f"{paint('hint:', GREEN, colour)} {error.hint}"]
    return "\n".join(lines)


def as_document(error: MedcliError) -> dict[str, Any]:
    """The error for a script: `code`, `message`, `hint`, `where`; several problems under `problems`."""
    if isinstance(error, HelpWanted):
        return {"code": error.code, "message": "a command is missing", "hint": error.hint, "where": None}
    document: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "where": error.where,
    }
    if isinstance(error, Problems):
        document["problems"] = [as_document(problem) for problem in error.problems]
    return document


def from_system(error: BaseException) -> MedcliError:
    """A sentence for an exception that no layer translated."""
    if isinstance(error, MemoryError):
        return RunFailure("not enough memory", hint="use a smaller `--batch-size` or `--cache disk`", code="memory")
    if isinstance(error, OSError) and error.strerror:
        subject = f": `{error.filename}`" if error.filename else ""
        hint = "free some space, or write elsewhere with `--out`" if error.errno == errno.ENOSPC else None
        return RunFailure(f"{error.strerror.lower()}{subject}", hint=hint, code="system")
    text = " ".join(str(error).split())
    name = type(error).__name__
    return RunFailure(
        f"an unexpected {name}: {text}" if text else f"an unexpected {name}",
        hint="add `--debug` to see the traceback",
        code="unexpected",
    )


def run_guarded(
    action: Callable[[], int], arguments: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> int:
    """Call `action`; whatever it raises becomes words on stderr and an exit status.

    Args:
        action: the command line, returning its exit status.
        arguments: what was typed; `--json`, `--debug` and `--no-color` count even if parsing failed.
        environ: the variables, `os.environ` unless given.

    Returns:
        The exit status.
    """
    variables = os.environ if environ is None else environ
    typed = set(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    try:
        status = action()
        sys.stdout.flush()
        return int(status)
    except BrokenPipeError:
        # The reader went away (`| head`): nobody wants to hear of it, and the interpreter must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.FAILED)
    except SystemExit as leaving:
        return _status(leaving)
    except (Exception, KeyboardInterrupt) as caught:
        error = _translated(caught)
        debug = "--debug" in typed or is_set(variables.get("MEDCLI_DEBUG"))
        if debug and not isinstance(error, HelpWanted):
            import traceback

            write_line(sys.stderr, "".join(traceback.format_exception(caught)).rstrip())
        if "--json" in typed:
            write_line(sys.stderr, json.dumps(as_document(error), ensure_ascii=False))
        else:
            colour = colour_allowed(sys.stderr, "--no-color" in typed or is_set(variables.get("MEDCLI_NO_COLOR")))
            write_line(sys.stderr, as_text(error, colour=colour))
        return int(error.exit_code)


def _translated(error: BaseException) -> MedcliError:
    if isinstance(error, MedcliError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted", code="interrupted")
    return from_system(error)


def _status(leaving: SystemExit) -> int:
    if leaving.code is None:
        return int(ExitCode.DONE)
    if isinstance(leaving.code, int):
        return leaving.code
    write_line(sys.stderr, str(leaving.code))
    return int(ExitCode.FAILED)
