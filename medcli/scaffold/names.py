"""From the one name an author gives to every name a plugin package needs, refused here rather than by pip later."""

from __future__ import annotations

import re
from dataclasses import dataclass

from medcli.errors import UsageProblem
from medcli.registry.discovery import Registry, entry_fault

__all__ = ["PluginName", "check_free", "plugin_name"]

_PREFIX = "medcli-"
_WORD = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")


@dataclass(frozen=True)
class PluginName:
    """The names of one plugin that offers one thing.

    Args:
        offered: what users type, such as `my-net`.
        distribution: what pip installs, `medcli-my-net`.
        package: what Python imports, `medcli_my_net`.
        identifier: the name as a word of Python or of a file name, `my_net`.
    """

    offered: str
    distribution: str
    package: str
    identifier: str


def plugin_name(text: str) -> PluginName:
    """All names from `mynet` or `medcli-mynet`.

    Raises:
        UsageProblem: `bad-plugin-name`.
    """
    offered = text.removeprefix(_PREFIX)
    word = re.sub(r"[-_.]+", "-", offered)
    distribution = f"{_PREFIX}{word}"
    package = distribution.replace("-", "_")
    fault = ""
    if not _WORD.fullmatch(offered):
        fault = "names are lower-case letters, digits, `-`, `_` and `.`, with a letter or digit at both ends"
    elif offered == "medcli":
        fault = "the name `medcli` is reserved for medcli itself"
    else:
        fault = entry_fault(offered, f"{package}:build", distribution)
    if fault:
        plain = re.sub(r"[^a-z0-9]+", "-", offered.lower()).strip("-")
        other = plain if plain and plain != offered and not re.fullmatch("timm|synthetic|medcli", plain) else "mynet"
        raise UsageProblem(
            f"`{text}` is no name for a plugin: {fault}",
            where="NAME",
            hint=f"medcli plugins new {other}",
            code="bad-plugin-name",
        )
    return PluginName(offered, distribution, package, word.replace("-", "_"))


def check_free(name: PluginName, registry: Registry) -> None:
    """Refuse a name that would be ambiguous on this machine from the first day.

    Raises:
        UsageProblem: `plugin-exists`, naming who has it.
    """
    for entry in registry.entries:
        if entry.distribution == name.distribution:
            raise UsageProblem(
                f"`{name.distribution}` is installed already",
                where=entry.origin,
                hint=f"choose another name, or remove it with `pip uninstall {name.distribution}`",
                code="plugin-exists",
            )
    for entry in registry.entries:
        if entry.name == name.offered:
            raise UsageProblem(
                f"`{name.offered}` is offered already; a second one would make the name ambiguous",
                where=entry.origin,
                hint=f"medcli plugins new my-{name.offered}",
                code="plugin-exists",
            )
