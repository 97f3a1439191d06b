"""`diffmap synth`: what is written is what was drawn, no source stands in two splits, nothing foreign goes."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.data.synthetic.anatomy import draw_anatomy
from medcli.data.synthetic.frame import FRONTAL, make_frame
from medcli.data.synthetic.rendering import Exposure, attenuation, develop
from medcli.diffmap.intensity import match, surface
from medcli.diffmap.pairs import Drawn
from medcli.diffmap.phantom import draw_phantom_pair
from medcli.diffmap.reading import read_pair
from medcli.diffmap.sources import load_pairs
from medcli.diffmap.synth import PairRecipe, plan_pairs, write_pairs
from medcli.testing.command import RunCli


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "pairs.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight films of six made-up patients."""
    folder = tmp_path_factory.mktemp("films")
    for number in range(8):
        image = attenuation(make_frame(draw_anatomy(5, number % 6), FRONTAL, 128))
        film = develop(image, Exposure(black=0.1, white=1.4, seed=(number,)))
        Image.fromarray(np.rint(film * 255).astype(np.uint8)).save(folder / f"{number % 6}_{number}.png")
    return folder


def test_a_set_is_written_and_read_back(run_cli: RunCli) -> None:
    done = run_cli(
        "diffmap", "synth", "--pairs", "6", "--image-size", "48", "--seed", "3", "--out", "set", in_process=True
    )
    assert done.code == 0
    folder = run_cli.directory / "set"
    rows = table(folder)
    assert [row["split"] for row in rows] == ["train", "train", "val", "train", "train", "test"]
    pairs = load_pairs(str(folder))
    for number in (0, 5):
        drawn = draw_phantom_pair(Drawn(3, number, 48))
        read = read_pair(pairs.pairs[number], 48)
        assert np.abs(read.followup - drawn.current).max() <= 0.51 / 255
        assert np.array_equal(read.valid, drawn.valid)
        assert read.target is not None
        assert np.abs(read.target - drawn.target)[drawn.valid].max() <= 1e-4
        assert pairs.pairs[number].nuisance_only == drawn.nuisance_only
    facts = json.loads((folder / rows[0]["pair"] / "params.json").read_text())
    assert {"seed", "changes", "poses", "exposures", "devices", "nuisance_only", "map"} <= facts.keys()
    again = run_cli("diffmap", "synth", "--pairs", "6", "--out", "set", in_process=True)
    assert again.code == 2
    assert "--overwrite" in again.stderr
    (folder / "mine.txt").write_text("kept")
    other = run_cli(
        "data", "synth", "synthetic/chest-pairs", "--pairs", "2", "--size", "32", "--format", "nifti", "--out", "set",
        "--overwrite", "--yes", in_process=True,
    )  # fmt: skip
    assert other.code == 0
    assert (folder / "mine.txt").read_text() == "kept"
    assert len(table(folder)) == 2
    assert read_pair(load_pairs(str(folder)).pairs[1], 32).baseline == pytest.approx(
        draw_phantom_pair(Drawn(0, 1, 32)).prior, abs=1e-6
    )


def test_each_pair_draws_its_own_nuisance(run_cli: RunCli) -> None:
    words = ("diffmap", "synth", "--pairs", "6", "--image-size", "32", "--seed", "3")
    done = run_cli(*words, "--nuisance", "0.5,2", "--out", "mixed", "--json", in_process=True)
    assert done.code == 0
    assert done.json()["result"]["nuisance"] == [0.5, 2]
    folder = run_cli.directory / "mixed"
    facts = [json.loads((folder / row["pair"] / "params.json").read_text()) for row in table(folder)]
    factors = [one["nuisance"] for one in facts]
    assert len(set(factors)) == 6
    assert all(0.5 <= factor <= 2 for factor in factors)
    # The pair is that of its factor alone: the same patient and change as in a set of one factor.
    recipe = PairRecipe(6, 32, 3, nuisance=(0.5, 2.0))
    assert [recipe.drawn(number).nuisance for number in range(6)] == factors
    alone = draw_phantom_pair(Drawn(3, 4, 32, factors[4]))
    read = read_pair(load_pairs(str(folder)).pairs[4], 32)
    assert np.abs(read.followup - alone.current).max() <= 0.51 / 255
    for wrong in ("2,0.5", "1,2,3"):
        refused = run_cli(*words, "--nuisance", wrong, "--out", "other", in_process=True)
        assert refused.code == 2
        assert "--nuisance 0.5,2" in refused.stderr
        assert not (run_cli.directory / "other").exists()
    run_cli(
        "diffmap", "synth", "--pairs", "2", "--image-size", "32", "--nuisance", "2", "--out", "one", in_process=True
    )
    one = json.loads((run_cli.directory / "one" / "pairs.json").read_text())
    assert one["nuisance"] == 2


def test_radiographs_are_painted_the_same_every_time(radiographs: Path, tmp_path: Path) -> None:
    recipe = PairRecipe(2, 64, 2, str(radiographs), nuisance_only=0.0, patient_pattern="^([0-9])_")
    written = write_pairs(tmp_path, plan_pairs(recipe))
    assert written.left_out == ()
    for number, row in enumerate(table(tmp_path)):
        facts = json.loads((tmp_path / row["pair"] / "params.json").read_text())
        assert facts["file"].startswith(f"{row['patient']}_")
        pair, path, patient = plan_pairs(recipe).draw(number)
        assert (Path(path).name, patient) == (facts["file"], row["patient"])
        stored = np.asarray(Image.open(tmp_path / row["followup"]))
        assert np.array_equal(stored, np.rint(pair.current * 255).astype(np.uint8))
        assert pair.target.any()
        assert not pair.target[~pair.valid].any()
        quiet = replace(recipe, nuisance_only=1.0)
        unchanged, _, _ = plan_pairs(quiet).draw(number)
        assert not unchanged.target.any()
        assert np.abs(unchanged.current - unchanged.prior).mean() > 0.01


def test_no_radiograph_and_no_patient_stands_in_two_splits(radiographs: Path) -> None:
    films = plan_pairs(PairRecipe(40, 64, 2, str(radiographs), patient_pattern="^([0-9])_")).films
    homes = {(films.patient(number), films.split(number)) for number in range(40)}
    assert len(homes) == 6
    assert {split for _, split in homes} == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--source", "nowhere"), "does not exist"),
        (("--source", "few"), "too few"),
        (("--source", "empty"), "holds no images"),
        (("--patient-pattern", "(x)"), "patients of their own"),
        (("--image-size", "8"), "16 to 2048"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(
    run_cli: RunCli, radiographs: Path, flags: tuple[str, ...], words: str
) -> None:
    (run_cli.directory / "empty").mkdir()
    (run_cli.directory / "few").mkdir()
    film = next(iter(sorted(radiographs.iterdir())))
    (run_cli.directory / "few" / film.name).write_bytes(film.read_bytes())
    done = run_cli("diffmap", "synth", *flags, "--out", "out", in_process=True)
    assert done.code == 2
    assert words in done.stderr
    assert not (run_cli.directory / "out").exists()


def test_flags_of_the_other_set_are_refused(run_cli: RunCli) -> None:
    for name, flags in (("synthetic/chest", ("--pairs", "3")), ("synthetic/chest-pairs", ("--images", "3"))):
        done = run_cli("data", "synth", name, *flags, in_process=True)
        assert done.code == 2
        assert flags[0] in done.stderr


def test_matching_undoes_another_exposure_and_spares_a_finding() -> None:
    pair = draw_phantom_pair(Drawn(1, 3, 96, nuisance=0.0, quiet_share=1.0))
    followup = pair.prior.copy()
    row, column = np.mgrid[:96, :96] / 95.0
    baseline = np.clip(0.7 * followup + 0.1 + 0.08 * row - 0.05 * column, 0, 1).astype(np.float32)
    followup[30:45, 25:40] += 0.2
    valid = np.ones((96, 96), bool)
    inside = (slice(31, 44), slice(26, 39))
    left = followup - match(baseline, followup, valid)
    assert np.median(np.abs(left)) < 0.02
    assert left[inside].mean() == pytest.approx(0.2, abs=0.04)
    assert np.median(np.abs(followup - baseline)) > 0.04


def test_a_quadratic_surface_is_found_under_an_outlier() -> None:
    y, x = np.meshgrid(np.linspace(-1, 1, 80), np.linspace(-1, 1, 80), indexing="ij")
    wanted = (0.05 + 0.02 * y - 0.04 * x + 0.03 * x * x).astype(np.float32)
    seen = wanted.copy()
    seen[10:35, 10:35] += 0.4
    assert np.abs(surface(seen, np.ones((80, 80), bool)) - wanted).max() < 2e-3
