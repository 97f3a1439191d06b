"""A new plugin package: its files as text, and their way to disk."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from medcli.errors import RunFailure, UsageProblem
from medcli.scaffold.kinds import KINDS
from medcli.scaffold.names import PluginName

__all__ = ["render", "write"]

_SUFFIX = ".in"
_HIDDEN = "gitignore"


def render(name: PluginName, kind: str) -> dict[str, str]:
    """Path within the package's folder to text, for every file of the package.

    Args:
        name: its names.
        kind: a key of `KINDS`.
    """
    words = {
        "name": name.offered,
        "distribution": name.distribution,
        "package": name.package,
        "identifier": name.identifier,
        **KINDS[kind].words(name.offered, name.package),
    }
    places = {"PACKAGE": name.package, "IDENTIFIER": name.identifier}
    templates = files("medcli.scaffold").joinpath("templates")
    found: dict[str, str] = {}
    for folder in ("common", kind):
        _collect(templates.joinpath(folder), "", words, places, found)
    return dict(sorted(found.items()))


def write(folder: Path, rendered: Mapping[str, str]) -> None:
    """Put the files into a folder that is empty or does not exist.

    Raises:
        UsageProblem: the folder holds something, is a file, or cannot be made.
        RunFailure: a file cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise UsageProblem(
            f"`{folder}` {what}", where="--out", hint="name a new folder: --out DIR", code="out-occupied"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageProblem(
            f"`{folder}` cannot be made: {error.strerror or error}",
            where="--out",
            hint="choose another place with `--out DIR`",
            code="cannot-write",
        ) from error
    for path, text in rendered.items():
        file = folder / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise RunFailure(f"`{file}` cannot be written: {error.strerror or error}", code="cannot-write") from error


def _collect(
    folder: Traversable, path: str, words: Mapping[str, str], places: Mapping[str, str], found: dict[str, str]
) -> None:
    for item in folder.iterdir():
        name = item.name
        for key, value in places.items():
            name = name.replace(key, value)
        if item.is_dir():
            _collect(item, f"{path}{name}/", words, places, found)
        elif name.endswith(_SUFFIX):
            plain = name.removesuffix(_SUFFIX)
            plain = f".{plain}" if plain == _HIDDEN else plain
            found[f"{path}{plain}"] = Template(item.read_text(encoding="utf-8")).substitute(words)
