"""`medcli completion`: TAB in a shell."""

from __future__ import annotations

from medcli.cli.completion import script
from medcli.cli.installation import install as put_in_place
from medcli.cli.installation import plan
from medcli.cli.options import Flags, ShellArgument
from medcli.cli.output import Output

__all__ = ["install", "show"]


def show(shell: ShellArgument, flags: Flags) -> None:
    """Print the completion script of a shell.

    `bash`, `zsh`, `fish` or `powershell`. The same scripts are installed with the package under `share`, where a
    system's own shells look; `completion install` puts one where your shell looks.

    Examples:
        medcli completion show bash
        medcli completion show zsh
    """
    output = Output(flags.output(), "completion show")
    text = script(shell)
    output.answer({"shell": shell, "script": text}, text, identifier=text)


def install(shell: ShellArgument, flags: Flags) -> None:
    """Put the completion script where a shell finds it.

    Fish finds it by itself. Bash, zsh and PowerShell need a line in their own start-up file; it is shown, and added
    (once, marked) after a yes on the terminal or with `--yes`. Doing it again changes nothing.

    Examples:
        medcli completion install fish
        medcli completion install bash --yes
    """
    output = Output(flags.output(), "completion install")
    planned = plan(shell)
    written = put_in_place(planned)
    added = False
    if planned.line and not planned.line_present():
        if output.settings.yes or output.can_ask():
            added = output.confirm(f"add `{planned.line}` to {planned.startup}?")
        if added:
            planned.add_line()
        else:
            output.hint(f"add this line to {planned.startup}, or run the command again with `--yes`: {planned.line}")
    output.answer(
        {
            "shell": shell,
            "script": str(planned.script),
            "written": written,
            "startup": None if planned.startup is None else str(planned.startup),
            "line": planned.line or None,
            "line_added": added,
        },
        f"{planned.script} {'written' if written else 'was up to date'}; it acts in every new {shell}",
        identifier=str(planned.script),
    )
