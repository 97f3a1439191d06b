"""The parts a ward asks for, on what files may hold: one case, one class, no errors, nothing known, no labels."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from medcli.data.target import Output, Target, Task
from medcli.evaluation.clinical import Reference, Request, clinical_sections
from medcli.evaluation.figures import Evaluation
from medcli.evaluation.operating import Rule
from medcli.evaluation.predictions import Predictions
from medcli.evaluation.referral import Deferral
from medcli.evaluation.render import render
from medcli.evaluation.report import evaluate
from medcli.settings.groups import EvaluationSettings

TASKS: tuple[Task, ...] = ("binary", "multiclass", "ordinal", "multilabel", "multioutput")


def predictions(task: Task, n: int, seed: int = 0) -> Predictions:
    generator = np.random.default_rng(seed)
    ids = np.arange(n).astype(np.str_)
    patients = np.array([f"p{i // 2}" for i in range(n)], dtype=np.str_)
    if task == "multilabel":
        labels = (generator.random((n, 3)) < 0.4).astype(np.float32)
        target = Target(task, tuple("xyz"))
        return Predictions(ids, labels, generator.normal(size=(n, 3)), target, patients=patients, calibrated="so")
    if task == "multioutput":
        target = Target(task, (), (Output("l", ("0", "1", "2"), True), Output("r", ("0", "1", "2"))))
        labels = generator.integers(0, 3, (n, 2))
        return Predictions(ids, labels, generator.normal(size=(n, 2, 3)), target, patients=patients)
    classes = 2 if task == "binary" else 4
    target = Target(task, tuple("abcd")[:classes])
    labels = generator.integers(0, classes, n)
    logits = generator.normal(size=(n, classes))
    return Predictions(ids, labels, logits, target, patients=patients, calibrated="so")


def everything(made: Predictions, other: Predictions) -> Request:
    asked = made.target.task in {"binary", "multilabel"}
    rules = (Rule("sens", 0.9), Rule("spec", 0.9), Rule("score", 0.3)) if asked else ()
    deferrals = (Deferral("below", 0.7), Deferral("budget", 0.2), Deferral("cost", 10, 1))
    groups = {"half": ["A", "B"] * (len(made) // 2) + [""] * (len(made) % 2)}
    return Request(rules, Reference(other, "val"), (0.1,) if asked else (), deferrals, groups)


def written(made: Predictions, request: Request) -> str:
    sections = clinical_sections(made, request)
    assert json.dumps([section.to_dict() for section in sections], allow_nan=False)
    return "\n".join(section.text(verbose=verbose) for section in sections for verbose in (False, True))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("n", [1, 2, 61])
def test_every_task_and_a_single_case(task: Task, n: int) -> None:
    made = predictions(task, n)
    for request in (Request(), everything(made, predictions(task, 50, 1)), everything(made, made)):
        text = written(made, request)
        assert not re.search(r"\bnan\b", text)


@pytest.mark.parametrize("task", TASKS)
def test_one_class_all_right_and_all_wrong(task: Task) -> None:
    made = predictions(task, 40)
    labels = np.zeros_like(made.labels)
    for sign in (-20.0, 20.0):
        logits = np.full(made.logits.shape, -sign)
        if task != "multilabel":
            logits[..., 0] = sign
        extreme = replace(made, labels=labels, logits=logits)
        text = written(extreme, everything(extreme, made))
        assert ("no errors to find" in text) == (sign > 0 and task not in {"multilabel", "multioutput"})


@pytest.mark.parametrize("task", TASKS)
def test_unlabelled_cases_are_left_out_and_nothing_labelled_gives_no_table(task: Task) -> None:
    made = predictions(task, 60)
    missing = np.nan if task == "multilabel" else -1
    labels = made.labels.copy()
    labels[40:] = missing
    part = clinical_sections(replace(made, labels=labels))
    whole = clinical_sections(
        replace(
            made,
            ids=made.ids[:40],
            labels=made.labels[:40],
            logits=made.logits[:40],
            patients=None if made.patients is None else made.patients[:40],
        )
    )
    assert close([one.to_dict() for one in part], [one.to_dict() for one in whole])
    assert clinical_sections(replace(made, labels=np.full_like(made.labels, missing))) == ()


def test_no_order_of_cases_changes_a_section() -> None:
    made = predictions("multilabel", 200)
    made = replace(made, logits=np.round(made.logits, 1))
    order = np.random.default_rng(1).permutation(200)
    assert made.patients is not None
    moved = replace(
        made,
        ids=made.ids[order],
        labels=made.labels[order],
        logits=made.logits[order],
        patients=made.patients[order],
    )
    for one, other in zip(clinical_sections(made), clinical_sections(moved), strict=True):
        assert close(one.to_dict(), other.to_dict())


def close(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(one, other, rtol=1e-9, atol=1e-12))
    return one == other


def test_sections_stand_before_the_notes_and_in_the_document() -> None:
    made = predictions("binary", 80)
    found: Evaluation = replace(evaluate(made, EvaluationSettings(bootstrap=0)), sections=clinical_sections(made))
    text = render(found)
    assert "who overlooks nothing" in text
    assert "decision curve" in text
    assert set(found.to_dict()["sections"]) == {"selective", "decision_curves"}
    assert len(text.splitlines()) - len(render(replace(found, sections=())).splitlines()) < 24
