"""`medcli export` of runs that compare two pictures: what the bundle holds, who can run it, and how it goes wrong."""

from __future__ import annotations

import io
import json
import re
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from jsonschema import Draft202012Validator
from PIL import Image

from medcli.benchmark.items import choose_items
from medcli.bundles.bundle import SELFTEST
from medcli.bundles.difference import open_difference_bundle
from medcli.data.dataset import Picture, Preprocessing
from medcli.data.resize import to_planes
from medcli.diffmap.pairs import Drawn
from medcli.diffmap.phantom import draw_phantom_pair
from medcli.diffmap.run import DifferenceSpec, build_network, load_difference_run, save_difference
from medcli.diffmap.scaling import padded_square, resized
from medcli.errors import RunFailure
from medcli.export import difference_pairs, differences
from medcli.registry.discovery import discover
from medcli.runs.directory import MANIFEST
from medcli.schemas import schema_of
from medcli.testing.command import Outcome, RunCli, forget_user_settings
from medcli.testing.imports import NoHeavyImports

PREDICT = ("diffmap", "predict", "a.png", "b.png", "--run", "bundle")
TINY = {"encoder": "test_resnet", "width": 4}


def save(path: Path, image: npt.NDArray[np.float32]) -> None:
    Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path)


def a_run(folder: Path, model: str = "medcli/siamese-unet", **how: Any) -> Path:
    """A run without training: what an export needs of one."""
    how = {"map": "signed", "image_size": 32, "options": TINY, **how}
    spec = DifferenceSpec(model, "difference", in_channels=1, **how)
    torch.manual_seed(0)
    network = build_network(spec)[0]
    with torch.no_grad():
        # Norms that have seen something: fresh ones make the smallest number of it large.
        drawn = draw_phantom_pair(Drawn(0, 2, spec.image_size))
        pair = [torch.from_numpy(one)[None, None].repeat(4, 1, 1, 1) for one in (drawn.prior, drawn.current)]
        network.train()
        for _ in range(30):
            network(*(one + 0.1 * torch.rand_like(one) for one in pair))
    folder.mkdir()
    save_difference(folder / "model.safetensors", network, spec, {"threshold": 0.25})
    (folder / MANIFEST).write_text("{}")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained run `run`, its bundle `bundle`, and the films `a.png` and `b.png`."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("differences")
    drawn = draw_phantom_pair(Drawn(1, 3, 96))
    save(folder / "a.png", drawn.prior[:, :80])
    save(folder / "b.png", drawn.current[:, :80])
    cli = RunCli(folder)
    small = ("--image-size", "32", "--arch-opt", "encoder=test_resnet", "--arch-opt", "width=4", "--workers", "0")
    with pytest.MonkeyPatch.context() as patch:
        forget_user_settings(patch, folder)
        data = ("--data", "synthetic/chest-pairs", "--limit", "6", "--batch-size", "3", "--epochs", "2")
        train = cli("diffmap", "train", *data, *small, "--out", "run", in_process=True)
        assert train.code == 0, train.stderr
        done = cli("export", "run", "--out", "bundle", "--tolerance", "5e-4", "--json", in_process=True)
    assert done.code == 0, done.stderr
    document = done.json()
    Draft202012Validator(schema_of("export")).validate(document)
    assert document["result"]["bundles"][0]["outputs"] == ["map"]
    return folder


@pytest.fixture
def cli(place: Path) -> RunCli:
    return RunCli(place)


def typed(cli: RunCli, *words: str) -> Outcome:
    return cli(*words, in_process=True)


def test_the_bundle_holds_what_the_run_knows(place: Path) -> None:
    text = (place / "bundle/bundle.json").read_text()
    document = json.loads(text)
    assert document["schema"] == "medcli-difference-bundle/1"
    assert (document["map"], document["antisymmetric"], document["image_size"]) == ("signed", True, 32)
    assert document["threshold"] == load_difference_run(place / "run").extra["threshold"]
    checked = document["verification"]
    assert (checked["batch_sizes"], checked["drawn"]) == ([1, 3], False)
    assert checked["map"] <= 5e-4
    assert set(document["files"]) == {"README.md", "model.onnx", "selftest.npz"}
    assert str(place) not in text + (place / "bundle/README.md").read_text()


def test_the_graph_is_antisymmetric_and_says_what_the_run_says(place: Path) -> None:
    bundle, loaded = open_difference_bundle(place / "bundle"), load_difference_run(place / "run")
    random = np.random.default_rng(0)
    one, other = (random.random((5, 32, 32, 1), dtype=np.float32) for _ in range(2))
    there, back = bundle.run(one, other), bundle.run(other, one)
    assert there.shape == (5, 32, 32)
    assert np.abs(there + back).max() <= 1e-6
    assert np.abs(bundle.run(one, one)).max() <= 1e-6
    planes = [torch.from_numpy(each).permute(0, 3, 1, 2) for each in (one, other)]
    assert np.abs(there - loaded.map(planes[0], planes[1])[:, 0].numpy()).max() <= 1e-4
    assert np.abs(there).max() > 1e-3
    alone = np.concatenate([bundle.run(one[row : row + 1], other[row : row + 1]) for row in range(5)])
    assert np.abs(alone - there).max() <= 1e-5


def test_both_ways_make_the_same_map_without_torch(cli: RunCli, place: Path, no_heavy_imports: NoHeavyImports) -> None:
    words = ("diffmap", "predict", "a.png", "b.png", "--allow-mismatch", "--min-area", "2")
    run = typed(cli, *words, "--run", "run", "--out", "by-run")
    assert run.code == 0, run.stderr
    bundle = no_heavy_imports.cli(*words, "--run", "bundle", "--out", "by-bundle", cwd=place)
    assert bundle.code == 0, bundle.stderr
    ours, theirs = (np.load(place / name / "map.npy") for name in ("by-run", "by-bundle"))
    assert ours.shape == theirs.shape == (96, 80)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    assert np.nanmax(np.abs(ours - theirs)) <= 5e-4
    ours, theirs = (json.loads((place / name / "findings.json").read_text()) for name in ("by-run", "by-bundle"))
    assert theirs["limits"] == ours["limits"]
    assert theirs["registration"] == ours["registration"]


def test_the_lines_of_the_readme_make_a_map(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (place / "bundle/README.md").read_text(), re.DOTALL)
    assert len(code.strip().splitlines()) <= 13
    shutil.copytree(place / "bundle", tmp_path / "received")
    for film, name in (("a.png", "prior.png"), ("b.png", "current.png")):
        shutil.copy(place / film, tmp_path / "received" / name)
    monkeypatch.chdir(tmp_path / "received")
    said = io.StringIO()
    with redirect_stdout(said):
        exec(compile(code, "README.md", "exec"), {})
    films = [Picture(np.asarray(Image.open(place / name)), 0, 255) for name in ("a.png", "b.png")]
    planes = [to_planes(film, Preprocessing(32, 1, (0.0,), (1.0,), fit="pad"))[None].clamp(0, 1) for film in films]
    made = load_difference_run(place / "run").map(planes[0], planes[1])
    assert [float(word) for word in said.getvalue().split(" to ")] == pytest.approx(
        [float(made.min()), float(made.max())], abs=5e-4
    )


def test_a_bundle_that_says_something_else_is_not_kept(
    cli: RunCli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = differences.ask_difference

    def other(*arguments: Any, **named: Any) -> differences.DifferenceReference:
        found = original(*arguments, **named)
        return replace(found, real=tuple(replace(one, maps=one.maps + 0.01) for one in found.real))

    monkeypatch.setattr(differences, "ask_difference", other)
    # Tracing takes seconds, and the graph is there already.
    graph = place / "bundle/model.onnx"
    monkeypatch.setattr(differences, "_write_graph", lambda source, file, opset: shutil.copy(graph, file))
    done = typed(cli, "export", "run", "--out", "wrong", "--tolerance", "5e-4")
    assert done.code == 4
    assert "a value of a map differs by 0.01" in done.stderr
    assert not [path.name for path in place.iterdir() if "wrong" in path.name]


def test_more_is_allowed_where_float32_alone_moves_the_maps_more(
    cli: RunCli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, rounding = differences.ask_difference, 0.002

    def magnifying(*arguments: Any, **named: Any) -> differences.DifferenceReference:
        found = original(*arguments, **named)
        return replace(
            found, real=tuple(replace(one, maps=one.maps + 0.003, rounding=lambda: rounding) for one in found.real)
        )

    monkeypatch.setattr(differences, "ask_difference", magnifying)
    graph = place / "bundle/model.onnx"
    monkeypatch.setattr(differences, "_write_graph", lambda source, file, opset: shutil.copy(graph, file))
    done = typed(cli, "export", "run", "--out", "magnified", "--json")
    assert done.code == 0, done.stderr
    document = done.json()
    Draft202012Validator(schema_of("export")).validate(document)
    found = document["result"]["bundles"][0]["verification"]
    assert (found["rounding"], found["tolerance"]) == (0.002, 0.004)
    assert found["map"] == pytest.approx(0.003, abs=5e-4)
    assert "rounding to float32 alone moves the run's maps by 2.0e-03" in document["warnings"][0]
    assert "by 2.0e-03" in (place / "magnified/README.md").read_text()
    # A limit that somebody set is one.
    assert typed(cli, "export", "run", "--out", "strict", "--tolerance", "1e-3").code == 4
    # Behind rounding as large as this a wrong graph could hide.
    rounding = 0.006
    assert typed(cli, "export", "run", "--out", "hidden").code == 4


def test_rounding_is_the_distance_to_the_maps_in_float64(place: Path) -> None:
    loaded = load_difference_run(place / "run")
    how = differences.read_difference_source(str(place / "run")).preprocessing
    one = difference_pairs.drawn_batches(loaded, how)[0]
    assert 0 < one.rounding() < 1e-4
    assert {value.dtype for value in loaded.network.parameters()} == {torch.float32}

    class Coarse(torch.nn.Module):
        """Near 4096 neighbouring numbers of float32 are 2 ** -11 apart, or half of that below."""

        def forward(self, baseline: torch.Tensor, followup: torch.Tensor) -> torch.Tensor:
            return (followup[:, :1] + 4096) - 4096

    coarse = difference_pairs.drawn_batches(replace(loaded, network=Coarse()), how)[0]
    assert 2**-13 < coarse.rounding() <= 2**-12


def test_the_self_test_allows_what_the_export_was_allowed(place: Path, tmp_path: Path) -> None:
    bundle = open_difference_bundle(place / "bundle")
    shutil.copytree(place / "bundle", tmp_path / "other")
    with np.load(tmp_path / "other" / SELFTEST) as archive:
        arrays = {name: archive[name] for name in archive}
    np.savez_compressed(tmp_path / "other" / SELFTEST, **{**arrays, "maps": arrays["maps"] + np.float32(0.02)})
    other = replace(bundle, path=tmp_path / "other")
    with pytest.raises(RunFailure, match=r"they differ by 0\.02"):
        other.self_test()
    generous = replace(bundle.manifest, verification={"tolerance": 0.004})
    assert replace(other, manifest=generous).self_test() == pytest.approx(0.02, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("export", "run", "--format", "pt2"), "leaves as `onnx`, not as `pt2`"),
        (("export", "run", "--quantize", "fp16"), "a difference model has neither"),
        (("export", "subtraction"), "has no weights, so there is nothing to export"),
        (("export", "siamese-unet"), "medcli diffmap train --model siamese-unet"),
        (("predict", "bundle", "a.png"), "medcli diffmap predict BASELINE FOLLOWUP --run bundle"),
        (
            ("diffmap", "predict", "a.png", "b.png", "--run", "bundle", "--no-antisymmetric"),
            "part of the bundle's graph",
        ),
        (
            ("diffmap", "predict", "a.png", "b.png", "--run", "bundle", "--precision", "bf16"),
            "the numbers it was exported",
        ),
        (("diffmap", "predict", "a.png", "b.png", "--run", "bundle", "--image-size", "64"), "leave `--image-size` out"),
    ],
)
def test_what_cannot_be_had_is_refused(words: tuple[str, ...], said: str, cli: RunCli) -> None:
    done = typed(cli, *words)
    assert done.code == 2
    assert said in done.stderr


def test_a_changed_file_is_refused(cli: RunCli, place: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(place / "bundle", tmp_path / "b"))
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"!")
    done = typed(cli, "diffmap", "predict", "a.png", "b.png", "--run", str(bundle))
    assert (done.code, "not the file that was exported" in done.stderr) == (2, True)


def test_a_benchmark_knows_what_takes_two_pictures(place: Path) -> None:
    items = choose_items(discover(), [str(place / "run"), str(place / "bundle")])
    assert [(one.kind, one.pairs, one.compares) for one in items] == [("run", True, True), ("bundle", True, True)]
    assert items[0].family == "medcli/siamese-unet"


@pytest.mark.slow
def test_runs_and_bundles_of_pairs_are_measured(cli: RunCli) -> None:
    words = ("--batch-sizes", "1,3", "--repeats", "5", "--out", "measured", "--json")
    done = typed(cli, "benchmark", "run", "bundle", *words)
    assert done.code == 0, done.stderr
    document = done.json()
    Draft202012Validator(schema_of("benchmark")).validate(document)
    for row in document["result"]["rows"]:
        assert [one["state"] for one in row["timings"]] == ["measured"] * 2
        assert (row["facts"]["image_size"], row["facts"]["in_channels"]) == (32, 1)


@pytest.mark.slow
def test_without_its_data_it_is_compared_on_drawn_pairs_and_says_so(cli: RunCli, tmp_path: Path) -> None:
    run = a_run(tmp_path / "m", map="magnitude")
    done = typed(cli, "export", str(run), "--out", str(tmp_path / "b"), "--json")
    assert done.code == 0, done.stderr
    found = done.json()
    assert "compared on drawn pairs" in found["warnings"][0]
    (bundle,) = found["result"]["bundles"]
    assert (bundle["antisymmetric"], bundle["threshold"], bundle["verification"]["drawn"]) == (False, 0.25, True)
    assert bundle["verification"]["map"] <= 1e-4
    assert open_difference_bundle(tmp_path / "b").run(*(np.zeros((1, 9, 9, 3), np.uint8),) * 2).min() >= 0


@pytest.mark.slow
def test_the_smallest_usual_encoder_leaves_as_onnx(cli: RunCli, tmp_path: Path) -> None:
    run = a_run(tmp_path / "m", image_size=64, options={"encoder": "resnet10t"})
    done = typed(cli, "export", str(run), "--out", str(tmp_path / "b"), "--json")
    assert done.code == 0, done.stderr
    assert done.json()["result"]["bundles"][0]["verification"]["map"] <= 1e-4


@pytest.mark.parametrize(
    ("shape", "kind", "size"),
    [((97, 333), np.uint8, 64), ((50, 41, 3), np.uint8, 96), ((600, 500), np.uint16, 128), ((1, 1), np.uint8, 32)],
)
def test_pairs_are_resized_as_everything_else_is(shape: tuple[int, ...], kind: type[np.generic], size: int) -> None:
    most = 255 if kind is np.uint8 else 4095
    pixels = np.random.default_rng(0).integers(0, most, shape).astype(kind)
    picture = Picture(pixels, 0, most)
    wanted = to_planes(picture, Preprocessing(size, 1, (0.0,), (1.0,), fit="pad"))[0].numpy()
    np.testing.assert_allclose(padded_square(picture, size), wanted, atol=1e-5)


def test_a_map_grows_as_torch_lets_it_grow() -> None:
    small = np.random.default_rng(0).random((40, 50), dtype=np.float32)
    wanted = torch.nn.functional.interpolate(torch.from_numpy(small)[None, None], size=(130, 160), mode="bilinear")
    np.testing.assert_allclose(resized(small, (130, 160)), wanted[0, 0].numpy(), atol=1e-5)
