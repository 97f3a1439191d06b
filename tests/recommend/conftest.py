"""Recommendations without whatever plugins happen to be installed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from medcli.recommend.candidates import Candidate, candidates
from medcli.recommend.engine import Advice, recommend
from medcli.recommend.rules import rules
from medcli.recommend.situation import Situation
from medcli.registry.discovery import discover


@pytest.fixture(scope="session")
def offered() -> tuple[Candidate, ...]:
    return candidates(discover({"MEDCLI_PLUGINS": "none"}), rules())


@pytest.fixture
def advise(offered: tuple[Candidate, ...]) -> Callable[..., Advice]:
    def advise(**known: object) -> Advice:
        return recommend(Situation(**known), offered, rules())  # type: ignore[arg-type]

    return advise
