"""What `explain --save` leaves in a run is shown as far as it is sound."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from medcli.report.explained import SCHEMA, read_explanations
from medcli.runs.directory import RunDirectory
from medcli.testing.command import RunCli


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "PNG")
    return stream.getvalue()


def explained(run: RunDirectory) -> None:
    folder = run.path / "explanations"
    folder.mkdir()
    (folder / "a.png").write_bytes(png())
    (folder / "b.png").write_bytes(b"<svg onload=alert(1)>")
    (run.path / "outside.png").write_bytes(png())
    base = {"method": "grad-cam", "target_class": "<b>sick", "label": "well", "probability": 0.93}
    entries = [
        {"id": "test 1", "file": "a.png", "kind": "example", **base},
        {"id": "test 2", "file": "a.png", "kind": "worst-error", **base, "probability": None},
        {"id": "test 3", "file": "b.png", "kind": "example", **base},
        {"id": "test 4", "file": "../outside.png", "kind": "example", **base},
        {"id": "test 5", "file": "absent.png", "kind": "example", **base},
        "no entry",
    ]
    (folder / "index.json").write_text(json.dumps({"schema": SCHEMA, "explanations": entries}))


def test_sound_pictures_are_embedded_and_others_named(
    run_cli: RunCli, tmp_path: Path, toy: SimpleNamespace, read_page: Callable[[str], Any]
) -> None:
    run = toy.make_run(tmp_path / "run", [toy.binary()])
    explained(run)
    found = read_explanations(run)
    assert [(case.identifier, case.worst) for case in found.cases] == [("test 1", False), ("test 2", True)]
    assert [problem.partition(":")[0] for problem in found.problems] == [
        f"explanation {number} is left out" for number in (3, 4, 5, 6)
    ]
    assert run_cli("report", run.path, "--bootstrap", "0", in_process=True).code == 0
    page = read_page((run.path / "report.html").read_text(encoding="utf-8"))
    pictures = [alt for alt, picture in page.images if picture == png()]
    assert pictures[0].startswith("Example, explained picture of test 1: <b>sick 0.930, label well")
    assert pictures[1].startswith("Worst error")
    assert 'class="gallery broad"' in (run.path / "report.html").read_text(encoding="utf-8")
    assert "another calibration" not in page.text
    assert "outside the folder" in page.text
    assert "no PNG" in page.text


def test_an_unreadable_index_is_said(tmp_path: Path, toy: SimpleNamespace) -> None:
    run = toy.make_run(tmp_path / "run", [])
    assert read_explanations(run).cases == ()
    (run.path / "explanations").mkdir()
    for text in ("{", '{"explanations": 3}'):
        (run.path / "explanations" / "index.json").write_text(text)
        found = read_explanations(run)
        assert not found.cases
        assert len(found.problems) == 1


def test_numbers_of_another_calibration_are_said(run_cli: RunCli, tmp_path: Path, toy: SimpleNamespace) -> None:
    run = toy.make_run(tmp_path / "run", [toy.binary()])
    explained(run)
    index = run.path / "explanations" / "index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "calibrator": "temperature, fitted on val"}))
    assert read_explanations(run).calibrator == "temperature, fitted on val"
    assert run_cli("report", run.path, "--bootstrap", "0", in_process=True).code == 0
    assert "of another calibration" in (run.path / "report.html").read_text(encoding="utf-8")
