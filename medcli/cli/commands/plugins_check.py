"""`plugins check`: the conformance checks of `medcli.testing`, for a plugin's author without a test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medcli.cli.options import Flags, PluginOrFolder
from medcli.cli.output import Output
from medcli.errors import ExitCode, RunFailure, UsageProblem, nearest
from medcli.registry.children import run_jobs
from medcli.registry.source_tree import source_tree

__all__ = ["check"]

_CHILD = "medcli.testing.conformance_child"
_ALL = "?"
_PATIENCE = 600.0
# The plugin under test is seen whatever else is shut out, and another one's fault is not its own.
_ENVIRONMENT = {"MEDCLI_PLUGINS": "", "MEDCLI_STRICT_PLUGINS": ""}


def check(target: PluginOrFolder, flags: Flags) -> ExitCode | None:
    """Check that a plugin keeps the promises that medcli builds on.

    Takes a plugin's folder, installed or not, or the name of an installed plugin, architecture or difference model.
    Each check ends passed, failed with the reason, or skipped with the reason; they run in a process of their own.
    Where a network is too large to run, `--arch-opt` and `--image-size` make a smaller one for the checks that compute.
    In a test, `medcli.testing.conformance` makes the same checks. Exit status 4 if any fails.

    Examples:
        medcli plugins check custom1
        medcli plugins check custom1 --only facts,gradients,lora --json
        medcli plugins check medcli-echo
    """
    output = Output(flags.output(), "plugins check")
    given = flags.given
    patience: float = given.get("timeout") or _PATIENCE
    with _located(target) as (name, path):
        request = {
            "target": name,
            "options": list(given.get("arch_opt", ())),
            "image_size": given.get("image_size"),
        }
        cases = _wanted(_cases(request, path, patience), tuple(given.get("only", ())))
        done: dict[str, dict[str, Any]] = {}
        counted = output.progress("checks made", len(cases))
        for ended in run_jobs(_CHILD, list(cases), request=request, timeout=patience, env=_ENVIRONMENT, path=path):
            verdict = ended.result or {"outcome": "failed", "reason": ended.death}
            done[ended.job] = {**cases[ended.job], **verdict, "seconds": round(ended.seconds, 3)}
            counted(len(done))
    checks = list(done.values())
    counts = {outcome: sum(one["outcome"] == outcome for one in checks) for outcome in ("passed", "failed", "skipped")}
    status = ExitCode.LIMIT if counts["failed"] else ExitCode.DONE
    output.answer(
        {"target": name, "checks": checks, **counts},
        lambda: _lines(checks, counts),
        identifier="\n".join(f"{one['of']}:{one['check']}" for one in checks if one["outcome"] == "failed"),
        status=status,
    )
    return status


@contextlib.contextmanager
def _located(target: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name and import path of what is checked; a folder with a `pyproject.toml` is taken as such."""
    folder = Path(target).expanduser()
    if target.startswith((".", "/", "~")) or (folder / "pyproject.toml").is_file():
        with source_tree(folder) as tree:
            yield tree.distribution, tree.path
    else:
        yield target, ()


def _cases(request: dict[str, Any], path: tuple[str, ...], patience: float) -> dict[str, dict[str, Any]]:
    """The checks to make, by name."""
    (listed,) = run_jobs(_CHILD, [_ALL], request=request, timeout=patience, env=_ENVIRONMENT, path=path)
    if listed.result is None:
        raise RunFailure(f"the checks cannot be listed: {listed.death}", code="broken-plugin")
    if "error" in listed.result:
        message, where, hint = listed.result["error"]
        raise UsageProblem(message, where=where, hint=hint, code="unknown-plugin")
    return {name: {"of": owner, "check": check, "about": about} for name, owner, check, about in listed.result["cases"]}


def _wanted(cases: dict[str, dict[str, Any]], only: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    known = dict.fromkeys(one["check"] for one in cases.values())
    for name in only:
        if name not in known:
            near = nearest(name, known) or tuple(known)
            listed = ", ".join(f"`{one}`" for one in near)
            raise UsageProblem(
                f"no check is called `{name}`", where="--only", hint=f"there are {listed}", code="no-check"
            )
    return {name: one for name, one in cases.items() if not only or one["check"] in only}


def _lines(checks: list[dict[str, Any]], counts: dict[str, int]) -> str:
    """One line per check; a reason of several lines is indented below it."""
    owner = max(len(one["of"]) for one in checks)
    width = max(len(one["check"]) for one in checks)
    lines = []
    for one in checks:
        reason = one["reason"].replace("\n", "\n    ")
        lines.append(f"{one['outcome']:<7}  {one['of']:<{owner}}  {one['check']:<{width}}  {reason}".rstrip())
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    return "\n".join([*lines, summary])
