"""Where a bundle goes: written beside its final place, it gets its name only when everything about it is right."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

from medcli.bundles.manifest import Format, file_facts, is_bundle
from medcli.errors import UsageProblem
from medcli.runs.directory import writing

__all__ = ["drafted", "facts_of_files", "free_place", "planned_place"]


def planned_place(run: Path, kind: Format, out: str | None) -> Path:
    """Where the bundle will be: `out`, or `bundles/RUN-FORMAT`."""
    return Path("bundles") / f"{run.resolve().name}-{kind}" if out is None else Path(out)


def free_place(path: Path, *, overwrite: bool) -> None:
    """Check that a bundle may go here, without touching anything.

    Raises:
        UsageProblem: something is there (with `overwrite`: something other than a bundle).
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise UsageProblem(
            f"`{path}` exists already",
            where="--out",
            hint="`--overwrite` replaces a bundle" if is_bundle(path) else "name a new directory with `--out DIR`",
            code="out-occupied",
        )
    if not is_bundle(path):
        raise UsageProblem(
            f"`{path}` is no bundle of medcli, so `--overwrite` leaves it alone",
            where="--overwrite",
            hint="name a new directory, or remove this one yourself",
            code="not-a-bundle",
        )


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """A folder to write a bundle into: it becomes `path` where all goes well, and is gone where anything does not.

    Args:
        path: the final place, free (see `free_place`) or an older bundle, which is replaced at the end.

    Raises:
        RunFailure: the disk refuses.
    """
    draft = path.with_name(f".{path.name}.{token_hex(4)}.part")
    try:
        with writing(path):
            draft.mkdir(parents=True)
        yield draft
        _give_name(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def facts_of_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Hash and size of every file below a folder, as a manifest lists them."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file_facts(file) for file in files}


def _give_name(draft: Path, path: Path) -> None:
    """Put the finished folder in its place; an older bundle there is gone only once the new one stands."""
    aside = None
    with writing(path):
        if path.exists():
            aside = path.with_name(f".{path.name}.{token_hex(4)}.old")
            path.rename(aside)
        draft.rename(path)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
