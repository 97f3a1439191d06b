"""What it takes to find all this again: versions, plugins, commit, command line, files with their hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import medcli
from medcli.report.document import Block, Cell, Facts, Heading, Section, Table, cells
from medcli.report.facts import RunFacts, file_hash
from medcli.report.subject import Subject
from medcli.report.tables import count, moment
from medcli.runs.directory import RunDirectory

__all__ = ["provenance_section"]


def provenance_section(subject: Subject) -> Section:
    """From the run's environment, and of the files that were read."""
    blocks: list[Block] = []
    if subject.facts is not None:
        blocks += _of_run(subject.facts)
    elif subject.file is not None:
        blocks.append(Facts((("predictions", str(subject.file)), ("read by", f"medcli {medcli.__version__}"))))
        blocks.append(_files([(subject.file.name, subject.file)]))
    return Section("provenance", "Provenance", tuple(blocks))


def _of_run(facts: RunFacts) -> list[Block]:
    environment = facts.environment
    typed = environment.get("command_line")
    rows = [
        ("run", str(facts.run.path)),
        ("made with", f"medcli {environment['medcli']}" if environment.get("medcli") else ""),
        ("report by", f"medcli {medcli.__version__}"),
        ("command line", f"`{' '.join(map(str, typed))}`" if isinstance(typed, list) else ""),
        ("plugins", ", ".join(map(str, environment.get("plugins") or []))),
        ("git commit", str(environment.get("git") or "")),
        ("Python", str(environment.get("python", ""))),
        ("system", str(environment.get("platform", ""))),
        ("written", moment(str(environment.get("written", "")))),
    ]
    blocks: list[Block] = [Facts(tuple(row for row in rows if row[1]))]
    libraries = environment.get("libraries")
    if isinstance(libraries, dict):
        lines = tuple(cells(str(name), str(version or "not installed")) for name, version in libraries.items())
        blocks.append(Table("Libraries", ("library", "version"), lines, (0, 1)))
    blocks += _hashes(facts.data)
    blocks += [Heading("Files"), _files(_kept(facts.run))]
    return blocks


def _hashes(data: Any) -> list[Block]:
    rows = []
    for name, what in (("split_hash", "which case is in which split"), ("classes_hash", "classes and their order")):
        if data.get(name):
            rows.append(cells(what, f"`{data[name]}`"))
    for split, part in (data.get("splits") or {}).items():
        for key, what in (("ids_hash", "cases"), ("labels_hash", "labels"), ("files_hash", "contents of the images")):
            if part.get(key):
                rows.append(cells(f"{what} of {split}", f"`{part[key]}`"))
    return [Table("Hashes of the data (SHA-256)", ("of", "hash"), tuple(rows), (0, 1))] if rows else []


def _kept(run: RunDirectory) -> list[tuple[str, Path]]:
    wanted = [
        run.model_file,
        run.adapter / "adapter_model.safetensors",
        run.config_file,
        run.data_file,
        run.split_file,
        run.predictions("val"),
        run.predictions("test"),
        run.calibrator_file,
    ]
    return [(path.relative_to(run.path).as_posix(), path) for path in wanted if path.is_file()]


def _files(found: list[tuple[str, Path]]) -> Table:
    rows = []
    for name, path in found:
        try:
            rows.append((Cell(name), count(path.stat().st_size), Cell(f"`{file_hash(path)}`")))
        except OSError as problem:
            rows.append((Cell(name), Cell("-"), Cell(f"cannot be read: {problem.strerror}")))
    return Table("Files (SHA-256)", ("file", "bytes", "hash"), tuple(rows), (0, 2))
