"""The state of every installed entry as `plugins list` shows it: from metadata and cards, nothing is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from medcli.errors import MedcliError, UsageProblem, nearest
from medcli.registry.cards import card_problems, read_card
from medcli.registry.discovery import CORE, Entry, Problem, Registry, discover
from medcli.registry.layout import install_line
from medcli.registry.requirements import unmet

__all__ = ["Inspected", "chosen", "inspect"]

Status = Literal["ok", "problem", "ambiguous", "unavailable", "excluded"]


@dataclass(frozen=True)
class Inspected:
    """One entry and what is known against it.

    Args:
        distribution: it belongs to; a file name where even that cannot be read.
        version: of the distribution; empty if unknown.
        name: of the entry; empty for a distribution none of whose names can be read.
        group: entry-point group; empty with `name`.
        status: `excluded` by MEDCLI_PLUGINS, `problem` (it cannot be used), `unavailable` (something it needs is not
            installed), `ambiguous` (only its qualified name works) or `ok`.
        reason: one sentence; empty for `ok`.
        hint: what to do.
        entry: the entry itself, where there is one.
    """

    distribution: str
    version: str
    name: str
    group: str
    status: Status
    reason: str = ""
    hint: str = ""
    entry: Entry | None = None

    @property
    def qualified(self) -> str:
        """`distribution/name`, or the distribution alone."""
        return f"{self.distribution}/{self.name}" if self.name else self.distribution


def inspect(environ: Mapping[str, str] | None = None) -> tuple[Inspected, ...]:
    """Every installed entry, those that MEDCLI_PLUGINS leaves out included, by distribution and name.

    Raises:
        UsageProblem: MEDCLI_PLUGINS names a distribution that is not installed.
    """
    given = dict(os.environ if environ is None else environ)
    given.pop("MEDCLI_STRICT_PLUGINS", None)  # this is where one looks for what strictness refuses
    allowed = discover(given)
    everything = discover({**given, "MEDCLI_PLUGINS": ""}) if given.get("MEDCLI_PLUGINS") else allowed
    seen = set(allowed.entries)
    problems = (*everything.problems, *card_problems(everything))
    rows = [
        _status(entry, allowed, problems) if entry in seen else _excluded(entry, given) for entry in everything.entries
    ]
    placed = {(row.distribution, row.name) for row in rows}
    for problem in problems:
        # An entry that was refused has no row of its own, nor has a fault of a distribution without entries.
        offers = any(row.distribution == problem.distribution for row in rows)
        if (problem.entry and (problem.distribution, problem.entry) not in placed) or (
            not problem.entry and not offers
        ):
            rows.append(
                Inspected(
                    problem.distribution, problem.version, problem.entry, "", "problem", problem.cause, problem.hint
                )
            )
    return tuple(sorted(rows, key=lambda row: (row.distribution != CORE, row.distribution)))


def chosen(rows: tuple[Inspected, ...], names: tuple[str, ...]) -> tuple[Inspected, ...]:
    """The rows that the names mean, each of them a distribution, an entry's name or its qualified name.

    Without names: everything that is not medcli's own.

    Raises:
        UsageProblem: `unknown-plugin`, with the nearest names.
    """
    if not names:
        return tuple(row for row in rows if row.distribution != CORE)
    found: dict[Inspected, None] = {}
    for name in names:
        plain = name.lower().replace("_", "-")
        matches = [row for row in rows if row.distribution == plain] or [
            row for row in rows if name in (row.name, row.qualified)
        ]
        if not matches:
            known = dict.fromkeys([*(row.distribution for row in rows), *(row.name for row in rows if row.name)])
            near = ", ".join(f"`{one}`" for one in nearest(name, known))
            raise UsageProblem(
                f"nothing installed is called `{name}`",
                hint=f"did you mean {near}?" if near else "`medcli plugins list` shows what is installed",
                code="unknown-plugin",
            )
        found.update(dict.fromkeys(matches))
    return tuple(found)


def _status(entry: Entry, registry: Registry, problems: tuple[Problem, ...]) -> Inspected:
    own = [
        problem
        for problem in problems
        if problem.distribution == entry.distribution and problem.entry in {entry.name, ""}
    ]
    if own:
        reason = "; ".join(dict.fromkeys(problem.cause for problem in own))
        hint = next((problem.hint for problem in own if problem.hint), f"tell the authors of `{entry.distribution}`")
        return _row(entry, "problem", reason, hint)
    try:
        card = read_card(entry)
    except MedcliError as error:
        return _row(entry, "problem", error.message, error.hint or "")
    missing = unmet(card.requires) if card else ()
    if missing:
        return _row(entry, "unavailable", f"needs {', '.join(missing)}, which is not installed", install_line(missing))
    if entry.name in registry.ambiguous(entry.group):
        others = sorted(
            one.distribution
            for one in registry.entries
            if (one.group, one.name) == (entry.group, entry.name) and one != entry
        )
        return _row(entry, "ambiguous", f"also offered by {', '.join(others)}", f"use `{entry.qualified}`")
    return _row(entry, "ok")


def _excluded(entry: Entry, environ: Mapping[str, str]) -> Inspected:
    reason = f"left out by MEDCLI_PLUGINS={environ.get('MEDCLI_PLUGINS', '')}"
    return _row(entry, "excluded", reason, f"add `{entry.distribution}` to it, or unset it")


def _row(entry: Entry, status: Status, reason: str = "", hint: str = "") -> Inspected:
    return Inspected(entry.distribution, entry.version, entry.name, entry.group, status, reason, hint, entry)
