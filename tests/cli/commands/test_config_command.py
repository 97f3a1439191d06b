"""`medcli config` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medcli.testing.command import RunCli


@pytest.fixture
def here(run_cli: RunCli) -> Path:
    return run_cli.directory


def test_show_tells_values_and_origins(run_cli: RunCli, here: Path) -> None:
    (here / "medcli.toml").write_text("[train]\nlr = 0.5\n")
    outcome = run_cli("config", "show", "train", "resnet18", env={"MEDCLI_EPOCHS": "3"}, in_process=True)
    assert outcome.code == 0, outcome.stderr
    rows = {line.split()[0]: line.split(None, 2) for line in outcome.stdout.splitlines()}
    assert rows["lr"][1:] == ["0.5", "medcli.toml:2"]
    assert rows["epochs"][1:] == ["3", "variable `MEDCLI_EPOCHS`"]
    assert rows["momentum" if "momentum" in rows else "seed"][2] == "default"
    assert rows["dropout"][2].startswith("card of resnet18")


def test_show_in_json(run_cli: RunCli) -> None:
    outcome = run_cli("config", "show", "train", "--preset", "medmnist-official-28", "--json", in_process=True).json()
    assert outcome["result"]["settings"]["epochs"] == {
        "value": 100,
        "layer": "preset",
        "where": "medmnist-official-28",
    }
    assert outcome["result"]["architecture"]["value"] is None


@pytest.mark.parametrize("word", ["data-check", "data check", "data_check"])
def test_show_takes_commands_of_two_words(run_cli: RunCli, word: str) -> None:
    outcome = run_cli("config", "show", word, in_process=True)
    assert outcome.code == 0, outcome.stderr
    assert "near_duplicates" in outcome.stdout


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("tran",), "did you mean `train`?"),
        (("runs list",), "takes flags alone"),
        (("predict", "resnet18"), "takes no architecture"),
        (("predict", "--preset", "medmnist-official-28"), "takes no preset"),
        (("train", "resnt18"), "unknown architecture `resnt18`"),
        (("train", "--config", "absent.toml"), "there is no file `absent.toml`"),
    ],
)
def test_show_refuses_what_makes_no_sense(run_cli: RunCli, words: tuple[str, ...], part: str) -> None:
    outcome = run_cli("config", "show", *words, in_process=True)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert part in outcome.stderr


def test_check_finds_everything_at_once(run_cli: RunCli, here: Path) -> None:
    (here / "medcli.toml").write_text(
        'architecture = "resnt18"\nepoch = 3\n[train]\ndata = "absent.npz"\n[evaluate]\nbins = 0\n'
        '[data.a]\npath = "absent"\n'
    )
    outcome = run_cli("config", "check", env={"MEDCLI_LR": "fast"}, in_process=True)
    assert outcome.code == 2
    for part in (
        "unknown architecture `resnt18`",
        "there is no data `absent.npz`",
        "unknown setting `epoch`",
        "`bins` must be a whole number of at least 1, not `0`",
        "there is no data `absent`",
        "`lr` must be a number above 0, not `fast`",
    ):
        assert outcome.stderr.count(part) == 1, part


def test_check_of_a_good_file(run_cli: RunCli, here: Path) -> None:
    (here / "good.toml").write_text('architecture = "resnet18"\ndata = ["synthetic/chest", "good.toml"]\n')
    outcome = run_cli("config", "check", "good.toml", "--json", in_process=True)
    assert outcome.code == 0, outcome.stderr
    assert outcome.json()["result"]["files"] == ["good.toml"]
    assert run_cli("config", "check", in_process=True).code == 0


@pytest.mark.parametrize("line", ['pth = "a"', "path = 3", ""])
def test_check_of_a_data_table_without_a_path(run_cli: RunCli, here: Path, line: str) -> None:
    (here / "medcli.toml").write_text(f"[data.a]\n{line}\n")
    outcome = run_cli("config", "check", in_process=True)
    assert outcome.code == 2
    assert "medcli.toml:" in outcome.stderr


def test_check_of_broken_toml(run_cli: RunCli, here: Path) -> None:
    (here / "bad.toml").write_text("a = 1\nb = = 2\n")
    outcome = run_cli("config", "check", "bad.toml", in_process=True)
    assert outcome.code == 2
    assert "bad.toml:2:5" in outcome.stderr


def test_data_beside_data_tables_is_explained(run_cli: RunCli, here: Path) -> None:
    (here / "medcli.toml").write_text('data = "a.npz"\n[data.a]\npath = "a.npz"\n')
    outcome = run_cli("config", "check", in_process=True)
    assert "`data = …` goes below `[train]`" in outcome.stderr


def test_init_writes_a_file_that_passes_and_replaces_none(run_cli: RunCli, here: Path) -> None:
    assert run_cli("config", "init", "-q", in_process=True).stdout == "medcli.toml\n"
    text = (here / "medcli.toml").read_text()
    assert "# at least 1\n# epochs = 30" in text
    assert "# split = [0.7, 0.15, 0.15]" in text
    assert run_cli("config", "check", in_process=True).code == 0
    again = run_cli("config", "init", in_process=True)
    assert again.code == 2
    assert "exists already" in again.stderr
    assert (here / "medcli.toml").read_text() == text
    assert run_cli("config", "init", "absent/x.toml", in_process=True).code == 2


def test_the_schema_is_json(run_cli: RunCli) -> None:
    schema = json.loads(run_cli("config", "schema", in_process=True).stdout)
    assert schema["properties"]["epochs"]["minimum"] == 1
    assert run_cli("config", "schema", "--json", in_process=True).json()["result"] == schema


def test_presets_name_their_source(run_cli: RunCli) -> None:
    outcome = run_cli("config", "presets", in_process=True)
    assert "medmnist-official-28" in outcome.stdout
    assert "Scientific Data 2023" in outcome.stdout
