"""Proof that something stays light: a child interpreter in which the heavy packages cannot be imported at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medcli.testing.command import Outcome, child_environment

__all__ = ["HEAVY", "HEAVY_FOR_COMPLETION", "NoHeavyImports"]

HEAVY = ("torch", "torchvision", "timm", "transformers", "peft", "accelerate")
HEAVY_FOR_COMPLETION = (*HEAVY, "numpy", "scipy", "sklearn", "pandas", "matplotlib", "pydantic", "rich")

# Runs before anything else in the child: a finder at the head of the meta path refuses the names, whoever asks.
_BLOCKER = """
import sys

class _Refusal:
    def __init__(self, names):
        self.names = frozenset(names)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError(f"heavy import of {name!r} refused by no_heavy_imports")
        return None

sys.meta_path.insert(0, _Refusal(BLOCKED_NAMES))
"""
_RUN_CLI = """
sys.argv = ARGUMENTS
from medcli.__main__ import main
main()
"""


@dataclass(frozen=True)
class NoHeavyImports:
    """Runs code or a `medcli` command in a child in which importing a blocked package raises `ImportError`.

    A library that asks for a blocked package inside `try/except ImportError` goes on without it, as it would where
    the package is not installed.
    """

    blocked: Sequence[str] = HEAVY
    timeout: float = 120.0

    def __call__(
        self,
        code: str,
        *,
        blocked: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        path: Sequence[str] = (),
    ) -> Outcome:
        """Run Python source; `blocked` replaces the list of packages, `path` is put before the child's `sys.path`."""
        names = tuple(self.blocked if blocked is None else blocked)
        return self._run(_BLOCKER.replace("BLOCKED_NAMES", repr(names)) + code, env, cwd, path)

    def cli(
        self,
        *arguments: str,
        blocked: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        path: Sequence[str] = (),
    ) -> Outcome:
        """Run `medcli ARGUMENTS` under the same rule."""
        return self(
            _RUN_CLI.replace("ARGUMENTS", repr(["medcli", *arguments])), blocked=blocked, env=env, cwd=cwd, path=path
        )

    def _run(self, code: str, env: Mapping[str, str] | None, cwd: Path | None, path: Sequence[str]) -> Outcome:
        completed = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=self.timeout,
            cwd=cwd,
            env=child_environment(env, path),
            check=False,
        )
        return Outcome(completed.returncode, completed.stdout, completed.stderr)
