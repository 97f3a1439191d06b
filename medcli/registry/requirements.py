"""Whether what an architecture needs beside its plugin is installed: package metadata says it, nothing is imported."""

from __future__ import annotations

from collections.abc import Sequence

from medcli.errors import UsageProblem
from medcli.registry.layout import install_line
from medcli.registry.namespaces import installed_version

__all__ = ["missing_plugins", "refuse_unmet", "requirement_fault", "requirement_name", "unmet"]


def requirement_fault(requirement: str) -> str:
    """Why the text is no requirement such as `transformers>=5.0`; empty if it is one."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(requirement)
    except InvalidRequirement as error:
        return f"holds `{requirement}`, which is no requirement ({str(error).splitlines()[0]})"
    return ""


def unmet(requires: Sequence[str]) -> tuple[str, ...]:
    """Those of the requirements that no installed distribution meets, as they were written.

    A requirement whose marker does not hold here (`; python_version < "3.12"`) asks for nothing.
    """
    if not requires:
        return ()
    from packaging.requirements import Requirement

    missing = []
    for text in requires:
        wanted = Requirement(text)
        version = installed_version(wanted.name)
        applies = wanted.marker is None or wanted.marker.evaluate()
        if applies and (not version or not wanted.specifier.contains(version, prereleases=True)):
            missing.append(text)
    return tuple(missing)


def missing_plugins(required: Sequence[tuple[str, str]]) -> list[UsageProblem]:
    """What a project asks for and this environment lacks, one problem each.

    Args:
        required: (requirement, where it stands) of `[plugins] require`.
    """
    problems = []
    for text, where in required:
        for missing in unmet((text,)):
            version = installed_version(requirement_name(missing))
            found = f"version {version} is installed" if version else "it is not installed"
            problems.append(
                UsageProblem(
                    f"this project requires `{missing}`, and {found}",
                    where=where,
                    hint=install_line((missing,)),
                    code="missing-plugin",
                )
            )
    return problems


def requirement_name(requirement: str) -> str:
    """The distribution that a requirement speaks of."""
    from packaging.requirements import Requirement

    return Requirement(requirement).name


def refuse_unmet(name: str, requires: Sequence[str], origin: str) -> None:
    """Refuse to load an architecture whose requirements are not met.

    Raises:
        UsageProblem: `missing-requirement`, with the line that installs what is missing.
    """
    missing = unmet(requires)
    if missing:
        raise UsageProblem(
            f"`{name}` needs {', '.join(f'`{one}`' for one in missing)}, which is not installed",
            where=origin,
            hint=install_line(missing),
            code="missing-requirement",
        )
