"""Where a report goes, settled before any work, and written so that a reader sees the old one or the new one."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medcli.errors import UsageProblem
from medcli.report.document import Document
from medcli.report.html import drawn, render_html
from medcli.report.markdown import render_markdown
from medcli.runs.directory import replace_text, writing

__all__ = ["Destination", "Format", "destinations", "write_report"]

Format = Literal["html", "md"]

_FORMATS: tuple[Format, ...] = ("html", "md")
_ENDINGS: dict[str, Format] = {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md"}


@dataclass(frozen=True)
class Destination:
    """One file to write.

    Args:
        path: the file.
        format: what is written.
    """

    path: Path
    format: Format

    @property
    def pictures(self) -> Path:
        """The folder beside a Markdown file that holds its pictures."""
        return self.path.with_name(f"{self.path.stem}-pictures")


def destinations(
    source: str, formats: Sequence[str], out: str | None, *, run: bool, overwrite: bool
) -> tuple[Destination, ...]:
    """Where each format goes: into the run, to `--out`, or beside the working directory's other files.

    The report of a run that lies in it is ours and is replaced; any other file only with `--overwrite`.

    Raises:
        UsageProblem: an ending that does not fit, or a file that is there already.
    """
    wanted: tuple[Format, ...] = tuple(one for one in _FORMATS if one in formats) or ("html",)
    if out is None:
        if run:
            return tuple(Destination(Path(source) / f"report.{one}", one) for one in wanted)
        stem = Path(source).name.partition(".")[0] or "predictions"
        found = tuple(Destination(Path(f"{stem}-report.{one}"), one) for one in wanted)
    else:
        ending = _ENDINGS.get(Path(out).suffix.lower())
        if ending is None:
            if Path(out).suffix and not Path(out).is_dir():
                raise UsageProblem(
                    f"`{out}` ends in none of {', '.join(_ENDINGS)}, and is no folder",
                    where="--out",
                    hint="a folder gets `report.html` or `report.md`",
                    code="unknown-format",
                )
            found = tuple(Destination(Path(out) / f"report.{one}", one) for one in wanted)
        else:
            if formats and set(wanted) != {ending}:
                raise UsageProblem(
                    f"`{out}` is named like `{ending}`, and `--format {','.join(wanted)}` is asked for",
                    where="--out",
                    hint="name a folder for several formats, or leave `--format` out",
                    code="unknown-format",
                )
            found = (Destination(Path(out), ending),)
    for one in found:
        if one.path.is_dir() or (one.path.exists() and not overwrite):
            raise UsageProblem(
                f"`{one.path}` exists already",
                where="--out",
                hint="`--overwrite` replaces it" if one.path.is_file() else "name a file",
                code="out-occupied",
            )
    return found


def write_report(document: Document, destination: Destination) -> None:
    """Write one format; of Markdown the pictures first, and those of an earlier report are removed.

    Raises:
        RunFailure: a file cannot be written.
    """
    if destination.format == "html":
        replace_text(destination.path, render_html(document))
        return
    folder = destination.pictures
    pictures = document.pictures()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for old in set(folder.glob("*.png")) - {folder / f"{one.name}.png" for one in pictures}:
            old.unlink()
        for one in pictures:
            draft = folder / f".{one.name}.{secrets.token_hex(4)}"
            draft.write_bytes(one.png if one.figure is None else drawn(one.figure, "png"))
            draft.replace(folder / f"{one.name}.png")
    replace_text(destination.path, render_markdown(document, folder.name))
