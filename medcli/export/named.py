"""What the run named for an export holds, told before torch is imported: a wrong name is answered at once."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from medcli.diffmap.spec import SCHEMA
from medcli.errors import MedcliError, UsageProblem
from medcli.registry.cards import read_card
from medcli.registry.discovery import DIFFERENCE_MODELS, discover, find
from medcli.runs.directory import open_run

__all__ = ["holds_difference", "nothing_to_export"]


def holds_difference(path: str) -> bool:
    """Whether a run holds a difference model.

    Raises:
        UsageProblem: there is no such run, or a difference model without weights is named (code `nothing-to-export`).
    """
    if not Path(path).exists():
        _refuse_name(path)
    file = open_run(path).model_file
    if not file.is_file():
        return False
    try:
        with safe_open(str(file), framework="np") as handle:
            return SCHEMA in (handle.metadata() or {}).get("medcli", "")
    except (SafetensorError, OSError):
        # Whoever loads it says what is wrong with it.
        return False


def _refuse_name(name: str) -> None:
    try:
        entry = find(discover(), name, DIFFERENCE_MODELS)
    except MedcliError:
        return
    card = read_card(entry)
    if card is not None and not card.trainable:
        raise nothing_to_export(entry.name)


def nothing_to_export(name: str) -> UsageProblem:
    """The refusal of a difference model that learns nothing."""
    return UsageProblem(
        f"`{name}` has no weights, so there is nothing to export: it subtracts one picture from the other",
        hint="`medcli diffmap predict BASELINE FOLLOWUP` does so anywhere; what `medcli diffmap train` makes can leave",
        code="nothing-to-export",
    )
