"""Where each shell looks for completion scripts, and putting ours there without touching anything else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from medcli.cli.completion import script
from medcli.errors import RunFailure

__all__ = ["Plan", "install", "plan"]

MARK = "# medcli completion"


@dataclass(frozen=True)
class Plan:
    """What installing for one shell means.

    Args:
        shell: a name of `medcli.cli.completion.SHELLS`.
        script: the file to write.
        startup: the shell's own start-up file that has to name it, or None where the shell looks by itself.
        line: what that file has to say.
    """

    shell: str
    script: Path
    startup: Path | None = None
    line: str = ""

    def line_present(self) -> bool:
        """Whether the start-up file names the script already."""
        if self.startup is None or not self.startup.is_file():
            return False
        return self.line in self.startup.read_text(encoding="utf-8", errors="replace").split("\n")

    def add_line(self) -> None:
        """Append the marked line.

        Raises:
            RunFailure: the start-up file cannot be written.
        """
        if self.startup is None:
            return
        try:
            self.startup.parent.mkdir(parents=True, exist_ok=True)
            before = self.startup.read_bytes() if self.startup.is_file() else b""
            start = "" if not before or before.endswith(b"\n") else "\n"
            with self.startup.open("a", encoding="utf-8") as file:
                file.write(f"{start}{MARK}\n{self.line}\n")
        except OSError as error:
            raise RunFailure(f"`{self.startup}` cannot be written: {error.strerror}", code="cannot-write") from None


def plan(shell: str) -> Plan:
    """Where the script goes for the user who runs this.

    Raises:
        UsageProblem: no such shell.
    """
    script(shell)
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    if shell == "fish":
        return Plan(shell, config / "fish" / "completions" / "medcli.fish")
    # Not the folder that bash-completion reads: it need not be installed, and then nothing would happen.
    kept = data / "medcli" / "completions"
    if shell == "bash":
        return Plan(shell, kept / "medcli.bash", home / ".bashrc", f'source "{kept / "medcli.bash"}"')
    if shell == "zsh":
        startup = Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
        return Plan(shell, kept / "_medcli", startup, f'source "{kept / "_medcli"}"')
    startup = config / "powershell" / "Microsoft.PowerShell_profile.ps1"
    return Plan(shell, kept / "medcli.ps1", startup, f'. "{kept / "medcli.ps1"}"')


def install(planned: Plan) -> bool:
    """Write the script; False where it was there already, the same.

    Raises:
        RunFailure: it cannot be written.
    """
    text = script(planned.shell)
    try:
        if planned.script.is_file() and planned.script.read_text(encoding="utf-8") == text:
            return False
        planned.script.parent.mkdir(parents=True, exist_ok=True)
        planned.script.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFailure(f"`{planned.script}` cannot be written: {error.strerror}", code="cannot-write") from None
    return True
