"""A plugin's folder as if it were installed: metadata made from its `pyproject.toml`, beside the folder, not in it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcli.errors import UsageProblem
from medcli.registry.discovery import ARCHITECTURES, DIFFERENCE_MODELS
from medcli.registry.layout import install_line

__all__ = ["SourceTree", "source_tree"]

_SECONDS = 120.0

# The hook writes a `.dist-info` folder, some backends no more of it than `METADATA`.
_HOOK = """
import importlib, sys
module, _, attribute = sys.argv[1].partition(":")
backend = importlib.import_module(module)
for part in filter(None, attribute.split(".")):
    backend = getattr(backend, part)
hook = getattr(backend, "prepare_metadata_for_build_wheel", None) or backend.prepare_metadata_for_build_editable
hook(sys.argv[2])
"""


@dataclass(frozen=True)
class SourceTree:
    """What a child needs on its import path to find the plugin.

    Args:
        distribution: its name.
        path: folders for `PYTHONPATH`, in order.
    """

    distribution: str
    path: tuple[str, ...]


@contextmanager
def source_tree(folder: Path) -> Iterator[SourceTree]:
    """The plugin in a folder, for as long as the context lasts.

    What `[project]` states is taken from there; where name, version or entry points are `dynamic`, the package's own
    build backend is asked, which must be installed.

    Raises:
        UsageProblem: no `pyproject.toml`, no entry points for medcli, or a package that is not where it should be.
    """
    import tomli

    file = folder / "pyproject.toml"
    try:
        values = tomli.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _problem(f"`{folder}` has no `pyproject.toml`, so it is no plugin's folder", str(folder)) from None
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _problem(f"no valid TOML: {error}", str(file)) from error
    project = values.get("project")
    if not isinstance(project, dict) or not project.get("name"):
        raise _problem("it has no table `[project]` with a `name`", str(file))
    with tempfile.TemporaryDirectory() as place:
        dynamic = set(project.get("dynamic", ()))
        if dynamic & {"version", "entry-points"}:
            metadata = _ask_backend(folder, values, Path(place))
        else:
            metadata = _write(project, Path(place))
        if "entry-points" not in dynamic:
            _write_entry_points(project, metadata)
        references = _references(Path(place))
        if not references:
            raise _problem(
                f"`{project['name']}` offers medcli nothing",
                str(file),
                f'add `[project.entry-points."{ARCHITECTURES}"]` with a line `NAME = "package:function"`',
            )
        roots = dict.fromkeys(_root(folder, reference) for reference in references)
        yield SourceTree(str(project["name"]), (place, *roots))


def _write(project: Mapping[str, Any], place: Path) -> Path:
    name, version = str(project["name"]), str(project.get("version", "0"))
    metadata = place / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    return metadata


def _write_entry_points(project: Mapping[str, Any], metadata: Path) -> None:
    lines: list[str] = []
    for group, points in project.get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{point} = {reference}" for point, reference in points.items()), ""]
    (metadata / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


def _ask_backend(folder: Path, values: Mapping[str, Any], place: Path) -> Path:
    backend = str(values.get("build-system", {}).get("build-backend", "setuptools.build_meta"))
    done = subprocess.run(
        [sys.executable, "-c", _HOOK, backend, str(place)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise _problem(
            f"its build backend `{backend}` cannot give its metadata: {lines[-1] if lines else 'it said nothing'}",
            str(folder / "pyproject.toml"),
            f"install it (`{install_line((str(folder),), editable=True)}`) and check it by its name",
        )
    return next(place.glob("*.dist-info"))


def _references(place: Path) -> list[str]:
    from importlib.metadata import distributions

    return [
        point.value
        for distribution in distributions(path=[str(place)])
        for point in distribution.entry_points
        if point.group in {ARCHITECTURES, DIFFERENCE_MODELS}
    ]


def _root(folder: Path, reference: str) -> str:
    """The folder to import from: the package's own, or its `src`."""
    package = reference.partition(":")[0].partition(".")[0]
    for root in (folder, folder / "src"):
        if (root / package / "__init__.py").is_file() or (root / f"{package}.py").is_file():
            return str(root.resolve())
    raise _problem(
        f"its entry point `{reference}` names the package `{package}`, which is neither in `{folder}` nor in "
        f"`{folder / 'src'}`",
        str(folder / "pyproject.toml"),
        f"install it (`{install_line((str(folder),), editable=True)}`) and check it by its name",
    )


def _problem(message: str, where: str, hint: str | None = None) -> UsageProblem:
    return UsageProblem(message, where=where, hint=hint, code="no-plugin-folder")
