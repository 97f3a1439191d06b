"""Where results go and how much is said: the settings that every command has some of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from medcli.settings.option import OUTPUT, Option

__all__ = ["OutputSettings"]


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """Where results go and how much is said."""

    out: Annotated[
        str | None,
        Option(
            "exact directory or file to write (default for a run: below ./runs)",
            OUTPUT,
            "PATH",
            flag_only=True,
            completes="path",
        ),
    ] = None
    overwrite: Annotated[bool, Option("replace what `--out` holds, if medcli wrote it", OUTPUT, flag_only=True)] = False
    yes: Annotated[bool, Option("answer yes to every question", OUTPUT, flag_only=True, short="-y")] = False
    no_input: Annotated[bool, Option("never ask; refuse instead", OUTPUT, flag_only=True)] = False
    json: Annotated[bool, Option("print the answer as one JSON document", OUTPUT, flag_only=True)] = False
    quiet: Annotated[
        bool, Option("print the identifier of the result and nothing else", OUTPUT, flag_only=True, short="-q")
    ] = False
    verbose: Annotated[bool, Option("say more about what happens", OUTPUT, flag_only=True, short="-v")] = False
    debug: Annotated[bool, Option("show tracebacks", OUTPUT, in_file=False)] = False
    no_progress: Annotated[bool, Option("one line per epoch instead of a progress display", OUTPUT, in_file=False)] = (
        False
    )
    no_color: Annotated[bool, Option("no colour", OUTPUT, in_file=False)] = False
    dry_run: Annotated[
        bool,
        Option("check everything, run one real step where that makes sense, write nothing", OUTPUT, flag_only=True),
    ] = False
    config: Annotated[
        str | None, Option("read settings from this TOML file", OUTPUT, "FILE", flag_only=True, completes="path")
    ] = None
    preset: Annotated[
        str | None,
        Option(
            "named set of settings (`medcli config presets` lists them)",
            OUTPUT,
            "NAME",
            flag_only=True,
            completes="preset",
        ),
    ] = None
