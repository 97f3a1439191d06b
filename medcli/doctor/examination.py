"""What is looked at on this machine. Nothing is imported for its version, so a broken package is reported too."""

from __future__ import annotations

import os
import platform
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from medcli import __version__
from medcli.caches import cache_root
from medcli.registry.discovery import CORE
from medcli.registry.inspection import inspect
from medcli.registry.layout import install_line, reinstall_line
from medcli.registry.weight_cache import hub_cache

__all__ = ["Finding", "devices", "extras", "packages", "places", "plugins", "without_private_paths"]

SHOWN = ("torch", "torchvision", "timm", "transformers", "peft", "accelerate", "typer", "numpy", "scikit-learn")
COLLECTIONS = frozenset({"all", "dev", "testing"})
LEAST_DISK = 5 * 2**30
LEAST_MEMORY = 4 * 2**30

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line.

    Args:
        section: its heading.
        name: what was looked at.
        value: what was found.
        status: `ok`; `note` for what limits something; `problem` for what does not work.
        advice: what to do, a command where there is one; empty for `ok`.
    """

    section: str
    name: str
    value: str
    status: Status = "ok"
    advice: str = ""


def packages() -> tuple[Finding, ...]:
    """Python, medcli and what it stands on: installed, and in a version that medcli accepts."""
    found = [
        Finding("versions", "medcli", __version__),
        Finding("versions", "python", platform.python_version()),
        Finding("versions", "system", platform.platform()),
    ]
    wanted = {one.name.lower(): one for one in _requirements() if one.marker is None}
    for name in (*SHOWN, *sorted(set(wanted) - set(SHOWN))):
        requirement = wanted.get(name)
        version = _version(name)
        if requirement is None or (version and requirement.specifier.contains(version, prereleases=True)):
            if name in SHOWN:
                found.append(Finding("versions", name, version or "not installed"))
            continue
        advice = f"`{install_line((str(requirement),))}`"
        found.append(Finding("versions", name, version or "not installed", "problem", advice))
    return tuple(found)


def extras() -> tuple[Finding, ...]:
    """Each optional part: whether everything it needs is here."""
    missing: dict[str, list[str]] = {}
    for requirement in _requirements():
        extra = _extra_of(requirement)
        if extra and extra not in COLLECTIONS:
            version = _version(requirement.name)
            fits = version is not None and requirement.specifier.contains(version, prereleases=True)
            missing.setdefault(extra, []).extend([] if fits else [requirement.name])
    return tuple(
        Finding("extras", name, "installed")
        if not lacking
        else Finding("extras", name, f"lacks {', '.join(lacking)}", "note", f"`{install_line((f'medcli[{name}]',))}`")
        for name, lacking in missing.items()
    )


def plugins() -> tuple[Finding, ...]:
    """Each distribution that offers architectures or difference models, from its metadata and card alone."""
    rows = inspect()
    found = []
    for distribution in dict.fromkeys(row.distribution for row in rows):
        own = [row for row in rows if row.distribution == distribution]
        states = Counter(row.status for row in own)
        broken = [row for row in own if row.status in {"problem", "ambiguous"}]
        value = f"{own[0].version}, {len(own)} names" + "".join(
            f", {count} {state}" for state, count in states.items() if state != "ok"
        )
        advice = broken[0].hint or f"`medcli plugins doctor {distribution}`" if broken else ""
        found.append(
            Finding(
                "plugins",
                "built in" if distribution == CORE else distribution or "?",
                value,
                "problem" if any(row.status == "problem" for row in broken) else "note" if broken else "ok",
                advice,
            )
        )
    return tuple(found)


def places() -> tuple[Finding, ...]:
    """Disk under the working directory and the caches, and which settings files are read."""
    found = [_disk("working directory", Path.cwd()), _disk("cache", cache_root()), _disk("weights", hub_cache())]
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "medcli" / "config.toml"
    files = [str(path) for path in (config, Path("medcli.toml")) if path.is_file()]
    found.append(Finding("places", "settings files", ", ".join(files) or "none"))
    return tuple(found)


def devices(facts: Mapping[str, Any] | None, death: str) -> tuple[Finding, ...]:
    """Processor, memory and accelerators, from what a child process with torch said.

    Args:
        facts: the child's answer, or None where it did not survive importing torch.
        death: how it ended then.
    """
    if facts is None:
        advice = f"`{reinstall_line(('torch', 'torchvision'))}`"
        return (Finding("machine", "torch", f"cannot be imported: {death}", "problem", advice),)
    memory = int(facts["memory"])
    little = "little for training: small images, `--batch-size 8`, `--cache none`"
    found = [
        Finding("machine", "processor", f"{facts['cores']} cores, {facts['threads']} used by torch"),
        Finding(
            "machine",
            "memory",
            f"{memory / 2**30:.1f} GiB free",
            "ok" if memory >= LEAST_MEMORY else "note",
            "" if memory >= LEAST_MEMORY else little,
        ),
    ]
    found += [Finding("machine", one["name"], one["about"]) for one in facts["accelerators"]]
    if not facts["accelerators"]:
        advice = "small networks and `--strategy frozen` go well without one: `medcli help memory`"
        if facts["cuda_build"]:
            advice += "; if there is one, look at `nvidia-smi`"
        found.append(Finding("machine", "accelerator", "none that torch can use", "note", advice))
    return tuple(found)


def without_private_paths(text: str) -> str:
    """The text with the home directory, the user's and the machine's name taken out."""
    names = {str(Path.home()): "~", str(Path.cwd()): ".", platform.node(): "HOST"}
    for name in (os.environ.get("USER"), os.environ.get("LOGNAME")):
        if name and len(name) > 2 and name != "root":
            names[name] = "USER"
    for private, public in sorted(names.items(), key=lambda pair: -len(pair[0])):
        if len(private) > 2:
            text = text.replace(private, public)
    return text


def _disk(name: str, path: Path) -> Finding:
    existing = next(place for place in (path, *path.parents) if place.exists())
    if not os.access(existing, os.W_OK):
        return Finding("places", name, f"{path} cannot be written", "problem", "choose another place with `--out`")
    free = shutil.disk_usage(existing).free
    value = f"{path}, {free / 2**30:.1f} GiB free"
    if free < LEAST_DISK:
        return Finding("places", name, value, "note", "runs and caches may not fit; `--cache none`, or make room")
    return Finding("places", name, value)


def _requirements() -> Iterable[Requirement]:
    try:
        return [Requirement(text) for text in metadata.requires(CORE) or ()]
    except metadata.PackageNotFoundError:
        return ()


def _extra_of(requirement: Requirement) -> str:
    """The extra that asks for a requirement, or nothing."""
    if requirement.marker is None:
        return ""
    text = str(requirement.marker)
    return text.partition("extra == ")[2].strip().strip("\"'").partition('"')[0] if "extra ==" in text else ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
