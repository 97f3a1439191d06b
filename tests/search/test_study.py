"""The study: where it may be kept, what it must have been made with, and draws that no process shares."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from medcli.errors import RunFailure, UsageProblem
from medcli.search import study as module
from medcli.search.library import quiet_library
from medcli.search.plan import SearchPlan
from medcli.search.sampling import make_pruner, make_sampler, suggest
from medcli.search.space import Choices, Range
from medcli.search.study import (
    Identity,
    counted,
    explain_storage,
    join_study,
    place_of,
)

Make = Callable[..., SearchPlan]
SPACE = (Range("lr", 1e-5, 1e-3, log=True), Choices("batch_size", (16, 32, 64)))


@pytest.fixture(autouse=True)
def _quiet() -> None:
    quiet_library()


@pytest.mark.parametrize(
    ("storage", "kind", "address"),
    [
        ("sqlite:///x.db", "database", "sqlite:///x.db"),
        ("x.db", "database", "sqlite:///{here}/x.db"),
        ("x.log", "journal", "{here}/x.log"),
        ("postgresql://me:secret@host/name", "database", "postgresql://me:secret@host/name"),
        ("redis://:secret@host:6379/0", "redis", "redis://:secret@host:6379/0"),
        (None, "database", "sqlite:///{here}/run/study.db"),
    ],
)
def test_a_storage_is_a_file_or_a_url(storage: str | None, kind: str, address: str, tmp_path: Path) -> None:
    place = place_of(storage, Path("run/study.db"))
    assert (place.kind, place.address) == (kind, address.format(here=tmp_path))
    assert "secret" not in place.shown


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("study", "neither a URL nor a file whose ending"),
        (".", "is a folder"),
        ("://", "is no URL"),
        ("nowhere/x.log", "there is no folder"),
        ("nowhere/x.db", "there is no folder"),
        ("oracle99://host/name", "needs a driver that is not installed"),
        ("mysql+nodriver://host/name", "needs a driver that is not installed"),
    ],
)
def test_a_storage_that_cannot_be_is_refused(storage: str, words: str, make_search: Make) -> None:
    identity = make_search().identity
    with pytest.raises(UsageProblem, match=words):
        join_study(place_of(storage, Path("study.db")), "one", identity)


def test_a_file_that_is_no_database_is_refused(make_search: Make) -> None:
    Path("x.db").write_text("these are words, not a database\n" * 100)
    with pytest.raises(UsageProblem, match=r"the study in `x\.db` cannot be used: file is not a database"):
        join_study(place_of("x.db", Path()), "one", make_search().identity)


def test_a_journal_that_is_none_is_refused(make_search: Make) -> None:
    Path("x.log").write_text("these are words\n" * 100)
    with pytest.raises(UsageProblem, match=r"the study in `x\.log` cannot be used"):
        join_study(place_of("x.log", Path()), "one", make_search().identity)


def test_a_locked_study_is_refused(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    identity, place = make_search().identity, place_of("x.db", Path())
    join_study(place, "one", identity)
    with sqlite3.connect("x.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UsageProblem) as caught:
            join_study(place, "one", identity)
        assert caught.value.message == "the study in `x.db` is locked by another program"
        assert caught.value.code == "study-locked"
        other.execute("ROLLBACK")
    assert join_study(place, "one", identity).study_name == "one"


def test_a_study_that_becomes_locked_is_a_failure_in_words(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    place = place_of("x.db", Path())
    study = join_study(place, "one", make_search().identity)
    with sqlite3.connect("x.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RunFailure, match="is locked by another program"), explain_storage(place):
            study.ask()
        other.execute("ROLLBACK")


def test_another_tools_study_is_refused(make_search: Make) -> None:
    optuna.create_study(storage="sqlite:///x.db", study_name="one", direction="maximize")
    with pytest.raises(UsageProblem, match="was not made by medcli"):
        join_study(place_of("x.db", Path()), "one", make_search().identity)


def changed(identity: Identity, what: str) -> Identity:
    data: dict[str, Any] = {**identity.data}
    match what:
        case "architecture":
            return replace(identity, architecture="medcli/resnet18")
        case "space":
            return replace(identity, space={**identity.space, "lr": {"choices": [1e-4]}})
        case "setting":
            return replace(identity, settings={**identity.settings, "epochs": 9})
        case "labels":
            train = {**data["splits"]["train"], "labels_hash": "other"}
        case "images":
            train = {**data["splits"]["train"], "files_hash": "other"}
    return replace(identity, data={**data, "splits": {**data["splits"], "train": train}})


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("architecture", "the architecture was `medcli/timm/test_resnet` and is `medcli/resnet18`"),
        ("space", "the space of `lr` was 1e-05 to 0.001 logarithmic and is [0.0001]"),
        ("setting", "`epochs` was `2` and is `9`"),
        ("labels", "labels in train changed"),
        ("images", "the contents of image files in train changed"),
    ],
)
@pytest.mark.parametrize("storage", ["x.db", "x.log"])
def test_a_study_made_with_other_things_is_refused(storage: str, what: str, words: str, make_search: Make) -> None:
    identity, place = make_search().identity, place_of(storage, Path())
    join_study(place, "one", identity)
    with pytest.raises(UsageProblem) as caught:
        join_study(place, "one", changed(identity, what))
    assert words in caught.value.message
    assert "--study NAME" in (caught.value.hint or "")
    assert join_study(place, "two", changed(identity, what)).study_name == "two"
    assert join_study(place, "one", identity).study_name == "one"


def draws(kind: str, seed: int, numbers: int) -> list[dict[str, Any]]:
    study = optuna.create_study(direction="maximize", sampler=make_sampler(kind, seed, SPACE))
    found = []
    for number in range(numbers):
        trial = study.ask()
        found.append(suggest(trial, SPACE))
        study.tell(trial, number / 10)
    return found


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_draws_hang_on_seed_and_number_alone(kind: str) -> None:
    assert draws(kind, 3, 14) == draws(kind, 3, 14)
    assert draws(kind, 3, 2) != draws(kind, 4, 2)
    # A second process has a sampler of its own, and its trials have other numbers.
    study = optuna.create_study(direction="maximize", sampler=make_sampler(kind, 3, SPACE))
    first = suggest(study.ask(), SPACE)
    study.sampler = make_sampler(kind, 3, SPACE)
    assert suggest(study.ask(), SPACE) != first


def test_cma_es_moves_along_ranges() -> None:
    space = (Range("lr", 1e-5, 1e-3, log=True), Range("dropout", 0.0, 0.5))
    study = optuna.create_study(sampler=make_sampler("cmaes", 0, space))
    for _ in range(30):
        trial = study.ask()
        values = suggest(trial, space)
        study.tell(trial, (values["dropout"] - 0.2) ** 2)
    assert study.best_params["dropout"] == pytest.approx(0.2, abs=0.05)


def test_a_grid_visits_every_combination_once() -> None:
    space = (Choices("lr", (1e-4, 1e-3)), Choices("batch_size", (8, 16, 32)))
    sampler = make_sampler("grid", 0, space)
    study = optuna.create_study(sampler=sampler)
    seen = []
    while not (isinstance(sampler, optuna.samplers.GridSampler) and sampler.is_exhausted(study)):
        trial = study.ask()
        seen.append(tuple(suggest(trial, space).values()))
        study.tell(trial, 0.0)
    assert sorted(seen) == sorted((lr, size) for lr in (1e-4, 1e-3) for size in (8, 16, 32))


@pytest.mark.parametrize("kind", ["median", "halving", "hyperband"])
def test_pruners_stop_what_is_behind_and_nothing_else(kind: str) -> None:
    study = optuna.create_study(study_name="one", direction="maximize", pruner=make_pruner(kind, 9))
    stopped = {0.9: 0, 0.5: 0, 0.95: 0}
    # Hyperband deals trials out to brackets, one of which stops nothing: six of each are enough to meet the others.
    for value in [0.9] * 12 + [0.5] * 6 + [0.95] * 6:
        trial = study.ask()
        pruned = False
        for epoch in range(9):
            trial.report(value, epoch)
            pruned = pruned or trial.should_prune()
        stopped[value] += pruned
        study.tell(trial, value)
    assert stopped[0.9] == stopped[0.95] == 0
    assert stopped[0.5] >= (1 if kind == "hyperband" else 6)


JOIN = """
import sys, time
from pathlib import Path
from medcli.search.study import Identity, join_study, place_of
identity = Identity("a", "train", "scratch", "auc", {"lr": {"choices": [1]}}, {"epochs": 1}, {"splits": {}})
for number in range(4):
    time.sleep(max(0, float(sys.argv[1]) + number - time.time()))
    study = join_study(place_of(f"{number}.{sys.argv[2]}", Path()), "one", identity)
    trial = study.ask()
    study.tell(trial, trial.suggest_float("lr", 0, 1))
"""


@pytest.mark.parametrize("ending", ["db", "log"])
def test_processes_that_begin_in_the_same_moment_make_one_study(ending: str) -> None:
    moment = str(time.time() + 6)
    children = [
        subprocess.Popen([sys.executable, "-c", JOIN, moment, ending], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], said
    for number in range(4):
        storage = module.open_storage(place_of(f"{number}.{ending}", Path()))
        assert len(optuna.load_study(storage=storage, study_name="one").trials) == 3


def test_no_pruner_stops_nothing() -> None:
    assert isinstance(make_pruner("none", 9), optuna.pruners.NopPruner)


def test_interrupted_and_waiting_trials_do_not_count() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"x": 1.0})
    first, second = study.ask(), study.ask()
    first.set_user_attr("interrupted", True)
    study.tell(first, state=optuna.trial.TrialState.FAIL)
    study.enqueue_trial({"x": 1.0})
    assert [one.number for one in counted(study.get_trials())] == [second.number]
