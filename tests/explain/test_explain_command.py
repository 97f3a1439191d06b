"""`medcli explain` as a user types it: on a small run of its own, with what it writes and what it refuses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.testing.command import RunCli, forget_user_settings

CASES = 12


def draw(path: Path, seed: int, *, spot: bool, width: int = 24, colour: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 120, (24, width, 3) if colour else (24, width), dtype=np.uint8)
    if spot:
        pixels[6:14, 8:16] += 120
    Image.fromarray(pixels).save(path)


@dataclass(frozen=True)
class Trained:
    """A folder with runs in it: `binary` (class folders), `several` (two outputs), `labels` (multilabel)."""

    place: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    place = tmp_path_factory.mktemp("explained")
    rows = ["image,split,grade,side,spot,dark"]
    for split in ("train", "val", "test"):
        for number in range(CASES):
            spot = number % 2
            image = f"set/{split}/{('clear', 'spot')[spot]}/{number}.png"
            draw(place / image, number, spot=bool(spot))
            rows.append(f"{image},{split},{number % 3},{'lr'[spot]},{spot},{number % 4 // 3}")
    (place / "table.csv").write_text("\n".join(rows) + "\n")
    (place / "grey.png").write_bytes((place / "set/test/spot/1.png").read_bytes())
    draw(place / "wide.png", 99, spot=True, width=48, colour=True)
    (place / "broken.png").write_bytes(b"no picture")
    small = ("--image-size", "32", "--epochs", "2", "--batch-size", "8", "--workers", "0", "--device", "cpu")
    columns = ("--image-column", "image", "--split-column", "split")
    with pytest.MonkeyPatch.context() as patch:
        forget_user_settings(patch, place)
        run = RunCli(place)
        for words in (
            ("train", "custom1", "--data", "set", "--in-channels", "1", "--out", "binary"),
            ("train", "echo", "--data", "table.csv", *columns, "--label-column", "grade,side", "--out", "several"),
            ("train", "custom1", "--data", "table.csv", *columns, "--label-column", "spot,dark", "--out", "labels"),
        ):
            done = run(*words, *small, in_process=True)
            assert done.code == 0, done.stderr
    return Trained(place)


@pytest.fixture
def explain(trained: Trained, run_cli: RunCli):
    def call(*words: str):
        return run_cli("explain", *words, "--device", "cpu", cwd=trained.place, in_process=True)

    return call


def test_pictures_of_named_images(trained, explain, tmp_path):
    out = tmp_path / "maps"
    done = explain("binary", "grey.png", "wide.png", "--out", str(out), "--json")
    assert done.code == 0, done.stderr
    result = done.json()["result"]
    assert result["method"] == "gradcam"
    assert "too few to tell places apart" in result["why"]
    assert len(result["explanations"]) == 2
    for one in result["explanations"]:
        with Image.open(trained.place / one["file"]) as picture:
            assert picture.format == "PNG"
            assert picture.width > 300
        assert 0 <= one["probability"] <= 1
        assert one["target_class"] in {"clear", "spot"}
    again = explain("binary", "grey.png", "--out", str(out))
    assert again.code == 2
    assert "--overwrite" in again.stderr
    assert explain("binary", "grey.png", "--out", str(out), "--overwrite", "-q").stdout.strip() == str(out)


def test_bare_maps_and_a_class_that_is_named(explain, tmp_path):
    out = tmp_path / "maps.npz"
    words = ("--method", "occlusion", "--target", "spot", "--out", str(out))
    done = explain("binary", "grey.png", "wide.png", *words)
    assert done.code == 0, done.stderr
    with np.load(out, allow_pickle=False) as arrays:
        assert arrays["maps"].shape == (2, 32, 32)
        assert arrays["classes"].tolist() == ["spot", "spot"]
        assert str(arrays["method"]) == "occlusion"


def test_save_keeps_examples_where_the_report_finds_them(trained, explain):
    done = explain("binary", "--save", "3", "--sanity", "--json")
    assert done.code == 0, done.stderr
    folder = trained.place / "binary/explanations"
    index = json.loads((folder / "index.json").read_text())
    assert index["schema"] == "medcli-explanations/1"
    assert index["split"] == "test"
    assert index["sanity"]["outcome"] in {"passed", "doubtful", "failed"}
    assert (folder / index["sheet"]).is_file()
    for one in index["explanations"]:
        assert (folder / one["file"]).is_file()
        assert (one["target_class"] == one["label"]) == (one["kind"] == "example")
    fewer = explain("binary", "--save", "1", "--json").json()["result"]["explanations"]
    kinds = [one["kind"] for one in fewer]
    assert kinds.count("example") <= 1
    assert kinds.count("worst-error") <= 1
    # What the earlier index named and the new one does not is gone.
    left = {path.name for path in folder.glob("*.png")}
    assert left == {Path(one["file"]).name for one in fewer}
    from medcli.report.explained import read_explanations
    from medcli.runs.directory import RunDirectory

    read = read_explanations(RunDirectory(trained.place / "binary"))
    assert len(read.cases) == len(fewer)
    assert not read.problems


def test_several_outputs_and_labels(explain, tmp_path):
    done = explain("several", "wide.png", "--out", str(tmp_path / "a"), "--json")
    assert done.code == 0, done.stderr
    result = done.json()["result"]
    assert result["method"] == "gradcam"
    assert [one["target_class"].partition("/")[0] for one in result["explanations"]] == ["grade", "side"]
    named = explain(
        "several", "wide.png", "--target", "side", "--target", "grade/2", "--out", str(tmp_path / "b"), "--json"
    )
    assert [one["target_class"].partition("/")[0] for one in named.json()["result"]["explanations"]] == [
        "side",
        "grade",
    ]
    labels = explain("labels", "grey.png", "--target", "spot,dark", "--out", str(tmp_path / "c"), "--json")
    assert labels.code == 0, labels.stderr
    assert [one["target_class"] for one in labels.json()["result"]["explanations"]] == ["spot", "dark"]
    kept = explain("several", "--save", "2", "--json").json()["result"]["explanations"]
    assert {one["kind"] for one in kept} <= {"example", "worst-error"}
    assert kept


def test_a_bad_picture_costs_only_itself(explain, tmp_path):
    done = explain("binary", "broken.png", "grey.png", "--out", str(tmp_path / "maps"))
    assert done.code == 3
    assert "broken.png" in done.stderr
    assert "grey.png" in done.stdout
    assert explain("binary", "broken.png", "--out", str(tmp_path / "none")).code == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("binary",), "no image was named"),
        (("binary", "missing.png"), "does not exist"),
        (("nothing", "grey.png"), "there is no run"),
        (("binary", "grey.png", "--target", "sopt"), "no class `sopt`"),
        (("binary", "grey.png", "--method", "rollout"), "no attention maps"),
        (("binary", "grey.png", "--method", "temperature"), "one of `gradcam`"),
        (("binary", "grey.png", "--layer", "block"), "no layer `block`"),
        (("binary", "grey.png", "--out", "map.png"), "pictures go into a folder"),
        (("binary", "grey.png", "--data", "set"), "only `--save` uses it"),
        (("binary", "--save", "2", "--data", "elsewhere"), "does not exist"),
        (("binary", "table.csv"), "is a table"),
    ],
)
def test_refusals_write_nothing(trained, explain, words, said):
    before = {path for path in trained.place.rglob("*") if path.is_file()}
    done = explain(*words)
    assert done.code == 2, done.stdout
    assert said in done.stderr
    assert {path for path in trained.place.rglob("*") if path.is_file()} == before


def test_a_missing_package_is_named(explain, monkeypatch):
    monkeypatch.setattr("medcli.explain.changing.find_spec", lambda name: None)
    done = explain("binary", "grey.png", "--method", "occlusion")
    assert done.code == 2
    assert "medcli[explain]" in done.stderr
