"""Runs and predictions as training and other tools leave them, and a strict reader of the HTML made of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from medcli.data.target import Output, Target
from medcli.evaluation.predictions import Predictions
from medcli.prediction.finish import write_predictions
from medcli.runs.directory import RunDirectory, claim_run, replace_text
from medcli.runs.records import append_metrics, write_config, write_data
from medcli.runs.status import State, Status, write_status
from medcli.settings.groups import EvaluationSettings
from medcli.settings.resolve import resolve

BINARY = Target("binary", ("well", "sick"))


def binary(split: str = "test", n: int = 120, seed: int = 0, target: Target = BINARY) -> Predictions:
    """Scores of two classes that are somewhat too sure; every patient has two images."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, n)
    logits = random.normal(size=(n, 2)).astype(np.float32)
    logits[:, 1] += 2.5 * labels - 1.2
    ids = np.array([f"{split} {index}" for index in range(n)])
    patients = np.array([f"{split} patient {index // 2}" for index in range(n)])
    return Predictions(ids, labels, 2 * logits, target, split, "toy", patients)


def labels_of(names: tuple[str, ...], n: int = 150, seed: int = 1) -> Predictions:
    """Labels of which the first is never positive, the second never negative, and a tenth is missing."""
    random = np.random.default_rng(seed)
    truth = (random.random((n, len(names))) < 0.25).astype(np.float32)
    truth[:, 0], truth[:, 1] = 0, 1
    logits = (random.normal(size=truth.shape) - 1 + 2 * truth).astype(np.float32)
    truth[random.random(truth.shape) < 0.1] = np.nan
    return Predictions(
        np.array([f"case {index}" for index in range(n)]), truth, logits, Target("multilabel", names), "", "labels"
    )


def classes_of(count: int, *, ordinal: bool = False, n: int = 160, seed: int = 2) -> Predictions:
    """Classes that exclude each other."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, count, n)
    logits = random.normal(size=(n, count)).astype(np.float32)
    logits[np.arange(n), labels] += 1.5
    names = tuple(f"class {index}" for index in range(count))
    target = Target("ordinal" if ordinal else "multiclass", names)
    return Predictions(np.array([f"case {index}" for index in range(n)]), labels, logits, target, "test", "many")


def outputs_of(n: int = 120, seed: int = 3) -> Predictions:
    """Two outputs with different numbers of classes; some labels are ignored."""
    random = np.random.default_rng(seed)
    target = Target("multioutput", (), (Output("left", ("0", "1", "2"), True), Output("right", ("no", "yes"))))
    labels = np.stack([random.integers(0, 3, n), random.integers(0, 2, n)], axis=1)
    logits = random.normal(size=(n, 2, 3)).astype(np.float32)
    logits[:, 1, 2] = -np.inf
    labels[:10, 1] = -1
    return Predictions(np.array([f"case {index}" for index in range(n)]), labels, logits, target, "test", "zones")


def make_run(path: Path, predictions: list[Predictions], state: State = "completed", name: str = "toy") -> RunDirectory:
    """A run directory with three epochs."""
    run = RunDirectory(path)
    claim_run(run, command="train")
    write_config(run, resolve("train", {"epochs": 3, "lr": 0.002}, architecture="resnet18"))
    target = predictions[0].target if predictions else BINARY
    counts = dict.fromkeys(target.class_names, 30)
    part = {"count": 60, "patients": 30, "classes": counts, "ids_hash": "ab", "labels_hash": "cd", "files_hash": "ef"}
    described = {"task": target.task, "class_names": list(target.class_names), "outputs": [], "positive": 1}
    record = {"name": name, "origin": "toy.npz", "target": described, "channels": 1, "made_splits": True}
    record |= {"split_hash": "0123", "splits": dict.fromkeys(("train", "val", "test"), part)}
    record |= {"skipped": [["broken.png", "it is truncated"]], "notes": ["a note on the data"]}
    write_data(run, record)
    environment = {"medcli": "0.1.0", "plugins": ["medcli 0.1.0"], "git": "abc123", "seed": 7, "device": "cpu"}
    environment |= {"libraries": {"torch": "2.15.0"}, "cores": 2, "threads": 1, "precision": "fp32"}
    replace_text(run.environment_file, json.dumps(environment))
    best = {"epoch": 2, "monitor": "auc", "value": 0.75}
    times = "2026-01-01T10:00:00+00:00", "2026-01-01T10:05:00+00:00"
    write_status(run, Status(state, "train", *times, 3, 3 if state == "completed" else 9, best))
    for epoch in range(3):
        row = {"epoch": epoch, "train_loss": 1 / (epoch + 1), "val_loss": 0.6, "val_auc": 0.7, "best": epoch == 1}
        append_metrics(run, {**row, "seconds": 2.0})
    if predictions:
        write_predictions(run.path, predictions, EvaluationSettings(bootstrap=0))
    return run


VOID = {"meta", "img", "col", "br", "link", "input", "hr"}
KNOWN = {
    *("html", "head", "meta", "title", "style", "body", "header", "nav", "main", "section", "footer", "h1", "h2", "h3"),
    *("p", "a", "ol", "ul", "li", "dl", "dt", "dd", "div", "table", "caption", "colgroup", "col", "thead", "tbody"),
    *("tr", "th", "td", "data", "span", "strong", "code", "figure", "img", "figcaption"),
}


@dataclass
class Page(HTMLParser):
    """What was found; reading raises `AssertionError` where the file is not what it promises to be."""

    tags: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    images: list[tuple[str, bytes]] = field(default_factory=list)
    tables: dict[str, list[list[tuple[str, float | None]]]] = field(default_factory=dict)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.caption = ""
        self.in_style = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values: Mapping[str, str] = {name: value or "" for name, value in attrs}
        assert tag in KNOWN, tag
        assert not any(name.startswith("on") or name == "srcset" for name in values), values
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        if "href" in values:
            assert values["href"].startswith("#"), values
            self.links.append(values["href"][1:])
        if tag == "img":
            assert values["alt"].strip()
            kind, _, content = values["src"].partition(";base64,")
            assert kind in {"data:image/svg+xml", "data:image/png"}, kind
            self.images.append((values["alt"], base64.b64decode(content, validate=True)))
        else:
            assert "src" not in values, values
        if tag == "caption":
            self.caption = ""
        if tag == "tr":
            self.row: list[tuple[str, float | None]] = []
        if tag in {"td", "th"}:
            self.cell, self.value = "", None
        if tag == "data" and self.open[-2] in {"td", "th"}:
            self.value = float(values["value"])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag
        if tag in {"td", "th"}:
            self.row.append((self.cell.strip(), self.value))
        if tag == "tr":
            self.tables.setdefault(self.caption.strip(), []).append(self.row)

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.in_style += data
            return
        self.text += data
        if "caption" in self.open:
            self.caption += data
        if self.open and any(tag in self.open for tag in ("td", "th")):
            self.cell += data

    def column(self, caption: str, heading: str = "value") -> dict[str, float | None]:
        """First cell -> number, of one column of a table."""
        head, *rows = self.tables[caption]
        at = [text for text, _ in head].index(heading)
        return {row[0][0]: row[at][1] for row in rows}


def read(html: str) -> Page:
    """Parse and check: nesting, anchors, pictures, and that nothing is asked of a network."""
    page = Page()
    page.feed(html)
    page.close()
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert set(page.links) <= set(page.ids)
    assert "url(" not in page.in_style
    assert "@import" not in page.in_style
    for _, picture in page.images:
        if picture.startswith(b"\x89PNG"):
            continue
        drawing = ElementTree.fromstring(picture)
        for element in drawing.iter():
            assert element.tag.rpartition("}")[2] not in {"script", "foreignObject", "image", "a"}
            for name, value in element.attrib.items():
                assert not name.endswith("href") or value.startswith("#")
    return page


@pytest.fixture
def toy() -> SimpleNamespace:
    """The functions above: test files cannot import one another."""
    return SimpleNamespace(
        binary=binary, labels_of=labels_of, classes_of=classes_of, outputs_of=outputs_of, make_run=make_run
    )


@pytest.fixture
def read_page() -> Callable[[str], Page]:
    """Parses a report and refuses what it must not hold."""
    return read


@pytest.fixture
def finished(tmp_path: Path) -> RunDirectory:
    """A run with predictions of validation and test cases."""
    return make_run(tmp_path / "run", [binary("val", seed=5), binary()])
