"""How a test runs the command line: in a child process as a user would, or inside the test where speed matters."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.registry.children import child_environment

if TYPE_CHECKING:
    import pytest

__all__ = ["Outcome", "RunCli", "child_environment", "forget_user_settings"]

# Variables of the machine that change what is printed or what is resolved; a test sets what it wants itself.
_FOREIGN = ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "COLUMNS", "LINES", "TERM")


@dataclass(frozen=True)
class Outcome:
    """What a finished command left behind."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.stdout)


@dataclass(frozen=True)
class RunCli:
    """Runs `medcli ARGUMENTS` in `directory`."""

    directory: Path
    timeout: float = 300.0

    def __call__(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str | None = None,
        in_process: bool = False,
    ) -> Outcome:
        """Run once.

        Args:
            arguments: as typed after `medcli`.
            env: variables to add to the environment.
            cwd: working directory; by default this fixture's own empty one.
            stdin: text to feed; without it stdin is empty, never a terminal.
            in_process: call the program inside this interpreter: fast, but imports stay loaded and `stdin` is refused.

        Raises:
            subprocess.TimeoutExpired: the child ran longer than `timeout` seconds.
        """
        words = [str(argument) for argument in arguments]
        if in_process:
            if stdin is not None:
                raise ValueError("stdin needs a child process")
            return _inside(words, env or {}, cwd or self.directory)
        completed = subprocess.run(
            [sys.executable, "-m", "medcli", *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=self.timeout,
            cwd=cwd or self.directory,
            env=child_environment(env),
            check=False,
        )
        return Outcome(completed.returncode, completed.stdout, completed.stderr)


def forget_user_settings(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Point the user's configuration and cache at empty places and drop every `MEDCLI_*` variable."""
    for name in tuple(os.environ):
        if name.startswith("MEDCLI_") or name in _FOREIGN:
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(directory / ".config-of-nobody"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(directory / ".cache-of-nobody"))


def _inside(words: list[str], env: Mapping[str, str], directory: Path) -> Outcome:
    # The console script as installed: this module stays free of the command line it runs.
    (script,) = entry_points(group="console_scripts", name="medcli")
    main = script.load()
    out, err = io.StringIO(), io.StringIO()
    before, argv, place = dict(os.environ), sys.argv, Path.cwd()
    code: Any = 0
    try:
        os.environ.update(env)
        os.chdir(directory)
        sys.argv = ["medcli", *words]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = argv
        os.chdir(place)
        os.environ.clear()
        os.environ.update(before)
    return Outcome(code if isinstance(code, int) else int(code is not None), out.getvalue(), err.getvalue())
