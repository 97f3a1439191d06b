"""`timm/<name>`: every network of timm, with any of its own keywords as an option."""

from __future__ import annotations

import json
from typing import Any

from medcli.plugin import TimmBackbone

__all__ = ["build"]


def build(
    *,
    name: str,
    in_channels: int = 3,
    image_size: int | None = None,
    pretrained: bool = False,
    weights: str | None = None,
    drop_path: float = 0.0,
    **options: Any,
) -> TimmBackbone:
    """A timm network by name, with or without a weight tag.

    Args:
        options: timm's keywords; text is read as a number, `true`, `false` or `null` where it is one.
    """
    return TimmBackbone(
        name,
        in_channels=in_channels,
        image_size=image_size,
        pretrained=pretrained,
        weights=weights,
        drop_path=drop_path,
        **{key: _value(value) for key, value in options.items()},
    )


def _value(value: Any) -> Any:
    """No card types these options, so a text that is plain JSON is taken as what it says."""
    if not isinstance(value, str):
        return value
    if value in {"True", "False", "None"}:
        return {"True": True, "False": False, "None": None}[value]
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
