"""Which cases an external set is judged on, and what a finished training leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medcli.data.dataset import DataSet, Picture, Samples
from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.evaluation.predictions import Predictions, load_predictions
from medcli.prediction.finish import EVALUATION_FILE, read_evaluations, write_predictions
from medcli.prediction.sources import choose_cases, refuse_other_classes, stored_predictions
from medcli.runs.directory import RunDirectory
from medcli.settings.groups import EvaluationSettings

TARGET = Target("binary", ("no", "yes"))


class Numbers:
    """Images that say where they come from."""

    def __init__(self, first: int, count: int) -> None:
        self.values = range(first, first + count)

    def __len__(self) -> int:
        return len(self.values)

    def read(self, index: int) -> Picture:
        return Picture(np.full((2, 2), self.values[index], np.uint8), 0, 255)

    def describe(self, index: int) -> str:
        return str(self.values[index])

    def fingerprint(self, index: int) -> bytes:
        return bytes([self.values[index]])


def samples(first: int, count: int) -> Samples:
    numbers = np.arange(first, first + count)
    return Samples(numbers.astype(np.str_), Numbers(first, count), numbers % 2)


def dataset(own: bool, **splits: Samples) -> DataSet:
    return DataSet("site", "site/", TARGET, splits, channels=1, extra={"own_splits": own})


def stored(first: int, count: int) -> Predictions:
    cases = samples(first, count)
    return Predictions(cases.ids, cases.labels, np.zeros((count, 2)), TARGET, split="test")


def test_the_sets_own_test_split_comes_first_then_val() -> None:
    everything = {"train": samples(0, 6), "val": samples(6, 2), "test": samples(8, 3)}
    assert choose_cases(dataset(True, **everything), None).split == "test"
    assert choose_cases(dataset(True, train=samples(0, 6), val=samples(6, 2)), None).split == "val"


def test_a_set_without_splits_is_judged_whole_with_its_images() -> None:
    chosen = choose_cases(dataset(False, train=samples(0, 6), test=samples(20, 3)), None)
    assert chosen.split == ""
    assert "all 9 cases" in chosen.note
    for index, name in enumerate(chosen.samples.ids):
        assert chosen.samples.images.read(index).pixels[0, 0] == int(name)
        assert chosen.samples.images.describe(index) == str(name)
    with pytest.raises(IndexError):
        chosen.samples.images.read(9)


def test_of_the_runs_own_data_only_its_test_cases_are_judged() -> None:
    chosen = choose_cases(dataset(False, test=samples(0, 10)), stored(6, 4))
    assert chosen.samples.ids.tolist() == ["6", "7", "8", "9"]
    assert chosen.samples.images.read(0).pixels[0, 0] == 6
    assert "own test cases" in chosen.note
    # Also when a limit left some of them out: the others are training cases.
    assert choose_cases(dataset(False, test=samples(0, 8)), stored(6, 4)).samples.ids.tolist() == ["6", "7"]


def test_shared_names_with_other_labels_are_another_set() -> None:
    other = replace(stored(6, 4), labels=np.array([1, 1, 1, 1]))
    assert len(choose_cases(dataset(False, test=samples(0, 10)), other).samples) == 10


def test_training_leaves_predictions_and_figures(tmp_path: Path) -> None:
    val, test = replace(stored(0, 20), split="val"), stored(20, 30)
    unlabelled = replace(stored(0, 3), split="extra", labels=np.full(3, -1))
    found = write_predictions(tmp_path, [val, test, unlabelled], EvaluationSettings(bootstrap=10))
    assert list(found) == ["val", "test"]
    assert len(load_predictions(tmp_path / "predictions" / "extra.npz")) == 3
    read = read_evaluations(tmp_path)
    assert read["test"] == json.loads(json.dumps(found["test"].to_dict()))
    assert stored_predictions(RunDirectory(tmp_path)).split == "test"
    (tmp_path / "predictions" / "test.npz").unlink()
    assert stored_predictions(RunDirectory(tmp_path)).split == "val"
    (tmp_path / "predictions" / "val.npz").unlink()
    with pytest.raises(UsageProblem, match="no stored predictions"):
        stored_predictions(RunDirectory(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", '{"test": 1}', '{"test": {}}'])
def test_a_bad_evaluation_file_is_refused(tmp_path: Path, text: str) -> None:
    assert read_evaluations(tmp_path) == {}
    (tmp_path / EVALUATION_FILE).write_text(text)
    with pytest.raises(UsageProblem):
        read_evaluations(tmp_path)


def test_classes_of_a_known_set_may_differ_in_capitals_and_blanks() -> None:
    known = replace(dataset(True), origin="pneumoniamnist.npz")
    refuse_other_classes(known, Target("binary", ("NORMAL", "PNEUMONIA")), ())
    with pytest.raises(UsageProblem, match="was trained on"):
        refuse_other_classes(known, Target("binary", ("PNEUMONIA", "NORMAL")), ())
