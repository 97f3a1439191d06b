"""How this medcli was installed, because what is added has to be added by the tool that keeps it through an upgrade.

`pip install` inside the environment of `uv tool` or `pipx` is lost with the next upgrade (and mostly impossible: there
is no pip in it), and `uv tool install` forgets every plugin that it is not told again.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["Layout", "install_line", "layout_of", "reinstall_line"]

Tool = Literal["pip", "uv pip", "uv tool", "pipx"]


@dataclass(frozen=True)
class Layout:
    """What looks after an environment.

    Args:
        tool: the command that installs into it.
        name: what the tool calls the environment; empty where it needs no name.
        main: words that install the application itself, as they were given (`uv tool`, `pipx`).
        beside: words for what was installed beside it (`uv tool`).
    """

    tool: Tool
    name: str = ""
    main: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    def install(self, requirements: Sequence[str], *, editable: bool = False) -> str:
        """The command that adds these and keeps what is there.

        Args:
            requirements: such as `medcli[export]` or `timm>=1.0.20`; folders where `editable`.
            editable: whether changes in the folders count at once.
        """
        flag = ["--editable"] if editable else []
        if self.tool == "uv tool":
            option = "--with-editable" if editable else "--with"
            added = [word for one in requirements for word in (option, one)]
            return shlex.join(["uv", "tool", "install", *self.main, *self.beside, *added])
        if self.tool == "pipx":
            wanted = requirements if editable else [_with_extras_of(self.main, one) for one in requirements]
            # pipx leaves alone what it has injected before, unless forced: a newer version is such a case.
            return shlex.join(["pipx", "inject", "--force", *flag, self.name, *wanted])
        return shlex.join([*self.tool.split(), "install", *flag, *requirements])

    def reinstall(self, packages: Sequence[str]) -> str:
        """The command that puts damaged packages back."""
        if self.tool == "uv tool":
            return shlex.join(["uv", "tool", "upgrade", "--reinstall", self.name])
        if self.tool == "pipx":
            return shlex.join(["pipx", "reinstall", self.name])
        flag = "--force-reinstall" if self.tool == "pip" else "--reinstall"
        return shlex.join([*self.tool.split(), "install", flag, *packages])


def install_line(requirements: Sequence[str], *, editable: bool = False) -> str:
    """The command that adds them to the environment that runs this; quoted, since a shell reads `>` as a redirection.

    Args:
        requirements: such as `medcli[export]` or `timm>=1.0.20`; folders where `editable`.
        editable: whether changes in the folders count at once.
    """
    return layout_of(Path(sys.prefix)).install(requirements, editable=editable)


def reinstall_line(packages: Sequence[str]) -> str:
    """The command that puts damaged packages of the environment that runs this back."""
    return layout_of(Path(sys.prefix)).reinstall(packages)


def layout_of(prefix: Path) -> Layout:
    """What looks after the environment in a folder; pip, where nothing else left its mark there."""
    return _uv_tool(prefix) or _pipx(prefix) or Layout("uv pip" if _made_by_uv(prefix) else "pip")


def _uv_tool(prefix: Path) -> Layout | None:
    import tomli

    try:
        receipt = tomli.loads((prefix / "uv-receipt.toml").read_text(encoding="utf-8"))
        main, *beside = receipt["tool"]["requirements"]
        words = tuple(word for one in beside for word in _words(one, "--with"))
        return Layout("uv tool", prefix.name, _words(main, ""), words)
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError, KeyError, TypeError, ValueError):
        return None


def _words(entry: Mapping[str, Any], option: str) -> tuple[str, ...]:
    """One requirement of the receipt as it was typed."""
    if "editable" in entry:
        return (f"{option}-editable" if option else "--editable", str(entry["editable"]))
    place = next((str(entry[key]) for key in ("path", "directory", "url") if key in entry), "")
    extras = f"[{','.join(entry['extras'])}]" if entry.get("extras") else ""
    if not place and "git" in entry:
        place = f"git+{entry['git']}"
    if "://" in place:
        text = f"{entry['name']}{extras} @ {place}"
    else:
        text = f"{place or entry['name']}{extras}{entry.get('specifier', '')}"
    return (option, text) if option else (text,)


def _pipx(prefix: Path) -> Layout | None:
    try:
        kept = json.loads((prefix / "pipx_metadata.json").read_text(encoding="utf-8"))["main_package"]
        return Layout("pipx", prefix.name, (str(kept["package"]), str(kept["package_or_url"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _with_extras_of(main: Sequence[str], requirement: str) -> str:
    """A requirement of the application itself with the extras that it has: pipx keeps the last one alone."""
    from packaging.requirements import InvalidRequirement, Requirement

    package, given = main
    try:
        wanted = Requirement(requirement)
        held = Requirement(given)
    except InvalidRequirement:  # the application came from a folder or a file
        return requirement
    if wanted.name != package or held.name != package:
        return requirement
    extras = ",".join(sorted(wanted.extras | held.extras))
    return f"{package}[{extras}]{wanted.specifier}" if extras else requirement


def _made_by_uv(prefix: Path) -> bool:
    """Whether `uv venv` or `uv sync` made it and, as usual, put no pip into it."""
    try:
        lines = (prefix / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    made = any(line.partition("=")[0].strip() == "uv" for line in lines)
    pip = [*prefix.glob("lib*/python*/site-packages/pip"), *prefix.glob("Lib/site-packages/pip")]
    return made and not pip
