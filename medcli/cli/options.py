"""What a command function receives: its positional arguments and the flags that were typed.

The convention every command module follows:

    def train(architecture: OptionalArchitecture, flags: Flags) -> ExitCode | None:
        output = Output(flags.output(), "train")
        ...
        output.answer(result, text)

`medcli.cli.typer_adapter` calls the function by keyword. A parameter whose annotation is one of the aliases below is a
positional argument, in the order of the signature: `X | None` may be left out, `tuple[X, ...]` takes any number. The
parameter annotated `Flags` receives the options, which stand in `medcli.settings.commands` and nowhere else. The
annotations are read at run time, so import them normally, not under TYPE_CHECKING. Returning None means done; any other
end that is no error is an `ExitCode`; errors are raised.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from medcli.settings.groups import OutputSettings

__all__ = [
    "ArchitectureArgument",
    "ArchitectureOrFile",
    "ArchitectureOrRun",
    "BaselineArgument",
    "CacheAction",
    "CommandArgument",
    "ComparedRuns",
    "ConsideredArchitectures",
    "FileArgument",
    "Flags",
    "FollowupArgument",
    "InputsArgument",
    "JoinedOrTrained",
    "Judged",
    "MeasuredItems",
    "NewFileArgument",
    "NewPlugin",
    "OptionalArchitecture",
    "OptionalArchitectureOrRun",
    "OptionalFile",
    "OptionalFolder",
    "OptionalInputs",
    "OptionalSynthetic",
    "PageWords",
    "PluginNames",
    "PluginOrFolder",
    "Positional",
    "Reported",
    "RunArgument",
    "RunOrArchitecture",
    "RunOrPredictions",
    "ScoredMaps",
    "ShellArgument",
    "is_set",
]

OUTPUT_VARIABLES = {
    "debug": ("MEDCLI_DEBUG",),
    "no_progress": ("MEDCLI_NO_PROGRESS",),
    "no_color": ("MEDCLI_NO_COLOR", "NO_COLOR"),
}


@dataclass(frozen=True)
class Positional:
    """How a positional argument appears to a user.

    Args:
        metavar: its placeholder in the usage line.
        help: one sentence, lower-case start, no full stop.
        completes: what the shell offers: `architecture`, `run`, `path`, `dir`, `data`, `preset`, `synthetic`,
            `command`, or several of them joined by `|`.
        required: whether a `tuple[X, ...]` needs at least one value.
    """

    metavar: str
    help: str
    completes: str = ""
    required: bool = False


@dataclass(frozen=True)
class Flags:
    """The options that were typed, and only those.

    Args:
        given: field name of `medcli.settings.groups` -> value as parsed and range-checked.
        command: the command's name, such as `models list`.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""

    def output(self, environ: Mapping[str, str] | None = None) -> OutputSettings:
        """How to speak, known before any file is read: the flags and the variables meant for the terminal."""
        from medcli.settings.groups import OutputSettings

        variables = os.environ if environ is None else environ
        names = {item.name for item in fields(OutputSettings)}
        chosen = {name: value for name, value in self.given.items() if name in names}
        for name, candidates in OUTPUT_VARIABLES.items():
            if name not in chosen and any(is_set(variables.get(variable)) for variable in candidates):
                chosen[name] = True
        return OutputSettings(**chosen)


def is_set(value: str | None) -> bool:
    """Whether an on/off variable is on; `NO_COLOR` convention: any text but an explicit no."""
    return value is not None and value.strip().lower() not in {"", "0", "false", "no", "off"}


ArchitectureArgument = Annotated[
    str,
    Positional(
        "ARCH", "architecture (`medcli models list` shows them; `timm/NAME` for any timm model)", "architecture"
    ),
]
OptionalArchitecture = Annotated[
    str | None,
    Positional("ARCH", "architecture; not needed where a file or `--resume` names it", "architecture"),
]
ArchitectureOrFile = Annotated[
    str, Positional("ARCH|FILE", "architecture, or weight file or folder", "architecture|path")
]
ConsideredArchitectures = Annotated[
    tuple[str, ...], Positional("ARCH", "architectures to judge, instead of a ranking of all", "architecture")
]
ArchitectureOrRun = Annotated[str, Positional("ARCH|RUN", "architecture or run directory", "architecture|run")]
OptionalArchitectureOrRun = Annotated[
    str | None,
    Positional(
        "ARCH|RUN",
        "architecture, or run whose weights are adapted; not needed where a file or `--resume` names it",
        "architecture|run",
    ),
]
MeasuredItems = Annotated[
    tuple[str, ...],
    Positional(
        "ARCH|FAMILY|RUN|BUNDLE",
        "architectures, difference models, families, run directories or bundles",
        "architecture|run",
    ),
]
RunArgument = Annotated[str, Positional("RUN", "run directory", "run")]
ComparedRuns = Annotated[
    tuple[str, ...],
    Positional(
        "RUN|PREDICTIONS",
        "run directories, or predictions files (.npz of ours, table of any tool)",
        "run|path",
        required=True,
    ),
]
RunOrArchitecture = Annotated[
    str,
    Positional(
        "RUN|BUNDLE|ARCH",
        "run directory, exported bundle, or architecture whose weights bring a classifier",
        "run|dir|architecture",
    ),
]
Judged = Annotated[
    str,
    Positional(
        "RUN|BUNDLE|PREDICTIONS|ARCH",
        "run directory, exported bundle, predictions file (.npz of ours, table of any tool), or architecture with "
        "`--weights`",
        "run|path|architecture",
    ),
]
ScoredMaps = Annotated[
    str,
    Positional("RUN|MAPS", "run of `diffmap train`, or folder of maps of any tool, each called as its pair", "run|dir"),
]
RunOrPredictions = Annotated[
    str,
    Positional("RUN|VAL", "run directory, or validation predictions (.npz of ours, table of any tool)", "run|path"),
]
JoinedOrTrained = Annotated[
    tuple[str, ...],
    Positional(
        "ARCH|RUN|PREDICTIONS",
        "architectures to train, or two or more runs or files of predictions to join",
        "architecture|run|path",
    ),
]
Reported = Annotated[
    str,
    Positional("RUN|PREDICTIONS", "run directory, or predictions file (.npz of ours, table of any tool)", "run|path"),
]
InputsArgument = Annotated[
    tuple[str, ...], Positional("INPUT", "image files or folders of them", "path", required=True)
]
OptionalInputs = Annotated[
    tuple[str, ...], Positional("INPUT", "image files or folders of them; not needed with `--save`", "path")
]
BaselineArgument = Annotated[
    str | None, Positional("BASELINE", "the earlier radiograph; not needed with `--data`", "path")
]
FollowupArgument = Annotated[str | None, Positional("FOLLOWUP", "the later one", "path")]
FileArgument = Annotated[str, Positional("FILE", "file to look at", "path")]
OptionalFile = Annotated[str | None, Positional("FILE", "file to look at", "path")]
OptionalFolder = Annotated[str | None, Positional("DIR", "folder that holds runs (default: runs)", "dir")]
PluginNames = Annotated[
    tuple[str, ...], Positional("NAME", "plugins, or names they offer (default: every plugin)", "architecture")
]
PluginOrFolder = Annotated[
    str, Positional("PATH|NAME", "a plugin's folder, or an installed plugin or name it offers", "architecture|path")
]
NewPlugin = Annotated[str, Positional("NAME", "what users will type, such as `mynet`; it becomes `medcli-mynet`")]
CommandArgument = Annotated[str, Positional("COMMAND", "a command, such as `train` or `data-check`", "command")]
NewFileArgument = Annotated[str | None, Positional("FILE", "file to write", "path")]
OptionalSynthetic = Annotated[str | None, Positional("NAME", "built-in synthetic set", "synthetic")]
CacheAction = Annotated[str | None, Positional("list|clear", "what to do (default: list)", "cache_action")]
PageWords = Annotated[tuple[str, ...], Positional("WORD", "command or subject", "manual")]
ShellArgument = Annotated[str, Positional("SHELL", "bash, zsh, fish or powershell", "shell")]
