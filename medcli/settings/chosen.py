"""Which settings somebody chose: what a command hands on to the trainings that it begins in the user's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medcli.settings.resolve import Resolved
from medcli.settings.toml_files import read_toml

__all__ = ["chosen_settings"]


def chosen_settings(resolved: Resolved, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings somebody chose, be it in a file; what a run's own record merely repeats was not chosen.

    Args:
        resolved: of the command that hands them on.
        given: its flags, of which `config` matters.
    """
    repeated: set[str] = set()
    if given.get("config"):
        path = Path(given["config"]).expanduser()
        document = read_toml(path / "config.toml" if path.is_dir() else path)
        if "origins" in document.values:
            repeated = set(resolved.values) - set(document.below("origins").values)
    return {
        name: value
        for name, value in resolved.values.items()
        if resolved.origin(name).layer not in ("default", "recipe")
        and not (resolved.origin(name).layer == "config file" and name in repeated)
    }
