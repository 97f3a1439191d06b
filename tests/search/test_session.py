"""Whole searches: what trials see and leave behind, what ends one trial and what ends all, going on, and sharing."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from PIL import Image

from medcli.data.dataset import Picture
from medcli.data.load import load_data
from medcli.errors import ExitCode, RunFailure, UsageProblem
from medcli.registry.children import child_environment
from medcli.runs.directory import RunDirectory
from medcli.runs.status import read_status
from medcli.search.plan import SearchPlan, continue_search
from medcli.search.session import SearchResult, conduct_search
from medcli.search.trial import plan_whole
from medcli.training import loop, start
from medcli.training.interruption import Interrupted
from medcli.training.progress import NoProgress
from medcli.training.session import Watch, conduct

Do = Callable[..., SearchResult]
Make = Callable[..., SearchPlan]
Write = Callable[[str], str]
WORKER = [sys.executable, "-m", "medcli", "search"]


@pytest.fixture
def small_space(write_space: Write) -> str:
    """Three settings, so that importance has something to say."""
    return write_space("[space]\nlr = { low = 1e-4, high = 1e-2, log = true }\nbatch_size = [6, 8, 12]\n")


class Untouchable:
    """Test images that nobody may look at."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Picture:
        raise AssertionError("a search read a test image")

    def describe(self, index: int) -> str:
        raise AssertionError("a search asked for a test image")

    def fingerprint(self, index: int) -> bytes:
        raise AssertionError("a search hashed a test image")


def test_no_trial_reads_or_predicts_the_test_split(do_search: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    def guarded(*given: Any, **more: Any) -> Any:
        (data,) = load_data(*given, **more)
        test = replace(data.splits["test"], images=Untouchable(len(data.splits["test"])))
        return (replace(data, splits={**data.splits, "test": test}),)

    monkeypatch.setattr(start, "load_data", guarded)
    result = do_search(trials=2)
    assert [row.state for row in result.rows] == ["completed", "completed"]
    assert not list(result.run.path.rglob("test.npz"))
    for file in result.run.path.rglob("data.json"):
        assert set(json.loads(file.read_text())["splits"]) == {"train", "val"}


def test_a_search_leaves_tables_pictures_and_one_set_of_weights(do_search: Do, small_space: str) -> None:
    result = do_search(trials=5, space=small_space, pruner="none")
    path = result.run.path
    assert len(result.rows) == 5
    assert result.ended == "trials"
    assert read_status(result.run).state == "completed"
    assert [file.parent.name for file in path.rglob("model.safetensors")] == [f"{result.best.trial:04d}"]
    assert not list(path.rglob("checkpoints"))
    best = max(row.value for row in result.rows)
    assert result.best.value == best
    with (path / "trials.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["val_auc"]) for row in table] == [row.value for row in result.rows]
    assert [float(row["lr"]) for row in table] == [row.settings["lr"] for row in result.rows]
    document = json.loads((path / "trials.json").read_text())
    assert [row["trial"] for row in document["trials"]] == [1, 2, 3, 4, 5]
    lines = (path / "trials.txt").read_text().splitlines()
    assert lines[1].split()[0] == str(result.best.trial)
    for name in ("history", "settings", "importance"):
        with Image.open(path / "plots" / f"{name}.png") as picture:
            assert picture.width >= 480
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_the_best_settings_train_to_the_same_figure(do_search: Do, small_space: str) -> None:
    result = do_search(trials=3, space=small_space)
    again = plan_whole("train", None, {"config": str(result.settings_file)})
    trial = json.loads((result.run.path / "trials.json").read_text())["trials"][result.best.trial - 1]
    for name, value in trial["settings"].items():
        assert again.resolved.values[name] == value
    assert again.plan.training.epochs == 2
    assert set(again.plan.data.splits) == {"train", "val", "test"}
    silent = Watch(NoProgress(), lambda text: None, lambda split, done, total: None, lambda question: True)
    outcome = conduct(again, silent, command="train", out="again", overwrite=False)
    assert outcome.best.value == result.best.value
    assert outcome.best.epoch + 1 == result.best.epoch
    assert set(outcome.evaluations) == {"val", "test"}


def test_trials_share_their_seed_and_the_draws_hang_on_it(do_search: Do) -> None:
    first, second, third = do_search(), do_search(out="second"), do_search(out="third", seed=5)
    assert [(row.settings, row.value) for row in first.rows] == [(row.settings, row.value) for row in second.rows]
    assert first.rows[0].settings != third.rows[0].settings
    configs = [file.read_text() for file in first.run.path.glob("trials/*/config.toml")]
    assert len(configs) == 3
    assert all("seed = 0 " in text for text in configs)


def test_equal_settings_are_not_trained_twice(
    do_search: Do, write_space: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = do_search(trials=4, space=write_space("[space]\nbatch_size = [8]\n"), pruner="none")
    assert len({row.value for row in result.rows}) == 1
    assert result.rows[3].reason == "the same settings as trial 1, whose figure it has"
    assert [folder.name for folder in (result.run.path / "trials").iterdir()] == ["0001"]


def test_a_grid_ends_by_itself(do_search: Do, write_space: Write) -> None:
    space = write_space("[space]\nlr = [1e-4, 1e-3]\nbatch_size = [6, 12]\n")
    result = do_search(trials=20, space=space, search_sampler="grid", epochs=1)
    assert result.ended == "grid"
    seen = {(row.settings["lr"], row.settings["batch_size"]) for row in result.rows}
    assert seen == {(1e-4, 6), (1e-4, 12), (1e-3, 6), (1e-3, 12)}
    assert len(result.rows) == 4


def test_the_loss_is_searched_downwards(do_search: Do, small_space: str) -> None:
    result = do_search(monitor="loss", space=small_space, pruner="none")
    assert result.best.value == min(row.value for row in result.rows)


def test_the_time_is_up(do_search: Do) -> None:
    result = do_search(trials=50, timeout=0.01)
    assert result.ended == "timeout"
    assert len(result.rows) == 1


class Scripted:
    """Makes chosen trials fail in a chosen way: called in place of a step of learning."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ways: dict[int, Callable[[], None]]) -> None:
        from medcli.search import session

        self.trial = 0
        real_train, real_step = session.run_trial, loop.learn_window

        def train(*given: Any, **more: Any) -> Any:
            self.trial += 1
            return real_train(*given, **more)

        def step(*given: Any) -> Any:
            if self.trial in ways:
                ways[self.trial]()
            return real_step(*given)

        monkeypatch.setattr(session, "run_trial", train)
        monkeypatch.setattr(loop, "learn_window", step)


def _raise(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_a_failed_trial_is_recorded_and_the_search_goes_on(
    do_search: Do, heard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    Scripted(
        monkeypatch,
        {
            1: _raise(torch.OutOfMemoryError("CUDA out of memory")),
            2: _raise(RunFailure("the loss became nan in epoch 1", code="loss-not-finite")),
            3: _raise(ValueError("this network wants\nanother shape")),
        },
    )
    result = do_search(trials=5)
    assert [row.state for row in result.rows[:3]] == ["failed"] * 3
    assert result.rows[0].reason.startswith("out of memory with batches of")
    assert result.rows[1].reason == "the loss became nan in epoch 1"
    assert result.rows[2].reason == "ValueError: this network wants another shape"
    assert result.best.trial in (4, 5)
    assert any(line == "trial 2 failed: the loss became nan in epoch 1" for line in heard.lines)
    assert "the loss became nan" in (result.run.path / "trials.csv").read_text()


def test_a_bad_combination_is_a_failed_trial(do_search: Do, write_space: Write) -> None:
    space = write_space('[space]\nscheduler = ["cosine", "constant"]\nmin_lr = [1e-6, 1e-5]\nlr = [1e-3]\n')
    result = do_search(space=space, search_sampler="grid", trials=4, epochs=1)
    assert {(row.settings["scheduler"], row.state) for row in result.rows} == {
        ("cosine", "completed"),
        ("constant", "failed"),
    }
    assert all("`--min-lr` acts only with" in row.reason for row in result.rows if row.state == "failed")


def test_a_search_whose_trials_all_fail_gives_up(do_search: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {number: _raise(ValueError("no")) for number in range(1, 20)}
    Scripted(monkeypatch, broken)
    with pytest.raises(RunFailure, match="the first 5 trials failed, the last one because ValueError: no"):
        do_search(trials=20)
    status = read_status(RunDirectory(Path("found")))
    assert (status.state, status.epoch) == ("failed", 5)
    with pytest.raises(RunFailure, match="none of 2 trials was completed"):
        do_search(trials=2, out="second")


def test_a_full_disk_ends_the_search(do_search: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    Scripted(monkeypatch, {2: _raise(RunFailure("no space is left", code="no-space"))})
    with pytest.raises(RunFailure, match="no space is left"):
        do_search()
    assert read_status(RunDirectory(Path("found"))).error == "no space is left"


def test_a_trial_that_falls_behind_is_pruned(do_search: Do, write_space: Write, heard: Any) -> None:
    """Rates too small to learn anything come after four that learn."""
    space = write_space("[space]\nlr = [1e-9, 2e-2]\nbatch_size = [6]\nweight_decay = [0.0, 0.01, 0.02, 0.03, 0.04]\n")
    result = do_search(space=space, search_sampler="grid", trials=10, epochs=4, pruner="median", monitor="loss")
    pruned = [row for row in result.rows if row.state == "pruned"]
    assert pruned
    for row in pruned:
        assert row.settings["lr"] == 1e-9
        assert row.epochs < 4
        assert row.reason.startswith(f"pruned after epoch {row.epochs}: val loss")
        status = read_status(RunDirectory(Path(row.run)))
        assert (status.state, status.error) == ("interrupted", row.reason)
        assert "Traceback" not in (Path(row.run) / "log.txt").read_text()
        assert not (Path(row.run) / "model.safetensors").exists()
    assert result.best.settings["lr"] == 2e-2


def test_an_interrupted_search_goes_on_where_it_was(do_search: Do, heard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        Scripted(patched, {2: lambda: os.kill(os.getpid(), signal.SIGINT)})
        with pytest.raises(Interrupted) as caught:
            do_search(trials=3)
    assert caught.value.exit_code == ExitCode.INTERRUPTED
    assert caught.value.hint == "continue with `medcli search --resume found`"
    assert read_status(RunDirectory(Path("found"))).state == "interrupted"
    assert (Path("found") / "best.toml").is_file()
    plan, run, status = continue_search(None, {"resume": "found"})
    assert status.state == "interrupted"
    result = conduct_search(plan, heard.watch(), run=run)
    assert [row.state for row in result.rows] == ["completed", "interrupted", "completed", "completed"]
    assert result.rows[2].settings == result.rows[1].settings
    whole = do_search(out="whole", trials=3)
    assert {tuple(row.settings.items()): row.value for row in whole.rows[:2]}.items() <= {
        tuple(row.settings.items()): row.value for row in result.rows if row.state == "completed"
    }.items()


def test_sigterm_ends_with_its_own_status(do_search: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    Scripted(monkeypatch, {1: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    with pytest.raises(Interrupted) as caught:
        do_search()
    assert caught.value.exit_code == ExitCode.TERMINATED


def test_a_killed_process_leaves_a_trial_that_is_begun_again(do_search: Do, heard: Any) -> None:
    result = do_search(trials=1)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{result.run.path}/study.db")
    orphan = study.ask()
    orphan.suggest_float("lr", 1e-5, 1e-3, log=True)
    for name, choices in (
        ("batch_size", (16, 32, 64)),
        ("dropout", (0.0, 0.1, 0.3, 0.5)),
        ("weight_decay", (0.0, 0.01, 0.05)),
    ):
        orphan.suggest_categorical(name, choices)
    values = dict(orphan.params)
    orphan.set_user_attr("host", socket.gethostname())
    orphan.set_user_attr("search", str(result.run.path.absolute()))
    plan, run, _ = continue_search(None, {"resume": "found", "trials": 2})
    again = conduct_search(plan, heard.watch(), run=run)
    assert [row.state for row in again.rows] == ["completed", "interrupted", "completed"]
    assert again.rows[1].reason == "its process ended unexpectedly"
    assert dict(again.rows[2].settings) == values


def test_going_on_tries_more(do_search: Do, heard: Any) -> None:
    first = do_search(trials=2)
    plan, run, status = continue_search(None, {"resume": "found", "trials": 3})
    assert status.state == "completed"
    result = conduct_search(plan, heard.watch(), run=run)
    assert result.rows[:2] == first.rows
    assert len(result.rows) == 3
    fresh = do_search(out="fresh", trials=3)
    assert [row.settings for row in fresh.rows] == [row.settings for row in result.rows]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lr": 0.5}, "`--lr` was `0.001`, given `0.5`"),
        ({"strategy": "full"}, "`--strategy` was `None`, given `full`"),
        ({"seed": 4}, "`--seed` was `0`, given `4`"),
    ],
)
def test_going_on_changes_nothing_that_is_searched(given: dict[str, Any], words: str, do_search: Do) -> None:
    do_search(trials=1)
    with pytest.raises(UsageProblem) as caught:
        continue_search(None, {"resume": "found", **given})
    assert words in caught.value.message
    with pytest.raises(UsageProblem, match="the architecture was `timm/test_resnet`, given `resnet18`"):
        continue_search("resnet18", {"resume": "found"})


def test_going_on_with_other_data_is_refused(do_search: Do, archive: Path, heard: Any) -> None:
    do_search(trials=1)
    arrays = dict(np.load(archive))
    arrays["train_labels"] = 1 - arrays["train_labels"]
    np.savez(archive, **arrays)
    plan, run, _ = continue_search(None, {"resume": "found", "trials": 2})
    with pytest.raises(UsageProblem, match="labels in train changed"):
        conduct_search(plan, heard.watch(), run=run)


def test_only_a_search_is_gone_on_with(archive: Path) -> None:
    with pytest.raises(UsageProblem, match="there is no run `nowhere`"):
        continue_search(None, {"resume": "nowhere"})
    given = {"data": (str(archive),), "image_size": 16, "epochs": 1, "workers": 0, "device": "cpu", "batch_size": 8}
    silent = Watch(NoProgress(), lambda text: None, lambda split, done, total: None, lambda question: True)
    conduct(plan_whole("train", "timm/test_resnet", given), silent, command="train", out="plain", overwrite=False)
    with pytest.raises(UsageProblem, match="`plain` was made by `medcli train`, not by a search"):
        continue_search(None, {"resume": "plain"})


def test_a_busy_or_occupied_directory_is_refused(do_search: Do, heard: Any) -> None:
    from medcli.runs.status import held

    result = do_search(trials=1)
    with pytest.raises(UsageProblem, match="`found` is not empty"):
        do_search(trials=1)
    plan, run, _ = continue_search(None, {"resume": "found", "trials": 2})
    with held(result.run), pytest.raises(UsageProblem, match="works in `found`"):
        conduct_search(plan, heard.watch(), run=run)


def test_a_password_is_never_written(make_search: Make, tmp_path: Path) -> None:
    from medcli.search.session import _record
    from medcli.search.study import place_of

    plan = make_search(storage="postgresql://me:secret@host/name")
    place = place_of(plan.settings.storage, tmp_path)
    run = RunDirectory(tmp_path / "run")
    _record(plan, run, place.shown)
    assert not [file for file in run.path.iterdir() if "secret" in file.read_text()]


@pytest.mark.parametrize("storage", ["shared.log", "shared.db"])
def test_two_processes_share_one_study(storage: str, archive: Path, small_space: str) -> None:
    """Both draw from one history, no trial is drawn twice, and there are as many as were asked for."""
    flags = ["timm/test_resnet", "--data", str(archive), "--image-size", "16", "--epochs", "1", "--workers", "0"]
    flags += ["--device", "cpu", "--augment", "none", "--trials", "8", "--space", small_space, "--storage", storage]
    children = [
        subprocess.Popen(
            [*WORKER, *flags, "--out", name, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment({}),
        )
        for name in ("one", "two")
    ]
    said = [child.communicate(timeout=280) for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    answers = [json.loads(out)["result"] for out, _ in said]
    rows = max(
        (answer["trials"] for answer in answers), key=lambda found: sum(row["state"] == "completed" for row in found)
    )
    done = [row for row in rows if row["state"] in ("completed", "pruned")]
    assert len(done) == 8
    owners = {Path(row["run"]).parent.parent.name for row in done if row["run"]}
    assert owners == {"one", "two"}
    drawn = [row["settings"]["lr"] for row in done]
    assert len(set(drawn)) == len(drawn)
