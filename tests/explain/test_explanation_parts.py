"""Geometry, strengths, the choice of examples, embeddings, neighbours and colourings, each against plain arithmetic."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from medcli.data.dataset import Picture, Preprocessing
from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.evaluation.predictions import Predictions
from medcli.explain.embeddings import Embeddings, write_embeddings
from medcli.explain.examples import choose_examples
from medcli.explain.geometry import displayed, placed
from medcli.explain.neighbours import draw_neighbours, nearest_images
from medcli.explain.overlay import strengths
from medcli.explain.scatter import colourings, draw_scatter, project
from medcli.explain.written import file_names


def preprocessing(fit: str) -> Preprocessing:
    return Preprocessing(image_size=40, channels=1, mean=(0.5,), std=(0.5,), fit=fit)


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize(("height", "width"), [(60, 120), (120, 60), (80, 80)])
def test_a_map_lies_where_the_network_saw_it(fit, height, width):
    """A bright blob goes through the very preprocessing; its map, laid back, peaks where the blob was."""
    from medcli.data.resize import to_tensor

    pixels = np.zeros((height, width), np.uint8)
    top, left = height // 2 + 6, width // 2 - 12
    pixels[top : top + 6, left : left + 6] = 255
    picture = Picture(pixels, 0, 255)
    seen = to_tensor(picture, preprocessing(fit))[0]
    over = placed(seen, picture, preprocessing(fit), longest=max(height, width))
    assert over.values.shape == (height, width)
    row, column = np.unravel_index(over.values.argmax(), over.values.shape)
    assert abs(row - (top + 2.5)) <= 3
    assert abs(column - (left + 2.5)) <= 3
    cut_off = fit == "crop" and height != width
    assert over.seen.mean() == pytest.approx(0.5 if cut_off else 1, abs=0.03)


def test_pictures_are_shown_in_their_own_proportions_and_range():
    picture = Picture(np.array([[1000, 2000], [3000, 5000]], np.uint16), 1000, 3000)
    assert displayed(picture).tolist() == [[0, 0.5], [1, 1]]
    large = displayed(Picture(np.zeros((1000, 500, 3), np.uint8), 0, 255))
    assert large.shape == (640, 320, 3)


def test_strengths_are_shares_of_the_strongest():
    assert strengths(np.array([[0.0, 2.0], [1.0, 4.0]], np.float32)).tolist() == [[0, 0.5], [0.25, 1]]
    assert not strengths(np.zeros((3, 3), np.float32)).any()


def test_file_names_never_meet():
    names = file_names([("a/x.png", "b/c"), ("d/x.png", "b/c"), ("é ü.dcm", "Pleural Thickening")], "gradcam++")
    assert names == ["x-b_c-gradcam++.png", "x-b_c-gradcam++-2.png", "é_ü-Pleural_Thickening-gradcam++.png"]


def predictions(labels, logits, target) -> Predictions:
    ids = np.array([f"case{at}" for at in range(len(labels))])
    return Predictions(ids, np.asarray(labels), np.asarray(logits, np.float32), target, split="test")


def test_examples_are_spread_and_errors_are_the_worst():
    sure = np.array([5.0, 4, 3, 2, 1, -1, -4, 5, 4, -2])
    labels = np.array([1, 1, 1, 1, 1, 1, 1, 0, 0, 0])
    logits = np.stack([np.zeros(10), np.where(labels == 1, sure, -sure)], axis=1)
    found = choose_examples(predictions(labels, logits, Target("binary", ("no", "yes"))), 3)
    right = [one for one in found if one.kind == "example"]
    wrong = [one for one in found if one.kind == "worst-error"]
    # Two classes share three places: 2 negatives of 2, ranks .5 and 1.5; one of five positives, the middle one.
    assert sorted(one.row for one in right) == [2, 7, 8] or sorted(one.row for one in right)[:2] == [1, 3]
    assert [one.row for one in wrong] == [6, 9, 5]
    assert [one.question.name for one in wrong] == ["no", "yes", "no"]


def test_errors_of_grades_are_ranked_by_distance():
    logits = np.log(np.array([[0.05, 0.9, 0.03, 0.02], [0.3, 0.1, 0.2, 0.4], [0.1, 0.7, 0.1, 0.1]]))
    found = choose_examples(predictions(np.array([0, 0, 1]), logits, Target("ordinal", ("0", "1", "2", "3"))), 5)
    assert [(one.row, one.kind) for one in found] == [(2, "example"), (1, "worst-error"), (0, "worst-error")]


def test_missed_labels_and_false_alarms_take_turns():
    labels = np.array([[1, 0], [0, 0], [1, np.nan], [0, 1]], np.float32)
    logits = np.array([[-4.0, 3], [2, 1], [1, 9], [-1, -3]])
    found = choose_examples(predictions(labels, logits, Target("multilabel", ("a", "b"))), 4)
    assert [(one.row, one.question.name) for one in found if one.kind == "example"] == [(2, "a")]
    assert [(one.row, one.question.name) for one in found if one.kind == "worst-error"] == [
        (0, "a"), (3, "b"), (1, "a"),
    ]  # fmt: skip


def embeddings(target: Target, labels, features=None) -> Embeddings:
    count = len(labels)
    drawn = np.random.default_rng(0).normal(size=(count, 5)).astype(np.float32)
    return Embeddings(
        np.array([f"i{at}" for at in range(count)]),
        np.array(["train", "test"] * (count // 2)),
        np.asarray(labels),
        target,
        drawn if features is None else features,
        "net",
        np.array([f"p{at // 2}" for at in range(count)]),
    )


@pytest.mark.parametrize("name", ["e.npz", "e.csv", "e.tsv.gz"])
def test_embeddings_read_back_as_they_were(tmp_path, name):
    from medcli.data.tables import read_table

    kept = embeddings(Target("multilabel", ("a", "b")), np.array([[1, 0], [0, np.nan], [1, 1], [0, 0]], np.float32))
    write_embeddings(tmp_path / name, kept)
    if name.endswith(".npz"):
        with np.load(tmp_path / name, allow_pickle=False) as arrays:
            assert np.array_equal(arrays["features"], kept.features)
            assert arrays["patients"].tolist() == kept.patients.tolist()
        return
    table = read_table(str(tmp_path / name))
    assert table.columns[:5] == ("id", "split", "patient", "a", "b")
    if name == "e.csv":
        rows = list(csv.DictReader((tmp_path / name).read_text().splitlines()))
        assert [row["b"] for row in rows] == ["0", "", "1", "0"]
        found = np.array([[float(row[f"f{at}"]) for at in range(5)] for row in rows], np.float32)
        assert np.array_equal(found, kept.features)
    with pytest.raises(UsageProblem, match=r"neither .npz nor .csv"):
        write_embeddings(tmp_path / "e.txt", kept)


def test_neighbours_are_those_of_a_plain_search(tmp_path):
    kept = embeddings(Target("binary", ("n", "y")), np.arange(20) % 2)
    query = kept.features[7] * 3
    found = nearest_images(query, kept, 6)
    cosine = kept.features @ query / np.linalg.norm(kept.features, axis=1) / np.linalg.norm(query)
    assert [one.row for one in found] == np.argsort(1 - cosine)[:6].tolist()
    assert found[0].id == "i7"
    assert found[0].distance == pytest.approx(0, abs=1e-6)
    assert found[0].label == "y"
    picture = Picture(np.zeros((8, 8), np.uint8), 0, 255)
    draw_neighbours("q.png", picture, found, [picture] * 6, "net", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()


def test_projections_keep_what_is_apart_apart(tmp_path):
    labels = np.arange(60) % 3
    features = (np.eye(3, 8)[labels] * 20 + np.random.default_rng(1).normal(size=(60, 8))).astype(np.float32)
    kept = embeddings(Target("multiclass", ("a", "b", "c")), labels, features)
    for how in ("pca", "tsne"):
        projection = project(features, how)
        centres = np.stack([projection.points[labels == at].mean(0) for at in range(3)])
        spread = max(projection.points[labels == at].std() for at in range(3))
        assert min(np.linalg.norm(centres[at] - centres[at - 1]) for at in range(3)) > spread
        draw_scatter(kept, projection, colourings(labels, kept.target), "net", tmp_path / f"{how}.png")
        assert (tmp_path / f"{how}.png").stat().st_size > 5000
    assert np.array_equal(project(features, "tsne", seed=4).points, project(features, "tsne", seed=4).points)
    with pytest.raises(UsageProblem, match="too few"):
        project(features[:3], "pca")


def test_colours_of_labels_and_outputs():
    labels = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1], [np.nan] * 3], np.float32)
    target = Target("multilabel", ("a", "b", "c"))
    (panel,) = colourings(labels, target)
    assert panel.groups == ("none", "a", "c", "several")
    assert panel.of.tolist() == [1, 0, 3, 2, -1]
    (single,) = colourings(labels, target, ["b"])
    assert single.of.tolist() == [0, 0, 1, 0, -1]
    with pytest.raises(UsageProblem, match="no label or output `d`"):
        colourings(labels, target, ["d"])
    several = Target("multioutput", outputs=(Output("grade", ("0", "1"), True), Output("side", ("l", "r"))))
    panels = colourings(np.array([[0, 1], [-1, 0]]), several)
    assert [panel.title for panel in panels] == ["grade", "side"]
    many = Target("multiclass", tuple(f"c{at}" for at in range(30)))
    (merged,) = colourings(np.arange(90) % 30, many)
    assert len(merged.groups) == 12
    assert merged.groups[-1] == "other classes"
    with pytest.raises(UsageProblem, match="one label each"):
        colourings(np.array([0, 1]), Target("binary", ("n", "y")), ["n"])


def test_a_map_from_another_grid_is_enlarged_over_the_whole_picture():
    picture = Picture(np.zeros((40, 40), np.uint8), 0, 255)
    grid = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    over = placed(grid, picture, preprocessing("squash"), longest=40)
    assert over.values[30:, 30:].min() > 0.5
    assert over.values[:10, :10].max() < 0.02
