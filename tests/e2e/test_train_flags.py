"""Every flag of `medcli train`, typed: each one changes the run, or how it is made, in the place it is for."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from safetensors import safe_open
from safetensors.numpy import load_file

from medcli.settings.commands import COMMANDS
from medcli.testing.command import Outcome, RunCli

HERE = Path(__file__).resolve().parent
TINY = ("--image-size", "32", "--batch-size", "8", "--augment", "none", "--workers", "0", "--epochs", "1")
PATIENTS, EACH = 12, 3


@dataclass(frozen=True)
class Run:
    """A finished training as its directory tells it."""

    outcome: Outcome
    path: Path

    @cached_property
    def data(self) -> Any:
        return json.loads((self.path / "data.json").read_text(encoding="utf-8"))

    @property
    def target(self) -> Any:
        return self.data["target"]

    @property
    def counts(self) -> list[int]:
        return [self.data["splits"][split]["count"] for split in ("train", "val", "test")]

    @property
    def patients(self) -> list[int | None]:
        return [self.data["splits"][split]["patients"] for split in ("train", "val", "test")]

    @property
    def figures(self) -> Any:
        return json.loads((self.path / "evaluation.json").read_text(encoding="utf-8"))["test"]["figures"]

    @property
    def storage(self) -> str:
        """Where the training images were kept."""
        facts = json.loads((self.path / "environment.json").read_text(encoding="utf-8"))
        return str(facts["images"]["train"])

    @cached_property
    def weights(self) -> dict[str, np.ndarray[Any, Any]]:
        return load_file(self.path / "model.safetensors")

    def learnt_the_same(self, other: Run) -> bool:
        one, two = self.weights, other.weights
        return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of oblong pictures, with two columns for everything of which a flag chooses one."""
    random = np.random.default_rng(0)
    rows = []
    for patient in range(PATIENTS):
        for index in range(EACH):
            number = patient * EACH + index
            name = f"p{patient:02d}_{index}.png"
            for folder in ("pictures", "others", "pictures/sharp"):
                (tmp_path / folder).mkdir(exist_ok=True)
                picture = random.integers(0, 255, (24, 48), dtype=np.uint8)
                Image.fromarray(picture).save(tmp_path / folder / name)
            rows.append(
                {
                    "picture": name,
                    "sharper": f"sharp/{name}",
                    "finding": ("none", "nodule")[number % 2],
                    "grade": number % 4,
                    "clarity": ("good", "poor", "ungradable")[number % 3],
                    "who": f"patient-{patient}",
                    "part": ("train", "val", "test", "train")[patient % 4],
                }
            )
    path = tmp_path / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def attempt(run_cli: RunCli, tmp_path: Path) -> Callable[..., Run]:
    """Train with these words, whatever comes of it."""
    number = iter(range(1000))

    def call(*words: str | Path, architecture: str = "timm/test_resnet") -> Run:
        out = tmp_path / f"run{next(number)}"
        done = run_cli("train", architecture, *TINY, *words, "--out", out, in_process=True, cwd=tmp_path)
        return Run(done, out)

    return call


@pytest.fixture
def train(attempt: Callable[..., Run], table: Path) -> Callable[..., Run]:
    """Train on the table with these flags added or, where given again, replaced."""
    plain = {"--image-dir": "pictures", "--image-column": "picture", "--label-column": "finding"}

    def call(*words: str | Path, **options: Any) -> Run:
        usual = [word for pair in plain.items() if pair[0] not in words for word in pair]
        run = attempt("--data", table, *usual, *words, **options)
        assert run.outcome.code == 0, run.outcome.stderr
        return run

    return call


@pytest.mark.parametrize(
    "words",
    [
        ("--image-dir", "others"),
        ("--image-column", "sharper"),
        ("--fit", "pad"),
        ("--fit", "crop"),
        ("--mean", "0.1", "--std", "0.5"),
        ("--image-size", "40"),
        ("--in-channels", "1"),
        ("--split-seed", "3"),
        ("--split", "0.5,0.25,0.25"),
        ("--limit", "6"),
        ("--head-norm",),
        ("--dropout", "0.5"),
        ("--drop-path", "0.3"),
        ("--seed", "1"),
        ("--lr", "0.01"),
    ],
    ids=" ".join,
)
def test_other_pixels_cases_or_networks_give_other_weights(train: Callable[..., Run], words: tuple[str, ...]) -> None:
    assert not train().learnt_the_same(train(*words))


def test_data_is_what_is_learnt_and_a_name_is_recorded(
    train: Callable[..., Run], attempt: Callable[..., Run], table: Path
) -> None:
    named = attempt(
        "--data", f"ward={table}", "--image-dir", "ward=pictures", "--image-column", "ward=picture",
        "--label-column", "ward=finding",
    )  # fmt: skip
    assert named.outcome.code == 0, named.outcome.stderr
    assert (named.data["name"], train().data["name"]) == ("ward", "table")
    assert train().learnt_the_same(named)
    phantoms = attempt("--data", "synthetic/chest", "--limit", "8")
    assert phantoms.data["name"] != "table"


def test_columns_choose_the_target(train: Callable[..., Run]) -> None:
    finding = train()
    assert finding.target["class_names"] == ["nodule", "none"]
    both = train("--label-column", "grade", "--label-column", "clarity", "--task", "multioutput")
    assert [one["name"] for one in both.target["outputs"]] == ["grade", "clarity"]
    graded = train(
        "--label-column", "grade", "--label-column", "clarity", "--task", "multioutput", "--ordinal-column", "grade",
    )  # fmt: skip
    assert both.target["outputs"] != graded.target["outputs"]
    assert "qwk" in graded.figures
    assert "qwk" not in both.figures


def test_task_decides_what_the_labels_mean(train: Callable[..., Run]) -> None:
    classes, grades = (train("--label-column", "grade", "--task", task) for task in ("multiclass", "ordinal"))
    assert (classes.target["task"], grades.target["task"]) == ("multiclass", "ordinal")
    assert not classes.learnt_the_same(grades)


def test_an_ignored_class_is_no_class(train: Callable[..., Run]) -> None:
    three = train("--label-column", "clarity")
    two = train("--label-column", "clarity", "--ignore-class", "ungradable", "--task", "binary")
    assert len(three.target["class_names"]) == 3
    assert two.target["class_names"] == ["good", "poor"]


def test_class_names_fix_the_order_and_the_positive_class_the_finding(train: Callable[..., Run]) -> None:
    named = train("--class-names", "none,nodule")
    assert named.target["class_names"] == ["none", "nodule"]
    other = train("--class-names", "none,nodule", "--positive-class", "none")
    assert (named.target["positive"], other.target["positive"]) == (1, 0)


def test_patients_stay_together_by_column_or_by_pattern(train: Callable[..., Run]) -> None:
    alone = train()
    assert alone.patients == [None, None, None]
    column = train("--patient-column", "who")
    pattern = train("--patient-pattern", r"p(\d+)_")
    for run in (column, pattern):
        assert all(count == EACH * patients for count, patients in zip(run.counts, run.patients, strict=True))
        assert sum(run.patients) == PATIENTS  # type: ignore[arg-type]
        assert run.data["split_hash"] != alone.data["split_hash"]


def test_the_split_comes_from_a_column_or_from_shares(train: Callable[..., Run]) -> None:
    column, shares = train("--split-column", "part"), train("--split", "0.5,0.25,0.25")
    seed = train("--split-seed", "1")
    assert column.counts == shares.counts == [18, 9, 9]
    usual = train()
    assert usual.counts == seed.counts
    assert len({run.data["split_hash"] for run in (column, shares, seed, usual)}) == 4


def test_limit_takes_fewer_images(train: Callable[..., Run]) -> None:
    assert train("--limit", "4").counts == [4, 4, 4]


def test_listed_cases_are_left_out_of_splits_that_stay(train: Callable[..., Run], tmp_path: Path) -> None:
    drop = tmp_path / "drop.csv"
    drop.write_text("id,reason\np00_1.png,blurred\np07_2.png,blurred\n")
    usual, run = train(), train("--leave-out", drop)
    assert sum(run.counts) == sum(usual.counts) - 2
    assert any("2 cases left out" in note for note in run.data["notes"])


def test_unreadable_images_stop_unless_they_may_be_left_out(
    train: Callable[..., Run], attempt: Callable[..., Run], table: Path, tmp_path: Path
) -> None:
    for name in ("p00_1.png", "p07_2.png"):
        (tmp_path / "pictures" / name).write_bytes(b"no picture")
    words = ("--image-dir", "pictures", "--image-column", "picture", "--label-column", "finding")
    stopped = attempt("--data", table, *words)
    assert stopped.outcome.code == 1
    assert "p00_1.png" in stopped.outcome.stderr
    assert "p07_2.png" in stopped.outcome.stderr
    assert not (stopped.path / "metrics.jsonl").exists()
    going_on = train("--skip-unreadable")
    assert {Path(name).name for name, _ in going_on.data["skipped"]} == {"p00_1.png", "p07_2.png"}
    assert f"{going_on.counts[0] - 2} images" in going_on.storage


def test_images_are_kept_where_it_was_asked_for_and_learnt_alike(train: Callable[..., Run]) -> None:
    places = {
        "in memory": train(),
        "on disk": train("--cache", "disk"),
        "decoded again": train("--cache", "off"),
        "on disk ": train("--cache-limit", "0"),
    }
    for place, run in places.items():
        assert place.strip() in run.storage
        assert run.learnt_the_same(places["in memory"])


def test_a_limit_that_memory_exceeds_is_an_error(attempt: Callable[..., Run], table: Path) -> None:
    words = ("--image-dir", "pictures", "--image-column", "picture", "--label-column", "finding")
    refused = attempt("--data", table, *words, "--cache", "memory", "--cache-limit", "0")
    assert refused.outcome.code == 1
    assert "--cache-limit" in refused.outcome.stderr


def test_workers_decode_and_nothing_changes(train: Callable[..., Run]) -> None:
    run = train("--cache", "off", "--workers", "1")
    assert "by 1 worker processes" in run.storage
    assert run.learnt_the_same(train())


def write_dicom(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = pydicom.uid.generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.WindowCenter, dataset.WindowWidth = "500", "400"
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)


def test_the_window_decides_what_of_a_dicom_file_is_seen(attempt: Callable[..., Run], tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    for name in ("sick", "well"):
        (tmp_path / "scans" / name).mkdir(parents=True)
        for index in range(10):
            write_dicom(tmp_path / "scans" / name / f"{index}.dcm", random.integers(0, 4096, (32, 32), dtype=np.uint16))
    auto, full, own = (attempt("--data", "scans", "--window", window) for window in ("auto", "full", "2000,3000"))
    assert auto.outcome.code == full.outcome.code == own.outcome.code == 0, auto.outcome.stderr
    assert not auto.learnt_the_same(full)
    assert not full.learnt_the_same(own)


def test_an_option_of_the_architecture_builds_another_network(train: Callable[..., Run]) -> None:
    plain, small = (
        train("--limit", "8", *words, architecture="resnet18") for words in ((), ("--arch-opt", "stem=small"))
    )
    shapes = [{value.shape for name, value in run.weights.items() if "conv1" in name} for run in (plain, small)]
    assert shapes[0] != shapes[1]


def test_weights_of_a_file_are_where_it_starts(train: Callable[..., Run], tmp_path: Path) -> None:
    import timm
    import torch

    torch.manual_seed(99)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "start.pth")
    begun = train("--weights", tmp_path / "start.pth", "--freeze-backbone")
    stem = next(name for name in begun.weights if name.endswith("conv1.0.weight"))
    kept = torch.load(tmp_path / "start.pth", weights_only=True)[stem.removeprefix("backbone.").removeprefix("net.")]
    np.testing.assert_array_equal(begun.weights[stem], kept.numpy())
    assert not np.array_equal(train("--freeze-backbone").weights[stem], kept.numpy())


def test_pretrained_never_falls_back_to_random_weights(
    attempt: Callable[..., Run], table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ("--image-dir", "pictures", "--image-column", "picture", "--label-column", "finding")
    run = attempt("--data", table, *words, "--pretrained", architecture="resnet18")
    assert run.outcome.code == 2
    assert "--weights" in run.outcome.stderr
    assert not run.path.exists()


def test_deterministic_switches_the_kernels(train: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    asked: list[bool] = []
    original = torch.use_deterministic_algorithms

    def listen(mode: bool, **options: Any) -> None:
        asked.append(mode)
        original(mode, **options)

    monkeypatch.setattr(torch, "use_deterministic_algorithms", listen)
    train("--deterministic")
    try:
        assert True in asked
    finally:
        original(False)


def test_json_quiet_and_verbose_change_what_is_said(train: Callable[..., Run]) -> None:
    plain, quiet, verbose = train(), train("-q"), train("-v")
    assert json.loads(train("--json").outcome.stdout)["command"] == "train"
    assert quiet.outcome.stdout.strip() == str(quiet.path)
    assert len(quiet.outcome.stderr) < len(plain.outcome.stderr) < len(verbose.outcome.stderr)
    assert "--epochs" in verbose.outcome.stderr  # where a value came from
    assert "nodule" in verbose.outcome.stdout  # a table by class


def test_no_input_refuses_instead_of_asking(train: Callable[..., Run], run_cli: RunCli, table: Path) -> None:
    columns = ("--image-dir", table.parent / "pictures", "--image-column", "picture", "--label-column", "finding")
    again = ("timm/test_resnet", *TINY, "--data", table, *columns, "--out", train().path, "--overwrite")
    for words, code in ((("--no-input",), 2), (("--yes",), 0), (("--no-input", "--yes"), 2)):
        assert run_cli("train", *again, *words, in_process=True).code == code


def test_colour_and_display_are_left_out_when_asked(train: Callable[..., Run]) -> None:
    for words in (("--no-color",), ("--no-progress",)):
        said = train(*words).outcome
        assert "\x1b[" not in said.stderr + said.stdout
        assert "epoch 1/1" in said.stderr


def test_debug_shows_where_it_failed(attempt: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    plain, debug = (attempt("--data", "empty", *words).outcome for words in ((), ("--debug",)))
    assert plain.code == debug.code == 2
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr


def test_a_file_and_a_preset_set_what_is_not_typed(train: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[train]\nlr = 0.01\n", encoding="utf-8")
    filed = train("--config", tmp_path / "mine.toml")
    assert filed.learnt_the_same(train("--lr", "0.01"))
    assert "mine.toml" in (filed.path / "config.toml").read_text(encoding="utf-8")
    preset = train("--preset", "medmnist-official-28", "--limit", "8", architecture="resnet18")
    assert "medmnist-official-28" in (preset.path / "config.toml").read_text(encoding="utf-8")


def test_the_model_file_says_what_made_it(train: Callable[..., Run]) -> None:
    with safe_open(str(train("--fit", "pad").path / "model.safetensors"), "np") as file:
        assert "pad" in json.dumps(file.metadata())


def test_no_flag_of_train_is_untried() -> None:
    """A new flag needs a test here or beside the loop: its name must stand in one of them."""
    tests = [
        HERE / "test_train.py",
        HERE / "test_train_processes.py",
        Path(__file__),
        HERE.parent / "training" / "test_loop.py",
    ]
    text = "\n".join(file.read_text(encoding="utf-8") for file in tests)
    untried = []
    for field in COMMANDS["train"].fields.values():
        typed = rf"\"{field.option.short or field.flag}\"|\"{field.flag}\""
        planned = rf"\"{field.name}\":|[(, ]{field.name}="
        if not re.search(f"{typed}|{planned}", text):
            untried.append(field.flag)
    assert not untried
