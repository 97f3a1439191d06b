"""The command to type, made of flags that exist: where a command is not there yet, the nearest one that is."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from medcli.recommend.candidates import Candidate
from medcli.recommend.situation import Situation
from medcli.settings.commands import COMMANDS, CommandSettings

__all__ = ["Typed", "baseline_command", "training_command"]

ONE_RATE = "full"  # the recipe for a single learning rate, where a strategy with several is not available
DATA, FILE = "DATA", "FILE"  # what the user has to fill in


@dataclass(frozen=True)
class Typed:
    """A command line.

    Args:
        text: complete, to be pasted into a shell.
        words: the same, split.
        lacking: the command that the strategy asks for and that does not exist; empty for none.
        instead: what this one does in its place.
        cached: whether it reads trained weights from the cache.
    """

    text: str
    words: tuple[str, ...]
    lacking: str = ""
    instead: str = ""
    cached: bool = False


def training_command(
    candidate: Candidate, strategy: str, weights: str, values: Mapping[str, Any], now: Situation
) -> Typed:
    """The command that trains by a strategy.

    Args:
        candidate: an installed architecture.
        strategy: `scratch`, `frozen`, `layerwise`, `gradual`, `full`, `lp-ft` or `lora`.
        weights: tag of the card; empty for its default.
        values: further settings by name.
        now: with the settings of the data.
    """
    if strategy == "scratch":
        return _typed("train", candidate, values, now)
    if strategy == "lora" and "lora" in COMMANDS:
        return _typed("lora", candidate, {**_weights("lora", candidate, weights), **values}, now)
    if strategy != "lora" and "finetune" in COMMANDS:
        chosen = {"strategy": strategy, **_weights("finetune", candidate, weights), **values}
        return _typed("finetune", candidate, chosen, now)
    nearest = "frozen" if strategy in {"frozen", "lora"} else ONE_RATE
    start = _weights("train", candidate, weights)
    frozen = {"freeze_backbone": True} if nearest == "frozen" else {}
    typed = _typed("train", candidate, {**start, **frozen, **_recipe(candidate, nearest), **values}, now)
    if strategy in {"frozen", "full"}:
        return typed
    instead = "trains the head alone" if nearest == "frozen" else "trains everything at one low rate"
    return replace(typed, lacking="lora" if strategy == "lora" else "finetune", instead=instead)


def baseline_command(candidate: Candidate, weights: str, values: Mapping[str, Any], now: Situation) -> Typed:
    """The frozen probe: trained features, a new head, nothing else learns."""
    return training_command(candidate, "frozen", weights, values, now)


def _weights(command: str, candidate: Candidate, weights: str) -> dict[str, Any]:
    """The trained weights as a setting; commands other than `train` start from a card's default by themselves."""
    card = candidate.card
    tag = weights or card.default_weights or (card.weights[0].tag if card.weights else FILE)
    if tag != card.default_weights:
        return {"weights": tag}
    return {"pretrained": True} if command == "train" else {}


def _recipe(candidate: Candidate, strategy: str) -> dict[str, Any]:
    """Rate and epochs of the card's recipe; `train` by itself takes the one for random weights."""
    recipes = candidate.card.recipes
    recipe = {**recipes.get("any", {}), **recipes.get(strategy, {})}
    return {name: recipe[name].value for name in ("lr", "epochs") if name in recipe}


def _typed(command: str, candidate: Candidate, values: Mapping[str, Any], now: Situation) -> Typed:
    settings = COMMANDS[command]
    data = now.typed or {"data": (DATA,)}
    words = ["medcli", *command.split(), candidate.label]
    for name, value in {**data, **values}.items():
        words += _flag(settings, name, value)
    cached = values.get("weights") != FILE and (
        command in {"finetune", "lora"} or bool({"pretrained", "weights"} & set(values))
    )
    return Typed(shlex.join(words), tuple(words), cached=cached)


def _flag(settings: CommandSettings, name: str, value: Any) -> list[str]:
    """A flag with its value as words; nothing for one that the command lacks or that says what is default anyway."""
    field = settings.fields.get(name)
    if field is None or (field.choices and value not in field.choices and not field.many):
        return []
    if value == field.default and not field.option.from_recipe:
        return []
    if field.base is bool:
        return [field.flag] if value else []
    many = value if isinstance(value, tuple | list) else (value,)
    if field.comma_split and field.many:
        return [field.flag, ",".join(_text(one) for one in many)]
    return [word for one in many for word in (field.flag, _text(one))]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
