"""Named sets of settings, each with the sentence that says where it comes from. They are data, in `presets.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from medcli.errors import UsageProblem, nearest
from medcli.settings.layers import Layer
from medcli.settings.toml_files import read_toml

__all__ = ["Preset", "find_preset", "preset_layer", "presets"]


_TRAINS = {"ensemble": ("train", "finetune", "lora")}
"""Commands that hand their settings on to others."""


@dataclass(frozen=True)
class Preset:
    """One preset.

    Args:
        name: what `--preset` takes.
        summary: half a sentence for the list.
        source: where its values come from.
        settings: field name -> value.
        commands: the commands it is for.
    """

    name: str
    summary: str
    source: str
    settings: Mapping[str, Any]
    commands: tuple[str, ...]


@cache
def presets() -> Mapping[str, Preset]:
    """Every preset by name, in the order of the file."""
    document = read_toml(Path(__file__).with_name("presets.toml"))
    return {
        name: Preset(
            name,
            table["summary"],
            table["source"],
            table["settings"],
            tuple(table.get("commands", ("train", "finetune"))),
        )
        for name, table in document.values.items()
    }


def find_preset(name: str) -> Preset:
    """The preset of that name. Raises `UsageProblem` with the nearest names."""
    if name not in presets():
        close = nearest(name, presets())
        hint = f"did you mean `{close[0]}`?" if close else "`medcli config presets` lists them"
        raise UsageProblem(f"there is no preset `{name}`", where="`--preset`", hint=hint, code="unknown-preset")
    return presets()[name]


def preset_layer(name: str, command: str) -> Layer:
    """The values of a preset for a command. Raises `UsageProblem` for an unknown name, or one of another command."""
    preset = find_preset(name)
    if not set(preset.commands) & {command, *_TRAINS.get(command, ())}:
        others = " or ".join(f"`medcli {one} … --preset {name}`" for one in preset.commands)
        raise UsageProblem(
            f"the preset `{name}` is not for `{command}`", where="`--preset`", hint=others, code="other-command"
        )
    return Layer("preset", preset.settings, dict.fromkeys(preset.settings, name))
