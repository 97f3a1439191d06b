"""`medcli report` as a person types it: the same numbers as `evaluate`, one complete file, every odd case readable."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medcli.data.target import Target
from medcli.evaluation.calibration_result import calibrate
from medcli.evaluation.predictions import Predictions, load_predictions, save_predictions
from medcli.prediction.run_calibration import run_splits, write_calibration
from medcli.prediction.tables import write_prediction_table
from medcli.report.tables import spelled
from medcli.runs.directory import RunDirectory
from medcli.settings.groups import EvaluationSettings
from medcli.testing.command import RunCli

FEW = ("--bootstrap", "30")
EVIL = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$x_1$ a|b `c` [d](e)")


Page = Any
Reader = Callable[[str], Page]


def page_of(run_cli: RunCli, read_page: Reader, *arguments: str | Path) -> Page:
    outcome = run_cli("report", *arguments, *FEW, "--out", "r.html", "--overwrite", in_process=True)
    assert outcome.code == 0, outcome.stderr
    return read_page((run_cli.directory / "r.html").read_text(encoding="utf-8"))


def test_the_numbers_are_those_of_evaluate(run_cli: RunCli, finished: RunDirectory, read_page: Reader) -> None:
    _, reported, origin = run_splits(finished)
    result = calibrate(
        "temperature",
        load_predictions(finished.predictions("val")),
        reported,
        settings=EvaluationSettings(bootstrap=30),
        origin=origin,
    )
    write_calibration(finished.path, result)
    outcome = run_cli("report", finished.path, *FEW, in_process=True)
    assert outcome.code == 0, outcome.stderr
    page = read_page((finished.path / "report.html").read_text(encoding="utf-8"))
    evaluated = run_cli("evaluate", finished.path, *FEW, "--json", in_process=True).json()["result"]["evaluations"][0]
    shown = page.column("Headline figures") | page.column("All other figures")
    assert shown == {spelled(name): figure["value"] for name, figure in evaluated["figures"].items()}
    texts = {row[0][0]: row[2][0] for row in page.tables["Headline figures"][1:]}
    auc = evaluated["figures"]["auc"]
    assert texts["AUC"] == f"[{auc['low']:.4f},\N{NO-BREAK SPACE}{auc['high']:.4f}]"
    classes = page.column("Figures by class, each against the others", "AUC")
    assert classes == {row["name"]: row["figures"]["auc"]["value"] for row in evaluated["classes"]}
    referral = evaluated["sections"]["selective"]["questions"][0]["referral"]
    (caption,) = [name for name in page.tables if "answers are wrong" in name]
    assert [row[1][1] for row in page.tables[caption][1:]] == [row["kept"] for row in referral]
    # The calibrator's figures are those that `calibrate` gave.
    for heading, assessment in (("before", result.before), ("after", result.after)):
        expected = {spelled(name): figure.value for name, figure in assessment.figures.items()}
        assert page.column("Calibration before and after", heading) == expected
    points = page.column("What frozen thresholds achieve", "sensitivity")
    asked = ("--operating-point", "sens=0.9", "--operating-point", "spec=0.9")
    frozen = run_cli("evaluate", finished.path, "--bootstrap", "0", *asked, "--json", in_process=True).json()
    held = frozen["result"]["evaluations"][0]["sections"]["operating_points"]["points"]
    assert points == {point["rule"]: point["sensitivity"]["value"] for point in held}
    assert "decision" in page.ids
    assert "Decision curve" in page.text


def test_grades_cut_in_two_are_named_once(run_cli: RunCli, toy: SimpleNamespace, read_page: Reader) -> None:
    made = replace(toy.classes_of(4, ordinal=True), calibrated="temperature, fitted on val")
    save_predictions(run_cli.directory / "p.npz", made)
    words = ("--operating-point", "score=0.4@2", "--prevalence", "0.1", "--out", "p.html")
    assert run_cli("report", "p.npz", *FEW, *words, in_process=True).code == 0
    page = read_page((run_cli.directory / "p.html").read_text(encoding="utf-8"))
    heading, row = page.tables["What frozen thresholds achieve"]
    assert [cell[0] for cell in heading[:3]] == ["grades", "rule", "threshold"]
    assert [cell[0] for cell in row[:2]] == [">=class 2", "score=0.4"]
    assert ">=class 2. Decision curve" in page.text


def test_a_table_of_another_tool(run_cli: RunCli, tmp_path: Path, toy: SimpleNamespace, read_page: Reader) -> None:
    predictions = toy.labels_of(tuple(f"finding {index}" for index in range(4)))
    table = tmp_path / "other.csv"
    write_prediction_table(table, predictions)
    text = table.read_text().splitlines()
    sexes = ["sex", *("mf"[index % 2] for index in range(len(text) - 1))]
    table.write_text("\n".join(f"{line},{sex}" for line, sex in zip(text, sexes, strict=True)) + "\n")
    page = page_of(run_cli, read_page, table, "--method", "platt", "--by", "sex", "--cross-fit", "3")
    evaluated = run_cli("evaluate", table, *FEW, "--json", in_process=True).json()["result"]["evaluations"][0]
    shown = page.column("Headline figures") | page.column("All other figures")
    assert shown == {spelled(name): figure["value"] for name, figure in evaluated["figures"].items()}
    found = run_cli("calibrate", table, "--method", "platt", "--cross-fit", "3", *FEW, "--json", in_process=True).json()
    expected = {spelled(name): one["value"] for name, one in found["result"]["after"]["figures"].items()}
    assert page.column("Calibration before and after", "after") == expected
    assert any(name.startswith("Figures by sex") for name in page.tables)
    assert any(name.startswith("Net benefit per 1000") for name in page.tables)
    assert "No case at all, so nothing is known about: finding 0" in page.text
    assert "predictions say nothing" in page.text.lower()


ODD: dict[str, Callable[[SimpleNamespace], Predictions]] = {
    "labels": lambda toy: toy.labels_of(("never", "always", "mixed")),
    "grades": lambda toy: toy.classes_of(5, ordinal=True),
    "nine classes": lambda toy: toy.classes_of(9),
    "outputs": lambda toy: toy.outputs_of(),
    "one class": lambda toy: replace(toy.binary(), labels=np.ones(120, dtype=np.int64)),
    "one case": lambda toy: toy.binary(n=1),
    "members": lambda toy: replace(
        toy.binary(), member_logits=np.stack([toy.binary(seed=seed).logits for seed in (0, 1, 2)])
    ),
    "no errors": lambda toy: replace(toy.binary(), logits=np.eye(2, dtype=np.float32)[toy.binary().labels] * 9),
    "some without label": lambda toy: replace(
        toy.binary(), labels=np.where(np.arange(120) < 20, -1, toy.binary().labels)
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_predictions_give_a_readable_report(
    run_cli: RunCli, tmp_path: Path, name: str, toy: SimpleNamespace, read_page: Reader
) -> None:
    save_predictions(tmp_path / "odd.npz", ODD[name](toy))
    page = page_of(run_cli, read_page, tmp_path / "odd.npz", "--checklist", "claim")
    wanted = ["results", "calibration", "referral", "operating-points", "decision", "uncertainty", "subgroups"]
    wanted += ["examples", "data", "training", "model-card", "limits", "checklist", "provenance"]
    assert [one for one in page.ids if one in wanted] == wanted
    assert "nan" not in re.split(r"\W+", page.text.lower())
    assert page.images
    if name == "members":
        assert any(caption.startswith("Uncertainty of 120 cases") for caption in page.tables)
    if name == "grades":
        assert page.column("Headline figures")["quadratic weighted kappa"] is not None


def test_a_run_that_was_interrupted(run_cli: RunCli, tmp_path: Path, toy: SimpleNamespace, read_page: Reader) -> None:
    run = toy.make_run(tmp_path / "run", [], state="interrupted")
    outcome = run_cli("report", run.path, "--json", in_process=True)
    assert outcome.code == 0, outcome.stderr
    result = outcome.json()["result"]
    assert result["evaluation"] is None
    absent = {one["what"]: one["command"] for one in result["absent"]}
    assert absent["the results"] == f"medcli train --resume {run.path}"
    page = read_page((run.path / "report.html").read_text(encoding="utf-8"))
    assert "interrupted" in page.text
    assert len(page.images) == 2  # the history so far


def test_a_run_without_test_is_marked(run_cli: RunCli, tmp_path: Path, toy: SimpleNamespace, read_page: Reader) -> None:
    run = toy.make_run(tmp_path / "run", [toy.binary("val")])
    outcome = run_cli("report", run.path, *FEW, in_process=True)
    assert "chose the run's best epoch" in outcome.stderr
    page = read_page((run.path / "report.html").read_text(encoding="utf-8"))
    assert "better than those of new cases" in page.text
    # A calibrator fitted on the judged cases is reported cross-fitted, never on what it was fitted on.
    run_cli("calibrate", run.path, *FEW, in_process=True)
    assert run_cli("report", run.path, *FEW, in_process=True).code == 0
    page = read_page((run.path / "report.html").read_text(encoding="utf-8"))
    calibrated = run_cli("calibrate", run.path, *FEW, "--json", in_process=True).json()["result"]["after"]["figures"]
    shown = page.column("Calibration before and after", "after")
    assert shown == {spelled(name): figure["value"] for name, figure in calibrated.items()}


def test_names_from_data_are_never_markup(
    run_cli: RunCli, tmp_path: Path, toy: SimpleNamespace, read_page: Reader
) -> None:
    multi = toy.labels_of(EVIL)
    two = toy.binary(target=Target("binary", EVIL[:2]))
    two = replace(two, ids=np.array([f"{EVIL[0]} {index}" for index in range(120)]), data_name=EVIL[1])
    run = toy.make_run(tmp_path / "run", [two], name=EVIL[0])
    save_predictions(tmp_path / "labels.npz", replace(multi, data_name=EVIL[0]))
    for source in (run.path, tmp_path / "labels.npz"):
        page = page_of(run_cli, read_page, source)  # which refuses tags, attributes and addresses that are not ours
        assert "alert(1)" in page.text
        outcome = run_cli("report", source, *FEW, "--out", "r.md", "--overwrite", in_process=True)
        assert outcome.code == 0, outcome.stderr
        text = (run_cli.directory / "r.md").read_text(encoding="utf-8")
        body = text.partition("\n---\n")[2]
        assert "<script" not in body
        assert "<img" not in body
        assert r"\$x\_1\$" in body or source == run.path
        json.loads(next(line for line in text.splitlines() if line.startswith("model-index: ")).partition(": ")[2])


def test_markdown_has_its_pictures_beside_it(run_cli: RunCli, finished: RunDirectory) -> None:
    arguments = ("report", finished.path, *FEW, "--format", "html,md", "--checklist", "none")
    first = run_cli(*arguments, in_process=True)
    assert first.code == 0, first.stderr
    folder = finished.path / "report-pictures"
    (folder / "old.png").write_bytes(b"")
    assert run_cli(*arguments, in_process=True).code == 0
    text = (finished.path / "report.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\(([^)#]+)\)", text)
    assert sorted(named) == sorted(f"report-pictures/{path.name}" for path in folder.iterdir())
    assert all((finished.path / name).read_bytes().startswith(b"\x89PNG") for name in named)
    for line in [line for line in text.splitlines() if line.startswith("| ")]:
        assert re.search(r"\|$", line)
    assert "TRIPOD" not in text


def test_where_it_may_go(run_cli: RunCli, finished: RunDirectory, toy: SimpleNamespace) -> None:
    save_predictions(run_cli.directory / "p.npz", toy.binary())
    assert run_cli("report", "p.npz", "--bootstrap", "0", "-q", in_process=True).stdout == "p-report.html\n"
    for arguments, code in (
        (("p.npz",), "out-occupied"),
        (("p.npz", "--out", "x.pdf"), "unknown-format"),
        (("p.npz", "--out", "x.html", "--format", "md"), "unknown-format"),
        (("p.npz", "--on", "val"), "no-splits"),
        (("p.npz", "--method", "platt", "--out", "z.html"), "test-split"),
        (("p.npz", "--raw"), "no-calibrator"),
        (("p.npz", "--cross-fit", "3"), "idle-flag"),
        (("p.npz", "--operating-point", "sens=0.9", "--out", "y.html"), "no-reference"),
        (("absent",), "missing-path"),
        ((finished.path, "--method", "platt"), "fixed-by-run"),
        ((finished.path, "--prob-columns", "p*"), "fixed-by-run"),
        ((run_cli.directory,), "not-a-run"),
        (("p.npz", "--format", "onnx"), "bad-value"),
    ):
        outcome = run_cli("report", *arguments, "--json", in_process=True)
        assert outcome.code == 2, arguments
        assert json.loads(outcome.stderr)["code"] == code, (arguments, outcome.stderr)
        assert not outcome.stdout


def test_predictions_without_labels_are_refused(run_cli: RunCli, toy: SimpleNamespace) -> None:
    unknown: Predictions = replace(toy.binary(), labels=np.full(120, -1))
    save_predictions(run_cli.directory / "p.npz", unknown)
    outcome = run_cli("report", "p.npz", in_process=True)
    assert outcome.code == 2
    assert "none of the predictions has a label" in outcome.stderr
    assert not (run_cli.directory / "p-report.html").exists()


@pytest.mark.slow
def test_fourteen_labels_of_a_real_network(run_cli: RunCli, shared_data: Path, read_page: Reader) -> None:
    table = shared_data / "data" / "nih_chexnet_predictions" / "chexnet_testset_probs_and_labels.csv.gz"
    named = ("--id-column", "Image Index", "--prob-columns", "prob_*", "--patient-column", "Patient ID")
    page = page_of(run_cli, read_page, table, *named, "--method", "beta", "--by", "Patient Gender")
    areas = page.column("Figures by label, each against the others", "AUC")
    assert areas["Atelectasis"] == pytest.approx(0.8180, abs=5e-5)
    assert areas["Hernia"] == pytest.approx(0.9175, abs=5e-5)
    assert "6,187 patients" in page.text
    assert len(page.images) == 1 + 14 * 5
