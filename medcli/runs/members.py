"""What an ensemble consists of: `ensemble.json`, which names its members, how each stands and what it counts.

Members that were trained for it lie below `members/`; others are referred to, with the hash of the predictions they had
when they were joined, so that one that went on learning is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from medcli.errors import UsageProblem
from medcli.runs.directory import RunDirectory, replace_text

__all__ = [
    "Ensemble",
    "Kind",
    "Member",
    "fingerprint",
    "is_ensemble",
    "member_run",
    "place_between",
    "read_ensemble",
    "write_ensemble",
]

FILE = "ensemble.json"
SCHEMA = "medcli-ensemble/1"

Kind = Literal["trained", "runs", "predictions"]
State = Literal["waiting", "completed", "interrupted", "failed"]


@dataclass(frozen=True)
class Member:
    """One member.

    Args:
        name: how tables call it.
        place: its run directory or predictions file, relative to the ensemble's directory where they share a root.
        architecture: its architecture; empty where unknown.
        seed: of its training; None where unknown.
        state: how it stands.
        error: why it failed; else empty.
        weight: its share of the mean; 0 until there is one.
        fingerprint: hash of its stored predictions when it was joined; empty for those trained here.
    """

    name: str
    place: str
    architecture: str = ""
    seed: int | None = None
    state: State = "waiting"
    error: str = ""
    weight: float = 0.0
    fingerprint: str = ""


@dataclass(frozen=True)
class Ensemble:
    """The members of an ensemble.

    Args:
        kind: `trained` here, joined `runs`, or joined files of `predictions`, which have no model.
        members: in their order.
        weights_by: `equal` or `val`.
        backbone: the name of the member that holds the backbone of all, where they share one; else empty.
        command: what trains a member: `train`, `finetune` or `lora`; empty for joined ones.
    """

    kind: Kind
    members: tuple[Member, ...]
    weights_by: str = "equal"
    backbone: str = ""
    command: str = ""

    @property
    def ready(self) -> tuple[Member, ...]:
        """Those that can answer."""
        return tuple(one for one in self.members if one.state == "completed")

    def with_member(self, member: Member) -> Ensemble:
        """The same ensemble with another entry for the member of that name."""
        return replace(self, members=tuple(member if one.name == member.name else one for one in self.members))


def is_ensemble(path: Path) -> bool:
    """Whether a run directory is an ensemble."""
    return (path / FILE).is_file()


def write_ensemble(run: RunDirectory, ensemble: Ensemble) -> None:
    """Replace `ensemble.json`."""
    replace_text(run.path / FILE, json.dumps({"schema": SCHEMA, **asdict(ensemble)}, indent=1) + "\n")


def read_ensemble(run: RunDirectory) -> Ensemble:
    """The members of an ensemble.

    Raises:
        UsageProblem: it is none, or the file is not as medcli wrote it.
    """
    path = run.path / FILE
    if not path.is_file():
        raise UsageProblem(f"`{run.path}` is no ensemble", code="not-an-ensemble")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("schema") != SCHEMA:
            raise ValueError("another format")
        members = tuple(_member(one) for one in document.pop("members"))
        ensemble = Ensemble(members=members, **document)
        if ensemble.kind not in get_args(Kind):
            raise ValueError("an unknown kind of ensemble")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageProblem(f"the ensemble cannot be read: {error}", where=str(path), code="bad-run-file") from error
    return ensemble


def member_run(run: RunDirectory, member: Member) -> RunDirectory:
    """The run directory of a member.

    Raises:
        UsageProblem: it is gone, or its predictions are no longer those that were joined.
    """
    path = run.path / member.place
    if not path.is_dir():
        raise UsageProblem(
            f"member `{member.name}` of `{run.path}` is not where it was: `{path}`",
            hint="put it back, or join the members anew: `medcli ensemble RUN RUN …`",
            code="member-missing",
        )
    found = RunDirectory(path)
    if member.fingerprint and fingerprint(found) != member.fingerprint:
        raise UsageProblem(
            f"member `{member.name}` of `{run.path}` went on learning after it was joined",
            where=str(path),
            hint="join the members anew: `medcli ensemble RUN RUN …`",
            code="stale-member",
        )
    return found


def fingerprint(run: RunDirectory) -> str:
    """The hash of a run's stored predictions, which change with its weights."""
    digest = hashlib.sha256()
    for split in ("val", "test"):
        path = run.predictions(split)
        if path.is_file():
            digest.update(split.encode() + path.read_bytes())
    return digest.hexdigest()


def place_between(run: RunDirectory, path: Path) -> str:
    """How the ensemble's directory refers to another path."""
    return os.path.relpath(path.resolve(), run.path.resolve())


def _member(values: Mapping[str, Any]) -> Member:
    member = Member(**values)
    kinds: Sequence[tuple[object, type | tuple[type, ...]]] = (
        (member.name, str),
        (member.place, str),
        (member.architecture, str),
        (member.seed, (int, type(None))),
        (member.error, str),
        (member.weight, (int, float)),
        (member.fingerprint, str),
    )
    if not all(isinstance(value, kind) for value, kind in kinds) or member.state not in get_args(State):
        raise ValueError("a member has another type of entry")
    return member
