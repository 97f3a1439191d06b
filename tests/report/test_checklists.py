"""Checklists: every published item is there once, and whatever answers it exists."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from medcli.evaluation.clinical import Request
from medcli.report.answers import ANSWERS
from medcli.report.checking import CHECKLISTS, answer_of, checklist_section, read_checklist
from medcli.report.subject import Way, run_predictions, subject_of_file, subject_of_run
from medcli.settings.groups import EvaluationSettings

WAY = Way(EvaluationSettings(bootstrap=0), Request())


class Silent:
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...


@pytest.mark.parametrize(("name", "items"), [("tripod-ai", 27), ("claim", 44)])
def test_every_item_is_there_once(name: str, items: int) -> None:
    checklist = read_checklist(name)
    numbers = [item.number for item in checklist.items]
    assert len(numbers) == len(set(numbers))
    assert list(dict.fromkeys(int(number.rstrip("abcdefg")) for number in numbers)) == list(range(1, items + 1))
    for item in checklist.items:
        assert (bool(item.rule), bool(item.author), bool(item.na)).count(True) == 1, item.number
        assert not item.rule or item.rule in ANSWERS, item.rule


def test_parts_of_tripod_and_what_is_asked_of_development_alone(toy: SimpleNamespace, tmp_path: Path) -> None:
    items = read_checklist("tripod-ai").items
    assert len(items) == 52
    development = {"9a", "12a", "12b", "12c", "15", "22", "27a", "27b"}
    assert {item.number for item in items if item.only} == development
    file = tmp_path / "p.npz"
    file.write_bytes(b"")
    subject = subject_of_file(str(file), toy.binary(), WAY)
    assert {item.number for item in items if answer_of(item, subject).mark == "na"} >= development


@pytest.mark.parametrize("name", CHECKLISTS)
def test_it_says_once_that_the_published_list_decides(name: str, toy: SimpleNamespace, tmp_path: Path) -> None:
    file = tmp_path / "p.npz"
    file.write_bytes(b"")
    texts = [
        getattr(one, "text", "")
        for one in checklist_section(name, subject_of_file(str(file), toy.binary(), WAY)).blocks
    ]
    (said,) = [text for text in texts if "published list decides" in text]
    assert "medcli's own summary of the topics" in said


def test_no_rule_is_idle() -> None:
    used = {item.rule for name in CHECKLISTS for item in read_checklist(name).items if item.rule}
    assert used == set(ANSWERS)


@pytest.mark.parametrize("name", CHECKLISTS)
def test_every_item_has_an_answer(name: str, tmp_path: Path, toy: SimpleNamespace) -> None:
    run = toy.make_run(tmp_path / "run", [toy.binary("val", seed=5), toy.binary()])
    begun = toy.make_run(tmp_path / "begun", [], state="interrupted")
    stored = run_predictions(str(run.path), raw=False, on=None, teller=Silent())
    file = tmp_path / "p.npz"
    file.write_bytes(b"")
    subjects = [
        subject_of_run(str(run.path), WAY, stored, Silent()),
        subject_of_run(str(begun.path), WAY, None, Silent()),
        subject_of_file(str(file), toy.binary(), WAY),
    ]
    counts = []
    for subject in subjects:
        answers = [answer_of(item, subject) for item in read_checklist(name).items]
        assert all(answer.text for answer in answers)
        counts.append(sum(answer.mark == "auto" for answer in answers))
    # A run answers more than a run without results, and than a file.
    assert counts[0] > max(counts[1:])
