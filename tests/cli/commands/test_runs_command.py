"""`medcli runs` as a person types it, on runs as training leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medcli.data.target import Target
from medcli.evaluation.predictions import Predictions, load_predictions
from medcli.prediction.finish import write_predictions
from medcli.prediction.tables import write_any
from medcli.runs.directory import RunDirectory, claim_run
from medcli.runs.records import append_metrics, read_data, write_config, write_data
from medcli.runs.status import State, Status, write_status
from medcli.settings.groups import EvaluationSettings
from medcli.settings.resolve import resolve
from medcli.testing.command import RunCli


def make(path: Path, seed: int = 0, state: State = "completed", ids_hash: str = "same") -> RunDirectory:
    run = RunDirectory(path)
    claim_run(run, command="train")
    write_config(run, resolve("train", {"epochs": 3}, architecture="resnet18"))
    split = {"count": 60, "ids_hash": ids_hash}
    target = {"task": "binary", "class_names": ["no", "yes"], "outputs": []}
    write_data(run, {"name": "toy", "origin": "toy.npz", "target": target, "splits": {"test": split}})
    best = {"epoch": 2, "monitor": "auc", "value": 0.75}
    error = "the loss is not finite" if state == "failed" else ""
    write_status(
        run, Status(state, "train", "2026-01-01T10:00:00+00:00", "2026-01-01T10:05:00+00:00", 3, 3, best, error)
    )
    labels = np.random.default_rng(5).integers(0, 2, 60)
    logits = np.random.default_rng(seed).normal(size=(60, 2)).astype(np.float32)
    logits[:, 1] += labels
    ids = np.array([f"case {i}" for i in range(60)])
    predictions = Predictions(ids, labels, logits, Target("binary", ("no", "yes")), split="test", data_name="toy")
    write_predictions(run.path, [predictions], EvaluationSettings(bootstrap=50))
    return run


@pytest.fixture
def runs(run_cli: RunCli) -> Path:
    folder = run_cli.directory / "runs"
    make(folder / "a", seed=1)
    make(folder / "b", seed=2)
    return folder


def test_list(run_cli: RunCli, runs: Path) -> None:
    make(runs / "c", state="failed")
    (runs / "a" / "status.json").write_text("{")  # without a time it is older than all
    outcome = run_cli("runs", "list", in_process=True)
    assert outcome.code == 0, outcome.stderr
    assert [line.split()[1] for line in outcome.stdout.splitlines()[1:4]] == ["failed", "completed", "broken"]
    assert "runs/c: the loss is not finite" in outcome.stdout
    listed = run_cli("runs", "list", "--json", in_process=True).json()["result"]["runs"]
    assert [one["value"] for one in listed] == [0.75, 0.75, None]
    assert [one["data"] for one in listed] == ["toy", "toy", ""]
    stored = json.loads((runs / "c" / "evaluation.json").read_text())["test"]["figures"]
    assert listed[0]["test"] == {name: stored[name]["value"] for name in ("auc", "accuracy")}
    assert f"{stored['auc']['value']:.4f}" in outcome.stdout
    assert run_cli("runs", "list", "-q", in_process=True).stdout.split() == ["runs/c", "runs/b", "runs/a"]


def test_list_without_runs(run_cli: RunCli) -> None:
    outcome = run_cli("runs", "list", in_process=True)
    assert (outcome.code, outcome.stdout) == (0, "")
    assert "there are no runs" in outcome.stderr
    assert run_cli("runs", "list", "absent", in_process=True).code == 2


def test_list_of_what_is_itself_a_run(run_cli: RunCli, runs: Path) -> None:
    outcome = run_cli("runs", "list", "runs/a", in_process=True)
    assert outcome.code == 2
    assert "medcli runs show runs/a" in outcome.stderr


def test_show(run_cli: RunCli, runs: Path) -> None:
    outcome = run_cli("runs", "show", "runs/a", in_process=True)
    assert outcome.code == 0, outcome.stderr
    for part in ("completed", "resnet18", "3 of 3", "auc 0.7500", "toy (toy.npz)", "`--epochs`", "balanced_accuracy"):
        assert part in outcome.stdout, part
    assert "weight_decay" not in outcome.stdout
    assert "weight_decay" in run_cli("runs", "show", "runs/a", "-v", in_process=True).stdout
    assert "medcli evaluate runs/a" in outcome.stderr
    shown = run_cli("runs", "show", "runs/a", "--json", in_process=True).json()
    assert shown["run_dir"] == "runs/a"
    assert shown["result"]["settings"]["epochs"] == {"value": 3, "layer": "flag", "where": "--epochs"}
    assert 0 < shown["result"]["evaluation"]["test"]["auc"]["value"] < 1


def test_show_tells_what_was_left_out_and_when_it_went_on(run_cli: RunCli, runs: Path) -> None:
    run = RunDirectory(runs / "a")
    skipped = [[f"{number}.png", "is truncated"] for number in range(7)]
    write_data(run, {**read_data(run), "skipped": skipped})
    append_metrics(run, {"epoch": 0})
    append_metrics(run, {"event": "resumed", "time": "2026-01-02T10:00:00+00:00", "extend": 4, "data_changes": ["x"]})
    text = run_cli("runs", "show", "runs/a", in_process=True).stdout
    assert "in epoch 2" in text
    assert "4.png: is truncated" in text
    assert "5.png" not in text
    assert "2 more images, named in data.json" in text
    assert "2026-01-02 10:00 UTC after epoch 1, to train 4 more, with changed data: x" in text
    result = run_cli("runs", "show", "runs/a", "--json", in_process=True).json()["result"]
    assert result["data"]["skipped"] == skipped
    assert [one["after_epoch"] for one in result["resumed"]] == [1]


def test_show_a_run_that_stopped(run_cli: RunCli, runs: Path) -> None:
    run = make(runs / "c", state="interrupted")
    run.checkpoint_file.parent.mkdir()
    run.checkpoint_file.touch()
    assert "--resume runs/c" in run_cli("runs", "show", "runs/c", in_process=True).stderr


def test_show_a_half_written_run(run_cli: RunCli, runs: Path) -> None:
    claim_run(RunDirectory(runs / "begun"), command="train")
    outcome = run_cli("runs", "show", "runs/begun", in_process=True)
    assert outcome.code == 0
    assert "broken" in outcome.stdout
    assert "Traceback" not in outcome.stderr
    for file in ("data.json", "evaluation.json", "config.toml"):
        (runs / "a" / file).write_text("{")
    outcome = run_cli("runs", "show", "runs/a", in_process=True)
    assert outcome.code == 0
    assert "config.toml" in outcome.stderr


def test_show_what_is_no_run(run_cli: RunCli, runs: Path) -> None:
    outcome = run_cli("runs", "show", "runs", in_process=True)
    assert (outcome.code, outcome.stdout) == (2, "")


def test_compare(run_cli: RunCli, runs: Path) -> None:
    outcome = run_cli("runs", "compare", "runs/a", "runs/b", in_process=True)
    assert outcome.code == 0, outcome.stderr
    assert "auc on test" in outcome.stdout
    assert "warning" not in outcome.stderr
    paired = run_cli("runs", "compare", "runs/a", "runs/b", "--paired", "--bootstrap", "50", "--json", in_process=True)
    result = paired.json()["result"]
    values = [one["value"] for one in result["runs"]]
    (difference,) = result["differences"]
    assert difference["value"] == pytest.approx(values[1] - values[0])
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert "minus a" in run_cli("runs", "compare", "runs/a", "runs/b", "--paired", in_process=True).stdout
    assert run_cli("runs", "compare", "runs/a", "runs/b", "-q", in_process=True).stdout.split() == ["runs/a", "runs/b"]


def test_compare_files_of_predictions_of_two_tools(run_cli: RunCli, runs: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        stored = load_predictions(runs / name / "predictions" / "test.npz")
        write_any(str(tmp_path / f"{name}.csv"), stored)
    few = ("--bootstrap", "50")
    words = ("--paired", *few)
    outcome = run_cli("runs", "compare", tmp_path / "a.csv", tmp_path / "b.csv", *words, "--json", in_process=True)
    assert outcome.code == 0, outcome.stderr
    files = outcome.json()["result"]
    stored = run_cli("runs", "compare", "runs/a", "runs/b", "--paired", *few, "--json", in_process=True)
    ofruns = stored.json()["result"]
    assert files["split"] is None
    for key in ("value", "low", "high", "n", "patients", "left_out"):
        assert files["differences"][0][key] == pytest.approx(ofruns["differences"][0][key])
    assert [one["value"] for one in files["runs"]] == pytest.approx([one["value"] for one in ofruns["runs"]])
    # A file beside a run, paired by the names of the cases.
    mixed = run_cli("runs", "compare", "runs/a", tmp_path / "b.csv", *words, in_process=True)
    assert mixed.code == 0, mixed.stderr
    assert "auc on test" in mixed.stdout
    alone = run_cli("runs", "compare", tmp_path / "a.csv", tmp_path / "b.csv", "--bootstrap", "0", in_process=True)
    assert "architecture" not in alone.stdout
    for more, part in ((("--on", "val"), "`--on` is for runs"), (("--metric", "auk"), "did you mean `auc`?")):
        refused = run_cli("runs", "compare", tmp_path / "a.csv", tmp_path / "b.csv", *more, in_process=True)
        assert refused.code == 2
        assert part in refused.stderr
    refused = run_cli("runs", "compare", "runs/a", "runs/b", "--id-column", "x", in_process=True)
    assert refused.code == 2
    assert "a run has its own" in refused.stderr


def test_runs_without_predictions_cannot_be_paired(run_cli: RunCli, runs: Path) -> None:
    (runs / "b" / "predictions" / "test.npz").unlink()
    outcome = run_cli("runs", "compare", "runs/a", "runs/b", "--paired", in_process=True)
    assert outcome.code == 2
    assert "`runs/b` has no stored predictions of `test`" in outcome.stderr


DAMAGE = (
    *("", "\x00", "3", "[]", "null", '{"a": [1]}', '{"test": {"figures": 3}}', '{"test": {"figures": {"auc": 3}}}'),
    '{"test": {"figures": {"auc": {"value": "0.9", "headline": true}}}}',
)
FILES = ("evaluation.json", "data.json", "status.json", "config.toml", "metrics.jsonl", "environment.json")


@pytest.mark.parametrize("file", FILES)
def test_no_damage_takes_the_listing_down(run_cli: RunCli, runs: Path, file: str) -> None:
    for text in DAMAGE:
        (runs / "a" / file).write_text(text)
        for words in (("list",), ("list", "--json"), ("show", "runs/a"), ("show", "runs/a", "--json")):
            outcome = run_cli("runs", *words, in_process=True)
            assert outcome.code == 0, (text, words, outcome.stderr)


def test_compare_warns_about_other_images(run_cli: RunCli, runs: Path) -> None:
    make(runs / "c", ids_hash="other")
    outcome = run_cli("runs", "compare", "runs/a", "runs/c", in_process=True)
    assert outcome.code == 0
    assert "not evaluated on the same test images" in outcome.stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("runs/a",), "nothing to be compared with"),
        (("runs/a", "runs/absent"), "there is no run"),
        (("runs/a", "runs/b", "--metric", "f1"), "did you mean `f1_macro`?"),
        (("runs/a", "runs/b", "--seed", "3"), "add `--paired`"),
        (("runs/a", "runs/b", "--on", "val"), "has no evaluation of `val`"),
    ],
)
def test_compare_refuses(run_cli: RunCli, runs: Path, words: tuple[str, ...], part: str) -> None:
    outcome = run_cli("runs", "compare", *words, in_process=True)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert part in outcome.stderr
