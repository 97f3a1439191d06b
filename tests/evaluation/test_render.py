"""The text says what a person needs: which class is positive, what a figure means, what is missing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.evaluation.clinical import Request, clinical_sections
from medcli.evaluation.figures import Evaluation
from medcli.evaluation.generalisation import gaps, render_comparison
from medcli.evaluation.operating import parse_rule
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.referral import parse_deferral
from medcli.evaluation.render import INTERVAL, aligned, headline, render, wrapped
from medcli.evaluation.report import evaluate
from medcli.evaluation.uncertainty_section import uncertainty_section
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
    # An interval stays behind the figure it belongs to.
    pairs = ["figure", "before", INTERVAL, "after", INTERVAL]
    cells = [["ece", "0.1234", "[0.0123, 0.2345]", "0.0123", "[0.0012, 0.0234]"]]
    for width in range(3, 55):
        heads = [part.split("\n")[0].split("  ") for part in aligned(pairs, cells, width=width).split("\n\n")]
        found = [[name.strip() for name in head if name.strip()] for head in heads]
        assert found == [["figure", "before", INTERVAL], ["figure", "after", INTERVAL]], width


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_whole_text_keeps_within_the_terminal(width: int) -> None:
    case = made(Target("multiclass", ("none", "opacity", "effusion", "pneumothorax", "enlarged heart")))
    wide, fitted = render(case), render(case, width=width)
    assert sorted(set(wide.split())) == sorted(set(fitted.split()))
    tables = [line for line in fitted.split("\n") if "  " in line]
    assert max(map(len, tables)) <= width
    assert max(map(len, wide.split("\n"))) > 120


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("task", ["binary", "ordinal", "multilabel"])
def test_what_follows_the_figures_keeps_within_the_terminal_too(task: str, width: int) -> None:
    generator = np.random.default_rng(3)
    names = ("none", "opacity", "enlarged heart")[: 2 if task == "binary" else 3]
    labels = generator.integers(0, len(names), 200)
    members = generator.normal(size=(3, 200, len(names))).astype(np.float32) + 2 * np.eye(len(names))[labels]
    if task == "multilabel":
        labels = np.eye(3, dtype=np.float32)[labels]
    case = Predictions(
        np.arange(200).astype(np.str_),
        labels,
        members.mean(axis=0),
        Target(task, names),  # type: ignore[arg-type]
        patients=np.char.add("p", (np.arange(200) // 2).astype(np.str_)),
        member_logits=members.astype(np.float32),
        calibrated="temperature, fitted on val",
    )
    rules = tuple(parse_rule(text + ("@1" if task == "ordinal" else "")) for text in ("score=0.3", "score=0.6"))
    groups = {"sex": ["f", "m"] * 100} if task != "ordinal" else {}
    request = Request(rules, None, (0.1,), (parse_deferral("below=0.7"),), groups)
    doubt = uncertainty_section(case)
    assert doubt is not None
    found = evaluate(case, EvaluationSettings(bootstrap=20))
    found = replace(found, sections=(*clinical_sections(case, request), doubt))
    for verbose in (False, True):
        wide, fitted = render(found, verbose=verbose), render(found, verbose=verbose, width=width)
        assert set(wide.split()) == set(fitted.split())
        # A row may be wider only where the names alone and one column fill the terminal.
        assert max(map(len, fitted.split("\n"))) <= width, fitted
        assert max(map(len, wide.split("\n"))) > 100
    assert ("decision curve of >=opacity" in wide) == (task == "ordinal")


def test_sentences_break_between_words_and_rows_do_not() -> None:
    text = "a sentence of some words\nrow  with  columns  of  a  table\nshort"
    assert wrapped(text, None) == text
    assert wrapped(text, 12) == "a sentence\nof some\nwords\nrow  with  columns  of  a  table\nshort"
