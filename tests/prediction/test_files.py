"""Scores of files: the input's order, the same numbers whatever the batch, and one bad file that costs only itself."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medcli.data.dataset import Picture
from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.evaluation.scores import softmax
from medcli.models.build import load_model
from medcli.prediction.files import Input, list_inputs, predict_files
from medcli.prediction.score_table import as_csv, score_columns, score_rows
from medcli.settings.groups import ComputeSettings

from .conftest import SmallRun


def compute(batch_size: int = 4, workers: int | None = 2) -> ComputeSettings:
    return ComputeSettings(device="cpu", batch_size=batch_size, workers=workers)


def test_stored_and_file_predictions_are_the_same_numbers(small_run: SmallRun) -> None:
    loaded = load_model(small_run.run.model_file)
    paths = [small_run.data / name for name in small_run.stored.ids]
    inputs = list_inputs([str(path) for path in paths], "auto")
    for batch_size, workers in ((1, 0), (5, 2), (64, None)):
        found = predict_files(loaded, inputs, compute(batch_size, workers))
        assert found.names == tuple(map(str, paths))
        np.testing.assert_allclose(found.logits, small_run.stored.logits, atol=1e-5)


def test_folders_are_searched_in_order_and_inputs_keep_theirs(small_run: SmallRun) -> None:
    folder = small_run.data / "test"
    everything = sorted(str(path) for path in folder.rglob("*.png"))
    assert [entry.name for entry in list_inputs([str(folder)], "auto")] == everything
    last = everything[-1]
    names = [entry.name for entry in list_inputs([last, str(folder), last], "auto")]
    assert names == [last, *everything, last]


def test_bad_files_are_reported_and_the_rest_is_done(small_run: SmallRun, tmp_path: Path) -> None:
    good = str(next((small_run.data / "test").rglob("*.png")))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    whole = Path(good).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    bad = [str(tmp_path / name) for name in ("empty.png", "text.png", "cut.png")]
    loaded = load_model(small_run.run.model_file)
    found = predict_files(loaded, list_inputs([bad[0], good, bad[1], bad[2], good], "auto"), compute(1))
    assert found.names == (good, good)
    assert [name for name, _ in found.failures] == bad
    assert all(reason for _, reason in found.failures)
    nothing = predict_files(loaded, list_inputs(bad, "auto"), compute())
    assert nothing.logits.shape == (0, 2)


def test_archives_give_every_image(small_run: SmallRun, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (5, 16, 16), dtype=np.uint8)
    path = tmp_path / "set.npz"
    np.savez(path, test_images=images, test_labels=np.zeros((5, 1), np.int64), train_images=images[:2],
             train_labels=np.zeros((2, 1), np.int64))  # fmt: skip
    inputs = list_inputs([str(path)], "auto")
    assert [entry.name.rpartition(":")[2] for entry in inputs] == [
        "train/0",
        "train/1",
        *(f"test/{i}" for i in range(5)),
    ]
    found = predict_files(load_model(small_run.run.model_file), inputs, compute())
    np.testing.assert_allclose(found.logits[:2], found.logits[2:4], atol=1e-6)


def test_inputs_that_are_no_images_are_refused_before_any_work(small_run: SmallRun, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("a,b\n1,2\n")
    for text, said in (
        (str(tmp_path / "absent.png"), "does not exist"),
        (str(tmp_path / "labels.csv"), "is a table"),
        (str(small_run.run.path), "takes one run"),
    ):
        with pytest.raises(UsageProblem, match=said):
            list_inputs([text], "auto")


def test_a_long_list_holds_two_batches_at_most(small_run: SmallRun) -> None:
    alive, most = 0, 0

    class Pixels(np.ndarray):
        """An array that says when it goes."""

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    class Endless:
        def __len__(self) -> int:
            return 300

        def read(self, index: int) -> Picture:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            pixels = np.full((16, 16), index % 256, dtype=np.uint8).view(Pixels)
            return Picture(pixels, 0, 255)

        def describe(self, index: int) -> str:
            return str(index)

        def fingerprint(self, index: int) -> bytes:
            return b""

    images = Endless()
    inputs = [Input(str(index), images, index) for index in range(300)]
    found = predict_files(load_model(small_run.run.model_file), inputs, compute(8))
    assert found.names == tuple(map(str, range(300)))
    # Views of one array count too, so the bound is loose; without one it would be several hundred.
    assert most < 8 * 8


def test_colour_goes_into_a_grey_network(small_run: SmallRun, tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(tmp_path / "colour.png")
    Image.fromarray(np.full((16, 16), 90, np.uint8)).save(tmp_path / "grey.png")
    loaded = load_model(small_run.run.model_file)
    found = predict_files(
        loaded, list_inputs([str(tmp_path / "colour.png"), str(tmp_path / "grey.png")], "auto"), compute()
    )
    np.testing.assert_allclose(found.logits[0], found.logits[1], atol=1e-4)
    assert not torch.is_grad_enabled() or found.logits.dtype == np.float32


def test_columns_of_every_task() -> None:
    logits = np.array([[0.0, 2.0], [1.0, 1.0]])
    binary = Target("binary", ("a", "b"))
    assert score_columns(binary) == ("image", "score_a", "score_b", "predicted")
    rows = score_rows(["x", "y"], logits, binary)
    assert [row[-1] for row in rows] == ["b", "a"]
    assert rows[0][1:3] == pytest.approx(tuple(softmax(logits[0])))
    ordinal = Target("ordinal", ("0", "1", "2"))
    assert score_columns(ordinal)[-2:] == ("predicted", "expected_grade")
    (row,) = score_rows(["x"], np.log([[0.5, 0.25, 0.25]]), ordinal)
    assert row[-2:] == ("0", pytest.approx(0.75))
    labels = Target("multilabel", ("a", "b", "c"))
    assert score_rows(["x", "y"], np.array([[1.0, 0.0, 2.0], [-1.0, -1.0, -1.0]]), labels)[0][-1] == "a|c"
    assert score_rows(["y"], np.array([[-1.0, -1.0, -1.0]]), labels)[0][-1] == ""
    several = Target("multioutput", (), (Output("left", ("0", "1", "2"), True), Output("right", ("no", "yes"))))
    assert score_columns(several)[1:] == (
        "score_left/0", "score_left/1", "score_left/2", "predicted_left", "score_right/no", "score_right/yes",
        "predicted_right",
    )  # fmt: skip
    (row,) = score_rows(["x"], np.array([[[0.0, 3.0, 1.0], [2.0, 0.0, -np.inf]]]), several)
    assert (row[4], row[-1]) == ("1", "no")
    assert len(row) == len(score_columns(several))


def test_csv_is_read_back_by_the_standard_reader() -> None:
    text = as_csv(("image", "score_a"), [('odd, "name"', 0.125)])
    assert list(csv.reader(io.StringIO(text))) == [["image", "score_a"], ['odd, "name"', "0.125000"]]
