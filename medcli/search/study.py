"""The study: where it is kept, and what it must have been made with.

Everything that knows Optuna's storages stands here.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from medcli.data.record import compare_records
from medcli.errors import MedcliError, RunFailure, UsageProblem
from medcli.registry.layout import install_line

__all__ = [
    "Identity",
    "Place",
    "counted",
    "explain_storage",
    "join_study",
    "memory_study",
    "place_of",
]

ATTRIBUTE = "medcli"
PATIENCE = 60.0  # seconds for which a file-based database may be held by another process before we give up
ATTEMPTS = 6
JOURNALS, DATABASES = (".log", ".journal", ".jsonl"), (".db", ".sqlite", ".sqlite3")


@dataclass(frozen=True)
class Place:
    """Where a study is kept.

    Args:
        kind: `database`, `journal` or `redis`.
        address: URL or file, as Optuna takes it.
        shown: the same without a password.
    """

    kind: str
    address: str
    shown: str


@dataclass(frozen=True)
class Identity:
    """What every process that shares a study must agree on, as JSON can hold it.

    Args:
        architecture: qualified name.
        command: what a trial runs: `train`, `finetune` or `lora`.
        strategy: as in `--strategy`.
        monitor: the validation figure that is searched for; `loss` is better when lower.
        space: the settings searched, from `space_to_json`.
        settings: the other settings that decide what is learnt.
        data: hashes of the training and validation images, from `data_record`.
    """

    architecture: str
    command: str
    strategy: str
    monitor: str
    space: Mapping[str, Any]
    settings: Mapping[str, Any]
    data: Mapping[str, Any]

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Where better is, in Optuna's words."""
        return "minimize" if self.monitor == "loss" else "maximize"

    def to_json(self) -> dict[str, Any]:
        """As it is kept in the study."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def differences(self, kept: Mapping[str, Any]) -> list[str]:
        """What the study was made with that is not so here, as sentences; empty when they may be shared."""
        found = [
            f"the {name} was `{kept.get(name)}` and is `{getattr(self, name)}`"
            for name in ("architecture", "strategy", "command", "monitor")
            if kept.get(name) != getattr(self, name)
        ]
        found += _changes("the space of", kept.get("space"), self.space)
        found += _changes("", kept.get("settings"), self.settings)
        data = kept.get("data")
        return found + (compare_records(data, self.data) if isinstance(data, dict) else ["its data is not recorded"])


def _changes(what: str, old: Any, new: Mapping[str, Any]) -> list[str]:
    before: Mapping[str, Any] = old if isinstance(old, dict) else {}
    return [
        f"{what} `{name}` was {_shown(before.get(name))} and is {_shown(new.get(name))}".strip()
        for name in dict.fromkeys([*before, *new])
        if before.get(name) != new.get(name)
    ]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        if "choices" in value:
            return "[" + ", ".join(map(str, value["choices"])) + "]"
        return f"{value.get('low')} to {value.get('high')}{' logarithmic' if value.get('log') else ''}"
    return "not set" if value in (None, []) else f"`{value}`"


def place_of(storage: str | None, default: Path) -> Place:
    """Where `--storage` means the study to be.

    Args:
        storage: the setting; None for a database in the run.
        default: that database.

    Raises:
        UsageProblem: neither a file with a known ending nor a URL.
    """
    if storage is None:
        return Place("database", f"sqlite:///{default.absolute()}", str(default))
    if "://" not in storage:
        path = Path(storage).expanduser()
        if path.is_dir():
            raise UsageProblem(f"`{storage}` is a folder", where="--storage", hint=_FORMS, code="bad-storage")
        if path.suffix in JOURNALS:
            return Place("journal", str(path.absolute()), storage)
        if path.suffix in DATABASES:
            return Place("database", f"sqlite:///{path.absolute()}", storage)
        raise UsageProblem(
            f"`{storage}` is neither a URL nor a file whose ending says what it is",
            where="--storage",
            hint=_FORMS,
            code="bad-storage",
        )
    if storage.startswith(("redis://", "rediss://")):
        return Place("redis", storage, storage.rpartition("@")[2])
    try:
        return Place("database", storage, make_url(storage).render_as_string(hide_password=True))
    except ArgumentError:
        raise UsageProblem("`--storage` is no URL", where="--storage", hint=_FORMS, code="bad-storage") from None


_FORMS = "`sqlite:///FILE` or FILE.db, FILE.log for a journal, or a URL such as `postgresql://user:password@host/name`"


@contextmanager
def explain_storage(place: Place) -> Iterator[None]:
    """Turn what a storage says into a sentence.

    Raises:
        RunFailure: it is locked, gone or broken.
    """
    try:
        yield
    except (SQLAlchemyError, OptunaError, OSError, ModuleNotFoundError, ImportError, ValueError, KeyError) as error:
        raise _storage_problem(place, error, RunFailure) from error


def _storage_problem(place: Place, error: BaseException, kind: type[MedcliError]) -> MedcliError:
    where = f"--storage {place.shown}"
    text = " ".join(str(getattr(error, "orig", None) or error.__cause__ or error).split())
    if "locked" in text.lower():
        return kind(
            f"the study in `{place.shown}` is locked by another program",
            where=where,
            hint="close what has it open; on a network drive use a journal, `--storage FILE.log`",
            code="study-locked",
        )
    if isinstance(error, ModuleNotFoundError | NoSuchModuleError | ImportError):
        return kind(
            f"`{place.shown}` needs a driver that is not installed: {text}",
            where=where,
            hint=f"install the driver of your database, such as `{install_line(('psycopg2-binary',))}`",
            code="no-driver",
        )
    return kind(f"the study in `{place.shown}` cannot be used: {text}", where=where, hint=_FORMS, code="bad-storage")


def open_storage(place: Place) -> BaseStorage:
    """The storage itself.

    Raises:
        UsageProblem: it cannot be opened, or another program holds it.
    """
    if place.kind != "redis" and place.address.startswith(("/", "sqlite:////")):
        folder = Path(place.address.removeprefix("sqlite:///")).parent
        if not folder.is_dir():
            raise UsageProblem(
                f"there is no folder `{folder}`", where=f"--storage {place.shown}", hint=_FORMS, code="bad-storage"
            )
    try:
        if place.kind == "journal":
            return JournalStorage(JournalFileBackend(place.address))
        if place.kind == "redis":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return JournalStorage(JournalRedisBackend(place.address))
        return _database(place)
    except (SQLAlchemyError, OptunaError, OSError, ImportError, ValueError, KeyError) as error:
        raise _storage_problem(place, error, UsageProblem) from error


def _database(place: Place) -> RDBStorage:
    arguments = {"connect_args": {"timeout": PATIENCE}} if place.address.startswith("sqlite") else {}
    for attempt in range(ATTEMPTS):
        try:
            return RDBStorage(place.address, engine_kwargs=arguments)
        except SQLAlchemyError as error:
            # Of several processes that make the tables in the same moment, the later find some of them there already.
            crossed = isinstance(error, IntegrityError) or "exists" in str(error)
            if not crossed or attempt + 1 == ATTEMPTS:
                raise
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError("unreachable")


def join_study(place: Place, name: str, identity: Identity) -> Study:
    """The study of that name: a new one, or the one that is there if it was made with the same things.

    Raises:
        UsageProblem: the storage cannot be used, or the study is another one; everything that differs is named.
    """
    storage = open_storage(place)
    try:
        try:
            study = optuna.create_study(storage=storage, study_name=name, direction=identity.direction)
            study.set_user_attr(ATTRIBUTE, identity.to_json())
        except DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=name)
            # A process that began in the same moment may be between its two writes.
            kept = next((found for _ in range(20) if (found := _kept(study)) is not None), None)
        else:
            kept = identity.to_json()
    except (SQLAlchemyError, OptunaError, OSError, ValueError, KeyError) as error:
        raise _storage_problem(place, error, UsageProblem) from error
    if kept is None:
        raise UsageProblem(
            f"the study `{name}` in `{place.shown}` was not made by medcli",
            where=f"--storage {place.shown}",
            hint="give this search a study of its own: `--study NAME`",
            code="other-study",
        )
    differences = identity.differences(kept)
    if differences:
        raise UsageProblem(
            f"the study `{name}` in `{place.shown}` was made with other things: {'; '.join(differences)}",
            where=f"--storage {place.shown}",
            hint="search with the same settings, or begin a study of its own with `--study NAME`",
            code="other-study",
        )
    return study


def _kept(study: Study) -> Mapping[str, Any] | None:
    kept = study.user_attrs.get(ATTRIBUTE)
    if kept is None:
        time.sleep(0.1)
    return kept if isinstance(kept, dict) else None


def memory_study(identity: Identity) -> Study:
    """A study that is forgotten, for `--dry-run`."""
    return optuna.create_study(direction=identity.direction)


def counted(trials: Collection[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count towards `--trials`: all but those that wait and those that were interrupted."""
    return [one for one in trials if one.state != TrialState.WAITING and not one.user_attrs.get("interrupted")]
