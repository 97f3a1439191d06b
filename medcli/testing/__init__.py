"""What a plugin author tests with: conformance checks, fixtures for pytest, made-up plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medcli.testing.conformance_items import conformance

__all__ = ["conformance"]


def __getattr__(name: str) -> Any:
    # `medcli.testing.fixtures` is imported by every pytest run of an environment: this package must cost nothing.
    if name == "conformance":
        from medcli.testing.conformance_items import conformance

        return conformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
