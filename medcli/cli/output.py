"""The single sink: everything a user or a script reads leaves through here.

stdout carries the answer and nothing else, stderr all that accompanies it: `medcli … | jq` never needs a filter.

A command makes one `Output(flags.output(), "models list")`, speaks through `note`, `warn` and `hint` while it works and
calls `answer` once at the end. With `--json` the answer is one document
`{schema, command, status, run_dir, result, warnings}`; notes are then dropped and warnings collected into it. With `-q`
the answer is its identifier.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from medcli.cli.tables import facts_text, table_text
from medcli.errors import ExitCode, UsageProblem

if TYPE_CHECKING:
    from medcli.settings.groups import OutputSettings
    from medcli.training.progress import TrainingProgress

__all__ = ["Output", "colour_allowed", "plain", "schema_name", "write_line"]

SCHEMA_VERSION = 1
COUNTER_REFRESH = 0.1  # seconds; images are counted far faster than a terminal can be written to
RED, YELLOW, GREEN, BOLD = "31", "33", "32", "1"

# How our own signs are written where the stream has ASCII alone; anything else is escaped.
IN_ASCII = str.maketrans(
    {
        "…": "...",
        "–": "-",
        "—": "-",
        "×": "x",
        "±": "+/-",
        "≤": "<=",
        "≥": ">=",
        "→": "->",
        "−": "-",
        "²": "^2",
        "µ": "u",
        "°": " degrees",
        "½": "1/2",
        "←": "<-",
        "·": "-",
        "√": "sqrt ",
    }
)


def write_line(stream: IO[str], text: str) -> None:
    """Write one piece of text and end the line; what the stream cannot encode is escaped, not fatal."""
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        readable = text.translate(IN_ASCII)
        print(readable.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def colour_allowed(stream: IO[str], no_color: bool, environ: Mapping[str, str] | None = None) -> bool:
    """Whether `stream` may carry colour: a terminal that is not dumb, and nobody said no."""
    variables = os.environ if environ is None else environ
    if no_color or variables.get("NO_COLOR") or variables.get("TERM") == "dumb":
        return False
    return stream.isatty()


def paint(text: str, code: str, on: bool) -> str:
    """`text` in a colour, or as it is; the words alone always say enough."""
    return f"\x1b[{code}m{text}\x1b[0m" if on else text


def schema_name(command: str) -> str:
    """The versioned name of a command's JSON document, such as `medcli/models-list/1`."""
    return f"medcli/{command.replace(' ', '-')}/{SCHEMA_VERSION}"


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinities become null, arrays lists, paths text, dataclasses objects."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


class Output:
    """What one command says, in the manner its settings ask for.

    Args:
        settings: the output flags.
        command: the command's name, such as `models list`; part of the JSON document.
        stdout: where the answer goes, `sys.stdout` unless given.
        stderr: where everything else goes, `sys.stderr` unless given.
    """

    def __init__(
        self,
        settings: OutputSettings,
        command: str,
        *,
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
    ) -> None:
        self.settings = settings
        self.command = command
        self.stdout = sys.stdout if stdout is None else stdout
        self.stderr = sys.stderr if stderr is None else stderr
        self.warnings: list[str] = []

    def muted(self) -> Output:
        """The same for a process that works beside the one that speaks: it says nothing."""
        nowhere = io.StringIO()
        return Output(replace(self.settings, quiet=True), self.command, stdout=nowhere, stderr=nowhere)

    def answer(
        self,
        result: Mapping[str, Any],
        text: Callable[[], str] | str,
        *,
        identifier: str = "",
        run_dir: str | None = None,
        status: ExitCode = ExitCode.DONE,
    ) -> None:
        """Say the result, once, on stdout.

        Args:
            result: what `--json` shows under `result`.
            text: what a person reads, or a function that makes it (called only when it is needed).
            identifier: the one thing `-q` prints; with none, `-q` prints nothing.
            run_dir: the run the result belongs to.
            status: the exit status the command is about to return, named in the JSON document.
        """
        if self.settings.json:
            document = {
                "schema": schema_name(self.command),
                "command": self.command,
                "status": status.name.lower(),
                "run_dir": None if run_dir is None else str(run_dir),
                "result": plain(result),
                "warnings": self.warnings,
            }
            write_line(self.stdout, json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False))
            return
        said = identifier if self.settings.quiet else (text if isinstance(text, str) else text())
        if said:
            write_line(self.stdout, said.rstrip("\n"))

    def note(self, text: str) -> None:
        """A sentence that helps a person follow; not for scripts, dropped by `-q` and `--json`."""
        if not self.settings.quiet and not self.settings.json:
            write_line(self.stderr, text)

    def detail(self, text: str) -> None:
        """A sentence only `-v` wants."""
        if self.settings.verbose:
            self.note(text)

    def warn(self, text: str) -> None:
        """Something the user should know that stops nothing; `-q` keeps it, `--json` puts it into the document."""
        self.warnings.append(text)
        if not self.settings.json:
            write_line(self.stderr, f"{self._paint('warning:', YELLOW)} {text}")

    def hint(self, text: str) -> None:
        """What to do next, preferably a command."""
        self.note(f"{self._paint('hint:', GREEN)} {text}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
        """Aligned plain text under a heading, fitted to the terminal that shows the answer."""
        return table_text(columns, rows, self.answer_width())

    def facts(self, rows: Sequence[tuple[str, str]]) -> str:
        """Names and sentences in two columns, fitted to the terminal that shows the answer."""
        return facts_text(rows, self.answer_width())

    def training_progress(self) -> TrainingProgress:
        """A display on a terminal, one line per epoch elsewhere; silence under `-q`, and `--json` without `-v`."""
        from medcli.cli.display import DisplayTraining, LineTraining
        from medcli.training.progress import NoProgress

        if self.settings.quiet:
            return NoProgress()
        if self._live():
            return DisplayTraining(self.stderr, colour=self._colour())
        if self.settings.json and not self.settings.verbose:
            return NoProgress()
        return LineTraining(lambda text: write_line(self.stderr, text))

    def progress(self, what: str, total: int) -> Callable[[int], None]:
        """A function to call with the number of things done so far; shows a counter on a terminal, nothing elsewhere.

        Args:
            what: what is counted, such as `images read`.
            total: how many there will be.
        """
        if self.settings.quiet or total < 1 or not self._live():
            return lambda done: None

        last = 0.0

        def show(done: int) -> None:
            nonlocal last
            now = time.monotonic()
            if done < total and now - last < COUNTER_REFRESH:
                return
            last = now
            ending = "\r\x1b[K" if done >= total else ""
            self.stderr.write(f"\r{done}/{total} {what}{ending}")
            self.stderr.flush()

        return show

    def live_line(self) -> Callable[[str], None]:
        """A function that shows one line in the place of the one before, on a terminal; nothing elsewhere."""
        if self.settings.quiet or not self._live():
            return lambda text: None

        def show(text: str) -> None:
            room = max(20, shutil.get_terminal_size().columns - 1)
            self.stderr.write(f"\r\x1b[K{text[:room]}")
            self.stderr.flush()

        return show

    def answer_width(self) -> int | None:
        """Columns of the terminal that shows the answer; None where it goes elsewhere and may be as wide as it is."""
        return shutil.get_terminal_size().columns if self.stdout.isatty() else None

    def answer_colour(self) -> bool:
        """Whether the answer may carry colour."""
        return colour_allowed(self.stdout, self.settings.no_color)

    def can_ask(self) -> bool:
        """Whether a person at a terminal can answer a question."""
        return not self.settings.no_input and sys.stdin.isatty() and self.stderr.isatty()

    def confirm(self, question: str) -> bool:
        """Ask, on a terminal; `--yes` answers.

        Raises:
            UsageProblem: there is nobody to ask, or `--no-input` forbids it.
        """
        if self.settings.yes:
            return True
        if not self.can_ask():
            raise UsageProblem(
                f"{question} needs a yes, and nobody can be asked here",
                where="--no-input" if self.settings.no_input else None,
                hint="add `--yes` to agree",
                code="needs-confirmation",
            )
        self.stderr.write(f"{question} [y/N] ")
        self.stderr.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    def _live(self) -> bool:
        return not self.settings.no_progress and os.environ.get("TERM") != "dumb" and self.stderr.isatty()

    def _colour(self) -> bool:
        return colour_allowed(self.stderr, self.settings.no_color)

    def _paint(self, text: str, code: str) -> str:
        return paint(text, code, self._colour())
