"""How a row of the table of commands is written, and what several rows say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from medcli.settings.fields import Field, fields_of
from medcli.settings.groups import OutputSettings

__all__ = [
    "FIXED_BY_RUN",
    "IMAGE_STORE",
    "OF_CLASSES",
    "OF_IMAGES",
    "OF_LABELS",
    "OF_TABLES",
    "OF_WEIGHTS",
    "SOURCES",
    "WRITING",
    "CommandSettings",
    "Part",
    "answering",
]


@dataclass(frozen=True)
class Part:
    """A group, or some of its fields.

    Args:
        group: one of the dataclasses of `medcli.settings.groups`.
        only: the fields taken; empty for all.
        without: the fields left out.
        words: for a field whose words are not all meant here, those that are.
    """

    group: type
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def fields(self) -> tuple[Field, ...]:
        """The fields taken, in the group's order."""
        return tuple(
            replace(item, choices=self.words[item.name]) if item.name in self.words else item
            for item in fields_of(self.group)
            if (not self.only or item.name in self.only) and item.name not in self.without
        )


@dataclass(frozen=True)
class CommandSettings:
    """What one command takes.

    Args:
        name: as typed, such as `models list`.
        parts: groups or parts of them, in the order of its help.
        layered: whether files and variables may set its fields (others take flags alone).
        architecture: whether it takes an architecture, so that a file may name one and a card's recipe applies.
    """

    name: str
    parts: tuple[Part, ...]
    layered: bool = False
    architecture: bool = False

    @property
    def groups(self) -> tuple[type, ...]:
        """The dataclasses that `Resolved.group` can fill."""
        return tuple(part.group for part in self.parts)

    @cached_property
    def fields(self) -> Mapping[str, Field]:
        """Every setting of the command by name, in the order of its help."""
        return {item.name: item for part in self.parts for item in part.fields()}

    @property
    def table(self) -> str:
        """Its table in a configuration file: `train`, `data-check`."""
        return self.name.replace(" ", "-")

    @property
    def variable_prefix(self) -> str:
        """The start of its own variables: `MEDCLI_TRAIN_`, `MEDCLI_DATA_CHECK_`."""
        return f"MEDCLI_{self.name.replace(' ', '_').upper()}_"


_ANSWER = ("json", "quiet", "debug", "no_color")
SOURCES = ("config",)
WRITING = ("out", "overwrite", "yes", "no_input")
OF_IMAGES = ("png", "nifti")
# A run fixes how its images become tensors, so another size or normalisation would measure another model. An
# architecture with weights of its own has no run, and takes them.
FIXED_BY_RUN = ("image_size", "fit", "in_channels", "mean", "std")
OF_WEIGHTS = ("weights", "pretrained", "arch_opt")
IMAGE_STORE = ("cache", "cache_limit")
OF_LABELS = ("label_column", "ordinal_column", "patient_column", "class_names", "positive_class", "task")
# What is said about a table of predictions, of medcli or of another tool.
OF_TABLES = ("id_column", "prob_columns", "logit_columns", *OF_LABELS)
# What learns classes has other losses and figures than what learns maps of change.
OF_CLASSES = {
    "loss": ("ce", "focal", "bce", "asl", "corn", "coral"),
    "monitor": ("auc", "qwk", "accuracy", "balanced_accuracy", "f1", "loss"),
}


def answering(*names: str) -> Part:
    """What every command answers with, and of what else is said about answers the fields `names`."""
    return Part(OutputSettings, only=(*_ANSWER, *names))
