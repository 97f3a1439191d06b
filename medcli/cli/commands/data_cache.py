"""`medcli data cache`: what is kept between runs, and throwing it away."""

from __future__ import annotations

from datetime import UTC, datetime

from medcli.caches import KINDS, cache_root, clear, contents
from medcli.cli.options import CacheAction, Flags
from medcli.cli.output import Output
from medcli.errors import UsageProblem, nearest

__all__ = ["data_cache"]

ACTIONS = ("list", "clear")


def data_cache(action: CacheAction, flags: Flags) -> None:
    """List or clear what is kept between runs: decoded images, unpacked archives, features, fetched weights.

    Everything there is made or fetched again when it is needed. `clear` asks first (`--yes` answers), leaves what was
    used within the last hour, and keeps weights unless `--with-weights` is given: fetching them needs a network.

    Examples:
        medcli data cache list
        medcli data cache clear --yes
    """
    output = Output(flags.output(), "data cache")
    wanted = action or "list"
    if wanted not in ACTIONS:
        close = nearest(wanted, ACTIONS, 1)
        raise UsageProblem(
            f"`medcli data cache` lists or clears, it cannot `{wanted}`",
            hint=f"`medcli data cache {close[0] if close else 'list'}`",
            code="unknown-action",
        )
    if wanted == "list":
        _list(output)
        return
    names = tuple(kind.name for kind in KINDS if kind.name != "weights" or flags.given.get("with_weights"))
    size = sum(kept.size for kept in contents() if kept.kind.name in names)
    if size and not output.confirm(f"delete {_size(size)} of {', '.join(names)} below {cache_root()}?"):
        output.note("nothing was deleted")
        return
    deleted, freed, left = clear(names)
    output.answer(
        {"deleted": deleted, "bytes": freed, "left": left, "kinds": list(names)},
        f"{deleted} files deleted, {_size(freed)}"
        + (f"; {left} left that were used within the last hour" if left else ""),
    )


def _list(output: Output) -> None:
    found = contents()
    rows = [
        (kept.kind.name, kept.files, _size(kept.size), _when(kept.last_used), kept.kind.about, str(kept.folder))
        for kept in found
    ]
    output.answer(
        {
            "root": str(cache_root()),
            "kinds": [
                {
                    "name": kept.kind.name,
                    "folder": str(kept.folder),
                    "files": kept.files,
                    "bytes": kept.size,
                    "last_used": kept.last_used,
                }
                for kept in found
            ],
        },
        lambda: output.table(("kind", "files", "size", "last used", "what", "where"), rows),
        identifier=str(cache_root()),
    )


def _when(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _size(count: int) -> str:
    for unit, bytes_each in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= bytes_each:
            return f"{count / bytes_each:.1f} {unit}"
    return f"{count} bytes"
