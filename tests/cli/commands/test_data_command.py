"""`data check` and `data inspect` as a user types them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.testing.command import RunCli


def _set(root: Path) -> Path:
    number = 0
    for split, count in (("train", 12), ("val", 3), ("test", 4)):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for _ in range(count):
                pixels = np.random.default_rng(number).integers(0, 256, (24, 24), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
                number += 1
    return root


def test_clean_data(run_cli: RunCli, tmp_path: Path) -> None:
    done = run_cli("data", "check", "--data", str(_set(tmp_path / "set")), "--near-duplicates")
    assert done.code == 0
    assert "no leakage found" in done.stdout
    quiet = run_cli("data", "check", "--data", str(tmp_path / "set"), "-q")
    assert quiet.stdout.strip() == "clean"


def test_leakage_exits_4_and_lists_rows_to_drop(run_cli: RunCli, tmp_path: Path) -> None:
    root = _set(tmp_path / "set")
    shutil.copy(root / "train/a/0.png", root / "test/a/copy.png")
    report = tmp_path / "drop.csv"
    done = run_cli("data", "check", "--data", str(root), "--fix-report", str(report), "--json")
    assert done.code == 4
    document = json.loads(done.stdout)
    assert document["result"]["leakage"] is True
    (finding,) = document["result"]["data"][0]["findings"]
    assert finding["kind"] == "duplicate"
    with report.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["split"], row["reason"]) for row in rows] == [("train/a/0.png", "train", "duplicate")]
    assert run_cli("data", "check", "--data", str(root), "--fix-report", str(report)).code == 4
    without = run_cli("data", "check", "--data", str(root), "--leave-out", str(report))
    assert without.code == 0, without.stdout
    assert "no leakage found" in without.stdout


def test_unreadable_files_exit_3(run_cli: RunCli, tmp_path: Path) -> None:
    root = _set(tmp_path / "set")
    (root / "train/a/0.png").write_bytes(b"")
    done = run_cli("data", "check", "--data", str(root))
    assert done.code == 3
    assert "the file is empty" in done.stdout


def test_a_report_never_replaces_a_foreign_file(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,y\n")
    root = _set(tmp_path / "set")
    done = run_cli("data", "check", "--data", str(root), "--fix-report", str(tmp_path / "labels.csv"))
    assert done.code == 2
    assert (tmp_path / "labels.csv").read_text() == "id,y\n"


@pytest.mark.parametrize("arguments", [(), ("--data", "missing.npz")])
def test_bad_usage_exits_2(run_cli: RunCli, arguments: tuple[str, ...]) -> None:
    assert run_cli("data", "check", *arguments).code == 2


def test_inspect(run_cli: RunCli, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)).save(path)
    preview = tmp_path / "preview.png"
    done = run_cli("data", "inspect", str(path), "--out", str(preview))
    assert done.code == 0
    assert "16 bits kept" in done.stdout
    with Image.open(preview) as image:
        assert image.size == (8, 6)
        assert np.asarray(image).max() == 255
    assert run_cli("data", "inspect", str(path), "--out", str(preview)).code == 2
    document = json.loads(run_cli("data", "inspect", str(path), "--json").stdout)
    assert document["result"]["picture"]["white"] == 65535
    assert document["result"]["facts"]["format"] == "PNG"


def test_inspect_names_what_is_wrong(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    done = run_cli("data", "inspect", str(tmp_path / "a.png"))
    assert done.code == 1
    assert "not an image" in done.stderr
    assert run_cli("data", "inspect", str(tmp_path / "none.png")).code == 2
    assert run_cli("data", "inspect", str(tmp_path)).code == 2
    assert run_cli("data", "inspect", str(tmp_path / "a.png"), "--window", "wide").code == 2


def test_inspect_shows_no_patient(run_cli: RunCli, shared_data: Path) -> None:
    path = shared_data / "data/dicom_cxr/RG1_J2KI_chest_monochrome1_16bit_j2k.dcm"
    done = run_cli("data", "inspect", str(path))
    assert done.code == 0
    assert "values not shown" in done.stdout
    assert "inverted" in done.stdout
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True)
    assert str(header.PatientName) not in done.stdout
    assert str(header.PatientID) not in done.stdout
