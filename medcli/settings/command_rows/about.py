"""What the commands take that tell of medcli itself: its models, plugins, runs, settings and pages."""

from __future__ import annotations

from medcli.settings.command_rows.command import OF_LABELS, SOURCES, CommandSettings, Part, answering
from medcli.settings.groups import (
    CompareSettings,
    ComputeSettings,
    DataSettings,
    EvaluationSettings,
    ForeignSettings,
    ModelListSettings,
    ModelSettings,
    ModelShowSettings,
    NewPluginSettings,
    PluginSettings,
    RecommendSettings,
    SynthSettings,
    TrainingSettings,
)

__all__ = ["ABOUT"]

ABOUT: tuple[CommandSettings, ...] = (
    CommandSettings("models list", (Part(ModelListSettings), Part(TrainingSettings, only=("modality",)), answering())),
    CommandSettings(
        "models show",
        (
            Part(ModelShowSettings),
            Part(DataSettings, only=("image_size", "in_channels")),
            Part(ModelSettings, only=("arch_opt",)),
            answering(),
        ),
    ),
    CommandSettings("models fetch", (Part(ModelSettings, only=("weights",)), answering("no_progress"))),
    CommandSettings(
        "models verify",
        (
            Part(ModelSettings, only=("weights", "arch_opt")),
            Part(DataSettings, only=("image_size", "in_channels")),
            answering(),
        ),
    ),
    CommandSettings(
        "models recommend",
        (
            Part(RecommendSettings),
            Part(SynthSettings, only=("images",)),
            Part(TrainingSettings, only=("modality",)),
            Part(
                DataSettings,
                only=(
                    "data",
                    "image_dir",
                    "image_column",
                    "label_column",
                    "ordinal_column",
                    "ignore_class",
                    "patient_column",
                    "patient_pattern",
                    "split_column",
                    "class_names",
                    "task",
                ),
            ),
            answering(),
        ),
    ),
    CommandSettings("plugins list", (answering(),)),
    CommandSettings("plugins doctor", (Part(PluginSettings, only=("timeout",)), answering("no_progress"))),
    CommandSettings(
        "plugins check",
        (
            Part(PluginSettings),
            Part(DataSettings, only=("image_size",)),
            Part(ModelSettings, only=("arch_opt",)),
            answering("no_progress"),
        ),
    ),
    CommandSettings("plugins new", (Part(NewPluginSettings), answering("out"))),
    CommandSettings("runs list", (answering(),)),
    CommandSettings("runs show", (answering("verbose"),)),
    CommandSettings(
        "runs compare",
        (
            Part(CompareSettings),
            Part(EvaluationSettings, only=("bootstrap",)),
            Part(ForeignSettings),
            Part(DataSettings, only=OF_LABELS),
            Part(ComputeSettings, only=("seed",)),
            answering(),
        ),
    ),
    CommandSettings("config show", (answering(*SOURCES, "preset"),)),
    CommandSettings("config check", (answering(),)),
    CommandSettings("config init", (answering(),)),
    CommandSettings("config schema", (answering(),)),
    CommandSettings("config presets", (answering(),)),
    CommandSettings("completion show", (answering(),)),
    CommandSettings("completion install", (answering("yes", "no_input"),)),
    CommandSettings("doctor", (answering(),)),
    CommandSettings("help", (answering(),)),
    CommandSettings("man", (answering(),)),
)
