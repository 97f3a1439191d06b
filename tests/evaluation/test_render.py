"""The text says what a person needs: which class is positive, what a figure means, what is missing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.evaluation.figures import Evaluation
from medcli.evaluation.generalisation import gaps, render_comparison
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.render import aligned, headline, render
from medcli.evaluation.report import evaluate
from medcli.settings.groups import EvaluationSettings


def made(target: Target, n: int = 60, seed: int = 0, name: str = "site A") -> Evaluation:
    generator = np.random.default_rng(seed)
    if target.task == "multilabel":
        labels = generator.integers(0, 2, (n, len(target.class_names))).astype(np.float32)
        logits = generator.normal(size=labels.shape)
    elif target.task == "multioutput":
        labels = generator.integers(0, 2, (n, len(target.outputs)))
        logits = generator.normal(size=(n, len(target.outputs), 2))
    else:
        labels = generator.integers(0, len(target.class_names), n)
        logits = generator.normal(size=(n, len(target.class_names))) + np.eye(len(target.class_names))[labels]
    predictions = Predictions(np.arange(n).astype(np.str_), labels, logits, target, split="test", data_name=name)
    return evaluate(predictions, EvaluationSettings(bootstrap=30), seed=seed)


BINARY = Target("binary", ("malignant", "benign"), positive=0)


def test_binary_text_names_the_positive_class_and_the_conventions() -> None:
    text = render(made(BINARY))
    assert "data set `site A`, split test: 60 labelled cases" in text
    assert "positive class: malignant, other: benign" in text
    assert "score of `malignant`, 15 bins of equal width" in text
    assert "rows: label, columns: prediction" in text
    assert "every image for a patient of its own" in text
    assert "mce_unfiltered" not in text
    assert "mce_unfiltered" in render(made(BINARY), verbose=True)


def test_multilabel_text_has_the_guard_beside_the_accuracy() -> None:
    text = render(made(Target("multilabel", ("Edema", "Mass"))))
    lines = text.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("accuracy "))
    assert lines[place + 1].startswith("all_negative")
    assert any(line.startswith("Edema") for line in lines)
    assert "confusion" not in text


def test_multioutput_text_has_a_part_for_each_output() -> None:
    target = Target("multioutput", (), (Output("left", ("0", "1"), True), Output("right", ("no", "yes"))))
    text = render(made(target))
    assert "output left: 60 labelled cases" in text
    assert "output right: 60 labelled cases" in text


def test_the_gap_is_external_minus_internal_with_an_interval() -> None:
    internal, external = made(BINARY, 200, 0), made(BINARY, 200, 1, "site B")
    (first, *_) = found = gaps(internal, [external])
    assert (first.data, first.figure) == ("site B", "auc")
    assert first.value == pytest.approx(external.value("auc") - internal.value("auc"))
    assert first.low < first.value < first.high
    text = render_comparison([internal, external], found)
    assert "generalisation gap" in text
    assert f"{first.value:+.4f}" in text
    with pytest.raises(UsageProblem, match="another target"):
        gaps(internal, [made(Target("binary", ("malignant", "benign")))])


def test_a_set_against_itself_has_an_interval_around_zero() -> None:
    one = made(BINARY, 300)
    for gap in gaps(one, [one]):
        assert gap.value == 0
        # Were the resamples paired, every difference would be exactly zero.
        assert gap.low < 0 < gap.high


def test_evaluation_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch':\n"
        "            raise ImportError('torch is blocked')\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "import medcli.evaluation.report, medcli.evaluation.render, medcli.evaluation.generalisation\n"
        "import medcli.evaluation.monitor, medcli.prediction.tables, medcli.prediction.sources\n"
        "import medcli.prediction.finish, medcli.prediction.score_table, medcli.cli.commands.evaluate\n"
        "import medcli.cli.commands.predict\n"
        "print([name for name in ('timm', 'pandas', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_headline_says_for_which_classes_a_figure_is_undefined() -> None:
    whole = made(BINARY)
    assert headline(whole).startswith(f"auc {whole.value('auc'):.4f} [")
    target = Target("multilabel", ("Edema", "Hernia", "Mass"))
    labels = np.array([[0, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 1]], np.float32)
    logits = np.random.default_rng(0).normal(size=labels.shape)
    predictions = Predictions(np.arange(4).astype(np.str_), labels, logits, target)
    found = evaluate(predictions, EvaluationSettings(bootstrap=0))
    text = headline(found)
    assert "auc undefined (no Hernia to tell from others)" in text
    assert f"of the others {found.value('auc_present'):.4f}" in text
    assert "nan" not in text


def test_a_narrow_terminal_gets_remarks_under_themselves_and_tables_in_parts() -> None:
    columns, rows = ["class", "cases", "auc", "f1"], [["none", "17", "0.4454", "0.1"], ["opacity", "3", "0.5", "0.25"]]
    whole = aligned(columns, rows)
    assert aligned(columns, rows, width=max(map(len, whole.split("\n")))) == whole
    first, second = aligned(columns, rows, width=24).split("\n\n")
    assert first.split("\n") == ["class    cases     auc", "none        17  0.4454", "opacity      3     0.5"]
    assert second.split("\n") == ["class      f1", "none      0.1", "opacity  0.25"]
    # A column that fits nowhere still gets a part of its own.
    assert aligned(columns, rows, width=3).count("\n\n") == 2


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_whole_text_keeps_within_the_terminal(width: int) -> None:
    case = made(Target("multiclass", ("none", "opacity", "effusion", "pneumothorax", "enlarged heart")))
    wide, fitted = render(case), render(case, width=width)
    assert sorted(set(wide.split())) == sorted(set(fitted.split()))
    tables = [line for line in fitted.split("\n") if "  " in line]
    assert max(map(len, tables)) <= width
    assert max(map(len, wide.split("\n"))) > 120
