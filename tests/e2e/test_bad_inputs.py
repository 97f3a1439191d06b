"""What `medcli` says to bad input: one clear error, the right exit status, and nothing half-written."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from medcli.testing.command import Outcome, RunCli

TINY = ("timm/test_resnet", "--image-size", "32", "--batch-size", "4", "--augment", "none", "--workers", "0")
TRAIN = ("train", *TINY, "--epochs", "1")

Refused = Callable[..., Outcome]
Maker = Callable[[Path], object]


def noise(side: int = 40, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side), dtype=np.uint8))


def folder(path: Path, classes: str = "ab", count: int = 8) -> Path:
    for shift, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for number in range(count):
            noise(seed=100 * shift + number).save(path / name / f"{name}{number}.png")
    return path


def archive(path: Path, seed: int = 3, **changes: npt.NDArray[Any] | None) -> Path:
    """A MedMNIST-style archive of two classes; a change of None leaves an array out."""
    random = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 16), ("val", 8), ("test", 8)):
        arrays[f"{split}_images"] = random.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return path


def table(path: Path, grade: str = "2") -> Path:
    """`t.csv` over the folder `good`; the label in line 5 is `grade`."""
    folder(path.parent / "good")
    rows = [f"good/{name}/{name}{number}.png,{name},{number % 3}" for name in "ab" for number in range(8)]
    rows[3] = f"good/a/a3.png,a,{grade}"
    path.write_text("\n".join(["image,finding,grade", *rows]) + "\n")
    return path


def dicom(path: Path, *, pixels: bool = True, compressed: bytes = b"") -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = JPEG2000Lossless if compressed else ExplicitVRLittleEndian
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.PatientName = "Secret^Name"
    if pixels:
        header.Rows = header.Columns = 40
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.PixelData = encapsulate([compressed]) if compressed else bytes(range(200)) * 16
    header.save_as(path, enforce_file_format=True)
    return path


def left_behind(directory: Path) -> set[Path]:
    """Every file, and every folder but those of libraries' caches and empty ones in ours."""
    found = {path for path in directory.rglob("*") if "matplotlib" not in path.parts and ".cfg" not in path.parts}
    return {path for path in found if path.is_file() or not any(part.startswith(".") for part in path.parts)}


@pytest.fixture
def refused(run_cli: RunCli) -> Refused:
    """Runs a command that must fail as said, and leave nothing."""

    def call(
        *arguments: str | Path, code: int = 2, says: tuple[str, ...], env: dict[str, str] | None = None
    ) -> Outcome:
        before = left_behind(run_cli.directory)
        done = run_cli(*arguments, in_process=True, env=env)
        assert done.code == code, done.stdout + done.stderr
        assert done.stderr.count("error: ") == 1
        for unwanted in ("Traceback", "unexpected", "Error:"):
            assert unwanted not in done.stderr
        for words in says:
            assert words in done.stderr
        assert left_behind(run_cli.directory) == before
        return done

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the archive `two.npz` and a finished run on it, `run`; copied by who changes it."""
    place = tmp_path_factory.mktemp("finished")
    archive(place / "two.npz")
    done = RunCli(place)(*TRAIN, "--data", place / "two.npz", "--out", "run", in_process=True)
    assert done.code == 0, done.stderr
    return place


@pytest.fixture
def run(finished: Path, run_cli: RunCli) -> Path:
    """That run, copied to where the test works."""
    return Path(shutil.copytree(finished / "run", run_cli.directory / "run"))


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("unpickled",)


OBJECTS = np.array([Evil()] * 16, dtype=object)
DATA: list[tuple[str, Maker | None, tuple[str, ...], tuple[str, ...]]] = [
    ("missing", None, ("nowhere",), ("`nowhere` does not exist", "--data")),
    ("missing archive", lambda d: archive(d / "two.npz"), ("tow.npz",), ("`tow.npz` does not exist", "`two.npz`")),
    ("empty folder", lambda d: (d / "x").mkdir(), ("x",), ("`x` holds no images",)),
    ("empty classes", lambda d: (d / "x" / "a").mkdir(parents=True), ("x",), ("`x` holds no images",)),
    ("one class", lambda d: folder(d / "x", "a"), ("x",), ("one class only (`a`)", "from: x")),
    (
        "one class in train",
        lambda d: archive(d / "x.npz", train_labels=np.zeros((16, 1), np.uint8)),
        ("x.npz",),
        ("one class only (`0`)", "from: x.npz", "data check --data x.npz"),
    ),
    ("an image", lambda d: noise().save(d / "x.png"), ("x.png",), ("neither a folder, a table",)),
    ("empty table", lambda d: (d / "x.csv").write_bytes(b""), ("x.csv",), ("`x.csv` is empty",)),
    ("header alone", lambda d: (d / "x.csv").write_text("image,y\n"), ("x.csv",), ("no rows",)),
    ("no text", lambda d: (d / "x.csv").write_bytes(bytes(range(256))), ("x.csv",), ("not UTF-8", "x.csv:")),
    (
        "no label column",
        lambda d: table(d / "t.csv"),
        ("t.csv", "--label-column", "diagnosis"),
        ("no column `diagnosis`", "`image`, `finding`, `grade`", "--label-column"),
    ),
    (
        "no image column",
        lambda d: table(d / "t.csv"),
        ("t.csv", "--label-column", "finding", "--image-column", "file"),
        ("no column `file`", "--image-column"),
    ),
    (
        "no patient column",
        lambda d: table(d / "t.csv"),
        ("t.csv", "--label-column", "finding", "--patient-column", "who"),
        ("no column `who`", "--patient-column"),
    ),
    (
        "no number",
        lambda d: table(d / "t.csv", "severe"),
        ("t.csv", "--label-column", "grade", "--task", "ordinal"),
        ("`severe` in `grade` is no number", "t.csv:5"),
    ),
    (
        "out of range",
        lambda d: table(d / "t.csv", "7"),
        ("t.csv", "--label-column", "grade", "--class-names", "none,some,much"),
        ("`7` in `grade` is out of range", "0 to 2", "t.csv:5"),
    ),
    (
        "negative",
        lambda d: table(d / "t.csv", "-5"),
        ("t.csv", "--label-column", "grade"),
        ("`-5` in `grade` is no whole number", "t.csv:5"),
    ),
    (
        "label out of range in an archive",
        lambda d: archive(d / "x.npz", val_labels=np.full((8, 1), 9)),
        ("x.npz",),
        ("8 labels are impossible", "val_labels[0]", "out of range", "data check --data x.npz"),
    ),
    (
        "no labels in one split",
        lambda d: archive(d / "x.npz", train_labels=np.full((16, 1), np.nan)),
        ("x.npz",),
        ("no `train` case of `x.npz` has a label",),
    ),
    (
        "without the keys",
        lambda d: np.savez(d / "x.npz", images=np.zeros(3)),
        ("x.npz",),
        ("no arrays `train_images` and `train_labels`", "it holds `images`"),
    ),
    (
        "without one key",
        lambda d: archive(d / "x.npz", val_labels=None),
        ("x.npz",),
        ("no array `val_labels`", "it holds"),
    ),
    (
        "object labels",
        lambda d: archive(d / "x.npz", train_labels=OBJECTS[:, None]),
        ("x.npz",),
        ("`train_labels` holds Python objects", "never unpickled"),
    ),
    (
        "object images",
        lambda d: archive(d / "x.npz", train_images=OBJECTS),
        ("x.npz",),
        ("`train_images` holds Python objects",),
    ),
    (
        "numbers of images and labels",
        lambda d: archive(d / "x.npz", train_labels=np.zeros((11, 1), np.uint8)),
        ("x.npz",),
        ("16 images and its labels 11 rows", "x.npz"),
    ),
    (
        "sizes of the splits",
        lambda d: archive(d / "x.npz", val_images=np.zeros((8, 14, 14), np.uint8)),
        ("x.npz",),
        ("`val_images` is uint8 (14, 14) and `train_images` uint8 (28, 28)",),
    ),
    ("no archive", lambda d: (d / "x.npz").write_bytes(b"hello"), ("x.npz",), ("`x.npz` is not an .npz archive",)),
    ("empty archive", lambda d: (d / "x.npz").write_bytes(b""), ("x.npz",), ("`x.npz` is not an .npz archive",)),
]


@pytest.mark.parametrize(("make", "given", "says"), [case[1:] for case in DATA], ids=[case[0] for case in DATA])
def test_data_that_cannot_be_trained_on(
    run_cli: RunCli, refused: Refused, make: Maker | None, given: tuple[str, ...], says: tuple[str, ...]
) -> None:
    if make is not None:
        make(run_cli.directory)
    refused(*TRAIN, "--data", *given, says=says)


def truncated(path: Path, kind: str) -> None:
    content = io.BytesIO()
    noise(64).save(content, kind)
    path.write_bytes(content.getvalue()[: len(content.getvalue()) // 2])


def frames(path: Path) -> None:
    noise().save(path, save_all=True, append_images=[noise(seed=1), noise(seed=2)])


UNREADABLE: list[tuple[str, Maker, str]] = [
    ("truncated.png", lambda p: truncated(p, "PNG"), "truncated"),
    ("truncated.jpg", lambda p: truncated(p, "JPEG"), "truncated"),
    ("text.png", lambda p: p.write_text("hello"), "this is not an image"),
    ("zero.png", lambda p: p.write_bytes(b""), "the file is empty (0 bytes)"),
    ("dot.png", lambda p: noise(1).save(p), "1×1 pixels are too few"),
    ("moving.gif", frames, "holds 3 frames"),
    ("pages.tif", frames, "holds 3 frames"),
    ("huge.png", lambda p: Image.new("1", (20000, 20000)).save(p), "20000×20000 pixels"),
    ("nopixels.dcm", lambda p: dicom(p, pixels=False), "holds no pixels"),
    ("text.dcm", lambda p: p.write_text("hello"), "not a DICOM file"),
    ("damaged.dcm", lambda p: dicom(p, compressed=b"\xff\x4f\xff\x51" + bytes(60)), "its pixel data is damaged"),
    ("junk.nii", lambda p: p.write_bytes(b"junk" * 200), "not a NIfTI file"),
]


@pytest.mark.parametrize(("name", "make", "says"), UNREADABLE, ids=[case[0] for case in UNREADABLE])
def test_an_image_that_cannot_be_read(
    run_cli: RunCli, refused: Refused, run: Path, name: str, make: Maker, says: str
) -> None:
    make(run_cli.directory / name)
    refused("data", "inspect", name, code=1, says=(name, says))
    refused("predict", run, name, "--out", "scores.csv", code=1, says=(name, says))


def test_one_bad_file_costs_nothing_but_itself(run_cli: RunCli, run: Path) -> None:
    folder(run_cli.directory / "images", "a", 2)
    (run_cli.directory / "images" / "a" / "a00.png").write_bytes(b"")
    done = run_cli("predict", run, "images", "--json", in_process=True)
    assert done.code == 3
    document = json.loads(done.stdout)
    assert document["status"] == "partial"
    assert [row["image"] for row in document["result"]["predictions"]] == ["images/a/a0.png", "images/a/a1.png"]
    assert [row["image"] for row in document["result"]["failures"]] == ["images/a/a00.png"]


def cmyk() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 40, 4), dtype=np.uint8), "CMYK")


ODD: list[tuple[str, Maker, str]] = [
    ("cmyk.jpg", lambda p: cmyk().save(p), "CMYK to RGB"),
    ("deep.png", lambda p: Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40)).save(p), "16 bits kept"),
    ("wide.png", lambda p: Image.new("L", (20000, 30)).save(p), "20000×30"),
]


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("name", "make", "says"), ODD, ids=[case[0] for case in ODD])
def test_an_odd_image_that_can_be_read(run_cli: RunCli, run: Path, name: str, make: Maker, says: str) -> None:
    make(run_cli.directory / name)
    shown = run_cli("data", "inspect", name, in_process=True)
    assert shown.code == 0, shown.stderr
    assert says in shown.stdout
    assert run_cli("predict", run, name, in_process=True).code == 0


def test_a_missing_decoder_is_named(
    run_cli: RunCli, refused: Refused, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_decoder(JPEG2000Lossless), "_available", {})
    dicom(run_cli.directory / "x.dcm", compressed=b"\xff\x4f\xff\x51" + bytes(60))
    for command in (("data", "inspect", "x.dcm"), ("predict", run, "x.dcm")):
        done = refused(*command, code=1, says=("JPEG 2000", "not installed", "pip install 'medcli[dicom]'"))
        assert "Secret" not in done.stderr


@pytest.mark.parametrize("cache", ["memory", "disk", "off"])
def test_every_unreadable_image_is_named_before_the_first_step(run_cli: RunCli, refused: Refused, cache: str) -> None:
    images = folder(run_cli.directory / "x")
    for name, make, _ in UNREADABLE[:5]:
        make(images / "a" / name)
    dicom(images / "b" / "nopixels.dcm", pixels=False)
    says = (
        "6 images of 22 cannot be read",
        "nopixels.dcm: this",
        "--skip-unreadable",
        *(one[0] for one in UNREADABLE[:5]),
    )
    refused(*TRAIN, "--data", "x", "--out", "run", "--cache", cache, code=1, says=says)


def test_images_left_out_never_leave_a_batch_of_one(run_cli: RunCli) -> None:
    """Nine training images are two batches of four and one; the last would have no variance to normalise with."""
    labels = np.arange(10) % 2
    archive(run_cli.directory / "x.npz", train_images=np.zeros((10, 28, 28)), train_labels=labels[:, None])
    with np.load(run_cli.directory / "x.npz") as stored:
        arrays = {name: stored[name] / 255 if name.endswith("images") else stored[name] for name in stored.files}
    arrays["train_images"][4] = 7.0
    np.savez(run_cli.directory / "x.npz", **arrays)
    done = run_cli(*TRAIN, "--data", "x.npz", "--skip-unreadable", "--out", "run", in_process=True)
    assert done.code == 0, done.stderr
    assert "left out 1 unreadable images" in done.stderr
    assert json.loads((run_cli.directory / "run" / "data.json").read_text())["skipped"]


def test_a_damaged_array_is_one_line(run_cli: RunCli, refused: Refused) -> None:
    path = archive(run_cli.directory / "x.npz")
    content = bytearray(path.read_bytes())
    content[3000:3200] = bytes(200)
    path.write_bytes(content)
    done = refused(*TRAIN, "--data", "x.npz", code=1, says=("train_images: damaged array", "(16 images)"))
    assert done.stderr.count("damaged") == 1


SETTINGS: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    ("--device", ("--device", "gpu"), ("`--device` must be", "not `gpu`")),
    ("--precision", ("--precision", "fp16", "--device", "cpu"), ("needs a GPU", "--precision fp32")),
    ("--loss", ("--loss", "corn"), ("`corn` does not fit a binary target", "--loss ce")),
    ("--monitor", ("--monitor", "qwk"), ("needs ordered grades", "--monitor auc")),
    ("--freeze", ("--freeze-backbone", "--freeze-layers", "1"), ("`--freeze-backbone` and `--freeze-layers` exclude",)),
    ("--freeze-layers", ("--freeze-layers", "99"), ("99 stages", "has 5", "--freeze-backbone")),
    ("--class-weights", ("--class-weights", "1,2,3"), ("3 numbers", "2 classes")),
    ("--arch-opt", ("--arch-opt", "foo=1"), ("no option `foo`", "--arch-opt")),
    ("--arch-opt form", ("--arch-opt", "foo"), ("not KEY=VALUE",)),
    ("--weights", ("--weights", "no.safetensors"), ("no weight file `no.safetensors`", "--weights")),
    (
        "--pretrained",
        ("--pretrained",),
        ("are not on this machine", "medcli models fetch", "--pretrained", "--weights FILE"),
    ),
    ("--init-from", ("--init-from", "norun"), ("no run `norun`", "--init-from")),
    ("--positive-class", ("--positive-class", "x"), ("`--positive-class x` is not one of the classes `0`, `1`",)),
    ("--in-channels", ("--in-channels", "2"), ("must be 1 or 3",)),
    ("--split", ("--split", "0.5,0.5"), ("three shares",)),
    ("--lr", ("--lr", "fast"), ("`lr` must be a number above 0, not `fast`", "`--lr`")),
    ("--augment", ("--augment", "strong"), ("`light`", "not `strong`")),
    ("--preset", ("--preset", "nothing"), ("no preset `nothing`", "config presets")),
    ("--config", ("--config", "none.toml"), ("no file `none.toml`",)),
    ("--batch-size", ("--batch-size", "1"), ("cannot learn from one image", "--batch-size 2")),
    ("--limit", ("--limit", "1"), ("cannot learn from one image", "two.npz")),
    ("option", ("--leraning-rate", "1"), ("no option `--leraning-rate`", "train --help")),
]


@pytest.mark.parametrize(("given", "says"), [case[1:] for case in SETTINGS], ids=[case[0] for case in SETTINGS])
def test_settings_that_cannot_be(
    finished: Path, refused: Refused, given: tuple[str, ...], says: tuple[str, ...]
) -> None:
    env = {"HF_HUB_CACHE": "empty"}
    refused(*TRAIN, "--data", finished / "two.npz", *given, "--out", "new", says=says, env=env)


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="this machine has a GPU")
def test_no_gpu(finished: Path, refused: Refused, run: Path) -> None:
    says = ("`cuda` is not available", "--device cpu")
    refused(*TRAIN, "--data", finished / "two.npz", "--device", "cuda", "--out", "new", says=says)
    refused("predict", run, finished / "two.npz", "--device", "cuda", says=says)


ARCHITECTURES: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    ("unknown", ("resnt18",), ("unknown architecture `resnt18`", "did you mean `resnet18`")),
    ("unknown timm", ("timm/resnt18",), ("unknown architecture `timm/resnt18`", "`timm/resnet18`")),
    ("size", ("vit_tiny_patch16_224", "--image-size", "50"), ("50 × 50", "the nearest size it can take is 48")),
    ("too small", ("densenet121", "--image-size", "8"), ("8 × 8", "--image-size 29")),
    ("option", ("resnet18", "--arch-opt", "patch_size=8"), ("`resnet18` has no option `patch_size`", "`stem`")),
    ("choice", ("resnet18", "--arch-opt", "stem=huge"), ("`huge`, not one of `standard`, `small`",)),
    ("range", ("vit_tiny_patch16_224", "--arch-opt", "patch_size=0"), ("is 0, below 1", "--arch-opt")),
    ("drop path", ("custom1", "--drop-path", "0.1"), ("no stochastic depth", "--drop-path")),
]


@pytest.mark.parametrize(("given", "says"), [case[1:] for case in ARCHITECTURES], ids=[one[0] for one in ARCHITECTURES])
def test_architectures_that_cannot_be(
    finished: Path, refused: Refused, given: tuple[str, ...], says: tuple[str, ...]
) -> None:
    refused("train", *given, "--data", finished / "two.npz", "--out", "new", says=says)


TOML: list[tuple[str, bytes, tuple[str, ...]]] = [
    ("key", b"[train]\nlr = 1\nbatch_sise = 4\n", ("unknown setting `batch_sise`", "x.toml:3", "`batch_size`")),
    ("table", b"[trian]\nepochs = 4\n", ("unknown table `[trian]`", "x.toml:1", "`train`")),
    ("syntax", b"[train]\nepochs = = 4\n", ("not valid TOML", "x.toml:2:10")),
    ("value", b"epochs = -3\n", ("`epochs` must be a whole number of at least 1, not `-3`", "x.toml:1")),
    ("bytes", b"a = 1\n\xff\xfe\n", ("not UTF-8", "x.toml:2")),
]


@pytest.mark.parametrize(("text", "says"), [case[1:] for case in TOML], ids=[case[0] for case in TOML])
def test_settings_files(finished: Path, run_cli: RunCli, refused: Refused, text: bytes, says: tuple[str, ...]) -> None:
    (run_cli.directory / "x.toml").write_bytes(text)
    refused(*TRAIN, "--data", finished / "two.npz", "--config", "x.toml", says=says)
    refused("config", "check", "x.toml", says=says)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("MEDCLI_EPOCH", "3", ("unknown variable `MEDCLI_EPOCH`", "`MEDCLI_EPOCHS`")),
        ("MEDCLI_SEED", "many", ("`seed`", "not `many`", "variable `MEDCLI_SEED`")),
        ("MEDCLI_TRAIN_LR", "-1", ("`lr` must be", "variable `MEDCLI_TRAIN_LR`")),
    ],
)
def test_variables(finished: Path, refused: Refused, variable: str, value: str, says: tuple[str, ...]) -> None:
    refused(*TRAIN, "--data", finished / "two.npz", env={variable: value}, says=says)


def test_an_occupied_output(finished: Path, run_cli: RunCli, refused: Refused, run: Path) -> None:
    data = finished / "two.npz"
    (run_cli.directory / "mine").mkdir()
    (run_cli.directory / "mine" / "notes.txt").write_text("mine")
    refused(*TRAIN, "--data", data, "--out", "mine", says=("`mine` is not empty", "--out"))
    refused(*TRAIN, "--data", data, "--out", "run", says=("`run` is not empty", "--resume run", "--overwrite"))
    notes = "mine/notes.txt"
    refused(*TRAIN, "--data", data, "--out", notes, says=(f"`{notes}` is a file",))
    refused(*TRAIN, "--data", data, "--out", f"{notes}/new", says=("cannot be made",))
    (run_cli.directory / "scores.csv").write_text("mine")
    refused("predict", run, data, "--out", "scores.csv", says=("exists already", "--overwrite"))
    refused("predict", run, data, "--out", "scores.xlsx", says=("neither .csv nor .json",))


def test_a_run_of_another_kind(run_cli: RunCli, refused: Refused, run: Path, finished: Path) -> None:
    folder(run_cli.directory / "three", "abc", 4)
    says = ("the labels `a`, `b`, `c` are none of the classes the model was trained for: `0`, `1`", "three")
    refused("evaluate", run, "--data", "three", says=says)
    table(run_cli.directory / "t.csv")
    several = ("--label-column", "grade", "--label-column", "finding")
    refused("evaluate", run, "--data", "t.csv", *several, says=("one binary target", "2 label columns"))
    other = ("train", "custom1", "--image-size", "32", "--data", finished / "two.npz", "--init-from", "run")
    refused(*other, "--out", "new", says=("timm/test_resnet", "custom1", "--init-from"))
    refused("predict", "three", "three", says=("`three` is not a run directory of medcli", "runs list"))
    refused("evaluate", "nowhere", says=("`nowhere`", "runs list"))


def test_damaged_parts_of_a_run(run_cli: RunCli, refused: Refused, run: Path, finished: Path) -> None:
    data = finished / "two.npz"
    (run / "predictions" / "test.npz").write_bytes(b"junk")
    refused("evaluate", run, says=("damaged", "test.npz"))
    (run / "checkpoints" / "last.safetensors").write_bytes(b"junk")
    before = (run / "status.json").read_bytes()
    refused("train", "--resume", run, "--extend", "1", says=("not a whole checkpoint", "last.safetensors"))
    assert (run / "status.json").read_bytes() == before
    (run / "model.safetensors").write_bytes(b"junk")
    for command in (("predict", run, data), (*TRAIN, "--data", data, "--init-from", run, "--out", "new")):
        refused(*command, says=("model.safetensors` is damaged",))
    (run / "model.safetensors").unlink()
    refused("predict", run, data, says=("no model file",))
    (run_cli.directory / "w.pth").write_bytes(b"junk")
    refused(*TRAIN, "--data", data, "--weights", "w.pth", "--out", "new", says=("`w.pth` is damaged", "--weights"))


def test_what_cannot_go_on(run_cli: RunCli, refused: Refused) -> None:
    """A finished run is no error and stays as it is; changed or missing data stops before anything is touched."""
    place = run_cli.directory
    archive(place / "x.npz")
    assert run_cli(*TRAIN, "--data", "x.npz", "--out", "run", in_process=True).code == 0
    kept = {path: path.read_bytes() for path in (place / "run").rglob("*") if path.is_file()}
    done = run_cli("train", "--resume", "run", in_process=True)
    assert done.code == 0
    assert "--extend" in done.stderr
    assert {path: path.read_bytes() for path in (place / "run").rglob("*") if path.is_file()} == kept
    archive(place / "x.npz", seed=4)
    refused("train", "--resume", "run", "--extend", "1", says=("image files in train changed", "--accept-data-change"))
    (place / "x.npz").rename(place / "y.npz")
    refused("train", "--resume", "run", "--extend", "1", says=("x.npz` does not exist",))
    assert {path: path.read_bytes() for path in (place / "run").rglob("*") if path.is_file()} == kept


def test_a_loss_that_is_no_number(finished: Path, run_cli: RunCli) -> None:
    wild = ("--lr", "1e30", "--clip-grad", "0", "--optimizer", "sgd", "--out", "run")
    done = run_cli(*TRAIN, "--data", finished / "two.npz", *wild, in_process=True)
    assert done.code == 1
    assert "the loss became" in done.stderr
    assert "the batch held: train/" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((run_cli.directory / "run" / "status.json").read_text())["state"] == "failed"
    assert not list((run_cli.directory / "run").rglob("*.safetensors"))


def test_images_too_large_for_the_machine(finished: Path, refused: Refused) -> None:
    # More than any address space holds, so that no system promises the memory first and kills afterwards.
    side = "20000000"
    wanted = ("train", TINY[0], "--image-size", side, "--data", finished / "two.npz", "--out", "new")
    refused(*wanted, code=1, says=("out of memory", f"{side} × {side}", "--image-size"))


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Limits the size of every file, as a full disk would; lifted at the end of the test."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_no_space(
    finished: Path, run_cli: RunCli, refused: Refused, run: Path, small_files: Callable[[int], None]
) -> None:
    data = finished / "two.npz"
    small_files(100_000)
    done = run_cli(*TRAIN, "--data", data, "--out", "full", in_process=True)
    small_files(200)
    scores = ("predict", run, data, "--out", "scores.csv")
    refused(*scores, code=1, says=("`scores.csv` cannot be written: file too large",))
    says = ("decoded images cannot be kept in", "--cache off")
    refused(*TRAIN, "--data", data, "--out", "new", "--cache", "disk", code=1, says=says)
    small_files(0)
    refused(*TRAIN, "--data", data, "--out", "new", says=("`new` cannot be written: file too large", "--out"))
    small_files(10**9)
    assert done.code == 1
    assert "model.safetensors` cannot be written: file too large" in done.stderr
    assert json.loads((run_cli.directory / "full" / "status.json").read_text())["state"] == "failed"
    assert not list((run_cli.directory / "full").rglob("*.safetensors*"))
