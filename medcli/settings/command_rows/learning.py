"""What the commands take that train networks for classes: a run, a search over runs, an ensemble of runs."""

from __future__ import annotations

from medcli.settings.command_rows.command import OF_CLASSES, CommandSettings, Part
from medcli.settings.groups import (
    ComputeSettings,
    DataSettings,
    EnsembleSettings,
    ForeignSettings,
    LoraSettings,
    ModelSettings,
    OutputSettings,
    PluginSettings,
    SearchSettings,
    StrategySettings,
    TrainingSettings,
)

__all__ = ["LEARNING"]

_FINETUNED = ("frozen", "layerwise", "gradual", "full", "lp-ft", "knn")
_SEARCHED = ("scratch", "frozen", "layerwise", "gradual", "full", "lp-ft", "lora")

LEARNING: tuple[CommandSettings, ...] = (
    CommandSettings(
        "train",
        (
            Part(DataSettings),
            Part(ModelSettings),
            Part(TrainingSettings, words=OF_CLASSES),
            Part(ComputeSettings),
            Part(OutputSettings),
        ),
        layered=True,
        architecture=True,
    ),
    CommandSettings(
        "finetune",
        (
            Part(DataSettings),
            Part(ModelSettings),
            Part(StrategySettings, words={"strategy": _FINETUNED}),
            # A strategy says what is frozen and for how long; only whole stages may be left out besides.
            Part(TrainingSettings, without=("freeze_backbone",), words=OF_CLASSES),
            Part(ComputeSettings),
            Part(OutputSettings),
        ),
        layered=True,
        architecture=True,
    ),
    CommandSettings(
        "lora",
        (
            Part(DataSettings),
            Part(ModelSettings),
            Part(LoraSettings),
            # The backbone never learns here; whole stages may be left without adapters.
            Part(TrainingSettings, without=("freeze_backbone",), words=OF_CLASSES),
            Part(ComputeSettings),
            Part(OutputSettings),
        ),
        layered=True,
        architecture=True,
    ),
    CommandSettings(
        "search",
        (
            Part(SearchSettings),
            Part(PluginSettings, only=("timeout",)),
            Part(StrategySettings, words={"strategy": _SEARCHED}),
            Part(LoraSettings),
            Part(DataSettings),
            Part(ModelSettings),
            # A trial is a training of its own, begun and ended by the search, in one process.
            Part(
                TrainingSettings,
                without=(
                    "extend",
                    "accept_data_change",
                    "overfit_batch",
                    "checkpoint_every",
                    "processes",
                    "log_with",
                ),
                words=OF_CLASSES,
            ),
            Part(ComputeSettings),
            Part(OutputSettings),
        ),
        layered=True,
        architecture=True,
    ),
    CommandSettings(
        "ensemble",
        (
            Part(EnsembleSettings),
            Part(StrategySettings, words={"strategy": _SEARCHED}),
            Part(LoraSettings),
            Part(DataSettings),
            Part(ModelSettings),
            # Members are trained one after another, each in one process, to their end.
            Part(TrainingSettings, without=("extend", "overfit_batch", "processes", "log_with"), words=OF_CLASSES),
            Part(ComputeSettings),
            Part(ForeignSettings),
            Part(OutputSettings),
        ),
        layered=True,
        architecture=True,
    ),
)
