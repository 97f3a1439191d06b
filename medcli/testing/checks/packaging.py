"""What a plugin promises before any network exists: names, card, and that nobody pays for it until it is used."""

from __future__ import annotations

import subprocess
import sys

from medcli.registry.card_file import card_file
from medcli.registry.cards import card_problems
from medcli.registry.discovery import ARCHITECTURES, DIFFERENCE_MODELS
from medcli.testing.checks.subject import Package, Subject
from medcli.testing.checks.verdict import fail, skip
from medcli.testing.command import child_environment
from medcli.testing.imports import HEAVY, NoHeavyImports

__all__ = ["card", "import_alone", "listing", "names"]

_SECONDS = 180.0  # a first import of torch from a cold disk takes most of it

_LIST = """
import json
from medcli.registry.cards import card_problems
from medcli.registry.discovery import discover
registry = discover()
card_problems(registry)
print(json.dumps([name for name in {wanted!r} if name in sys.modules]))
"""
_IMPORT = """
import sys
from medcli.errors import MedcliError
from medcli.registry.discovery import discover, find, load_factory
try:
    load_factory(find(discover(), {name!r}, {group!r}))
except MedcliError as error:
    sys.exit(error.message)
"""


def names(package: Package) -> None:
    """Found, well formed, and nobody else's."""
    if package.problem:
        fail(package.problem)
    registry, own = package.registry, set(package.distributions)
    faults = [
        f"`{problem.entry}`: {problem.cause}" if problem.entry else problem.cause
        for problem in registry.problems
        if problem.distribution in own and problem.stage == "discover"
    ]
    for group in (ARCHITECTURES, DIFFERENCE_MODELS):
        shared = registry.ambiguous(group)
        for entry in package.entries:
            if entry.group == group and entry.name in shared:
                others = [one.origin for one in registry.named(group) if one.name == entry.name and one != entry]
                faults.append(f"`{entry.name}` is also offered by {', '.join(others)}")
    if faults:
        fail("; ".join(faults))


def card(package: Package) -> str | None:
    """Valid, and the same names as the entry points."""
    if not package.entries:
        skip("nothing was found whose card could be read")
    wanted = {entry.package for entry in package.entries}
    files = {name: file for name in sorted(wanted) if (file := card_file(name)) is not None}
    if not files:
        skip("it has no `medcli-card.toml`: users see its name and nothing else")
    faults = [
        f"`{problem.entry}`: {problem.cause}" if problem.entry else problem.cause
        for problem in card_problems(package.registry)
        if problem.distribution in package.distributions
    ]
    for entry in package.entries:
        file = files.get(entry.package)
        name = f"{entry.namespace}/*" if entry.variant else entry.name
        if file is not None and name not in file.tables and name not in file.broken and not file.problems:
            section = "architectures" if entry.group == ARCHITECTURES else "difference_models"
            faults.append(f"the entry point `{entry.name}` has no table `[{section}.{name}]` in {file.file}")
    if faults:
        fail("; ".join(faults))
    return None


def listing(package: Package) -> None:
    """Names and cards are read in a process that cannot import torch, and the package stays unimported."""
    import json

    if not package.entries:
        skip("nothing was found that could be listed")
    # What a `.pth` file imported before anything could be refused counts too.
    wanted = [*sorted({entry.package for entry in package.entries} - {"medcli"}), *HEAVY]
    done = NoHeavyImports(timeout=_SECONDS)(_LIST.format(wanted=wanted))
    if done.code != 0:
        fail(f"a process that may not import {', '.join(HEAVY[:3])} failed while listing: {_last_line(done.stderr)}")
    imported = json.loads(done.stdout.strip().splitlines()[-1])
    if imported:
        fail(
            f"listing imported {', '.join(f'`{name}`' for name in imported)}: something runs at interpreter start or "
            "while its metadata is read, such as a `.pth` file of its installation"
        )


def import_alone(subject: Subject) -> None:
    """The factory's module needs nothing that only medcli's own commands import first, and says nothing."""
    entry = subject.entry
    source = _IMPORT.format(name=entry.qualified, group=entry.group)
    try:
        done = subprocess.run(
            [sys.executable, "-c", source],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
            env=child_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        fail(f"importing `{entry.reference}` did not end within {_SECONDS:g} s")
    if done.returncode != 0:
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        fail(f"importing `{entry.reference}` in a fresh process ended with {ended}: {_last_line(done.stderr)}")
    if done.stdout.strip():
        fail(f"importing `{entry.reference}` writes to stdout, where answers go: {done.stdout.strip()[:200]!r}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "it said nothing"
