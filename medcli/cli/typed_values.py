"""What was typed after a flag, as the setting's type.

The rules and their wording belong to `medcli.settings.validation`; this only cuts and converts, and asks for validation
where a typed value can be wrong at all, because validation needs pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medcli.errors import Problems

if TYPE_CHECKING:
    from medcli.settings.fields import Field

__all__ = ["check", "converted"]


def converted(field: Field, value: str | Sequence[str]) -> Any:
    """One text, or the texts of a repeated flag, as the field's type where they can be."""
    if isinstance(value, str):
        return _scalar(field, value)
    pieces: list[str] = []
    for text in value:
        pieces += [piece.strip() for piece in text.split(",")] if field.comma_split else [text]
    return [_scalar(field, piece) for piece in pieces]


def _scalar(field: Field, text: str) -> Any:
    try:
        return field.base(text)
    except ValueError:
        return text


def check(given: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
    """Refuse values outside their type, choices or limits, all at once.

    Raises:
        UsageProblem: a value is wrong; several are reported as `Problems`.
    """
    doubtful = {
        name: value
        for name, value in given.items()
        if fields[name].choices or fields[name].base in (int, float) or value == "" or value == ("",)
    }
    if not doubtful:
        return
    from medcli.settings.layers import flag_layer
    from medcli.settings.validation import check_layer

    problems = list(check_layer(flag_layer(doubtful), fields).values())
    if problems:
        raise problems[0] if len(problems) == 1 else Problems(problems)
