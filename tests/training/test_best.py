"""The best epoch: which way is better, NaN, ties, and patience."""

from __future__ import annotations

import math

import pytest

from medcli.data.target import Target
from medcli.training.best import Best, default_monitor


def test_higher_is_better_except_for_the_loss() -> None:
    best = Best("auc").observe(0, 0.7).observe(1, 0.8).observe(2, 0.75)
    assert (best.epoch, best.value, best.waited) == (1, 0.8, 1)
    best = Best("loss").observe(0, 0.7).observe(1, 0.8).observe(2, 0.6)
    assert (best.epoch, best.value) == (2, 0.6)


def test_a_tie_keeps_the_earlier_epoch() -> None:
    assert Best("auc").observe(0, 0.7).observe(1, 0.7).epoch == 0


def test_nan_never_beats_a_figure_but_the_first_epoch_always_counts() -> None:
    best = Best("auc").observe(0, math.nan)
    assert best.epoch == 0
    assert best.observe(1, 0.1).epoch == 1
    assert best.observe(1, 0.1).observe(2, math.nan).epoch == 1


@pytest.mark.parametrize(("patience", "exhausted"), [(0, False), (3, True), (4, False)])
def test_patience(patience: int, exhausted: bool) -> None:
    best = Best("auc").observe(0, 0.9)
    for epoch in range(1, 4):
        best = best.observe(epoch, 0.5)
    assert best.exhausted(patience) is exhausted


def test_ordinal_targets_are_monitored_by_kappa() -> None:
    assert default_monitor(Target("ordinal", ("0", "1", "2"))) == "qwk"
    assert default_monitor(Target("multilabel", ("x", "y"))) == "auc"
