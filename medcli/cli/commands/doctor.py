"""`medcli doctor`: this machine, line by line, and what to do about each."""

from __future__ import annotations

import importlib.util
from itertools import groupby
from typing import Any

from medcli.cli.options import Flags
from medcli.cli.output import Output
from medcli.doctor.examination import (
    Finding,
    devices,
    extras,
    packages,
    places,
    plugins,
    without_private_paths,
)
from medcli.errors import ExitCode
from medcli.registry.children import run_jobs
from medcli.registry.layout import install_line

__all__ = ["doctor"]

PATIENCE = 120.0
MARKS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}


def doctor(flags: Flags) -> ExitCode | None:
    """Look at this machine: versions, devices, memory, disk, extras, plugins, and a self-test.

    The self-test draws a few phantoms, trains `custom1` on them for one epoch, exports it and compares the exported
    model with the trained one, through the same commands a user types; it takes a few seconds. Exit status 4 if
    something does not work. `-q` prints what does not work and nothing else; `--json` everything; the text is fit for a
    bug report: it holds neither your paths nor your names.

    Examples:
        medcli doctor
        medcli doctor --json
    """
    output = Output(flags.output(), "doctor")
    findings = [*packages(), *extras(), *plugins(), *places()]
    findings += devices(*_answer("medcli.doctor.device_child", {}))
    findings.append(_selftest())
    problems = [one for one in findings if one.status == "problem"]
    status = ExitCode.LIMIT if problems else ExitCode.DONE
    output.answer(
        {"findings": [_plain(one) for one in findings], "problems": len(problems)},
        lambda: _text(findings),
        identifier="\n".join(without_private_paths(f"{one.name}: {one.value}") for one in problems),
        status=status,
    )
    return status


def _selftest() -> Finding:
    with_export = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
    said, death = _answer("medcli.cli.selftest", {"with_export": with_export})
    advice = "`medcli train custom1 --data synthetic/chest --limit 24 --image-size 32 --epochs 1 --debug` says more"
    if said is None:
        return Finding("self-test", "train", death, "problem", advice)
    seconds = ", ".join(f"{name} {taken:.1f} s" for name, taken in said["seconds"].items())
    if said["failed"]:
        return Finding("self-test", said["failed"], f"{said['reason']} ({seconds})", "problem", advice)
    if not with_export:
        hint = f"`{install_line(('medcli[export]',))}` lets it export and compare too"
        return Finding("self-test", "train", seconds, "note", hint)
    return Finding("self-test", "train, export, compare", f"{seconds}; largest difference {said['difference']:.1e}")


def _answer(module: str, request: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """What a child said, or None and how it ended."""
    (ended,) = run_jobs(module, ["look"], request=request, timeout=PATIENCE)
    return (dict(ended.result), "") if ended.result is not None else (None, ended.death)


def _plain(one: Finding) -> dict[str, str]:
    return {
        "section": one.section,
        "name": one.name,
        "value": without_private_paths(one.value),
        "status": one.status,
        "advice": one.advice,
    }


def _text(findings: list[Finding]) -> str:
    width = max(len(one.name) for one in findings)
    parts = []
    for section, rows in groupby(findings, key=lambda one: one.section):
        lines = [f"{section}:"]
        for one in rows:
            mark = "" if one.status == "ok" else f"  [{MARKS[one.status]}]"
            lines.append(f"  {one.name.ljust(width)}  {without_private_paths(one.value)}{mark}")
            if one.advice:
                lines.append(f"  {' ' * width}  {one.advice}")
        parts.append("\n".join(lines))
    problems = sum(one.status == "problem" for one in findings)
    parts.append("everything works" if not problems else f"{problems} problem{'s' if problems > 1 else ''}")
    return "\n\n".join(parts)
