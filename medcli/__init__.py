"""medcli: from a set of medical images to a model one can defend.

The package itself imports nothing heavy, so that help, completion and listings stay fast; `build` and `load`
fetch torch when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medcli.models.door import build, load

__version__ = "0.1.0"
RELEASED = "2026-11-21"  # changed together with the version; manual pages carry it
__all__ = ["__version__", "build", "load"]


def __getattr__(name: str) -> Any:
    if name in {"build", "load"}:
        from medcli.models import door

        return getattr(door, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
