"""`medcli calibrate` as a user runs it, and what `evaluate` and `predict` then make of the run."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.data.target import Target
from medcli.evaluation.conformal import apply_conformal, conformal_from_dict, fit_conformal
from medcli.evaluation.predictions import Predictions, load_predictions, save_predictions
from medcli.evaluation.scores import softmax
from medcli.prediction.conformal_sets import set_columns, set_rows
from medcli.prediction.foreign import Columns
from medcli.prediction.tables import read_any, write_any
from medcli.runs.directory import RunDirectory
from medcli.testing.command import RunCli
from medcli.testing.imports import NoHeavyImports

from .conftest import TARGET, SmallRun

QUICK = ("--bootstrap", "20")


@pytest.fixture
def medcli(tmp_path: Path) -> RunCli:
    return RunCli(tmp_path)


def run(medcli: RunCli, *words: object) -> tuple[int, str, str]:
    outcome = medcli(*map(str, words), in_process=True)
    return outcome.code, outcome.stdout, outcome.stderr


def drawn(split: str, seed: int, n: int = 200, target: Target = TARGET) -> Predictions:
    """Over-confident logits: the true temperature is 3."""
    random = np.random.default_rng(seed)
    z = random.normal(scale=1.5, size=(n, target.num_classes))
    labels = (random.random((n, 1)) > softmax(z).cumsum(axis=1)).sum(axis=1).astype(np.int64)
    ids = np.array([f"{split}{row}" for row in range(n)])
    patients = np.array([f"{split}{row // 2}" for row in range(n)])
    return Predictions(ids, labels, (3 * z).astype(np.float32), target, split, "drawn", patients)


@pytest.fixture
def larger_run(small_run: SmallRun, tmp_path: Path) -> RunDirectory:
    """The small run with as many stored predictions as a calibration needs."""
    place = tmp_path / "run"
    shutil.copytree(small_run.run.path, place)
    for seed, split in enumerate(("val", "test")):
        save_predictions(place / "predictions" / f"{split}.npz", drawn(split, seed))
    return RunDirectory(place)


def columns(text: str) -> tuple[list[str], list[dict[str, str]]]:
    rows = list(csv.DictReader(io.StringIO(text)))
    return list(rows[0]), rows


def test_a_run_is_fitted_on_val_and_reported_on_test(medcli: RunCli, larger_run: RunDirectory) -> None:
    code, out, err = run(medcli, "calibrate", larger_run.path, *QUICK, "--json")
    assert code == 0, err
    result = json.loads(out)["result"]
    assert result["calibrator"]["fitted_on"]["file"] == "predictions/val.npz"
    assert result["calibrator"]["fitted_on"]["split"] == "val"
    assert result["reported_on"]["split"] == "test"
    assert result["reported_on"]["cross_fit"] == 0
    (temperature,) = result["calibrator"]["fits"][0]["parameters"]["temperature"]
    assert 2 < temperature < 4.5
    assert result["after"]["figures"]["nll"]["value"] < result["before"]["figures"]["nll"]["value"]
    for name in ("calibrator.json", "calibration.json", "plots/reliability.png"):
        assert (larger_run.path / name).is_file(), name
    code, out, _ = run(medcli, "calibrate", larger_run.path, *QUICK, "--method", "platt")
    assert code == 0
    assert "platt calibration, fitted on drawn val: 200 labelled cases of 100 patients" in out


def test_evaluate_uses_the_calibrator_and_says_so(medcli: RunCli, larger_run: RunDirectory) -> None:
    _, before, _ = run(medcli, "evaluate", larger_run.path, *QUICK, "--json")
    assert json.loads(before)["result"]["evaluations"][0]["calibrated"] is None
    run(medcli, "calibrate", larger_run.path, *QUICK)
    _, after, _ = run(medcli, "evaluate", larger_run.path, *QUICK, "--json")
    _, raw, _ = run(medcli, "evaluate", larger_run.path, *QUICK, "--json", "--raw")
    figures = [json.loads(text)["result"]["evaluations"][0] for text in (before, after, raw)]
    assert figures[1]["calibrated"] == "temperature, fitted on val"
    assert figures[2] == figures[0]
    assert figures[1]["figures"]["nll"]["value"] < figures[0]["figures"]["nll"]["value"]
    assert figures[1]["figures"]["accuracy"]["value"] == figures[0]["figures"]["accuracy"]["value"]
    _, text, _ = run(medcli, "evaluate", larger_run.path, *QUICK)
    assert "calibrated: temperature, fitted on val" in text


def test_predict_gives_probabilities_of_a_calibrated_run(
    medcli: RunCli, larger_run: RunDirectory, small_run: SmallRun
) -> None:
    images = sorted(small_run.data.rglob("*.png"))[:3]
    words = ["predict", larger_run.path, *images, "--device", "cpu"]
    _, out, err = run(medcli, *words)
    names, scores = columns(out)
    assert names == ["image", "score_clear", "score_opaque", "predicted"]
    assert "not calibrated" in err
    run(medcli, "calibrate", larger_run.path, *QUICK)
    _, out, err = run(medcli, *words)
    names, chances = columns(out)
    assert names == ["image", "prob_clear", "prob_opaque", "predicted"]
    assert "temperature, fitted on val" in err
    assert [row["predicted"] for row in chances] == [row["predicted"] for row in scores]
    for cold, warm in zip(scores, chances, strict=True):
        margin = [
            np.log(float(row[f"{kind}_opaque"]) / float(row[f"{kind}_clear"]))
            for row, kind in ((cold, "score"), (warm, "prob"))
        ]
        (temperature,) = json.loads(larger_run.calibrator_file.read_text())["fits"][0]["parameters"]["temperature"]
        assert margin[1] == pytest.approx(margin[0] / temperature, abs=1e-4)
    _, out, _ = run(medcli, *words, "--raw")
    assert columns(out) == (["image", "score_clear", "score_opaque", "predicted"], scores)
    _, out, _ = run(medcli, *words, "--json")
    assert json.loads(out)["result"]["calibrated"] is True


def test_a_calibrator_of_other_weights_or_a_damaged_one_is_refused(medcli: RunCli, larger_run: RunDirectory) -> None:
    run(medcli, "calibrate", larger_run.path, *QUICK)
    save_predictions(larger_run.predictions("val"), drawn("val", 9))
    code, _, err = run(medcli, "evaluate", larger_run.path, *QUICK)
    assert code == 2
    assert "went on learning" in err
    assert "--raw" in err
    larger_run.calibrator_file.write_text('{"schema": "medcli-calibrator/1", "method": "os.system"}')
    code, _, err = run(medcli, "evaluate", larger_run.path, *QUICK)
    assert code == 2
    assert "os.system" in err
    assert run(medcli, "evaluate", larger_run.path, *QUICK, "--raw")[0] == 0
    assert run(medcli, "calibrate", larger_run.path, *QUICK)[0] == 0
    assert run(medcli, "evaluate", larger_run.path, *QUICK)[0] == 0


def test_a_run_without_test_is_cross_fitted_and_one_without_val_refused(
    medcli: RunCli, larger_run: RunDirectory
) -> None:
    kept = larger_run.predictions("test").rename(larger_run.path / "kept.npz")
    code, out, _ = run(medcli, "calibrate", larger_run.path, *QUICK)
    assert code == 0
    assert "cross-fitted in 5 parts of the patients" in out
    larger_run.predictions("val").unlink()
    kept.rename(larger_run.predictions("test"))
    code, _, err = run(medcli, "calibrate", larger_run.path, *QUICK)
    assert code == 2
    assert "--allow-test" in err
    code, out, _ = run(medcli, "calibrate", larger_run.path, *QUICK, "--allow-test", "--json")
    assert code == 0
    assert json.loads(out)["result"]["fitted_on_test"] is True
    _, out, _ = run(medcli, "evaluate", larger_run.path, *QUICK)
    assert "although it is a test split" in out


@pytest.mark.parametrize("ending", [".npz", ".csv"])
def test_files_of_predictions(medcli: RunCli, tmp_path: Path, ending: str) -> None:
    for seed, split in enumerate(("val", "test")):
        write_any(str(tmp_path / f"{split}{ending}"), drawn(split, seed))
    words = ["calibrate", f"val{ending}", "--apply-to", f"test{ending}", *QUICK, "--save-predictions", "out.npz"]
    code, out, err = run(medcli, *words, "--out", "here", "--json")
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "here").rglob("*") if path.is_file()) == [
        "calibration.json",
        "calibrator.json",
        "reliability.png",
    ]
    saved = load_predictions(tmp_path / "out.npz")
    (temperature,) = json.loads(out)["result"]["calibrator"]["fits"][0]["parameters"]["temperature"]
    np.testing.assert_allclose(saved.logits, drawn("test", 1).logits / temperature, rtol=1e-6)
    assert saved.calibrated
    code, _, err = run(medcli, "calibrate", "out.npz", *QUICK, "--allow-test")
    assert code == 2
    assert "calibrated already" in err
    write_any(str(tmp_path / "out.csv"), saved)
    again = read_any(str(tmp_path / "out.csv"), Columns()).predictions
    assert (tmp_path / "out.csv").read_text().startswith("id,label,prob_clear,prob_opaque,patient")
    np.testing.assert_allclose(softmax(again.logits), softmax(saved.logits), atol=1e-12)
    code, _, err = run(medcli, "calibrate", f"val{ending}", *QUICK, "--out", "here")
    assert code == 2
    assert "not empty" in err
    assert run(medcli, "calibrate", f"val{ending}", *QUICK, "--out", "here", "--overwrite")[0] == 0


def test_a_limit_that_is_missed_ends_with_status_4(medcli: RunCli, tmp_path: Path) -> None:
    save_predictions(tmp_path / "val.npz", drawn("val", 0))
    assert run(medcli, "calibrate", "val.npz", *QUICK, "--max-ece", "0.5")[0] == 0
    code, _, err = run(medcli, "calibrate", "val.npz", *QUICK, "--max-ece", "0.0001", "--binning", "mass")
    assert code == 4
    assert "--max-ece" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.npz"], "no predictions file"),
        (["val.npz", "--apply-to", "nowhere.npz"], "no predictions file"),
        (["val.npz", "--apply-to", "val.npz"], "among those to fit on"),
        (["val.npz", "--apply-to", "test.npz", "--cross-fit", "3"], "--cross-fit"),
        (["val.npz", "--apply-to", "classes.npz"], "different targets"),
        (["val.npz", "--apply-to", "members.npz"], "members"),
        (["test.npz"], "test split"),
        (["blind.npz"], "none of the predictions has a label"),
        (["few.npz"], "needs 20"),
        (["val.npz", "--method", "isotonic"], "needs 1000"),
        (["classes.npz", "--method", "platt"], "two answers"),
        (["val.npz", "--miscoverage", "0.2"], "--conformal"),
        (["val.npz", "--conformal", "lac"], "--apply-to"),
        (["val.npz", "--apply-to", "test.npz", "--conformal", "lac", "--miscoverage", "0.001"], "0.001"),
        (["sums.csv"], "add up to"),
    ],
)
def test_refusals_write_nothing_and_say_what_to_do(medcli: RunCli, tmp_path: Path, words: list[str], said: str) -> None:
    val = drawn("val", 0)
    others: dict[str, Any] = {
        "val": val,
        "test": drawn("test", 1),
        "classes": drawn("val", 2, target=Target("multiclass", ("a", "b", "c"))),
        "members": replace(drawn("test", 1), member_logits=np.zeros((5, 200, 2), np.float32)),
        "blind": replace(val, labels=np.full(200, -1)),
        "few": drawn("val", 3, n=19),
    }
    for name, one in others.items():
        save_predictions(tmp_path / f"{name}.npz", one)
    (tmp_path / "sums.csv").write_text("id,label,prob_no,prob_yes\na,no,0.5,0.6\nb,yes,0.1,0.9\n")
    code, out, err = run(medcli, "calibrate", *words, *QUICK, "--out", "here")
    assert code == 2, out
    assert said in err
    assert "hint:" in err
    assert "Traceback" not in err
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("kind", ["lac", "aps", "raps"])
def test_conformal_sets_are_fitted_apart_and_reported_on_test(medcli: RunCli, tmp_path: Path, kind: str) -> None:
    target = Target("multiclass", ("a", "b", "c"))
    save_predictions(tmp_path / "val.npz", drawn("val", 0, n=600, target=target))
    save_predictions(tmp_path / "test.npz", drawn("test", 1, n=600, target=target))
    words = ["calibrate", "val.npz", "--apply-to", "test.npz", *QUICK, "--conformal", kind, "--out", "here", "--json"]
    code, out, err = run(medcli, *words)
    assert code == 0, err
    result = json.loads(out)["result"]
    assert result["calibrator"]["fitted_on"]["cases"] == 300
    assert result["conformal"]["cells"][0]["n"] == 150  # one case of each patient of the other half
    everyone = result["conformal"]["reported"][0]
    assert everyone["expected_low"] - 0.02 <= everyone["coverage"] <= everyone["expected_high"] + 0.02
    assert sum(everyone["sizes"]) == 600
    assert json.loads((tmp_path / "here" / "calibrator.json").read_text())["conformal"]["method"] == kind
    _, text, _ = run(medcli, *words[:-3], "--by-class")
    assert "conformal sets that miss at most 0.1" in text


def test_predict_writes_the_conformal_sets_of_a_run(
    medcli: RunCli, larger_run: RunDirectory, small_run: SmallRun, tmp_path: Path
) -> None:
    images = sorted(small_run.data.rglob("*.png"))[:4]
    words = ["predict", larger_run.path, *images, "--device", "cpu"]
    code, _, err = run(medcli, "calibrate", larger_run.path, *QUICK, "--conformal", "lac", "--miscoverage", "0.2")
    assert code == 0, err
    kept = conformal_from_dict(json.loads(larger_run.calibrator_file.read_text())["conformal"])
    _, out, err = run(medcli, *words)
    names, rows = columns(out)
    assert names == ["image", "prob_clear", "prob_opaque", "predicted", "set", "set_size"]
    assert "80 %" in err
    (cell,) = kept.cells
    for row in rows:
        held = [name for name in TARGET.class_names if 1 - float(row[f"prob_{name}"]) <= cell.threshold + 1e-6]
        assert (row["set"], int(row["set_size"])) == ("|".join(held), len(held))
    out_file = tmp_path / "p.json"
    assert run(medcli, *words, "--out", out_file)[0] == 0
    written = json.loads(out_file.read_text())
    assert [row["set_size"] for row in written["predictions"]] == [int(row["set_size"]) for row in rows]
    assert (written["conformal"]["method"], written["conformal"]["miscoverage"]) == ("lac", 0.2)
    # The thresholds belong to calibrated scores, and go with a calibrator that is fitted without them.
    assert "set" not in columns(run(medcli, *words, "--raw")[1])[0]
    run(medcli, "calibrate", larger_run.path, *QUICK)
    assert "set" not in columns(run(medcli, *words)[1])[0]
    document = json.loads(larger_run.calibrator_file.read_text())
    larger_run.calibrator_file.write_text(json.dumps({**document, "conformal": {"method": "lac"}}))
    code, _, err = run(medcli, *words)
    assert code == 2
    assert "conformal thresholds cannot be read" in err


@pytest.mark.parametrize("kind", ["lac", "aps", "raps"])
@pytest.mark.parametrize("by_class", [False, True])
def test_cells_of_sets_are_what_the_thresholds_say(kind: Any, by_class: bool) -> None:
    random = np.random.default_rng(5)
    grades, findings = Target("ordinal", ("0", "1", "2")), Target("multilabel", ("edema", "mass"))
    for target in (grades, findings):
        logits = random.normal(size=(300, target.num_classes)) * 2
        shape = (300, 2) if target.task == "multilabel" else (300,)
        labels = random.integers(0, 2 if target.task == "multilabel" else 3, shape)
        ids = np.array([f"c{row}" for row in range(300)])
        made = Predictions(ids, labels.astype(float) if labels.ndim == 2 else labels, logits, target)
        fitted = fit_conformal(made, method=kind, by_class=by_class)
        members = apply_conformal(fitted, made).members
        rows = set_rows(fitted, ids.tolist(), logits)
        if target is grades:
            assert set_columns(target) == ("set", "set_size")
            assert [row[0] for row in rows] == [
                "|".join(name for name, held in zip("012", one, strict=True) if held) for one in members
            ]
        else:
            assert set_columns(target) == ("set_edema", "set_size_edema", "set_mass", "set_size_mass")
            words = {
                (False, False): "",
                (True, False): "absent",
                (False, True): "present",
                (True, True): "absent|present",
            }
            assert [row[2] for row in rows] == [words[tuple(one[1].tolist())] for one in members]
        # In any company.
        assert set_rows(fitted, ids[7:8].tolist(), logits[7:8]) == rows[7:8]


def test_it_needs_no_torch(no_heavy_imports: NoHeavyImports, tmp_path: Path) -> None:
    save_predictions(tmp_path / "val.npz", drawn("val", 0))
    # Statistics of scipy take a third of a second to import, and neither fitting nor drawing needs them.
    heavy = ("torch", "torchvision", "timm", "transformers", "peft", "sklearn", "pandas", "scipy.stats")
    outcome = no_heavy_imports.cli("calibrate", "val.npz", *QUICK, "--out", "here", blocked=heavy, cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr


def test_a_foreign_table_of_labels(medcli: RunCli, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = ["Image,Patient,Mass,Hernia,Edema,p_Mass,p_Hernia,p_Edema"]
    for row in range(300):
        mass, edema = random.random(2) ** 2
        happened = random.random(2) < (mass / 2, edema)
        label = "" if row % 7 == 0 else f"{int(happened[0])}"
        rows.append(f"{row}.png,{row // 3},{label},0,{int(happened[1])},{mass:.5f},{mass / 50:.5f},{edema:.5f}")
    (tmp_path / "other.csv").write_text("\n".join(rows))
    words = ["calibrate", "other.csv", "--id-column", "Image", "--prob-columns", "p_*", "--patient-column", "Patient"]
    code, out, err = run(medcli, *words, "--method", "beta", *QUICK, "--json")
    assert code == 0, err
    result = json.loads(out)["result"]
    mass, hernia, edema = result["calibrator"]["fits"]
    assert mass["cases"] == 257
    assert edema["cases"] == 300
    assert hernia["parameters"] == {}
    assert "one class" in hernia["note"]
    before, after = (result[when]["parts"][0]["figures"]["intercept"]["value"] for when in ("before", "after"))
    assert abs(after) < abs(before) / 3


def test_raw_is_refused_where_there_is_no_run(medcli: RunCli, tmp_path: Path) -> None:
    save_predictions(tmp_path / "val.npz", drawn("val", 0))
    (tmp_path / "one.csv").write_text("image,label\na.png,0\n")
    for words in (
        ["evaluate", "val.npz", "--raw"],
        ["evaluate", "resnet18", "--weights", "w.pth", "--data", "one.csv", "--raw"],
        ["predict", "resnet18", "a.png", "--weights", "w.pth", "--raw"],
    ):
        code, _, err = run(medcli, *words)
        assert code == 2
        assert "--raw" in err
