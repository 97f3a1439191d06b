"""Where a run is, who may write there, and what --overwrite removes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medcli.errors import RunFailure, UsageProblem
from medcli.runs.directory import (
    MANIFEST,
    RunDirectory,
    claim_run,
    open_run,
    plan_run,
    refuse_occupied,
    replace_text,
    writing,
)


def test_a_name_is_made_of_time_command_and_architecture(tmp_path: Path) -> None:
    run = plan_run("train", "timm/resnet26d", out=None, root=str(tmp_path))
    assert re.fullmatch(r"\d{8}T\d{6}Z-train-timm--resnet26d-[0-9a-f]{4}", run.path.name)
    assert plan_run("train", "medcli/resnet18", out=None).path.name.split("-")[2] == "resnet18"
    assert plan_run("train", "x", out="here").path == Path("here")
    assert not run.path.exists()


def test_a_claimed_directory_is_a_run(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "a" / "b")
    claim_run(run, command="train")
    assert open_run(run.path) == run
    assert (run.path / MANIFEST).is_file()


def test_an_empty_directory_may_be_claimed_a_full_one_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    claim_run(RunDirectory(tmp_path / "empty"), command="train")
    with pytest.raises(UsageProblem, match="is not empty") as caught:
        claim_run(RunDirectory(tmp_path / "empty"), command="train")
    assert "--resume" in (caught.value.hint or "")
    assert "--overwrite" in (caught.value.hint or "")


def test_overwrite_removes_only_what_medcli_wrote(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    claim_run(run, command="train")
    (run.path / "checkpoints").mkdir()
    run.checkpoint_file.write_text("x")
    run.metrics_file.write_text("{}")
    (run.path / "notes.md").write_text("mine")
    asked: list[str] = []

    def agree(question: str) -> bool:
        asked.append(question)
        return True

    claim_run(run, command="train", overwrite=True, confirm=agree)
    assert len(asked) == 1
    assert sorted(path.name for path in run.path.iterdir()) == [MANIFEST, "notes.md"]


def test_overwrite_asks_and_takes_no_for_an_answer(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    claim_run(run, command="train")
    run.metrics_file.write_text("{}")
    with pytest.raises(UsageProblem) as caught:
        claim_run(run, command="train", overwrite=True, confirm=lambda question: False)
    assert caught.value.code == "not-confirmed"
    assert run.metrics_file.is_file()


def test_overwrite_leaves_other_tools_directories_alone(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("x = 1\n")
    for overwrite in (False, True):
        with pytest.raises(UsageProblem):
            refuse_occupied(RunDirectory(tmp_path), overwrite=overwrite)
    assert (tmp_path / "config.toml").read_text() == "x = 1\n"


def test_a_link_among_the_own_names_is_removed_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("x")
    run = RunDirectory(tmp_path / "run")
    claim_run(run, command="train")
    (run.path / "plots").symlink_to(tmp_path / "elsewhere")
    claim_run(run, command="train", overwrite=True)
    assert not run.plots.exists()
    assert (tmp_path / "elsewhere" / "precious").is_file()


def test_a_file_is_no_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for path in (tmp_path / "f", tmp_path / "f" / "below"):
        with pytest.raises(UsageProblem):
            claim_run(RunDirectory(path), command="train")


@pytest.mark.parametrize("name", ["absent", "file", "folder"])
def test_what_is_no_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "status.json").write_text("{}")
    with pytest.raises(UsageProblem) as caught:
        open_run(tmp_path / name)
    assert caught.value.code == "not-a-run"


def test_a_text_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "f.json"
    replace_text(file, "one")
    replace_text(file, "two")
    assert file.read_text() == "two"
    assert [path.name for path in file.parent.iterdir()] == ["f.json"]


def test_a_full_disk_is_a_sentence() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")

    def fill() -> None:
        with writing(full), full.open("w", encoding="utf-8") as file:
            file.write("x" * 100_000)

    with pytest.raises(RunFailure, match="no space is left") as caught:
        fill()
    assert caught.value.code == "no-space"


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(RunFailure, match="cannot be written"):
        replace_text(tmp_path / "f" / "g", "x")


@pytest.mark.parametrize(
    ("name", "said", "way"),
    [
        ("resnet18", "`resnet18` is an architecture", "medcli train resnet18 --data PATH"),
        ("timm/resnet18", "`timm/resnet18` is an architecture", "medcli train timm/resnet18 --data PATH"),
        ("siamese-unet", "`siamese-unet` is a difference model", "medcli diffmap train --model siamese-unet"),
        ("subtraction", "`subtraction` is a difference model", "medcli diffmap predict BASELINE FOLLOWUP"),
        ("timm/no-such-network", "there is no run `timm/no-such-network`", "medcli runs list"),
        ("exported", "`exported` is a bundle", "medcli runs list"),
        ("exported/model.onnx", "one file of the bundle `exported`", "name the folder: `exported`"),
        ("trained/model.safetensors", "one file of the run `trained`", "name the folder: `trained`"),
    ],
)
def test_what_is_no_run_is_called_what_it_is(
    name: str, said: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "bundle.json").write_text("{}")
    claim_run(RunDirectory(tmp_path / "trained"), command="train")
    for file in ("exported/model.onnx", "trained/model.safetensors"):
        (tmp_path / file).touch()
    with pytest.raises(UsageProblem, match=said) as caught:
        open_run(name)
    assert caught.value.code == "not-a-run"
    assert way in str(caught.value.hint)


def test_a_run_may_be_called_like_an_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    claim_run(RunDirectory(Path("resnet18")), command="train")
    assert open_run("resnet18").path == Path("resnet18")
