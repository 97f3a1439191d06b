"""What a run remembers is checked when it is read back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import medcli
from medcli.errors import UsageProblem
from medcli.runs.directory import RunDirectory, claim_run
from medcli.runs.records import (
    append_metrics,
    read_config,
    read_data,
    read_metrics,
    truncate_metrics,
    write_config,
    write_data,
    write_environment,
)
from medcli.settings.groups import TrainingSettings
from medcli.settings.resolve import resolve


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    claim_run(directory, command="train")
    return directory


def test_settings_come_back(run: RunDirectory) -> None:
    resolved = resolve("train", {"epochs": 7, "class_names": ("ä", 'b"')}, architecture="resnet18")
    write_config(run, resolved)
    again = read_config(run).resolved()
    assert again.group(TrainingSettings) == resolved.group(TrainingSettings)
    assert again.architecture == "resnet18"
    assert str(again.origin("epochs")) == "`--epochs`"


def test_half_a_config_names_its_line(run: RunDirectory) -> None:
    write_config(run, resolve("train", {}))
    text = run.config_file.read_text()
    run.config_file.write_text(text[: text.index("lr = ") + 5])
    with pytest.raises(UsageProblem) as caught:
        read_config(run)
    assert f"{run.config_file}:" in (caught.value.where or "")
    run.config_file.unlink()
    with pytest.raises(UsageProblem, match=r"has no `config\.toml`"):
        read_config(run)


def test_the_environment_names_versions_and_plugins(run: RunDirectory) -> None:
    write_environment(run, plugins=["medcli-echo 1.0"], facts={"seed": 3})
    document = json.loads(run.environment_file.read_text())
    assert document["medcli"] == medcli.__version__
    assert document["plugins"] == ["medcli-echo 1.0"]
    assert document["seed"] == 3
    assert document["libraries"]["numpy"]


def test_data_come_back_and_damage_is_named(run: RunDirectory) -> None:
    write_data(run, {"name": "x", "splits": {"train": {"count": 3}}})
    assert read_data(run)["splits"]["train"]["count"] == 3
    for text in ("{", "[]"):
        run.data_file.write_text(text)
        with pytest.raises(UsageProblem) as caught:
            read_data(run)
        assert caught.value.where == str(run.data_file)


def test_figures_are_kept_line_by_line(run: RunDirectory) -> None:
    assert read_metrics(run) == []
    append_metrics(run, {"epoch": 0, "val_auc": math.nan, "val_loss": math.inf})
    append_metrics(run, {"event": "resumed"})
    append_metrics(run, {"epoch": 1, "val_auc": 0.5})
    rows = read_metrics(run)
    assert rows == [{"epoch": 0, "val_auc": None, "val_loss": None}, {"event": "resumed"}, {"epoch": 1, "val_auc": 0.5}]
    truncate_metrics(run, 1)
    assert [row.get("epoch") for row in read_metrics(run)] == [0, None]


def test_an_unfinished_last_line_is_left_out_and_mended(run: RunDirectory) -> None:
    append_metrics(run, {"epoch": 0})
    with run.metrics_file.open("a") as file:
        file.write('{"epoch": 1, "val_')
    assert read_metrics(run) == [{"epoch": 0}]
    append_metrics(run, {"epoch": 1})
    assert read_metrics(run) == [{"epoch": 0}, {"epoch": 1}]


def test_damage_in_the_middle_names_its_line(run: RunDirectory) -> None:
    for text in ("{\n", "3\n"):
        run.metrics_file.write_text('{"epoch": 0}\n' + text + '{"epoch": 1}\n')
        with pytest.raises(UsageProblem) as caught:
            read_metrics(run)
        assert caught.value.where == f"{run.metrics_file}:2"
