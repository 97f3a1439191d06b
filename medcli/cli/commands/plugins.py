"""`plugins list` and `plugins doctor`: what is installed, and whether it works."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from typing import Any

from medcli.cli.options import Flags, PluginNames
from medcli.cli.output import Output
from medcli.errors import ExitCode
from medcli.registry.children import run_jobs
from medcli.registry.discovery import CORE
from medcli.registry.inspection import Inspected, chosen, inspect

__all__ = ["doctor", "list_plugins"]

_PATIENCE = 60.0


def list_plugins(flags: Flags) -> None:
    """List the installed plugins and the state of each name they offer.

    From package metadata and cards alone: nothing of a plugin is imported. `medcli plugins doctor` imports and builds.

    Examples:
        medcli plugins list
        medcli plugins list --json
    """
    output = Output(flags.output(), "plugins list")
    rows = inspect()
    output.answer(
        {"plugins": [_plain(row) for row in rows]},
        lambda: _table(output, rows),
        identifier="\n".join(dict.fromkeys(row.distribution for row in rows if row.distribution != CORE)),
    )


def doctor(names: PluginNames, flags: Flags) -> ExitCode | None:
    """Import and build what plugins offer, each plugin in a process of its own.

    A plugin that crashes, hangs, exits or prints there harms nothing else. Networks are built at the size of their
    card without memory for weights where they can be. Without names every plugin is examined; `medcli` stands for what
    is built in. Exit status 4 if anything fails.

    Examples:
        medcli plugins doctor
        medcli plugins doctor medcli/custom1 --timeout 120
    """
    output = Output(flags.output(), "plugins doctor")
    rows = chosen(inspect(), names)
    patience: float = flags.given.get("timeout") or _PATIENCE
    findings: list[dict[str, Any]] = []
    counted = output.progress("names examined", len(rows))
    for _, group in groupby(rows, key=lambda row: row.distribution):
        for finding in _examine(tuple(group), patience):
            findings.append(finding)
            counted(len(findings))
    # What was left out on purpose, or lacks something optional, is a failure only for those who asked for it by name.
    bad = ("failed", "unavailable", "excluded") if names else ("failed",)
    failed = [finding for finding in findings if finding["status"] in bad]
    status = ExitCode.LIMIT if failed else ExitCode.DONE
    output.answer(
        {"plugins": findings, "failed": len(failed)},
        lambda: _report(output, findings),
        identifier="\n".join(finding["qualified"] for finding in failed),
        status=status,
    )
    for finding in failed:
        if finding["hint"]:
            output.hint(f"{finding['qualified']}: {finding['hint']}")
    return status


def _examine(rows: tuple[Inspected, ...], patience: float) -> list[dict[str, Any]]:
    """The findings for one distribution, in its order."""
    jobs = {f"{row.group} {row.qualified}": row for row in rows if row.status in {"ok", "ambiguous"}}
    findings: dict[Inspected, dict[str, Any]] = {}
    # Strictness would let one broken plugin stop the examination of all.
    for ended in run_jobs(
        "medcli.models.probe", list(jobs), request={}, timeout=patience, env={"MEDCLI_STRICT_PLUGINS": ""}
    ):
        said = ended.result or {"stage": "load", "cause": ended.death, "hint": "", "parameters": None}
        row = jobs[ended.job]
        hint = said["hint"] or f"reinstall or remove `{row.distribution}`"
        findings[row] = {
            **_plain(row),
            "status": "failed" if said["cause"] else "ok",
            "stage": said["stage"],
            "reason": said["cause"] or row.reason,
            "hint": hint if said["cause"] else row.hint,
            "parameters": said["parameters"],
            "seconds": round(ended.seconds, 3),
        }
    for row in rows:
        if row not in findings:
            status = "failed" if row.status == "problem" else row.status
            findings[row] = {**_plain(row), "status": status, "stage": "card", "parameters": None, "seconds": None}
    return [findings[row] for row in rows]


def _plain(row: Inspected) -> dict[str, Any]:
    fields = asdict(row)
    fields["reference"] = row.entry.reference if row.entry else None
    fields["built_in"] = row.distribution == CORE
    fields["qualified"] = row.qualified
    del fields["entry"]
    return fields


def _table(output: Output, rows: tuple[Inspected, ...]) -> str:
    """A line per entry of a plugin; medcli's own in one line, unless something is wrong with them."""
    own = [row for row in rows if row.distribution == CORE]
    shown = [row for row in rows if row.distribution != CORE or row.status != "ok"]
    lines = [f"built into medcli {own[0].version}: {len(own)} names, `medcli models list` shows them"] if own else []
    if not shown:
        return "\n".join([*lines, "no plugins are installed"])
    cells = [
        (row.distribution, row.version, row.name, row.group.removeprefix("medcli."), row.status, row.reason)
        for row in shown
    ]
    lines.append(output.table(("plugin", "version", "name", "offered as", "status", "reason"), cells))
    hints = dict.fromkeys(f"hint: {row.qualified}: {row.hint}" for row in shown if row.hint)
    return "\n".join([*lines, *hints])


def _report(output: Output, findings: list[dict[str, Any]]) -> str:
    if not findings:
        return "no plugins are installed; `medcli plugins doctor medcli` examines what is built in"
    cells = [
        (
            one["distribution"],
            one["version"],
            one["name"],
            one["status"],
            one["parameters"],
            one["seconds"],
            one["reason"],
        )
        for one in findings
    ]
    return output.table(("plugin", "version", "name", "status", "parameters", "seconds", "reason"), cells)
