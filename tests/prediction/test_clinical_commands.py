"""Operating points, referral and subgroups as a user asks `medcli evaluate` for them, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.data.target import Target
from medcli.evaluation.operating import Rule, choose_threshold
from medcli.evaluation.predictions import Predictions, load_predictions, save_predictions
from medcli.evaluation.questions import questions_of
from medcli.testing.command import RunCli

from .conftest import SmallRun

QUICK = ("--bootstrap", "0")


@pytest.fixture
def medcli(tmp_path: Path) -> RunCli:
    return RunCli(tmp_path)


def run(medcli: RunCli, *words: object) -> tuple[int, str, str]:
    outcome = medcli(*map(str, words), in_process=True)
    return outcome.code, outcome.stdout, outcome.stderr


def sections(medcli: RunCli, *words: object) -> dict[str, Any]:
    code, out, err = run(medcli, "evaluate", *words, *QUICK, "--json")
    assert code == 0, err
    (found,) = json.loads(out)["result"]["evaluations"]
    result: dict[str, Any] = found["sections"]
    return result


def binary(seed: int, n: int = 200, calibrated: str = "") -> Predictions:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    logits = np.stack([np.zeros(n), generator.normal(size=n) + 2 * labels - 1], axis=1)
    patients = np.array([f"p{i // 2}" for i in range(n)])
    ids = np.array([f"{seed}-{i}" for i in range(n)])
    return Predictions(ids, labels, logits, Target("binary", ("no", "yes")), patients=patients, calibrated=calibrated)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Predictions, Predictions]:
    val, test = binary(1), binary(2)
    save_predictions(tmp_path / "val.npz", val)
    save_predictions(tmp_path / "test.npz", test)
    return val, test


def test_a_file_brings_its_referral_table_along(medcli: RunCli, files: tuple[Predictions, Predictions]) -> None:
    code, out, err = run(medcli, "evaluate", "test.npz", *QUICK)
    assert code == 0, err
    assert "if the least sure answers go to a reader" in out
    assert "found or referred" in out
    assert "no decision curve" in out
    assert "AURC" not in out
    assert len(out.splitlines()) < 45
    _, more, _ = run(medcli, "evaluate", "test.npz", *QUICK, "-v")
    assert "Spearman" in more
    assert "error rate at most" in more


def test_thresholds_of_a_second_file(medcli: RunCli, files: tuple[Predictions, Predictions]) -> None:
    words = ("test.npz", "--operating-point", "sens=0.95", "--operating-point", "spec=0.9", "--choose-on", "val.npz")
    found = sections(medcli, *words, "--prevalence", "0.01,0.1")["operating_points"]
    (own,) = questions_of(files[0])
    assert own.scores is not None
    assert own.truth is not None
    assert [one["rule"] for one in found["points"]] == ["sens=0.95", "spec=0.9"]
    assert found["points"][0]["threshold"] == choose_threshold(own.scores, own.truth, Rule("sens", 0.95))
    assert found["chosen_on"] == "val.npz"
    assert not found["chosen_on_these_cases"]
    assert [one["prevalence"] for one in found["points"][0]["at_prevalence"]] == [0.01, 0.1]


def test_thresholds_of_the_same_cases_are_marked(medcli: RunCli, files: tuple[Predictions, Predictions]) -> None:
    words = ("evaluate", "test.npz", "--operating-point", "sens=0.95", *QUICK)
    code, _, err = run(medcli, *words)
    assert code == 2
    assert "--choose-on" in err
    code, out, _ = run(medcli, *words, "--choose-on", "test.npz")
    assert code == 0
    assert "too good to be expected elsewhere" in out
    # The same cases under another name are the same cases.
    (medcli.directory / "copy.npz").write_bytes((medcli.directory / "test.npz").read_bytes())
    assert "too good" in run(medcli, *words, "--choose-on", "copy.npz")[1]


def test_a_run_chooses_on_its_val_and_is_frozen_on_other_data(medcli: RunCli, small_run: SmallRun) -> None:
    val = load_predictions(small_run.run.predictions("val"))
    (own,) = questions_of(val)
    assert own.scores is not None
    assert own.truth is not None
    expected = choose_threshold(own.scores, own.truth, Rule("sens", 0.9))
    words = (small_run.run.path, "--operating-point", "sens=0.9")
    found = sections(medcli, *words)["operating_points"]
    assert found["points"][0]["threshold"] == pytest.approx(expected)
    assert found["chosen_on"] == "the run's val cases"
    elsewhere = sections(medcli, *words, "--data", small_run.data, "--device", "cpu")["operating_points"]
    assert elsewhere["points"][0]["threshold"] == pytest.approx(expected)


def test_calibrated_predictions_have_decision_curves(medcli: RunCli, tmp_path: Path) -> None:
    save_predictions(tmp_path / "calibrated.npz", binary(3, 400, "temperature, fitted on val"))
    found = sections(medcli, "calibrated.npz")["decision_curves"]
    assert found["refused"] is None
    assert len(found["curves"][0]["points"]) == 102
    save_predictions(tmp_path / "raw.npz", binary(4))
    code, _, err = run(
        medcli, "evaluate", "calibrated.npz", "--operating-point", "sens=0.9", "--choose-on", "raw.npz", *QUICK
    )
    assert code == 2
    assert "not calibrated alike" in err


def write_table(path: Path) -> None:
    generator = np.random.default_rng(6)
    rows = ["case,prob_mass,mass,sex,age"]
    for index in range(160):
        truth = index % 2
        score = np.clip(generator.normal(0.35 + 0.3 * truth, 0.2), 0.01, 0.99)
        rows.append(f"c{index},{score:.4f},{truth},{'F' if index % 4 < 2 else 'M'},{30 + index // 4}")
    path.write_text("\n".join(rows) + "\n")


def test_subgroups_of_a_table_and_of_a_joined_one(medcli: RunCli, tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv")
    columns = ("--id-column", "case", "--label-column", "mass")
    found = sections(medcli, "t.csv", *columns, "--by", "sex", "--by", "age")["subgroups"]["columns"]
    assert [one["column"] for one in found] == ["sex", "age"]
    assert [row["group"] for row in found[0]["rows"]] == ["F", "M"]
    assert found[0]["auc_gap"]["worst"] in "FM"
    assert len(found[1]["rows"]) == 4
    made = binary(5, 160)
    save_predictions(tmp_path / "p.npz", replace(made, ids=np.array([f"c{i}" for i in range(160)])))
    joined = sections(medcli, "p.npz", "--by", "sex", "--by-table", "t.csv", "--id-column", "case")["subgroups"]
    assert [row["n"] for row in joined["columns"][0]["rows"]] == [80, 80]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("test.npz", "--by", "sex"), "--by-table"),
        (("test.npz", "--by", "sex", "--by-table", "t.csv"), "no column `id`"),
        (("test.npz", "--by", "sex", "--by-table", "t.csv", "--id-column", "case"), "no case is in column `case`"),
        (("t.csv", "--id-column", "case", "--label-column", "mass", "--by", "sx"), "no column `sx`"),
        (("test.npz", "--by-table", "t.csv"), "needs a column"),
        (("test.npz", "--prevalence", "0.1"), "operating point"),
        (("test.npz", "--prevalence", "1", "--operating-point", "score=0.4"), "leaves nothing to tell"),
        (("test.npz", "--choose-on", "val.npz"), "nothing is to be chosen"),
        (("test.npz", "--choose-on", "val.npz", "--operating-point", "score=0.4"), "nothing is to be chosen"),
        (("test.npz", "--operating-point", "sens=95"), "is no operating point"),
        (("test.npz", "--defer", "some"), "says not what goes to a reader"),
        (("test.npz", "--defer", "cost=10:1"), "chosen on other cases"),
        (("test.npz", "--operating-point", "sens=0.9", "--choose-on", "none.npz"), "none.npz"),
        (("test.npz", "--operating-point", "sens=0.9", "--choose-on", "."), "is a folder"),
    ],
)
def test_what_cannot_act_is_refused(
    medcli: RunCli, tmp_path: Path, files: tuple[Predictions, Predictions], words: tuple[str, ...], said: str
) -> None:
    write_table(tmp_path / "t.csv")
    code, _, err = run(medcli, "evaluate", *words, *QUICK)
    assert code == 2, err
    assert said in err


def test_deferral_rules_act(medcli: RunCli, files: tuple[Predictions, Predictions]) -> None:
    words = ("test.npz", "--defer", "below=0.7", "--defer", "budget=0.2", "--defer", "cost=10:1")
    found = sections(medcli, *words, "--choose-on", "val.npz")["selective"]
    below, budget, cost = found["deferral"]
    assert below["threshold"] == 0.7
    # The share is that of the cases it was chosen on; here it comes close.
    assert budget["referred"] == pytest.approx(0.2, abs=0.08)
    assert cost["cost"] < 10 * found["questions"][0]["errors"]
    assert found["deferral_chosen_on"] == "val.npz"


def test_real_predictions_of_another_tool_alone(medcli: RunCli, shared_data: Path) -> None:
    (table,) = (shared_data / "data" / "nih_chexnet_predictions").glob("*.csv.gz")
    columns = ("--id-column", "Image Index", "--prob-columns", "prob_*", "--patient-column", "Patient ID")
    found = sections(
        medcli, table, *columns, "--by", "Patient Gender", "--operating-point", "sens=0.9", "--choose-on", table
    )
    points = {one["name"]: one for one in found["operating_points"]["points"]}
    assert points["Effusion"]["sensitivity"]["value"] == pytest.approx(0.9, abs=0.001)
    assert points["Effusion"]["specificity"]["value"] == pytest.approx(0.695, abs=0.001)
    # 42 films with a hernia, of fewer patients: not 42 independent cases.
    low, high = (points["Hernia"]["sensitivity"][end] for end in ("low", "high"))
    assert high - low > 0.2
    gap = found["subgroups"]["columns"][0]["auc_gap"]
    assert gap["low"] < 0 < gap["high"]
