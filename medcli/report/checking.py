"""Reporting checklists filled in as far as the run knows: every item is `auto`, `author` or not applicable."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medcli.report.answers import ANSWERS, Answer
from medcli.report.document import Block, Cell, Notice, Section, Table, Text
from medcli.report.escaping import sentence
from medcli.report.subject import Subject

__all__ = ["CHECKLISTS", "Checklist", "Item", "answer_of", "checklist_section", "read_checklist"]

CHECKLISTS = ("tripod-ai", "claim")
_FOLDER = Path(__file__).parent / "checklists"
_WORDS: Mapping[str, str] = {"auto": "auto", "author": "author", "na": "n.a."}


@dataclass(frozen=True)
class Item:
    """One item.

    Args:
        number: as published.
        group: its heading.
        text: what it asks for, in our words.
        rule: who answers it from the run; empty where nobody can.
        author: what only an author can say; empty where a rule answers.
        na: why it does not apply; empty where it does.
        add: what an author has to add to the rule's answer.
        only: `development` where it is asked of the development of a model, not of its evaluation alone; else empty.
    """

    number: str
    group: str
    text: str
    rule: str = ""
    author: str = ""
    na: str = ""
    add: str = ""
    only: Literal["", "development"] = ""


@dataclass(frozen=True)
class Checklist:
    """A published checklist."""

    title: str
    about: str
    source: str
    items: tuple[Item, ...]


def read_checklist(name: str) -> Checklist:
    """One of `CHECKLISTS`."""
    document: dict[str, Any] = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    items = tuple(Item(**entry) for entry in document["items"])
    return Checklist(document["title"], document["about"], document["source"], items)


def answer_of(item: Item, subject: Subject) -> Answer:
    """How an item stands."""
    if item.only == "development" and subject.facts is None:
        return Answer("na", "asked where a model is developed; these predictions are of an existing one")
    if item.na:
        return Answer("na", item.na)
    if not item.rule:
        return Answer("author", item.author)
    return ANSWERS[item.rule](subject)


def checklist_section(name: Literal["tripod-ai", "claim"], subject: Subject) -> Section:
    """Every item with its answer, and how many are left to the authors."""
    checklist = read_checklist(name)
    counted = dict.fromkeys(_WORDS, 0)
    rows = []
    for item in checklist.items:
        answer = answer_of(item, subject)
        counted[answer.mark] += 1
        text = sentence(answer.text)
        if item.add and answer.mark == "auto":
            text += f" Authors add: {item.add}."
        rows.append((Cell(item.number), Cell(item.text), Cell(_WORDS[answer.mark], mark=answer.mark), Cell(text)))
    blocks: list[Block] = [
        Notice(
            f"The items are medcli's own summary of the topics of {checklist.title}, written without the published "
            "list at hand; they are not its text. The published list decides, and is what a journal wants to see."
        ),
        Text(
            f"{checklist.about}; {checklist.source}. Of {len(checklist.items)} items and parts of items "
            f"{counted['auto']} are filled in (auto), {counted['author']} are left to the authors, {counted['na']} do "
            "not apply (n.a.)."
        ),
    ]
    by_group: dict[str, list[tuple[Cell, ...]]] = {}
    for item, row in zip(checklist.items, rows, strict=True):
        by_group.setdefault(item.group, []).append(row)
    blocks += [
        Table(group, ("item", "asks for", "state", "answer"), tuple(group_rows), (0, 1, 2, 3), "", (8, 37, 11, 44))
        for group, group_rows in by_group.items()
    ]
    return Section("checklist", f"Checklist: {checklist.title}", tuple(blocks))
