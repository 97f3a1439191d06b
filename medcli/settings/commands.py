"""Which settings each command takes. Plain standard library: help, completion and the JSON schema read it.

A flag appears only where it acts, so a command may take part of a group. The rows are in `command_rows`, by subject.
"""

from __future__ import annotations

from collections.abc import Mapping

from medcli.settings.command_rows.about import ABOUT
from medcli.settings.command_rows.command import FIXED_BY_RUN, IMAGE_STORE, OF_TABLES, OF_WEIGHTS, CommandSettings, Part
from medcli.settings.command_rows.data import DATA
from medcli.settings.command_rows.diffmap import DIFFMAP
from medcli.settings.command_rows.learning import LEARNING
from medcli.settings.command_rows.trained import TRAINED

__all__ = ["COMMANDS", "FIXED_BY_RUN", "IMAGE_STORE", "OF_TABLES", "OF_WEIGHTS", "CommandSettings", "Part"]

COMMANDS: Mapping[str, CommandSettings] = {
    command.name: command for command in (*LEARNING, *TRAINED, *DATA, *DIFFMAP, *ABOUT)
}
