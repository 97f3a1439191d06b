"""What a run directory says about itself, read leniently: the report of an unfinished run says what it lacks."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medcli.errors import MedcliError
from medcli.plugin import ArchitectureCard
from medcli.runs.directory import RunDirectory, open_run
from medcli.runs.listing import Resumption, Summary, resumptions, summarise
from medcli.runs.members import Ensemble, is_ensemble, read_ensemble
from medcli.runs.records import read_config, read_data, read_metrics
from medcli.settings.saved import SavedConfig

__all__ = ["ModelFile", "RunFacts", "file_hash", "read_run_facts"]

_LARGEST_HEADER = 100 * 2**20


@dataclass(frozen=True)
class ModelFile:
    """What the header of the weights says.

    Args:
        parameters: numbers in the tensors that are learnt, buffers of normalisation left out.
        bytes: size of the file.
        spec: architecture, options, head and target, as the file's metadata has them.
        preprocessing: how pictures become tensors, likewise.
    """

    parameters: int
    bytes: int
    spec: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFacts:
    """A run without its predictions.

    Args:
        run: its files.
        summary: how it stands.
        saved: its settings with origins, or None.
        data: the record of its data; empty where unreadable.
        environment: versions, hardware, git; empty where unreadable.
        epochs: figures per epoch.
        resumed: each time it was taken up again.
        groups: learning rates and freezing by layer group; empty without.
        model: of its weights, or None.
        card: of its architecture, or None.
        ensemble: its members, or None for a single model.
        problems: what could not be read, as sentences.
    """

    run: RunDirectory
    summary: Summary
    saved: SavedConfig | None
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    epochs: tuple[Mapping[str, Any], ...]
    resumed: tuple[Resumption, ...]
    groups: Any
    model: ModelFile | None
    card: ArchitectureCard | None
    ensemble: Ensemble | None
    problems: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether its training came to its end."""
        return self.summary.state == "completed"


def read_run_facts(path: str | Path) -> RunFacts:
    """Everything a run says about itself.

    Raises:
        UsageProblem: it is no run directory at all.
    """
    run = open_run(path)
    problems: list[str] = []
    summary = summarise(run)
    if summary.problem and summary.state == "broken":
        problems.append(summary.problem)
    saved = data = None
    rows: Sequence[Mapping[str, Any]] = ()
    try:
        saved = read_config(run)
    except (MedcliError, OSError) as problem:
        problems.append(_sentence(problem))
    try:
        data = read_data(run)
    except (MedcliError, OSError) as problem:
        problems.append(_sentence(problem))
    try:
        rows = read_metrics(run)
    except (MedcliError, OSError) as problem:
        problems.append(_sentence(problem))
    ensemble = None
    try:
        ensemble = read_ensemble(run) if is_ensemble(run.path) else None
    except (MedcliError, OSError) as problem:
        problems.append(_sentence(problem))
    return RunFacts(
        run,
        summary,
        saved,
        data or {},
        _object(run.environment_file, problems),
        tuple(row for row in rows if isinstance(row.get("epoch"), int)),
        resumptions(run),
        _json(run.path / "groups.json", problems),
        _model(run),
        _card(summary.architecture),
        ensemble,
        tuple(problems),
    )


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sentence(problem: Exception) -> str:
    if isinstance(problem, MedcliError):
        return problem.message + (f" ({problem.where})" if problem.where else "")
    return str(problem)


def _json(path: Path, problems: list[str]) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        problems.append(f"`{path.name}` cannot be read: {problem}")
        return None


def _object(path: Path, problems: list[str]) -> Mapping[str, Any]:
    found = _json(path, problems)
    return found if isinstance(found, dict) else {}


def _model(run: RunDirectory) -> ModelFile | None:
    """From the header of a safetensors file: 8 bytes of length, then JSON; no tensor is read."""
    path = run.model_file
    if not path.is_file():
        path = run.adapter / "adapter_model.safetensors"
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > _LARGEST_HEADER:
                return None
            header = json.loads(handle.read(length))
        described = json.loads(header.pop("__metadata__", {}).get("medcli", "{}"))
        counted = 0
        for name, tensor in header.items():
            size = 1
            for side in tensor["shape"]:
                size *= int(side)
            if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
                counted += size
        spec, preprocessing = described.get("spec", {}), described.get("preprocessing", {})
        if not isinstance(spec, dict) or not isinstance(preprocessing, dict):
            return None
        return ModelFile(counted, path.stat().st_size, spec, preprocessing)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return None


def _card(architecture: str) -> ArchitectureCard | None:
    """The card, where the plugin is installed here; a report must not fail where it is not."""
    if not architecture:
        return None
    from medcli.registry.cards import read_card
    from medcli.registry.discovery import discover, find

    try:
        return read_card(find(discover(), architecture))
    except MedcliError:
        return None
