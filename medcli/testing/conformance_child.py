"""The child of `plugins check`: makes the checks of `medcli.testing` one after another and says how each ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from medcli.errors import MedcliError
from medcli.registry.cards import parse_options, read_card
from medcli.registry.children import serve
from medcli.registry.discovery import discover
from medcli.testing.checks.subject import Package, Plan, Subject, subjects_of
from medcli.testing.checks.table import Case, cases_of

__all__ = ["ALL", "check"]

ALL = "?"
"""The job that lists the others: the parent cannot, because what it checks may lie on the child's path alone."""


def check(job: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Make one check.

    Args:
        job: its name as `ALL` gives it, or `ALL`.
        request: `target` as for `conformance`, `options` as `KEY=VALUE`, `image_size`.

    Returns:
        `outcome` and `reason`; for `ALL` the `cases` (name, owner, check, about), or an `error` (message, where, hint).
    """
    asked = json.dumps([request["target"], request["options"], request["image_size"]])
    if job == ALL:
        try:
            cases = _cases(asked)
        except MedcliError as error:
            return {"error": [error.message, error.where, error.hint]}
        for case in cases.values():
            if isinstance(case.of, Package) and case.of.unknown:
                return {"error": [case.of.problem, None, "`medcli plugins list` shows what is installed"]}
        return {"cases": [[name, case.owner, case.check.name, case.check.about] for name, case in cases.items()]}
    cases = _cases(asked)
    case = cases[job]
    for other in cases.values():  # one network is kept at a time
        if isinstance(other.of, Subject) and other.of is not case.of:
            other.of.release()
    verdict = case.verdict()
    return {"outcome": verdict.outcome, "reason": verdict.reason}


@lru_cache(maxsize=1)
def _cases(asked: str) -> Mapping[str, Case]:
    target, pairs, image_size = json.loads(asked)
    package = subjects_of(target, discover())
    options: dict[str, Any] = {}
    for entry in package.entries:
        if pairs and not entry.is_namespace:
            options |= parse_options(entry, read_card(entry), pairs)
    return {case.name: case for case in cases_of(package, Plan(options, image_size))}


if __name__ == "__main__":
    serve(check)
