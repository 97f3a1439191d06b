"""What `--json` promises: a JSON Schema for every command's document, versioned by name.

Adding a field is free; removing or retyping one needs a new number in the document's name. Below the top of a result
every field may be absent or null, since what a command tells depends on what it was given.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["schema_of", "schema_path"]


def schema_path(command: str) -> Path:
    """The file of a command, such as `models list`."""
    return Path(__file__).parent / f"{command.replace(' ', '-')}.json"


def schema_of(command: str) -> dict[str, Any] | None:
    """The schema of a command's document (JSON Schema 2020-12), or None for a command that is not medcli's own."""
    path = schema_path(command)
    if not path.is_file():
        return None
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema
