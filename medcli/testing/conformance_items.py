"""The promises of `medcli.plugin`, checked by one line in an author's tests.

    from medcli.testing import conformance

    test_conformance = conformance("medcli-echo")

gives one test per check and architecture. Collecting them reads names and cards and imports neither the plugin nor
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from medcli.registry.discovery import discover
from medcli.testing.checks.subject import Plan, Subject, subjects_of
from medcli.testing.checks.table import ARCHITECTURE, DIFFERENCE, PACKAGE, Case, cases_of

__all__ = ["CHECKS", "conformance"]

CHECKS: Mapping[str, str] = {check.name: check.about for check in (*PACKAGE, *ARCHITECTURE, *DIFFERENCE)}
"""Name of each check to what it demands."""


def conformance(
    target: str,
    *,
    options: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    seconds: float | None = None,
    megabytes: float | None = None,
    only: Sequence[str] = (),
    expected_failures: Mapping[str, str] | None = None,
) -> Callable[..., None]:
    """A test function to bind to a name that pytest collects.

    Args:
        target: an installed distribution (all it offers is checked), or one architecture or difference model.
        options: architecture options that make a small network of the same kind for the checks that compute; what the
            card says is checked on the network it describes, without memory for weights.
        image_size: side of the images of those checks in pixels; by default the valid one nearest to 64.
        seconds: processor time allowed for import, build and one image; by default 30 s and 0.3 s per million
            parameters of the card.
        megabytes: memory allowed for the same; by default 1 GiB and 16 MiB per million parameters.
        only: names of checks to make (default: all); see `CHECKS`.
        expected_failures: `check`, or `architecture:check`, to the reason why it fails. A check that passes all the
            same is then an error, so that the list never outlives its reasons.

    Raises:
        ValueError: `only` or `expected_failures` names no check.

    Examples:
        >>> test_conformance = conformance("medcli-echo", only=["card"])
        >>> [mark.name for mark in test_conformance.pytestmark]
        ['parametrize']
    """
    expected = dict(expected_failures or {})
    package = subjects_of(target, discover())
    plan = Plan(options or {}, image_size, seconds, megabytes)
    cases = [case for case in cases_of(package, plan) if not only or case.check.name in only]
    unknown = [name for name in only if name not in CHECKS]
    unknown += [name for name in expected if name.rpartition(":")[2] not in CHECKS]
    if unknown:
        raise ValueError(f"no check is called {unknown[0]!r}; there are {', '.join(CHECKS)}")
    parameters = [pytest.param(case, id=case.name, marks=_marks(case, expected)) for case in cases]

    @pytest.mark.parametrize("case", parameters)
    def test_conformance(case: Case) -> None:
        __tracebackhide__ = True
        _forget_others(case, cases)
        verdict = case.verdict()
        if verdict.outcome == "skipped":
            pytest.skip(verdict.reason)
        if verdict.outcome == "failed":
            pytest.fail(f"{case.owner} fails `{case.check.name}` ({case.check.about}): {verdict.reason}", pytrace=False)

    test_conformance.__doc__ = f"`{target}` keeps the promises of `medcli.plugin`."
    return test_conformance


def _marks(case: Case, expected: Mapping[str, str]) -> list[pytest.MarkDecorator]:
    reason = expected.get(f"{case.owner}:{case.check.name}") or expected.get(case.check.name)
    return [pytest.mark.xfail(reason=reason, strict=True)] if reason else []


def _forget_others(case: Case, cases: Sequence[Case]) -> None:
    """One network is kept at a time, whatever the number of architectures."""
    for other in cases:
        if isinstance(other.of, Subject) and other.of is not case.of:
            other.of.release()
