"""Runs at a glance, also when some are damaged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from medcli.errors import UsageProblem
from medcli.runs.directory import RunDirectory, claim_run
from medcli.runs.listing import Resumption, compare, list_runs, resumptions, summarise
from medcli.runs.records import append_metrics, write_config, write_data
from medcli.runs.status import State, Status, held, write_status
from medcli.settings.resolve import resolve

FIGURES = {"auc": {"value": 0.9, "low": 0.8, "high": 0.95, "convention": "area"}, "f1_macro": {"value": None}}


def make(
    path: Path, *, state: State = "completed", started: str = "2026-01-01T00:00:00+00:00", **more: Any
) -> RunDirectory:
    run = RunDirectory(path)
    claim_run(run, command="train")
    write_config(run, resolve("train", {}, architecture="resnet18"))
    write_status(run, Status(state, "train", started, started, **more))
    return run


def evaluate(run: RunDirectory, figures: Any = FIGURES, split: str = "test") -> None:
    run.evaluation_file.write_text(json.dumps({split: {"n": 10, "figures": figures}}))


def test_runs_are_listed_newest_first_and_other_folders_passed_over(tmp_path: Path) -> None:
    make(tmp_path / "a", started="2026-02-01T00:00:00+00:00", epoch=3, epochs=5)
    make(tmp_path / "b", best={"epoch": 1, "monitor": "auc", "value": 0.8})
    (tmp_path / "other").mkdir()
    (tmp_path / "file").touch()
    first, second = list_runs(tmp_path)
    assert [first.path.name, second.path.name] == ["a", "b"]
    assert (second.monitor, second.value, second.architecture) == ("auc", 0.8, "resnet18")
    assert (first.epoch, first.epochs, math.isnan(first.value)) == (3, 5, True)
    assert (first.best_epoch, second.best_epoch) == (0, 1)


def test_data_and_test_figures_are_listed_where_they_are_known(tmp_path: Path) -> None:
    run = make(tmp_path / "a")
    write_data(run, {"name": "toy"})
    evaluate(run)
    summary = summarise(run)
    assert (summary.data, summary.auc, math.isnan(summary.accuracy)) == ("toy", 0.9, True)
    run.data_file.write_text("[")
    run.evaluation_file.write_text("{")
    summary = summarise(run)
    assert (summary.state, summary.data, math.isnan(summary.auc)) == ("completed", "", True)


def test_a_training_that_was_taken_up_again_tells_when(tmp_path: Path) -> None:
    run = make(tmp_path / "a")
    assert resumptions(run) == ()
    append_metrics(run, {"epoch": 0})
    append_metrics(run, {"epoch": 1})
    append_metrics(run, {"event": "resumed", "time": "then", "extend": 2, "data_changes": ["3 more cases"]})
    append_metrics(run, {"epoch": 2})
    append_metrics(run, {"event": "resumed", "time": "later", "extend": None, "data_changes": None})
    assert resumptions(run) == (Resumption("then", 2, 2, ("3 more cases",)), Resumption("later", 3))
    run.metrics_file.write_text("{\n{}\n")
    assert resumptions(run) == ()


def test_a_damaged_run_is_listed_as_broken(tmp_path: Path) -> None:
    make(tmp_path / "fine")
    make(tmp_path / "status").status_file.write_text("{")
    make(tmp_path / "metrics").metrics_file.write_text("{\n{}\n")
    make(tmp_path / "config").config_file.write_text("= 3")
    claim_run(RunDirectory(tmp_path / "begun"), command="train")
    found = {one.path.name: one for one in list_runs(tmp_path)}
    assert {name: one.state for name, one in found.items()} == {
        "fine": "completed",
        "status": "broken",
        "metrics": "broken",
        "config": "broken",
        "begun": "broken",
    }
    assert all(one.problem for name, one in found.items() if name != "fine")


def test_a_running_run_tells_its_last_epoch(tmp_path: Path) -> None:
    run = make(tmp_path / "a", state="running", epochs=9)
    append_metrics(run, {"epoch": 0})
    append_metrics(run, {"epoch": 1})
    with held(run):
        summary = summarise(run)
    assert (summary.state, summary.epoch, summary.epochs) == ("running", 2, 9)
    assert summary.updated > "2026-01-01T00:00:00+00:00"
    assert summarise(run).state == "failed"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert list_runs(tmp_path) == ()
    with pytest.raises(UsageProblem, match="cannot be listed"):
        list_runs(tmp_path / "absent")


def test_runs_are_compared_by_a_stored_figure(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        evaluate(make(path))
    one, other = compare(paths, "auc")
    assert (one.value, one.low, one.high, one.n, one.architecture) == (0.9, 0.8, 0.95, 10, "resnet18")
    assert other.run == paths[1]


@pytest.mark.parametrize(
    ("text", "metric", "code"),
    [
        (None, "auc", "not-finished"),
        ("{", "auc", "bad-run-file"),
        ("[]", "auc", "bad-run-file"),
        ('{"test": 3}', "auc", "bad-run-file"),
        ('{"test": {"figures": {"auc": 3}, "n": 3}}', "auc", "bad-run-file"),
        ('{"val": {"figures": {}, "n": 3}}', "auc", "no-such-split"),
        (json.dumps({"test": {"n": 3, "figures": FIGURES}}), "f1", "unknown-metric"),
    ],
)
def test_figures_that_cannot_be_had(tmp_path: Path, text: str | None, metric: str, code: str) -> None:
    run = make(tmp_path / "a")
    if text is not None:
        run.evaluation_file.write_text(text)
    with pytest.raises(UsageProblem) as caught:
        compare([run.path], metric)
    assert caught.value.code == code


def test_only_a_run_with_a_checkpoint_can_be_finished(tmp_path: Path) -> None:
    run = make(tmp_path / "a", state="interrupted")
    hints = []
    for _ in range(2):
        with pytest.raises(UsageProblem) as caught:
            compare([run.path], "auc")
        hints.append(caught.value.hint)
        run.checkpoint_file.parent.mkdir(exist_ok=True)
        run.checkpoint_file.touch()
    assert hints == [None, f"`medcli train --resume {run.path}` finishes it"]


def test_an_unknown_metric_names_the_nearest(tmp_path: Path) -> None:
    run = make(tmp_path / "a")
    evaluate(run)
    with pytest.raises(UsageProblem) as caught:
        compare([run.path], "f1")
    assert caught.value.hint == "did you mean `f1_macro`?"
