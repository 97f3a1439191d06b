"""Schedules: their ends, their peaks, and the formula of each."""

from __future__ import annotations

import math

import pytest

from medcli.settings.groups import TrainingSettings
from medcli.training.schedules import EXTENSION_FACTOR, PLATEAU_PATIENCE, Plateau, Schedule


def schedule(**settings: object) -> Schedule:
    return Schedule.of(TrainingSettings(epochs=10, lr=1e-3, **settings), steps_per_epoch=10)  # type: ignore[arg-type]


def test_cosine_rises_then_falls_to_the_floor() -> None:
    own = schedule(scheduler="cosine", warmup_epochs=2, min_lr=1e-5)
    assert own.factor(0) == pytest.approx(0.01)
    assert own.factor(20) == pytest.approx(1)
    assert own.factor(60) == pytest.approx(0.01 + 0.99 * 0.5)
    assert own.factor(99) == pytest.approx(0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * 79 / 80)))
    rising = [own.factor(step) for step in range(21)]
    assert rising == sorted(rising)


def test_step_drops_at_its_shares() -> None:
    own = schedule(scheduler="step", warmup_epochs=0, step_at=(0.5, 0.75), step_gamma=0.1)
    assert [own.factor(step) for step in (0, 49, 50, 74, 75, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_onecycle_peaks_at_three_tenths() -> None:
    own = schedule(scheduler="onecycle", warmup_epochs=0)
    factors = [own.factor(step) for step in range(100)]
    assert max(range(100), key=factors.__getitem__) == 30
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[99] < 0.01


def test_constant_stays_after_warm_up() -> None:
    own = schedule(scheduler="constant", warmup_epochs=1)
    assert own.factor(0) < 0.02
    assert {own.factor(step) for step in range(10, 100)} == {1.0}


def test_beyond_the_plan_the_rate_is_a_tenth_of_the_peak() -> None:
    assert schedule(scheduler="cosine").factor(100) == EXTENSION_FACTOR


def test_warm_up_longer_than_the_run_still_leaves_a_step() -> None:
    own = Schedule.of(TrainingSettings(epochs=1, warmup_epochs=5), steps_per_epoch=4)
    assert own.factor(3) == pytest.approx(1)


def test_plateau_waits_then_drops_and_respects_the_floor() -> None:
    state = Plateau()
    for _ in range(PLATEAU_PATIENCE):
        state = state.observe(False, 0.1)
    assert state.factor == 1
    state = state.observe(False, 0.1)
    assert state == Plateau(0.1, 0)
    assert state.observe(True, 0.1).factor == 0.1
    own = schedule(scheduler="plateau", warmup_epochs=0, min_lr=1e-4)
    assert own.factor(5, 0.5) == 0.5
    assert own.factor(5, 1e-9) == pytest.approx(0.1)
