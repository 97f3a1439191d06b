"""`diffmap evaluate` as typed: runs, folders of maps, readers, limits, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medcli.diffmap.map_sources import ReadPairs, maps_of_folder
from medcli.diffmap.metrics import change_precision
from medcli.diffmap.pairs import Pair
from medcli.errors import UsageProblem
from medcli.testing.command import RunCli, forget_user_settings

TINY = ("--arch-opt", "encoder=test_resnet", "--arch-opt", "width=4", "--image-size", "32", "--workers", "0")
PLAIN = ("--register", "none", "--workers", "1", "--bootstrap", "50")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pairs` with their truth, a run, its maps, and maps that are the truth itself."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("scored")
    cli = RunCli(root)
    with pytest.MonkeyPatch.context() as patch:
        forget_user_settings(patch, root)
        for words in (
            ("synth", "--pairs", "26", "--image-size", "32", "--nuisance-only", "0.4", "--out", "pairs"),
            ("train", "--data", "pairs", "--register", "none", "--epochs", "1", *TINY, "--out", "run"),
            (
                "evaluate",
                "run",
                "--data",
                "pairs",
                *PLAIN,
                "--save-maps",
                "maps",
                "--figure",
                "c.png",
                "--out",
                "f.json",
            ),
        ):
            done = cli("diffmap", *words, in_process=True)
            assert done.code == 0, done.stderr
    for path in root.glob("pairs/*/pair_*"):
        steps = np.asarray(Image.open(path / "diff_map.png"), dtype=np.float32)
        home = root / "truth" / path.parent.name
        home.mkdir(parents=True)
        np.save(home / f"{path.name}.npy", (steps - 32768) / 32767)
    return root


def asked(home: Path, *words: str) -> dict[str, Any]:
    done = RunCli(home)("diffmap", "evaluate", *words, *PLAIN, "--json", in_process=True)
    assert done.code == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)["result"]
    return document


def value(document: dict[str, Any], name: str, side: str = "model") -> float:
    number: float = document[side]["figures"][name]["value"]
    return number


def test_a_run_is_measured_beside_subtraction(home: Path) -> None:
    found = json.loads((home / "f.json").read_text())
    assert (found["split"], found["pairs"], found["changed"] + found["unchanged"]) == ("test", 4, 4)
    assert found["unchanged"] >= 1
    assert found["map"] == "signed"
    assert "changed validation pairs of these data" in found["model"]["threshold"]["origin"]
    assert found["differences"]["auprc"]["value"] == pytest.approx(
        value(found, "auprc") - value(found, "auprc", "subtraction")
    )
    assert found["consistency"]["antisymmetry"] <= 1e-6
    assert found["consistency"]["same_image"] <= 1e-6
    assert found["consistency"]["antisymmetry_raw"] > 1e-6
    assert {one["by"] for one in found["strata"]} == {"kind", "course", "unchanged"}
    with Image.open(home / "c.png") as drawn:
        assert drawn.width > 800


def test_saved_maps_score_as_the_run_that_made_them(home: Path) -> None:
    found = json.loads((home / "f.json").read_text())
    threshold = str(found["model"]["threshold"]["value"])
    again = asked(home, "maps", "--data", "pairs", "--threshold", threshold)
    assert again["model"]["figures"] == found["model"]["figures"]
    assert again["differences"] == found["differences"]
    assert (again["consistency"], again["model"]["name"]) == (None, "maps")
    assert again["model"]["threshold"]["origin"] == "given with `--threshold`"
    maps, truths = [], []
    for path in sorted((home / "maps").rglob("*.npy")):
        pair = home / "pairs" / path.relative_to(home / "maps").with_suffix("")
        steps = np.asarray(Image.open(pair / "diff_map.png"), dtype=np.float32)
        valid = np.asarray(Image.open(pair / "valid.png")) > 0
        maps.append(np.load(path))
        truths.append(np.where(valid, (steps - 32768) / 32767, np.nan))
    assert value(again, "auprc") == pytest.approx(change_precision(maps, truths).mean)


def test_the_truth_itself_is_perfect(home: Path) -> None:
    found = asked(home, "truth", "--data", "pairs")
    for name in ("auprc", "auroc_positive", "sign_accuracy", "correlation", "cpm", "image_auroc", "ssim"):
        number = found["model"]["figures"][name]["value"]
        assert number is None or number == pytest.approx(1), name
    assert value(found, "dice") > 0.97
    assert value(found, "nuisance_area") == value(found, "nuisance_components") == value(found, "mae_changed") == 0
    assert "of these data" in found["model"]["threshold"]["origin"]


def test_a_missed_limit_ends_with_status_4_and_a_met_one_does_not(home: Path) -> None:
    cli, words = RunCli(home), ("truth", "--data", "pairs", "--threshold", "0.02", *PLAIN)
    assert cli("diffmap", "evaluate", *words, "--min-auprc", "0.99", in_process=True).code == 0
    missed = cli("diffmap", "evaluate", "maps", *words[1:], "--min-auprc", "0.99", in_process=True)
    assert (missed.code, "--min-auprc" in missed.stderr) == (4, True)
    assert "gone or less dense" in missed.stdout
    assert "subtraction" in missed.stdout


def test_readers_are_compared_with_each_other_and_the_maps(home: Path) -> None:
    pair = sorted(path for path in (home / "maps").glob("*/*.npy"))[0].relative_to(home / "maps").with_suffix("")
    mark = {"cx": 16, "cy": 16, "rx": 6, "ry": 4, "angle": 0, "label": "Appearance"}
    for reader, marks in (("anna", [mark]), ("ben", [{**mark, "cx": 18}]), ("carla", [])):
        path = home / "readers" / pair / f"{reader}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"ellipses": marks}))
    found = asked(home, "truth", "--data", "pairs", "--readers", "readers")["readers"]
    assert (found["readers"], found["pairs"]) == (3, 1)
    assert found["pai_per_finding"] == pytest.approx(2 / 4)
    assert found["pai_per_pair"] == pytest.approx(1 / 3)
    assert found["consensus_sensitivity"]["positive"]["2"]["findings"] == 1
    assert found["one_reader_against_the_others"]["positive"]["1"]["findings"] == 3
    assert found["published"]["one_reader_against_the_others"]["positive"]["4"] == 0.89
    said = RunCli(home)(
        *("diffmap", "evaluate", "truth", "--data", "pairs", "--readers", "readers", *PLAIN), in_process=True
    ).stdout
    assert "PAI per finding" in said
    assert "0.55 [0.46, 0.64]" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("absent", "--data", "pairs"), "does not exist"),
        (("pairs.csv", "--data", "pairs"), "does not exist"),
        (("truth",), "no data was named"),
        (("run", "--data", "pairs", "--map", "magnitude"), "fixed by the run"),
        (("run", "--data", "pairs", "--image-size", "64"), "trained with 32 pixels"),
        (("maps", "--data", "pairs"), "at which threshold"),
        (("maps", "--data", "pairs", "--on", "val", "--threshold", "0.1"), "holds no map of pair"),
        (("truth", "--data", "pairs", "--map", "magnitude", "--threshold", "0.1"), "values below 0"),
        (("truth", "--data", "pairs", "--threshold", "0"), "--threshold"),
        (("truth", "--data", "pairs", "--figure", "c.png"), "already"),
        (("truth", "--data", "pairs", "--figure", "c.jpg"), "no .png"),
        (("truth", "--data", "pairs", "--save-maps", "maps"), "not empty"),
        (("truth", "--data", "pairs", "--threshold", "0.1", "--readers", "pairs"), "list `ellipses`"),
    ],
)
def test_what_cannot_be_measured_is_refused(home: Path, words: tuple[str, ...], said: str) -> None:
    done = RunCli(home)("diffmap", "evaluate", *words, *PLAIN, in_process=True)
    assert done.code in (1, 2), done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_maps_of_a_wrong_size_and_of_odd_values_are_named(home: Path, tmp_path: Path) -> None:
    names = [path.relative_to(home / "maps") for path in sorted((home / "maps").glob("*/*.npy"))]
    for number, (values, said) in enumerate(
        (
            (np.zeros((20, 24), np.float32), "24×20 pixels"),
            (np.full((32, 32), 3.0, np.float32), "outside [-1, 1]"),
            (np.zeros((2, 32, 32), np.float32), "holds no map"),
        )
    ):
        folder = tmp_path / str(number)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(folder / name, np.zeros((32, 32), np.float32))
        np.save(folder / names[-1], values)
        words = (str(folder), "--data", "pairs", "--threshold", "0.1", "--image-size", "32", *PLAIN)
        done = RunCli(home)("diffmap", "evaluate", *words, in_process=True)
        assert (done.code, said in done.stderr) == (1, True), done.stderr


def test_a_map_on_the_files_own_pixels_comes_to_lie_as_its_picture_does(tmp_path: Path) -> None:
    tall = np.zeros((64, 32), np.float32)
    tall[0:8, 0:8] = -0.5
    tall[20:30, 10:20] = np.nan  # no statement is no finding
    np.save(tmp_path / "one.npy", tall)
    grid = np.zeros((1, 32, 32), np.float32)
    read = ReadPairs((Pair("one", "a.png", "b.png"),), grid, grid, grid, grid == 0, ((64, 32),))
    found = maps_of_folder(tmp_path, read, signed=True)[0]
    assert found[0:3, 8:11].tolist() == [[-0.5] * 3] * 3  # 16 of 32 columns in the middle
    assert not found[:, :8].any()
    assert not found[10:, :].any()
    outside = ReadPairs((Pair("../one", "a.png", "b.png"),), grid, grid, grid, grid == 0, ((64, 32),))
    with pytest.raises(UsageProblem, match="out of"):
        maps_of_folder(tmp_path, outside, signed=True)
