"""Tables of predictions: our own layout comes back exactly, another tool's is read without guessing."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medcli.data.target import Output, Target
from medcli.errors import MedcliError, UsageProblem
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.report import evaluate
from medcli.evaluation.scores import probabilities
from medcli.prediction.foreign import Columns, read_prediction_table
from medcli.prediction.tables import read_any, write_any
from medcli.settings.groups import EvaluationSettings

RNG = np.random.default_rng(5)
QUICK = EvaluationSettings(bootstrap=0)


def made(target: Target, n: int = 12, dtype: type = np.float32) -> Predictions:
    ids = np.array([f'a "quoted", {i}' for i in range(n)])
    patients = np.array([f"p{i % 5}" for i in range(n)])
    if target.task == "multilabel":
        labels = RNG.integers(0, 2, (n, 3)).astype(np.float32)
        labels[1, 2] = np.nan
        return Predictions(ids, labels, RNG.normal(size=(n, 3)).astype(dtype), target, patients=patients)
    if target.task == "multioutput":
        logits = RNG.normal(size=(n, 2, 3)).astype(dtype)
        logits[:, 1, 2] = -np.inf
        labels = np.stack([RNG.integers(-1, 3, n), RNG.integers(-1, 2, n)], axis=1)
        return Predictions(ids, labels, logits, target, patients=patients)
    classes = len(target.class_names)
    return Predictions(
        ids, RNG.integers(-1, classes, n), RNG.normal(size=(n, classes)).astype(dtype), target, patients=patients
    )


TARGETS = (
    Target("binary", ("benign", "malignant"), positive=0),
    Target("multiclass", ("a", "b", "c d")),
    Target("ordinal", ("0", "1", "2", "3")),
    Target("multilabel", ("Edema", "Mass", "Hernia")),
    Target("multioutput", (), (Output("left", ("0", "1", "2"), True), Output("right", ("no", "yes")))),
)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.task)
@pytest.mark.parametrize("ending", ["npz", "csv", "tsv", "csv.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_our_layout_comes_back_exactly(tmp_path: Path, target: Target, ending: str, dtype: type) -> None:
    written = made(target, dtype=dtype)
    path = str(tmp_path / f"predictions.{ending}")
    write_any(path, written)
    columns = Columns()
    if ending != "npz":
        positive = target.class_names[target.positive] if target.task == "binary" else None
        ordered = tuple(output.name for output in target.outputs if output.ordinal)
        columns = Columns(task=target.task, positive=positive, ordinal=ordered)
    read = read_any(path, columns).predictions
    assert read.target == target
    np.testing.assert_array_equal(read.ids, written.ids)
    np.testing.assert_array_equal(read.labels, written.labels)
    np.testing.assert_array_equal(read.logits.astype(dtype), written.logits)
    np.testing.assert_array_equal(read.patients, written.patients)
    with pytest.raises(UsageProblem, match="exists already"):
        write_any(path, written)
    write_any(path, written, overwrite=True)


def table(tmp_path: Path, text: str, name: str = "other.csv") -> str:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(path)


def test_probabilities_survive_to_the_last_digits(tmp_path: Path) -> None:
    scores = RNG.dirichlet([0.3, 0.3, 0.3], size=200)
    scores[0], scores[1] = [1, 0, 0], [0.5, 0.5, 0]
    rows = [f"{i},{i % 3},{a!r},{b!r},{c!r}" for i, (a, b, c) in enumerate(scores.tolist())]
    read = read_prediction_table(table(tmp_path, "\n".join(["id,label,prob_x,prob_y,prob_z", *rows])), Columns())
    assert read.predictions.target == Target("multiclass", ("x", "y", "z"))
    np.testing.assert_allclose(probabilities(read.predictions), scores, atol=1e-15)
    labels = RNG.random((50, 2)).round(6)
    labels[0] = [0, 1]
    rows = [f"{i},1,0,{a!r},{b!r}" for i, (a, b) in enumerate(labels.tolist())]
    read = read_prediction_table(table(tmp_path, "\n".join(["id,label_x,label_y,prob_x,prob_y", *rows])), Columns())
    assert read.predictions.target.task == "multilabel"
    np.testing.assert_allclose(probabilities(read.predictions), labels, atol=1e-15)


def test_one_probability_column_is_binary(tmp_path: Path) -> None:
    path = table(tmp_path, "case,truth,p\na,0,0.2\nb,1,0.9\nc,1,0.4\n", "other.csv.gz")
    columns = Columns(identifier="case", probabilities="p", labels=("truth",), class_names=("no", "yes"))
    read = read_prediction_table(path, columns).predictions
    assert read.target == Target("binary", ("no", "yes"))
    np.testing.assert_allclose(probabilities(read)[:, 1], [0.2, 0.9, 0.4], atol=1e-15)
    assert read.ids.tolist() == ["a", "b", "c"]
    assert read.labels.tolist() == [0, 1, 1]


def test_columns_without_a_common_pattern_are_named_one_by_one(tmp_path: Path) -> None:
    path = table(tmp_path, "id,truth,malignant,benign,note\na,benign,.2,.8,x\nb,malignant,.9,.1,y\n")
    read = read_prediction_table(path, Columns(probabilities="benign, malignant", labels=("truth",))).predictions
    assert read.target == Target("binary", ("benign", "malignant"))
    np.testing.assert_allclose(probabilities(read)[:, 1], [0.2, 0.9])
    assert read.labels.tolist() == [0, 1]
    # A comma within a name is no comma between names; of a pattern among several its star is the class.
    path = table(tmp_path, 'id,label,"p,a",p_b,q_c\n1,0,.5,.2,.3\n')
    with pytest.raises(UsageProblem, match="matches `p`;"):
        read_prediction_table(path, Columns(probabilities="p,q_*"))
    assert read_prediction_table(path, Columns(probabilities="p,a")).predictions.target.class_names == (
        "not p,a",
        "p,a",
    )
    path = table(tmp_path, "id,label,other,p_b,q_c\n1,0,.5,.2,.3\n")
    read = read_prediction_table(path, Columns(probabilities="p_*,q_*,other")).predictions
    assert read.target.class_names == ("b", "c", "other")
    with pytest.raises(UsageProblem, match="name a class twice: `b`"):
        read_prediction_table(table(tmp_path, "id,label,p_b,q_b\n1,0,.5,.5\n"), Columns(probabilities="p_*,q_*"))


def test_a_table_keeps_its_split(tmp_path: Path) -> None:
    written = replace(made(TARGETS[0]), split="test")
    path = str(tmp_path / "ours.csv")
    write_any(path, written)
    read = read_any(path, Columns())
    assert (read.predictions.split, read.notes) == ("test", ())
    text = "id,label,prob_a,prob_b,split\n1,0,.5,.5,Validation\n2,1,.4,.6,{}\n"
    assert read_any(table(tmp_path, text.format("val")), Columns()).predictions.split == "val"
    mixed = read_any(table(tmp_path, text.format("test")), Columns())
    assert mixed.predictions.split == ""
    assert "`test`, `val`: all 2 rows" in mixed.notes[0]
    other = read_any(table(tmp_path, text.format("x").replace("Validation", "y")), Columns())
    assert (other.predictions.split, other.notes) == ("", ())


def test_labels_by_name_number_or_missing(tmp_path: Path) -> None:
    path = table(tmp_path, "id;label;prob_cat;prob_dog\n1;dog;.3;.7\n2;0;.6;.4\n3;;.5;.5\n4;1.0;.5;.5\n")
    assert read_prediction_table(path, Columns()).predictions.labels.tolist() == [1, 0, -1, 1]
    # Class names that are numbers are names, not positions.
    path = table(tmp_path, "id,label,prob_2,prob_1\n1,2,.3,.7\n2,1,.6,.4\n")
    assert read_prediction_table(path, Columns()).predictions.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        ("id,label,a,b\n1,0,.5,.5\n", Columns(), "no column `prob_\\*`"),
        ("id,label,prob_a,logit_a\n1,0,.5,.5\n", Columns(), "both"),
        ("id,label,prob_a,prob_b\n1,0,.5,.5\n", Columns(probabilities="p*", logits="l*"), "exclude"),
        ("id,label,prob_a,prob_b\n1,0,.5,.5\n", Columns(probabilities="q_*"), "matches `q_"),
        ("id,label,prob_a,prob_b\n1,0,.5,oops\n", Columns(), "`oops`.*\n.*:2"),
        ("id,label,prob_a,prob_b\n1,0,.5,\n", Columns(), "is empty"),
        ("id,label,prob_a,prob_b\n1,0,.5,.5\n2,0,1.5,-.5\n", Columns(), "no probability\n.*:3"),
        ("id,label,prob_a,prob_b\n1,0,.5,.2\n", Columns(), "add up to 0.7"),
        ("id,label,prob_a,prob_b\n1,2,.5,.5\n", Columns(), "`2` in column `label`"),
        ("id,prob_a,prob_b\n1,.5,.5\n", Columns(), "no column `label`"),
        ("id,label,prob_a,prob_b\n1,0,.5,.5\n1,0,.5,.5\n", Columns(), "column `id` twice, first in line 2\n.*:3"),
        ("id,label_a,label_b,prob_a,prob_b\n1,0,-1,.5,.5\n", Columns(), "neither 0, 1"),
        ("id,label,prob_a,prob_b\n1,0,.5,.5\n", Columns(class_names=("x",)), "1 names for 2"),
        ("id,label,prob_a,prob_b\n1,0,.5,.5\n", Columns(positive="x"), "`x` is not one of"),
        ("id,label,prob_a,prob_b\n1,0,.5,.5\n", Columns(patient="who"), "no column `who`"),
        ("id,label,prob_a,prob_b,prob_c\n1,0,.5,.5,0\n", Columns(task="binary"), "two classes"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, columns: Columns, said: str) -> None:
    with pytest.raises(MedcliError) as caught:
        read_prediction_table(table(tmp_path, text), columns)
    assert re.search(said, str(caught.value)), str(caught.value)


def test_a_known_tools_predictions(shared_data: Path) -> None:
    path = shared_data / "data" / "nih_chexnet_predictions" / "chexnet_testset_probs_and_labels.csv.gz"
    read = read_prediction_table(str(path), Columns(identifier="Image Index", patient="Patient ID"))
    found = evaluate(read.predictions, QUICK)
    assert (found.n, found.patients, len(found.classes)) == (22433, 6187, 14)
    areas = {row.name: row.figures["auc"].value for row in found.classes}
    assert areas["Atelectasis"] == pytest.approx(0.8180, abs=5e-5)
    assert areas["Hernia"] == pytest.approx(0.9175, abs=5e-5)
    assert "named like the scores" in read.notes[0]
