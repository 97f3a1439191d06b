"""`medcli evaluate` and `medcli predict` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.evaluation.predictions import load_predictions
from medcli.evaluation.report import evaluate
from medcli.prediction.finish import read_evaluations
from medcli.settings.groups import EvaluationSettings
from medcli.testing.command import RunCli

from .conftest import SmallRun, draw_images

QUICK = ("--bootstrap", "20")


@pytest.fixture
def medcli(tmp_path: Path) -> RunCli:
    return RunCli(tmp_path)


def run(medcli: RunCli, *words: object) -> tuple[int, str, str]:
    outcome = medcli(*map(str, words), in_process=True)
    return outcome.code, outcome.stdout, outcome.stderr


def test_a_run_is_measured_on_its_stored_test(medcli: RunCli, small_run: SmallRun) -> None:
    code, out, err = run(medcli, "evaluate", small_run.run.path, *QUICK, "--json")
    assert code == 0, err
    document = json.loads(out)
    (found,) = document["result"]["evaluations"]
    expected = evaluate(small_run.stored, EvaluationSettings(bootstrap=20))
    assert found["split"] == "test"
    assert found["figures"]["auc"]["value"] == pytest.approx(expected.value("auc"))
    assert found["figures"]["auc"]["low"] == pytest.approx(expected.figures["auc"].low)
    assert read_evaluations(small_run.run.path)["test"]["figures"]["auc"] == found["figures"]["auc"]
    code, out, _ = run(medcli, "evaluate", small_run.run.path, *QUICK)
    assert "positive class: opaque, other: clear" in out


def test_stored_predictions_need_no_torch(small_run: SmallRun, tmp_path: Path, medcli: RunCli) -> None:
    blocker = tmp_path / "blocked" / "torch"
    blocker.mkdir(parents=True)
    (blocker / "__init__.py").write_text("raise ImportError('torch is blocked')\n")
    outcome = medcli("evaluate", small_run.run.path, *QUICK, env={"PYTHONPATH": str(blocker.parent)})
    assert outcome.code == 0, outcome.stderr


def test_external_data_gives_a_table_and_a_gap(medcli: RunCli, small_run: SmallRun, tmp_path: Path) -> None:
    draw_images(tmp_path / "siteB", 5, 7)
    draw_images(tmp_path / "siteC", 5, 8)
    words = ["evaluate", small_run.run.path, "--data", "B=siteB", "--data", "C=siteC", "--device", "cpu", *QUICK]
    code, out, err = run(medcli, *words)
    assert code == 0, err
    assert "generalisation gap" in out
    assert "all 10 cases are judged" in err
    code, out, err = run(medcli, *words, "--json")
    result = json.loads(out)["result"]
    assert [(one["data"], one["n"]) for one in result["evaluations"]] == [("home", 12), ("B", 10), ("C", 10)]
    for gap in result["gaps"]:
        inside, outside = (
            next(one for one in result["evaluations"] if one["data"] == name)["figures"][gap["figure"]]["value"]
            for name in ("home", gap["data"])
        )
        assert gap["value"] == pytest.approx(outside - inside)


def test_the_runs_own_test_predicted_again_is_no_external_data(
    medcli: RunCli, small_run: SmallRun, tmp_path: Path
) -> None:
    words = ["evaluate", small_run.run.path, "--data", small_run.data, *QUICK, "--save-predictions", "again.npz"]
    code, out, err = run(medcli, *words)
    assert code == 0, err
    assert "own test, predicted again" in err
    assert "gap" not in out
    again = load_predictions(tmp_path / "again.npz")
    np.testing.assert_allclose(again.logits, small_run.stored.logits, atol=1e-5)
    code, _, err = run(medcli, *words)
    assert code == 2
    assert "exists already" in err
    assert run(medcli, *words, "--overwrite")[0] == 0


def test_other_classes_are_refused(medcli: RunCli, small_run: SmallRun, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (16, 16)).save(tmp_path / "pets" / name / f"{number}.png")
    code, _, err = run(medcli, "evaluate", small_run.run.path, "--data", "pets")
    assert code == 2
    assert "cat" in err
    # Numbers would fit any two classes; this set's meaning is known.
    images = np.zeros((4, 16, 16), np.uint8)
    np.savez(tmp_path / "pneumoniamnist.npz", test_images=images, test_labels=np.array([[0], [1], [0], [1]]),
             train_images=images, train_labels=np.array([[0], [1], [0], [1]]))  # fmt: skip
    code, _, err = run(medcli, "evaluate", small_run.run.path, "--data", "pneumoniamnist.npz")
    assert code == 2
    assert "`normal`, `pneumonia`" in err
    code, _, err = run(
        medcli, "evaluate", small_run.run.path, "--data", "pneumoniamnist.npz", "--class-names", "clear,opaque", *QUICK
    )
    assert code == 0, err


@pytest.mark.parametrize(
    ("limit", "code"),
    [(("--min-auc", "0"), 0), (("--min-auc", "1"), 4), (("--max-ece", "1"), 0), (("--max-ece", "0"), 4)],
)
def test_a_missed_limit_is_status_4(medcli: RunCli, tmp_path: Path, limit: tuple[str, str], code: int) -> None:
    (tmp_path / "p.csv").write_text("id,label,prob_a,prob_b\n1,0,.9,.1\n2,1,.6,.4\n3,0,.5,.5\n4,1,.2,.8\n")
    found, out, err = run(medcli, "evaluate", "p.csv", *QUICK, *limit)
    assert found == code, err
    assert "positive class: b" in out
    assert ("limit" in err) == (code == 4)


def test_an_undefined_figure_misses_its_limit(medcli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,label,prob_a,prob_b\n1,0,.9,.1\n2,0,.6,.4\n")
    assert run(medcli, "evaluate", "p.csv", "--bootstrap", "0", "--min-auc", "0")[0] == 4


def test_a_table_of_another_tool(medcli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("case,who,y,p_x,p_y\na,1,x,.9,.1\nb,1,y,.3,.7\nc,2,x,.4,.6\nd,3,y,.2,.8\n")
    words = ["evaluate", "other.csv", "--id-column", "case", "--prob-columns", "p_*", "--label-column", "y"]
    code, out, err = run(medcli, *words, "--patient-column", "who", *QUICK)
    assert code == 0, err
    assert "4 labelled cases of 3 patients" in out
    code, _, err = run(medcli, *words, "--save-predictions", "ours.csv", "--out", "figures.json", *QUICK)
    assert code == 0, err
    assert (tmp_path / "ours.csv").read_text().startswith("id,label,logit_x,logit_y")
    assert json.loads((tmp_path / "figures.json").read_text())["evaluations"][0]["figures"]["accuracy"]["value"] == 0.75
    code, again, err = run(medcli, "evaluate", "ours.csv", "--json", "--bootstrap", "0")
    assert json.loads(again)["result"]["evaluations"][0]["figures"]["accuracy"]["value"] == 0.75


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "neither a run nor a predictions file"),
        (("empty",), "not a run"),
        (("p.csv", "--data", "x"), "needs a model"),
        (("p.csv", "--save-predictions", "x.txt"), "ends in none of"),
        (("p.csv", "--out", "x.txt"), "ends in none of"),
        (("data.npz",), "no predictions file"),
        (("p.npz", "--prob-columns", "p*"), "no table"),
        (("p.csv", "--limit", "3"), "predictions have none"),
    ],
)
def test_wrong_usage_is_status_2_and_writes_nothing(
    medcli: RunCli, small_run: SmallRun, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "p.csv").write_text("id,label,prob_a,prob_b\n1,0,.9,.1\n2,1,.6,.4\n")
    np.savez(tmp_path / "data.npz", train_images=np.zeros((1, 2, 2)))
    (tmp_path / "p.npz").write_bytes(small_run.run.predictions("test").read_bytes())
    before = sorted(tmp_path.iterdir())
    code, out, err = run(medcli, "evaluate", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert sorted(tmp_path.iterdir()) == before


def test_flags_about_data_need_data(medcli: RunCli, small_run: SmallRun) -> None:
    data, alone = "name the images with `--data PATH`", "leave out `--id-column`"
    for flag, value, hint in (("--label-column", "x", data), ("--limit", "3", data), ("--id-column", "x", alone)):
        code, out, err = run(medcli, "evaluate", small_run.run.path, flag, value)
        assert (code, out) == (2, "")
        assert flag in err
        assert f"hint: {hint}" in err


def test_evaluate_dry_run_says_what_it_would_do(medcli: RunCli, small_run: SmallRun) -> None:
    code, out, err = run(medcli, "evaluate", small_run.run.path, "--dry-run")
    assert code == 0, err
    assert "12 cases" in out


def test_predict_prints_a_table_in_input_order(medcli: RunCli, small_run: SmallRun, tmp_path: Path) -> None:
    names = [str(small_run.data / name) for name in small_run.stored.ids[:3]]
    (tmp_path / "bad.png").write_bytes(b"")
    code, out, err = run(medcli, "predict", small_run.run.path, names[2], "bad.png", names[0], "--device", "cpu")
    lines = out.splitlines()
    assert code == 3
    assert lines[0] == "image,score_clear,score_opaque,predicted"
    assert [line.split(",")[0] for line in lines[1:]] == [names[2], names[0]]
    assert "bad.png" in err
    assert err.count("not calibrated") == 1
    code, out, _ = run(medcli, "predict", small_run.run.path, *names, "--json")
    assert code == 0
    result = json.loads(out)["result"]
    assert result["calibrated"] is False
    assert [row["image"] for row in result["predictions"]] == names
    assert sum(result["predictions"][0][f"score_{name}"] for name in ("clear", "opaque")) == pytest.approx(1)


def test_verbose_says_how_images_become_input(medcli: RunCli, small_run: SmallRun, tmp_path: Path) -> None:
    draw_images(tmp_path / "new", 2, 3)
    words = ("predict", small_run.run.path, "new", "--device", "cpu")
    assert "made square by `squash`" not in run(medcli, *words)[2]
    assert "made square by `squash`" in run(medcli, *words, "-v")[2]


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_predict_writes_a_file(medcli: RunCli, small_run: SmallRun, tmp_path: Path, ending: str) -> None:
    words = ["predict", small_run.run.path, small_run.data / "test", "--out", f"scores.{ending}"]
    code, out, err = run(medcli, *words)
    assert code == 0, err
    assert "12 predictions written" in out
    text = (tmp_path / f"scores.{ending}").read_text()
    assert len(json.loads(text)["predictions"]) == 12 if ending == "json" else len(text.splitlines()) == 13
    assert run(medcli, *words)[0] == 2
    assert run(medcli, *words, "--overwrite", "-q")[1].strip() == f"scores.{ending}"


def test_predict_fails_when_nothing_could_be_read(medcli: RunCli, small_run: SmallRun, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("x")
    code, out, err = run(medcli, "predict", small_run.run.path, "bad.png")
    assert (code, out) == (1, "")
    assert "none of the 1 inputs" in err
    code, _, err = run(medcli, "predict", small_run.run.path, small_run.run.path)
    assert code == 2
    assert "one run" in err
