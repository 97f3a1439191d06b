"""The predictions file: what goes in comes out, and a bad file is refused with its name and its fault."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medcli.data.target import Output, Target
from medcli.errors import RunFailure, UsageProblem
from medcli.evaluation.predictions import Predictions, load_predictions, save_predictions

GENERATOR = np.random.default_rng(3)


def make(task: str = "multiclass", n: int = 7) -> Predictions:
    ids = np.array([f"case-é{i}" for i in range(n)])
    if task == "multilabel":
        labels = np.array([[0, 1, np.nan]] * n, dtype=np.float32)
        target = Target("multilabel", ("a", "b", "c"))
        return Predictions(ids, labels, GENERATOR.normal(size=(n, 3)).astype(np.float32), target)
    if task == "multioutput":
        target = Target("multioutput", (), (Output("left", ("0", "1", "2"), True), Output("right", ("no", "yes"))))
        logits = GENERATOR.normal(size=(n, 2, 3)).astype(np.float32)
        logits[:, 1, 2] = -np.inf
        return Predictions(ids, np.tile(np.array([[2, -1]]), (n, 1)), logits, target)
    names = ("benign", "malignant") if task == "binary" else ("a", "b", "c")
    target = Target(task, names, positive=0 if task == "binary" else 1)  # type: ignore[arg-type]
    labels = np.arange(n) % len(names)
    return Predictions(ids, labels, GENERATOR.normal(size=(n, len(names))).astype(np.float32), target)


@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel", "multioutput"])
@pytest.mark.parametrize("full", [False, True])
def test_round_trip_is_exact(tmp_path: Path, task: str, full: bool) -> None:
    made = make(task)
    if full:
        n = len(made)
        made = replace(
            made,
            split="test",
            data_name="näme",
            patients=np.array(["p"] * n),
            features=np.ones((n, 4), np.float32),
            member_logits=np.stack([made.logits, made.logits]).astype(np.float32),
        )
    save_predictions(tmp_path / "sub" / "p.npz", made)
    read = load_predictions(tmp_path / "sub" / "p.npz")
    assert (read.target, read.split, read.data_name) == (made.target, made.split, made.data_name)
    for name in ("ids", "labels", "logits", "patients", "features", "member_logits"):
        before, after = getattr(made, name), getattr(read, name)
        if before is None:
            assert after is None
        else:
            assert before.dtype == after.dtype
            np.testing.assert_array_equal(before, after)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["p.npz"]


def test_double_precision_survives(tmp_path: Path) -> None:
    made = replace(make(), logits=np.log(GENERATOR.dirichlet([1, 1, 1], size=7)))
    save_predictions(tmp_path / "p.npz", made)
    np.testing.assert_array_equal(load_predictions(tmp_path / "p.npz").logits, made.logits)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"logits": np.zeros((7, 2), np.float32)}, "shape"),
        ({"logits": np.full((7, 3), np.nan, np.float32)}, "not numbers"),
        ({"labels": np.full(7, 3)}, "there are 3 classes"),
        ({"labels": np.zeros((7, 1), np.int64)}, "`labels` has shape"),
        ({"labels": np.zeros(7)}, "whole numbers"),
        ({"ids": np.array(["x"] * 7)}, "`x` more than once"),
        ({"patients": np.array(["p"])}, "`patients` has 1"),
        ({"member_logits": np.zeros((2, 7, 4), np.float32)}, "member_logits"),
    ],
)
def test_inconsistent_predictions_are_neither_written_nor_read(tmp_path: Path, change: dict, said: str) -> None:
    broken = replace(make(), **change)
    with pytest.raises(RunFailure, match=said):
        save_predictions(tmp_path / "p.npz", broken)
    assert not list(tmp_path.iterdir())
    save_predictions(tmp_path / "p.npz", make())
    with np.load(tmp_path / "p.npz") as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "q.npz", **{**arrays, **change})
    with pytest.raises(UsageProblem, match=said) as caught:
        load_predictions(tmp_path / "q.npz")
    assert caught.value.where == str(tmp_path / "q.npz")


class Bomb:
    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('unpickled')",))


def test_files_that_are_no_predictions(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    with pytest.raises(UsageProblem, match="no such"):
        load_predictions(path)
    path.write_bytes(b"")
    with pytest.raises(UsageProblem, match="damaged"):
        load_predictions(path)
    path.write_bytes(b"PK\x03\x04 half an archive")
    with pytest.raises(UsageProblem, match="damaged"):
        load_predictions(path)
    np.savez(path, train_images=np.zeros((2, 2)))
    with pytest.raises(UsageProblem, match="no predictions file") as caught:
        load_predictions(path)
    assert "--data" in (caught.value.hint or "")
    np.savez(path, allow_pickle=True, schema=np.array([Bomb()], dtype=object))
    with pytest.raises(UsageProblem, match="objects"):
        load_predictions(path)
    np.savez(path, schema=np.array("medcli-predictions/9"))
    with pytest.raises(UsageProblem, match="predictions/9"):
        load_predictions(path)
    np.savez(path, schema=np.array("medcli-predictions/1"))
    with pytest.raises(UsageProblem, match="lacks `target`"):
        load_predictions(path)


@pytest.mark.parametrize("text", ["[]", "{", '{"task": "guess"}', '{"task": "multiclass"}', '{"task": "multioutput"}'])
def test_a_bad_target_is_refused(tmp_path: Path, text: str) -> None:
    save_predictions(tmp_path / "p.npz", make())
    with np.load(tmp_path / "p.npz") as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "p.npz", **{**arrays, "target": np.array(text)})
    with pytest.raises(UsageProblem) as caught:
        load_predictions(tmp_path / "p.npz")
    assert caught.value.code == "bad-predictions"
