"""Optuna where it is installed, and a sentence where it is not: it comes with an extra, not with the core."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from medcli.errors import UsageProblem
from medcli.registry.layout import install_line

__all__ = ["quiet_library", "require_library"]


def require_library(*, cmaes: bool = False) -> None:
    """Check that what a search needs is installed, without importing it.

    Args:
        cmaes: whether the package of CMA-ES is needed too.

    Raises:
        UsageProblem: naming the extra that brings it.
    """
    for name, wanted in (("optuna", True), ("cmaes", cmaes)):
        if wanted and find_spec(name) is None:
            purpose = "a search" if name == "optuna" else "`--search-sampler cmaes`"
            raise UsageProblem(
                f"{purpose} needs the package `{name}`, which is not installed",
                hint=install_line(("medcli[search]",)),
                code="missing-extra",
            )


def quiet_library() -> None:
    """Optuna logs every trial to stderr by itself; medcli says what there is to say."""
    logging = import_module("optuna").logging
    logging.set_verbosity(logging.CRITICAL)
