"""What the commands take that read, make or keep images."""

from __future__ import annotations

from medcli.settings.command_rows.command import (
    FIXED_BY_RUN,
    IMAGE_STORE,
    OF_IMAGES,
    SOURCES,
    WRITING,
    CommandSettings,
    Part,
    answering,
)
from medcli.settings.groups import (
    CacheSettings,
    ComputeSettings,
    DataCheckSettings,
    DataSettings,
    FormatSettings,
    PairSynthSettings,
    SynthSettings,
)

__all__ = ["DATA"]

DATA: tuple[CommandSettings, ...] = (
    CommandSettings(
        "data check",
        (
            Part(DataSettings, without=(*FIXED_BY_RUN, *IMAGE_STORE, "skip_unreadable", "limit", "positive_class")),
            Part(DataCheckSettings),
            Part(ComputeSettings, only=("workers",)),
            answering(*SOURCES, "verbose", "no_progress"),
        ),
        layered=True,
    ),
    CommandSettings(
        "data inspect",
        (Part(DataSettings, only=("window",)), answering(*SOURCES, "out", "overwrite")),
        layered=True,
    ),
    CommandSettings(
        "data synth",
        (
            Part(SynthSettings),
            Part(PairSynthSettings),
            Part(FormatSettings, words={"format": OF_IMAGES}),
            Part(DataSettings, only=("task", "patient_pattern")),
            Part(ComputeSettings, only=("seed", "workers")),
            answering(*SOURCES, *WRITING, "no_progress"),
        ),
        layered=True,
    ),
    CommandSettings("data cache", (Part(CacheSettings), answering("yes", "no_input"))),
)
