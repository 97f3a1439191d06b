"""Everything medcli keeps outside runs, in one place: what can be made or fetched again, and may be thrown away."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["KINDS", "CacheKind", "Kept", "cache_root", "clear", "contents"]

IN_USE_SECONDS = 3600


@dataclass(frozen=True)
class CacheKind:
    """One folder of the cache.

    Args:
        name: its name below the root.
        about: what lies in it.
    """

    name: str
    about: str


@dataclass(frozen=True)
class Kept:
    """What one kind takes up.

    Args:
        kind: which.
        folder: where.
        files: how many.
        size: bytes.
        last_used: seconds since the epoch, or None where nothing lies there.
    """

    kind: CacheKind
    folder: Path
    files: int
    size: int
    last_used: float | None


KINDS = (
    CacheKind("images", "decoded images"),
    CacheKind("npz", "arrays of MedMNIST archives, unpacked"),
    CacheKind("features", "features of frozen backbones"),
    CacheKind("weights", "weights fetched from plain addresses (those of the hub lie in its own cache)"),
)


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/medcli`, or the same below `~/.cache`; a relative variable counts as absent, as XDG asks."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if Path(root).is_absolute() else Path.home() / ".cache") / "medcli"


def contents() -> tuple[Kept, ...]:
    """What lies in every kind."""
    found = []
    for kind in KINDS:
        folder = cache_root() / kind.name
        facts = [fact for _, fact in _files(folder)]
        used = max((max(fact.st_mtime, fact.st_atime) for fact in facts), default=None)
        found.append(Kept(kind, folder, len(facts), sum(fact.st_size for fact in facts), used))
    return tuple(found)


def clear(names: tuple[str, ...], *, older_than: float = 0.0) -> tuple[int, int, int]:
    """Delete what was last used more than `older_than` seconds ago, but nothing used within the last hour.

    A running training may come back to what it just used; a file that is open stays readable to it either way.

    Returns:
        files deleted, their bytes, and files left because they were used lately.
    """
    now, deleted, size, left = time.time(), 0, 0, 0
    for name in names:
        for path, fact in _files(cache_root() / name):
            if now - max(fact.st_mtime, fact.st_atime) < max(older_than, IN_USE_SECONDS):
                left += 1
                continue
            with suppress(OSError):
                path.unlink()
                deleted, size = deleted + 1, size + fact.st_size
    return deleted, size, left


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in sorted(folder.rglob("*")):
        with suppress(OSError):
            fact = path.stat()
            if path.is_file():
                yield path, fact
