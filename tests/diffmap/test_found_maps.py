"""Maps of two files, as typed: values, findings, geometry, every format, and words for every bad input."""

from __future__ import annotations

import importlib
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian
from scipy import ndimage
from torch import nn

from medcli.diffmap.findings import Grid, Limits, findings_of
from medcli.diffmap.map_makers import asked_of
from medcli.diffmap.outputs import folder_names
from medcli.diffmap.pairs import Drawn, Pair
from medcli.diffmap.phantom import draw_phantom_pair
from medcli.diffmap.pictures import LESS, MORE, checkerboard, painted
from medcli.diffmap.prediction import Wanted, _scaled, map_pairs, mapper_for
from medcli.diffmap.reading import read_map
from medcli.diffmap.registration import Alignment
from medcli.diffmap.run import DifferenceSpec, save_difference
from medcli.errors import UsageProblem
from medcli.runs.directory import MANIFEST
from medcli.settings.groups import ComputeSettings
from medcli.testing.command import RunCli

SIZE = 96
SMALL = ("--image-size", "96", "--min-area", "20")
Image32 = npt.NDArray[np.float32]


@pytest.fixture(autouse=True)
def _where_commands_run(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_cli.directory)


@pytest.fixture(scope="module")
def film() -> Image32:
    return draw_phantom_pair(Drawn(1, 3, SIZE)).current


@pytest.fixture
def two(tmp_path: Path, film: Image32) -> tuple[str, str]:
    """A film, and the same with a round opacity in the left of the picture and a lucency in the right."""
    later = film + blob(film.shape, 40, 28, 0.45) - blob(film.shape, 60, 70, 0.45)
    return save(tmp_path / "a.png", film), save(tmp_path / "b.png", later)


def blob(shape: tuple[int, ...], row: int, column: int, height: float, width: float = 40) -> Image32:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (height * np.exp(-((y - row) ** 2 + (x - column) ** 2) / width)).astype(np.float32)


def save(path: Path, image: Image32) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path)
    return str(path)


def save_dicom(path: Path, image: Image32, *, inverse: bool = False, **tags: Any) -> str:
    pixels = np.rint(np.clip(image, 0, 1) * 4095).astype(np.uint16)
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = pydicom.uid.generate_uid()
    file.Rows, file.Columns = pixels.shape
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME1" if inverse else "MONOCHROME2"
    file.PixelData = (4095 - pixels if inverse else pixels).tobytes()
    file.PixelSpacing = [0.5, 0.25]
    for name, value in {"PatientID": "A17", "ViewPosition": "PA", "AcquisitionDate": "20200101", **tags}.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return str(path)


def document(folder: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / "findings.json").read_text())
    return found


class Biased(nn.Module):
    """A network that is wrong by a constant, and sees nothing but the difference."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, baseline: torch.Tensor, followup: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.scale * (followup - baseline) + 0.3 * followup)


def test_findings_lie_where_the_file_changed(two: tuple[str, str], run_cli: RunCli) -> None:
    done = run_cli("diffmap", "predict", *two, *SMALL, "--out", "c", "--json", in_process=True)
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)["result"]["maps"][0]
    assert set(found["files"]) == {"map.npy", "map.png", "overlay.png", "sheet.png", "findings.json"}
    by_sign = {one["sign"]: one for one in found["findings"]}
    assert by_sign[1]["centroid"] == pytest.approx([40, 28], abs=3)
    assert by_sign[-1]["centroid"] == pytest.approx([60, 70], abs=3)
    assert (by_sign[1]["side"], by_sign[-1]["side"]) == ("right", "left")
    assert by_sign[1]["area_mm2"] is None
    assert by_sign[1]["peak"] > 0.2 > -0.2 > by_sign[-1]["peak"]
    held = document("c")
    assert (held["limits"]["min_area"], held["limits"]["min_area_px"], held["limits"]["min_area_mm2"]) == (20, 20, None)
    assert held["caution"] == "research use only"
    assert held["limits"]["source"] == "medcli's default, chosen on no data of yours"
    values = np.load("c/map.npy")
    assert values.shape == (SIZE, SIZE)
    np.testing.assert_allclose(read_map("c/map.png"), np.nan_to_num(values, nan=-1.0), atol=1 / 32767)
    for name in ("overlay.png", "sheet.png"):
        with Image.open(Path("c") / name) as picture:
            assert picture.mode == "RGB"
            assert picture.width >= 800


def test_both_orders_give_opposite_maps_and_one_image_none(two: tuple[str, str]) -> None:
    network = Biased().eval()
    for register in ("none", "affine"):
        mapper = mapper_for(Wanted(register=register, image_size=SIZE), ComputeSettings())  # type: ignore[arg-type]
        asked = asked_of(network, mapper.spec, ComputeSettings())
        mapper = replace(mapper, maker=replace(mapper.maker, difference=asked))
        there, back, same = (
            found for _, found in map_pairs([Pair("1", *two), Pair("2", *two[::-1]), Pair("3", two[0], two[0])], mapper)
        )
        assert not np.nan_to_num(same.values).any()  # type: ignore[union-attr]
        if register == "none":
            mapped = network(*(torch.zeros(1, 1, 2, 2) + 0.5,) * 2)
            assert mapped.abs().max() > 0.1  # by itself the network is not antisymmetric
        else:
            assert np.nanmax(np.abs(there.values)) > 0.1  # type: ignore[union-attr]
            assert np.nanmin(back.values) < -0.1  # type: ignore[union-attr]
    image = torch.rand(1, 1, 8, 8)
    from medcli.diffmap.run import difference_map

    spec = DifferenceSpec("x", "difference", "signed", 1, 8)
    other = torch.rand(1, 1, 8, 8)
    assert difference_map(network, spec, image, image).abs().max() <= 1e-6
    total = difference_map(network, spec, image, other) + difference_map(network, spec, other, image)
    assert total.abs().max() <= 1e-6


def test_a_map_lies_on_the_files_own_pixels(tmp_path: Path, film: Image32, run_cli: RunCli) -> None:
    """Twice as high as the model's square, and not square: columns 24 to 72 of the film."""
    tall = 0.5 * np.kron(film[:, 24:72], np.ones((2, 2), np.float32))
    later = tall + blob(tall.shape, 120, 40, 0.5, 250)
    first = save_dicom(tmp_path / "1.dcm", tall)
    second = save_dicom(tmp_path / "2.dcm", later, inverse=True, AcquisitionDate="20200301")
    words = ("--format", "npy,nifti,dicom", "--register", "none", "--image-size", "96", "--out", "c")
    done = run_cli("diffmap", "predict", first, second, *words, in_process=True)
    assert done.code == 0, done.stderr
    assert "mm²" in done.stdout
    values, held = np.load("c/map.npy"), document("c")
    assert values.shape == (192, 96)
    row, column = np.unravel_index(int(np.nanargmax(values)), values.shape)
    assert (abs(row - 120), abs(column - 40)) <= (4, 4)
    one = held["findings"][0]
    # 0.1 % of 96 x 96 pixels, each four of the file's, of which eight are a mm².
    assert (held["limits"]["min_area_px"], held["limits"]["min_area_mm2"]) == (36, 4.5)
    assert "over at least 4.5 mm² of the later image (0.098% of the map)" in done.stderr
    assert one["area_mm2"] == pytest.approx(one["area_px"] * 0.125, rel=0.01)
    assert one["centroid"] == pytest.approx([120, 40], abs=2)
    image: Any = nib.load("c/map.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 0].T, values)
    assert image.header.get_zooms()[:2] == (0.25, 0.5)
    assert nib.aff2axcodes(image.affine) == ("L", "I", "A")
    made = pydicom.dcmread("c/overlay.dcm")
    assert made.PatientID == "A17"
    assert "research use only" in made.SeriesDescription
    source = pydicom.dcmread(second)
    assert made.SOPInstanceUID != source.SOPInstanceUID
    assert made.pixel_array.shape == (made.Rows, made.Columns, 3)
    assert not Path("c/overlay.png").exists()
    assert "A17" not in Path("c/findings.json").read_text()


def test_geometry_of_the_follow_up_is_kept(tmp_path: Path, film: Image32, run_cli: RunCli) -> None:
    affine = np.array([[0.4, 0, 0, -7], [0, 0.6, 0, 3], [0, 0, 1, 1], [0, 0, 0, 1.0]])
    paths = []
    for name, picture in (("a", film), ("b", np.clip(film + blob(film.shape, 50, 30, 0.4), 0, 1))):
        paths.append(str(tmp_path / f"{name}.nii.gz"))
        nib.save(nib.Nifti1Image(picture.T[..., None], affine), paths[-1])  # type: ignore[attr-defined]
    done = run_cli("diffmap", "predict", *paths, *SMALL, "--format", "nifti", "--out", "c", in_process=True)
    assert done.code == 0, done.stderr
    made: Any = nib.load("c/map.nii.gz")
    np.testing.assert_allclose(made.affine, affine, atol=1e-6)
    assert document("c")["spacing_mm"] == pytest.approx([0.6, 0.4])


def test_areas_boxes_and_sides_are_counted_in_file_pixels() -> None:
    """A square of 3 x 5 map pixels on a square of 10 that shows a file of 40 x 20."""
    values = np.zeros((10, 10), np.float32)
    values[2:5, 3:5] = -0.5
    grid = Grid(10, (40, 20))
    assert grid.inner == (0, 2, 10, 5)
    limits = Limits(0.3, 1, 0.1, "")
    (one,) = findings_of(values, grid, limits, spacing=(0.5, 0.25))
    assert (one.sign, one.area_px, one.area_mm2) == (-1, 6 * 16, 6 * 16 * 0.125)
    assert one.box == (8, 4, 20, 12)
    assert one.centroid == (13.5, 7.5)
    assert one.side == "right"
    assert findings_of(values, grid, limits, mirrored=True)[0].side == "left"
    assert findings_of(values, grid, limits, frontal=False)[0].side is None
    assert not findings_of(values, grid, Limits(0.3, 7, 0.1, ""))
    values[:, 4] = np.nan
    assert np.isnan(grid.unfold(values)).any()
    assert grid.unfold(values).shape == (40, 20)


def test_an_alignment_keeps_its_meaning_at_another_size(film: Image32) -> None:
    alignment = Alignment(np.array([[0.98, 0.05, 3.0], [-0.05, 1.02, -2.0]]), None, (SIZE, SIZE))
    warped, _ = alignment.apply(film)
    double, inside = _scaled(alignment, 2 * SIZE).apply(
        np.asarray(ndimage.zoom(film, 2, order=1, grid_mode=True, mode="nearest"))
    )
    small = double.reshape(SIZE, 2, SIZE, 2).mean(axis=(1, 3))
    sure = ndimage.binary_erosion(inside.reshape(SIZE, 2, SIZE, 2).all(axis=(1, 3)), iterations=2)
    assert np.abs(small - warped)[sure].mean() < 0.01
    assert np.abs(film - warped)[sure].mean() > 0.03


def test_colours_are_fixed_and_small_changes_stay_grey() -> None:
    grey = np.full((1, 5), 0.5, np.float32)
    values = np.array([[0.3, -0.3, 0.05, np.nan, 0.15]], np.float32)
    strong, less, dead, unknown, half = painted(grey, values, dead_zone=0.1, colour_limit=0.3)[0]
    np.testing.assert_allclose(strong, 0.2 * 0.5 + 0.8 * MORE)
    np.testing.assert_allclose(less, 0.2 * 0.5 + 0.8 * LESS)
    np.testing.assert_allclose(dead, 0.5)
    np.testing.assert_allclose(unknown, 0.2)
    np.testing.assert_allclose(half, 0.6 * 0.5 + 0.4 * MORE)
    board = checkerboard(np.zeros((16, 16), np.float32), np.ones((16, 16), np.float32))
    assert (board[0, 0], board[0, 2], board[2, 2]) == (0, 1, 0)


def test_a_run_brings_its_own_threshold_and_registration(two: tuple[str, str], run_cli: RunCli) -> None:
    made = make_run(Path("r"), threshold=0.07)
    done = run_cli("diffmap", "predict", *two, "--run", made, "--out", "c", "--format", "json", in_process=True)
    assert done.code == 0, done.stderr
    held = document("c")
    assert held["limits"]["threshold"] == 0.07
    assert "validation" in held["limits"]["source"]
    assert held["registration"]["how"] == "none"
    assert held["model"] == {"name": "medcli/siamese-unet", "run": made, "image_size": 32, "antisymmetric": True}
    other = run_cli("diffmap", "predict", *two, "--run", made, "--image-size", "64", in_process=True)
    assert other.code == 2
    assert "32 pixels" in other.stderr


def make_run(path: Path, threshold: float) -> str:
    from medcli.diffmap.run import build_network

    spec = DifferenceSpec(
        "medcli/siamese-unet", "difference", "signed", 1, 32, {"encoder": "test_resnet", "width": 4}, register="none"
    )
    path.mkdir()
    (path / MANIFEST).write_text("{}")
    (path / "status.json").write_text(
        json.dumps({"schema": "medcli-status/1", "state": "completed", "command": "diffmap train", "epoch": 1,
                    "epochs": 1, "started": "", "updated": "", "best": {}, "error": ""})
    )  # fmt: skip
    save_difference(path / "model.safetensors", build_network(spec)[0], spec, {"threshold": threshold})
    return str(path)


def test_many_pairs_go_on_past_a_bad_one(tmp_path: Path, two: tuple[str, str], film: Image32, run_cli: RunCli) -> None:
    save(tmp_path / "blank.png", np.full_like(film, 0.5))
    save(tmp_path / "i.png", 1 - film)
    rows = ["pair,baseline,followup", "p/1,a.png,b.png", "../2,a.png,blank.png", "p 1,b.png,a.png"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    words = (
        "--data",
        str(tmp_path / "pairs.csv"),
        *SMALL,
        "--format",
        "json",
        "--workers",
        "2",
        "--out",
        "all",
        "--json",
    )
    done = run_cli("diffmap", "predict", *words, in_process=True)
    assert done.code == 3, done.stderr
    found = json.loads(done.stdout)["result"]
    assert [one["pair"] for one in found["maps"]] == ["p/1", "p 1"]
    assert found["failures"][0]["pair"] == "../2"
    assert "blank" in found["failures"][0]["reason"]
    assert Path("all/p/1/findings.json").is_file()
    assert "--allow-mismatch" not in done.stderr  # nobody can allow a map of nothing
    for other, allowed in (("blank.png", False), ("i.png", True)):
        (tmp_path / "bad.csv").write_text(f"baseline,followup\na.png,{other}\n")
        done = run_cli("diffmap", "predict", "--data", str(tmp_path / "bad.csv"), *SMALL, "--out", "n", in_process=True)
        assert (done.code, "--allow-mismatch" in done.stderr) == (1, allowed), done.stderr
        assert not Path("n").exists()
    assert folder_names([Pair("../x", "", ""), Pair("x", "", ""), Pair("/", "", "")]) == ["x", "x~2", "pair"]


def test_pairs_are_read_while_maps_are_made_but_not_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("medcli.diffmap.prediction")
    here, begun, second = threading.get_ident(), list[str](), threading.Event()
    mapper: Any = None

    def ready(pair: Pair, mapper: object) -> UsageProblem:
        begun.append(pair.identifier)
        if len(begun) >= 2:
            second.set()
        return UsageProblem(f"{pair.identifier} by {threading.get_ident() == here}")

    monkeypatch.setattr(module, "_ready", ready)
    pairs = [Pair(str(number), "", "") for number in range(40)]
    found = module.map_pairs(pairs, mapper, 2)
    first = next(found)
    assert second.wait(10)  # a second pair is read while nobody has asked for it
    assert len(begun) <= 6
    rest = list(found)
    assert [pair.identifier for pair, _ in (first, *rest)] == [pair.identifier for pair in pairs]
    assert {str(problem).split()[-1] for _, problem in rest} == {"False"}
    serial = module.map_pairs(pairs[:3], mapper, 0)
    assert "True" in str(next(serial)[1])
    assert len(begun) == 41


def test_every_bad_input_has_its_own_words(
    tmp_path: Path, two: tuple[str, str], film: Image32, run_cli: RunCli
) -> None:
    first, second = two
    later = film + blob(film.shape, 40, 28, 0.2)
    upside, inverted = save(tmp_path / "u.png", later[::-1, ::-1]), save(tmp_path / "i.png", 1 - later)
    blank = save(tmp_path / "blank.png", np.full_like(film, 0.4))
    holed = film.copy()
    holed[3, 4] = np.nan
    Image.fromarray(holed).save("nan.tif")
    patients = [save_dicom(tmp_path / f"{name}.dcm", film if name == "p" else later, PatientID=name) for name in "pq"]
    frontal = save_dicom(tmp_path / "f.dcm", film)
    lateral = save_dicom(tmp_path / "l.dcm", later, ViewPosition="LL", AcquisitionDate="20200201")
    (tmp_path / "elsewhere").mkdir()
    for words, code, expected in (
        ((first,), 2, "one image is missing"),
        ((), 2, "no images are named"),
        ((first, ""), 2, "one image is missing"),
        ((first, str(tmp_path)), 2, "`--data FOLDER` compares"),
        ((first, "nowhere.png"), 2, "`nowhere.png` does not exist"),
        ((first, second, "--data", "x"), 2, "two files and a set"),
        ((first, upside), 2, "is turned"),
        ((first, inverted), 2, "black and white exchanged"),
        ((first, blank), 2, "FOLLOWUP is blank"),
        (("nan.tif", second), 1, "1 pixel that is NaN"),
        (tuple(patients), 2, "two different patients"),
        ((frontal, lateral), 2, "view `PA` against `LL`"),
        ((first, second, "--run", "elsewhere"), 2, "elsewhere"),
        ((first, second, "--dead-zone", "0.5"), 2, "would hide findings"),
    ):
        done = run_cli("diffmap", "predict", *words, "--image-size", "96", "--out", "bad", in_process=True)
        assert done.code == code, (words, done.stderr)
        assert expected in done.stderr, words
        assert not Path("bad").exists(), words
    allowed = run_cli(
        "diffmap", "predict", *patients, *SMALL, "--allow-mismatch", "--format", "json,dicom", "--out", "ok",
        in_process=True,
    )  # fmt: skip
    assert allowed.code == 0, allowed.stderr
    assert "two different patients" in allowed.stderr
    assert pydicom.dcmread("ok/overlay.dcm").PatientID == ""


def test_a_size_beyond_any_memory_is_refused_before_a_file_is_read() -> None:
    with pytest.raises(UsageProblem, match="at most 4096 pixels a side, not 100000") as caught:
        mapper_for(Wanted(image_size=100_000), ComputeSettings())
    assert (caught.value.where, caught.value.hint) == ("--image-size", "--image-size 1024")


def test_unlike_sizes_and_one_image_twice_are_told(two: tuple[str, str], film: Image32, run_cli: RunCli) -> None:
    larger = save(Path("large.png"), np.kron(film, np.ones((2, 2), np.float32)))
    done = run_cli("diffmap", "predict", two[1], larger, *SMALL, "--format", "npy", "--out", "c", in_process=True)
    assert done.code == 0, done.stderr
    assert "sizes differ: 96×96 and 192×192 pixels" in done.stderr
    assert np.load("c/map.npy").shape == (192, 192)
    occupied = run_cli("diffmap", "predict", *two, *SMALL, "--out", "c", in_process=True)
    assert occupied.code == 2
    copy = Path("copy.png")
    with Image.open(two[0]) as picture:
        picture.save(copy, compress_level=1)
    for other, said in ((two[0], "the same file"), (str(copy), "the same pixels")):
        words = (*SMALL, "--format", "npy", "--no-antisymmetric", "--overwrite", "--out", "c")
        done = run_cli("diffmap", "predict", two[0], other, *words, in_process=True)
        assert done.code == 0, done.stderr
        assert said in done.stderr
        assert "0 findings" in done.stdout
        assert not np.load("c/map.npy").any()


def test_a_missing_package_is_named(two: tuple[str, str], run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    done = run_cli("diffmap", "predict", *two, *SMALL, "--out", "c", in_process=True)
    assert done.code == 2
    assert "pip install 'medcli[diffmap]'" in done.stderr
    assert not Path("c").exists()
    # Nothing is laid over anything here, and what is wrong with the images is found all the same.
    unmoved = (*SMALL, "--register", "none", "--format", "npy", "--out", "c")
    with Image.open(two[1]) as picture:
        picture.transpose(Image.Transpose.ROTATE_180).save("turned.png")
        picture.point(lambda value: 255 - value).save("inverted.png")
    for other, code, said in ((two[1], 0, ""), ("turned.png", 2, "rotated by 180°"), ("inverted.png", 2, "inverted")):
        done = run_cli("diffmap", "predict", two[0], other, *unmoved, "--overwrite", in_process=True)
        assert done.code == code, done.stderr
        assert said in done.stderr


def test_maps_without_signs_take_no_antisymmetry(two: tuple[str, str]) -> None:
    module = importlib.import_module("medcli.diffmap.prediction")
    from medcli.diffmap.run import build_network

    options = {"encoder": "test_resnet", "width": 4}
    spec = DifferenceSpec("medcli/siamese-unet", "difference", "magnitude", 1, 32, options)
    Path("m").mkdir()
    save_difference(Path("m/model.safetensors"), build_network(spec)[0], spec, {})
    (Path("m") / MANIFEST).write_text("{}")
    assert not module.mapper_for(Wanted(run="m"), ComputeSettings()).antisymmetric
    with pytest.raises(UsageProblem, match="magnitudes"):
        module.mapper_for(Wanted(run="m", antisymmetric=True), ComputeSettings())
