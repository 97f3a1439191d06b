"""Every printed command goes through the real command line parser, and says nothing that a card forbids."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from medcli.cli.app import program
from medcli.cli.options import Flags
from medcli.cli.tree import Command, Group
from medcli.cli.typer_adapter import execute
from medcli.recommend import commands as commands_module
from medcli.recommend.candidates import Candidate
from medcli.recommend.commands import Typed, training_command
from medcli.recommend.engine import Advice, Recommendation, recommend
from medcli.recommend.rules import rules
from medcli.recommend.situation import Situation
from medcli.registry.discovery import discover
from medcli.registry.recipes import recipe_source
from medcli.settings.commands import COMMANDS, CommandSettings
from medcli.settings.resolve import resolve

GOALS = ("learn", "prototype", "accuracy", "production", "research", "competition", "speed", "edge")
MEMORY = (0, 4, 6, 8, 12, 16, 24)
SIZES = (None, 500, 1_000, 5_000, 50_000, 100_000, 1_000_000)
TASKS = ((None, None), ("multilabel", 80.0), ("multiclass", 20.0), ("ordinal", 5.0))
DATA = {"data": ("my data/labels.csv",), "label_column": ("dr_grade",), "patient_pattern": r"(p\d+)_"}


@pytest.fixture
def parsed() -> Callable[[Typed], tuple[str, str, dict[str, Any]]]:
    """Reads a command as the program does; the command itself only keeps what it was given."""
    seen: dict[str, Any] = {}

    def listening(command: Command) -> Command:
        @functools.cache
        def load() -> Callable[..., Any]:
            original = command.load()

            @functools.wraps(original)
            def keep(flags: Flags, **positional: Any) -> None:
                seen.update(flags.given, _command=command.name, _architecture=next(iter(positional.values())))

            return keep

        return replace(command, load=load)

    whole = program()
    listened = {
        name: listening(member) if isinstance(member, Command) else member for name, member in whole.members.items()
    }
    quiet: Group = replace(whole, members=listened)

    def read(typed: Typed) -> tuple[str, str, dict[str, Any]]:
        seen.clear()
        assert typed.words[0] == "medcli"
        assert execute(quiet, typed.words[1:], {}) == 0
        given = {name: value for name, value in seen.items() if not name.startswith("_")}
        return seen["_command"], seen["_architecture"], given

    return read


def situations() -> Iterator[Situation]:
    for goal, gpu, images in product(GOALS, MEMORY, SIZES):
        for modality in (None, "chest-xray", "fundus", "ct", "dermoscopy"):
            yield Situation(goal=goal, gpu_gb=gpu, images=images, modality=modality)
        for task, imbalance in TASKS:
            yield Situation(goal=goal, gpu_gb=gpu, images=images, task=task, imbalance=imbalance, typed=DATA)
    for name, known in rules().sets.items():
        for goal, gpu in product(GOALS, MEMORY):
            yield Situation(
                goal=goal, gpu_gb=gpu, images=7_000, modality=known.modality, task=known.task, known_set=name
            )


def commands_of(one: Recommendation) -> list[Typed]:
    return [typed for typed in (one.command, one.baseline) if typed is not None]


@pytest.fixture(scope="module")
def everything(offered: tuple[Candidate, ...]) -> list[Advice]:
    return [recommend(now, offered, rules()) for now in situations()]


def test_every_command_of_every_situation_is_valid(
    everything: list[Advice], parsed: Callable[[Typed], tuple[str, str, dict[str, Any]]]
) -> None:
    different: dict[tuple[str, ...], Typed] = {}
    for advice in everything:
        for one in advice.recommendations:
            assert (one.command is None) == bool(one.install)
            for typed in commands_of(one):
                # The batch is one number among others; each shape of command is parsed with its extremes.
                at = typed.words.index("--batch-size") + 1
                assert int(typed.words[at]) >= 1
                different.setdefault((*typed.words[:at], *typed.words[at + 1 :]), typed)
    assert len(different) > 100
    recipe = recipe_source("train", discover({"MEDCLI_PLUGINS": "none"}))
    for typed in different.values():
        command, architecture, given = parsed(typed)
        resolved = resolve(command, given, architecture=architecture, recipe_for=recipe, environ={})
        assert resolved.architecture == architecture
        assert resolved.values["data"]


def test_no_recommendation_contradicts_a_card(everything: list[Advice]) -> None:
    for advice in everything:
        for one in advice.recommendations:
            card, size = one.candidate.card, one.settings["image_size"].value
            assert card.size.nearest(size) == size
            assert card.trainable
            assert one.candidate.modalities in ((), (advice.situation.modality,))
            if "weights" in one.settings:
                assert card.weight(one.settings["weights"].value) is not None
            if one.settings["strategy"].value == "scratch":
                assert not card.weights
                assert one.command is not None
                assert "--pretrained" not in one.command.words


def test_a_frozen_probe_accompanies_whatever_is_fine_tuned(everything: list[Advice]) -> None:
    for advice in everything:
        for one in advice.recommendations:
            tuned = one.settings["strategy"].value not in {"frozen", "scratch"}
            stand_in = one.command is not None and one.command.lacking == "lora"  # it is a frozen probe itself
            assert (one.baseline is not None) == (tuned and one.candidate.installed and not stand_in)
            if one.baseline and "finetune" not in COMMANDS:
                assert "--freeze-backbone" in one.baseline.words


def test_the_data_is_repeated_as_it_was_given(advise: Callable[..., Advice]) -> None:
    text = advise(typed=DATA).recommendations[0].command
    assert text is not None
    assert text.words[3:9] == (
        "--data", "my data/labels.csv", "--label-column", "dr_grade", "--patient-pattern", r"(p\d+)_",
    )  # fmt: skip
    assert "'my data/labels.csv'" in text.text


@pytest.fixture
def without_finetune(monkeypatch: pytest.MonkeyPatch) -> None:
    left = {name: command for name, command in COMMANDS.items() if name not in {"finetune", "lora"}}
    monkeypatch.setattr(commands_module, "COMMANDS", left)


@pytest.fixture
def with_finetune(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands as their contract has them: all of `train`, which is enough to see which one is chosen."""
    parts = COMMANDS["train"].parts
    more = {name: CommandSettings(name, parts) for name in ("finetune", "lora") if name not in COMMANDS}
    monkeypatch.setattr(commands_module, "COMMANDS", {**COMMANDS, **more})


def command(offered: tuple[Candidate, ...], architecture: str, strategy: str, weights: str = "") -> Typed:
    (candidate,) = [one for one in offered if one.name == architecture]
    return training_command(candidate, strategy, weights, {"batch_size": 8}, Situation())


@pytest.mark.usefixtures("without_finetune")
def test_where_a_strategy_is_missing_the_nearest_training_is_typed(offered: tuple[Candidate, ...]) -> None:
    layerwise = command(offered, "densenet121", "layerwise")
    assert layerwise.text == (
        "medcli train densenet121 --data DATA --pretrained --lr 0.0001 --epochs 30 --batch-size 8"
    )
    assert (layerwise.lacking, layerwise.instead) == ("finetune", "trains everything at one low rate")
    lora = command(offered, "vit_base_patch16_224", "lora")
    assert "--freeze-backbone" in lora.words
    assert (lora.lacking, lora.instead) == ("lora", "trains the head alone")
    assert command(offered, "densenet121", "full").lacking == ""
    assert command(offered, "vit_base_patch16_224", "frozen", "dino").text == (
        "medcli train vit_base_patch16_224 --data DATA --weights dino --freeze-backbone --lr 0.001 --epochs 50 "
        "--batch-size 8"
    )
    assert command(offered, "custom1", "scratch").text == "medcli train custom1 --data DATA --batch-size 8"


@pytest.mark.usefixtures("with_finetune")
def test_where_they_exist_finetune_and_lora_are_typed(offered: tuple[Candidate, ...]) -> None:
    layerwise = command(offered, "densenet121", "layerwise")
    assert layerwise.words[:3] == ("medcli", "finetune", "densenet121")
    assert layerwise.lacking == ""
    assert command(offered, "vit_base_patch16_224", "lora").words[:2] == ("medcli", "lora")
    assert "dino" in command(offered, "vit_base_patch16_224", "frozen", "dino").words
    assert command(offered, "custom1", "scratch").words[1] == "train"


def test_a_flag_that_a_command_lacks_is_left_out(
    offered: tuple[Candidate, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = COMMANDS["train"]
    poorer = replace(train, parts=tuple(replace(part, without=("flip",)) for part in train.parts))
    monkeypatch.setattr(commands_module, "COMMANDS", {"train": poorer})
    (candidate,) = [one for one in offered if one.name == "resnet18"]
    values = {"flip": "both", "augment": "heavier than heavy", "loss": "ce"}
    typed = training_command(candidate, "scratch", "", values, Situation())
    assert typed.text == "medcli train resnet18 --data DATA --loss ce"
