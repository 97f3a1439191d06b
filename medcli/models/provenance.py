"""Which package built a saved network, so that one that is missing or older is named with the line that installs it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from medcli.errors import UsageProblem
from medcli.registry.discovery import discover, find
from medcli.registry.layout import install_line
from medcli.registry.namespaces import installed_version

__all__ = ["check_package", "made_by"]


def made_by(architecture: str) -> dict[str, str]:
    """The distribution that offers an architecture, and its version, as a model file keeps them."""
    entry = find(discover(), architecture)
    return {"distribution": entry.distribution, "version": entry.version}


def check_package(architecture: str, package: Any, origin: str) -> str:
    """Whether the package that built a saved network is here.

    Args:
        architecture: as the model file names it.
        package: what `made_by` wrote; a file that says nothing is not judged.
        origin: the file, for messages.

    Returns:
        a sentence where the installed version is older than the one that wrote the file, else nothing.

    Raises:
        UsageProblem: `missing-plugin` where it is not installed, `excluded-plugin` where `MEDCLI_PLUGINS` hides it.
    """
    if not isinstance(package, Mapping) or not package.get("distribution"):
        return ""
    distribution, before = str(package["distribution"]), str(package.get("version") or "")
    present = installed_version(distribution)
    line = install_line((f"{distribution}>={before}" if before else distribution,))
    if not present:
        raise UsageProblem(
            f"`{architecture}` was built by `{distribution}` {before}".rstrip() + ", which is not installed",
            where=origin,
            hint=line,
            code="missing-plugin",
        )
    hidden = os.environ.get("MEDCLI_PLUGINS", "")
    if hidden and distribution not in {entry.distribution for entry in discover().entries}:
        raise UsageProblem(
            f"`{architecture}` comes from `{distribution}`, which `MEDCLI_PLUGINS={hidden}` leaves out",
            where=origin,
            hint=f"`MEDCLI_PLUGINS={distribution}`, or unset it",
            code="excluded-plugin",
        )
    if before and _older(present, before):
        return f"written with {distribution} {before}, and {present} is installed: {line} brings it up to date"
    return ""


def _older(version: str, other: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version) < Version(other)
    except InvalidVersion:
        return False
