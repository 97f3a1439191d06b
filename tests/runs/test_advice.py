"""Advice from curves drawn by hand: each kind appears where it should, and silence where nothing is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from medcli.runs.advice import advise


def rows(train: list[float], val: list[float] | None = None, **more: Any) -> list[dict[str, Any]]:
    val = train if val is None else val
    lowest = min(range(len(val)), key=val.__getitem__)
    return [
        {
            "epoch": index,
            "train_loss": loss,
            "val_loss": val[index],
            "val_auc": 0.8,
            "val_balanced_accuracy": 0.71,
            "best": index <= lowest,
            "seconds": 10.0,
            "images_per_second": 300.0,
            **more,
        }
        for index, loss in enumerate(train)
    ]


def codes(*arguments: Any, **named: Any) -> list[str]:
    return [one.code for one in advise(*arguments, **named)]


FALLING = [1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
RISING = [0.9, 0.7, 0.6, 0.65, 0.7, 0.8, 0.9, 1.0]
SETTLED = [1.0, 0.7, 0.5, 0.45, 0.44, 0.44, 0.44, 0.44]


def test_a_good_training_gets_no_advice() -> None:
    assert advise(rows(SETTLED), {"lr": 1e-3, "scheduler": "cosine"}) == ()


def test_a_short_training_is_not_judged() -> None:
    assert advise(rows(FALLING[:3], RISING[:3]), {}) == ()


def test_over_fitting_is_said_with_its_figures_and_a_flag_not_used_yet() -> None:
    (first, *_) = advise(rows(FALLING, RISING), {"augment": "none", "dropout": 0.0})
    assert first.code == "over-fitting"
    assert "0.600 (epoch 3) to 0.900" in first.seen
    assert "`--augment medium`" in first.advice
    (again, *_) = advise(rows(FALLING, RISING), {"augment": "heavy", "dropout": 0.5, "weight_decay": 0.0})
    assert "augment" not in again.advice
    assert "`--weight-decay 0.05`" in again.advice
    (tuned, *_) = advise(
        rows(FALLING, RISING),
        {"augment": "heavy", "dropout": 0.5, "weight_decay": 0.1, "strategy": "full"},
        command="finetune",
    )
    assert "medcli lora" in tuned.advice


def test_a_validation_loss_above_the_training_loss_is_not_over_fitting_by_itself() -> None:
    assert codes(rows(SETTLED, [value + 0.5 for value in SETTLED]), {}) == []


@pytest.mark.parametrize(
    ("command", "settings", "code", "flag"),
    [
        ("train", {"lr": 1e-4}, "not-learning", "--overfit-batch"),
        ("train", {"lr": 1e-4}, "not-learning", "--lr 0.001"),
        ("lora", {"rank": 8}, "underfitting", "--rank 16"),
        ("finetune", {"strategy": "frozen"}, "underfitting", "--strategy layerwise"),
    ],
)
def test_a_loss_that_does_not_move(command: str, settings: dict[str, Any], code: str, flag: str) -> None:
    (first, *_) = advise(rows([0.693, 0.692, 0.691, 0.69, 0.69]), settings, command=command)
    assert first.code == code
    assert flag in first.advice


def test_an_auc_at_chance_is_not_learning_even_if_the_loss_falls() -> None:
    assert codes(rows(FALLING, RISING, val_auc=0.52), {})[0] == "not-learning"


def test_a_jump_of_the_loss_asks_for_a_lower_rate() -> None:
    (first, *_) = advise(rows([1.0, 0.5, 0.4, 1.6, 0.5, 0.4]), {"lr": 3e-3, "scheduler": "cosine"})
    assert first.code == "unstable"
    assert "`--lr 0.001`" in first.advice


@pytest.mark.parametrize(("classes", "weights", "expected"), [(2, "none", True), (5, "none", True), (2, "sqrt", False)])
def test_one_class_for_everything(classes: int, weights: str, expected: bool) -> None:
    curves = rows(SETTLED, val_balanced_accuracy=1 / classes)
    assert ("one-class" in codes(curves, {"class_weights": weights})) is expected


def test_a_training_that_was_still_getting_better() -> None:
    assert codes(rows(FALLING), {"scheduler": "none"}, stopped_early=True) == []
    (only,) = advise(rows(FALLING), {"scheduler": "none"}, run="runs/x")
    assert only.advice == "`medcli train --resume runs/x --extend 5`"
    (annealed,) = advise(rows(FALLING), {"scheduler": "onecycle"})
    assert annealed.advice == "`--epochs 16`"


def test_slow_is_said_only_when_it_cost_time() -> None:
    slow = rows(SETTLED, seconds=600.0, images_per_second=4.0)
    assert codes(slow, {}) == ["slow"]
    assert codes(rows(SETTLED, seconds=1.0, images_per_second=4.0), {}) == []


def test_no_more_than_two_pieces() -> None:
    curves = rows([0.693, 0.693, 0.692, 2.9, 0.692], val_balanced_accuracy=0.5, seconds=900.0, images_per_second=2.0)
    assert len(advise(curves, {})) == 2


def test_missing_figures_are_no_figures() -> None:
    bare = [{"epoch": index, "train_loss": loss, "val_loss": None, "best": False} for index, loss in enumerate(SETTLED)]
    assert advise(bare, {}) == ()
