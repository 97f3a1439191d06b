"""Real images, tables, archives, predictions and weights, each with one command and no preparation."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.evaluation.predictions import load_predictions
from medcli.testing.command import Outcome, RunCli, forget_user_settings

TINY = ("--image-size", "32", "--limit", "24", "--epochs", "1", "--batch-size", "8", "--workers", "0")
PATIENTS = r"^(person\d+|(?:NORMAL2-)?IM-\d+)"
FINDINGS = (
    "Atelectasis,Cardiomegaly,Effusion,Infiltration,Mass,Nodule,Pneumonia,Pneumothorax,Consolidation,Edema,"
    "Emphysema,Fibrosis,Pleural_Thickening,Hernia"
)


@dataclass
class Workshop:
    """The real data, one place to work in, and the runs that were trained there, each once."""

    data: Path
    cli: RunCli
    trained: dict[str, Outcome] = field(default_factory=dict)

    def __call__(self, *words: str | Path) -> Outcome:
        return self.cli(*words, in_process=True)

    def answer(self, *words: str | Path, code: int = 0) -> dict[str, Any]:
        done = self(*words, "--json")
        assert done.code == code, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)["result"]
        return result

    def run(self, name: str) -> Path:
        return self.cli.directory / name

    def train(self, name: str, architecture: str, data: Path, *words: str | Path) -> Outcome:
        if name not in self.trained:
            self.trained[name] = self("train", architecture, "--data", data, *words, "--out", name)
        assert self.trained[name].code == 0, self.trained[name].stderr
        return self.trained[name]

    def kermany(self) -> Path:
        folder = self.data / "kermany_cxr224" / "dataset"
        self.train("kermany", "timm/test_resnet", folder, "--patient-pattern", PATIENTS, *TINY)
        return folder


@pytest.fixture(scope="module")
def work(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    import torch

    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        forget_user_settings(patch, directory)
        yield Workshop(shared_data / "data", RunCli(directory))


def record(run: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((run / "data.json").read_text())
    return written


@pytest.mark.parametrize(
    ("name", "task", "classes"),
    [("breastmnist", "binary", 2), ("pneumoniamnist", "binary", 2), ("retinamnist", "ordinal", 5)],
)
def test_medmnist_archives(work: Workshop, name: str, task: str, classes: int) -> None:
    archive = work.data / "medmnist" / f"{name}.npz"
    done = work.train(name, "custom1", archive, *TINY)
    target = record(work.run(name))["target"]
    assert (target["task"], len(target["class_names"])) == (task, classes)
    if name == "breastmnist":
        assert "positive class: `malignant`, label 0" in done.stderr
    assert work("predict", work.run(name), archive, "--out", f"{name}.csv").code == 0
    with np.load(archive) as arrays:
        count = sum(len(arrays[f"{split}_images"]) for split in ("train", "val", "test"))
    assert len((work.cli.directory / f"{name}.csv").read_text().splitlines()) == count + 1


def test_class_folders_with_patients_in_file_names(work: Workshop) -> None:
    folder = work.kermany()
    said = work.trained["kermany"].stderr
    assert "no val split" in said
    assert "by patient" in said
    splits = record(work.run("kermany"))["splits"]
    assert {split: row["count"] for split, row in splits.items()} == {"train": 24, "val": 24, "test": 24}
    images = sorted((folder / "test" / "PNEUMONIA").iterdir())[:3]
    lines = work("predict", work.run("kermany"), *images).stdout.splitlines()
    assert lines[0] == "image,score_NORMAL,score_PNEUMONIA,predicted"
    assert [line.split(",")[0] for line in lines[1:]] == [str(image) for image in images]


def test_a_table_with_two_graded_targets(work: Workshop) -> None:
    table = work.data / "idrid_grading_512" / "labels.csv"
    columns = ("--label-column", "dr_grade,dme_risk", "--ordinal-column", "dr_grade,dme_risk")
    work.train("idrid", "timm/test_resnet", table, *columns, "--split-column", "split", *TINY)
    outputs = record(work.run("idrid"))["target"]["outputs"]
    assert [(one["name"], len(one["classes"]), one["ordinal"]) for one in outputs] == [
        ("dr_grade", 5, True),
        ("dme_risk", 3, True),
    ]
    (evaluation,) = work.answer("evaluate", work.run("idrid"), "--bootstrap", "20")["evaluations"]
    assert set(evaluation["outputs"]) == {"dr_grade", "dme_risk"}
    assert {"qwk", "mae"} <= set(evaluation["outputs"]["dr_grade"]["figures"])
    images = sorted((table.parent / "images").iterdir())[:2]
    predicted = work("predict", work.run("idrid"), *images)
    assert "predicted_dr_grade" in predicted.stdout
    assert len(predicted.stdout.splitlines()) == 3


def test_a_table_with_fourteen_labels_and_patients(work: Workshop) -> None:
    table = work.data / "nih_cxr14_starter_512" / "labels_and_chexnet_probs.csv"
    columns = ("--label-column", FINDINGS, "--patient-column", "Patient ID")
    done = work.train("nih", "timm/test_resnet", table, *columns, *TINY)
    assert "drawn by patient" in done.stderr
    target = record(work.run("nih"))["target"]
    assert target["task"] == "multilabel"
    assert target["class_names"] == FINDINGS.split(",")
    stored = load_predictions(work.run("nih") / "predictions" / "test.npz")
    assert stored.logits.shape == (24, 14)
    assert stored.patients is not None
    image = sorted((table.parent / "images").iterdir())[0]
    assert work("predict", work.run("nih"), image).stdout.count("score_") == 14
    # The model knows its label columns: only the patient has to be named again.
    # A limit draws from the test cases alone, never from those the model has learned from.
    again = ("--patient-column", "Patient ID", "--bootstrap", "0", "--limit", "12")
    (evaluation,) = work.answer("evaluate", work.run("nih"), "--data", table, *again)["evaluations"]
    assert [row["name"] for row in evaluation["classes"]] == FINDINGS.split(",")
    assert evaluation["n"] == 12


def test_dicom_files_are_predicted(work: Workshop) -> None:
    work.kermany()
    folder = work.data / "dicom_cxr"
    result = work.answer("predict", work.run("kermany"), folder)
    rows = {Path(row["image"]).name: row for row in result["predictions"]}
    assert sorted(rows) == sorted(path.name for path in folder.glob("*.dcm"))
    scores = {name: [row["score_NORMAL"], row["score_PNEUMONIA"]] for name, row in rows.items()}
    for values in scores.values():
        assert sum(values) == pytest.approx(1, abs=1e-5)
    # The same pixels under the two photometric interpretations are a picture and its negative.
    one, other = (f"rsna_cxr_pa_monochrome{number}_jpegbaseline.dcm" for number in (1, 2))
    assert scores[one] != scores[other]


def test_dicom_class_folders_are_trained_on(work: Workshop) -> None:
    sources = sorted((work.data / "dicom_cxr").glob("*.dcm"))
    for split, copies in (("train", 3), ("val", 1), ("test", 1)):
        for source in sources:
            folder = work.run("dicoms") / split / ("chest" if "pydicom" not in source.name else "spine")
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(copies):
                shutil.copyfile(source, folder / f"{number}-{source.name}")
    work.train("from-dicom", "timm/test_resnet", work.run("dicoms"), *TINY)
    assert record(work.run("from-dicom"))["target"]["class_names"] == ["chest", "spine"]


def test_two_other_data_sets_and_the_generalisation_gap(work: Workshop) -> None:
    folder = work.kermany()
    archive = work.data / "medmnist" / "pneumoniamnist.npz"
    words: list[str | Path] = ["evaluate", work.run("kermany")]
    words += ["--data", f"home={folder}", "--data", f"mnist={archive}"]
    words += ["--limit", "24", "--bootstrap", "50"]
    shown = work(*words)
    assert shown.code == 0, shown.stderr
    assert "generalisation gap" in shown.stdout
    assert "`home` is the run's own test" in shown.stderr
    result = work.answer(*words)
    home, mnist = result["evaluations"]
    assert (home["data"], mnist["data"]) == ("home", "mnist")
    # The run knows its patients although this command line does not name them.
    assert home["patients"] is not None
    gap = next(row for row in result["gaps"] if row["figure"] == "auc")
    assert gap["data"] == "mnist"
    assert gap["value"] == pytest.approx(mnist["figures"]["auc"]["value"] - home["figures"]["auc"]["value"])
    assert gap["low"] <= gap["value"] <= gap["high"]


def test_predictions_of_another_tool(work: Workshop) -> None:
    (table,) = (work.data / "nih_chexnet_predictions").glob("*.csv.gz")
    columns = ("--id-column", "Image Index", "--prob-columns", "prob_*", "--patient-column", "Patient ID")
    (evaluation,) = work.answer("evaluate", table, *columns, "--bootstrap", "50")["evaluations"]
    assert (evaluation["n"], evaluation["patients"], len(evaluation["classes"])) == (22433, 6187, 14)
    aucs = {row["name"]: row["figures"]["auc"] for row in evaluation["classes"]}
    for name, published in (("Atelectasis", 0.8180), ("Hernia", 0.9175)):
        assert aucs[name]["value"] == pytest.approx(published, abs=5e-5)
        assert aucs[name]["low"] < published < aucs[name]["high"]


WEIGHTS = {
    "tf_mobilenetv3_small_100.keras_in1k_dequant": ("timm/tf_mobilenetv3_small_100", "--mean", "0.5", "--std", "0.5"),
    "mobilenetv2_100.tf2_in1k_dequant": (
        "timm/mobilenetv2_100",
        *("--mean", "0.5", "--std", "0.5", "--arch-opt", "pad_type=same", "--arch-opt", "bn_eps=1e-3"),
    ),
    "deit_tiny_patch16_224.pipevit_in1k.fp16": ("deit_tiny_patch16_224",),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_real_weight_files(work: Workshop, name: str) -> None:
    import torch
    from safetensors import safe_open

    import medcli

    file = work.data / "weights" / f"{name}.safetensors"
    architecture, *words = WEIGHTS[name]
    small = ("--image-size", "64", *TINY[2:], "--freeze-backbone", "--weights", file)
    run = name.partition(".")[0]
    done = work.train(run, architecture, work.data / "medmnist" / "breastmnist.npz", *words, *small)
    with safe_open(file, framework="np") as tensors:
        held = len(list(tensors.keys()))
    matched = re.search(r"weights: (\d+) of (\d+) backbone tensors .* 2 of its old head left out", done.stderr)
    assert matched, done.stderr
    assert matched[1] == matched[2]
    assert int(matched[1]) == held - 2
    model = medcli.load(work.run(run))
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.normal(size=(2, 3, 64, 64)).astype(np.float32))
    with torch.no_grad():
        features = model.eval().features(images)
    assert bool(torch.isfinite(features).all())
    assert float(features.std()) > 0


@pytest.mark.parametrize("name", ["breastmnist", "pneumoniamnist", "retinamnist"])
def test_medmnists_own_evaluator_agrees(work: Workshop, name: str) -> None:
    evaluator = pytest.importorskip("medmnist.evaluator")
    archive = work.data / "medmnist" / f"{name}.npz"
    # The whole test split, so that the evaluator's own labels apply.
    small = ("--image-size", "28", "--epochs", "1", "--batch-size", "64", "--workers", "0", "--lr", "0.01")
    work.train(f"{name}-whole", "timm/test_resnet", archive, *small)
    stored = load_predictions(work.run(f"{name}-whole") / "predictions" / "test.npz")
    shifted = np.exp(stored.logits.astype(np.float64) - stored.logits.max(axis=1, keepdims=True))
    scores = shifted / shifted.sum(axis=1, keepdims=True)
    judge = evaluator.Evaluator(name, "test", root=str(archive.parent))
    theirs = judge.evaluate(scores[:, 1] if scores.shape[1] == 2 else scores)
    (ours,) = work.answer("evaluate", work.run(f"{name}-whole"), "--bootstrap", "0")["evaluations"]
    assert ours["n"] == len(judge.labels)
    assert ours["figures"]["auc"]["value"] == pytest.approx(theirs.AUC, abs=1e-6)
    assert ours["figures"]["accuracy"]["value"] == pytest.approx(theirs.ACC, abs=1e-6)
