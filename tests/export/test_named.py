"""A wrong name after `medcli export` is answered without torch, ONNX or anything else that takes seconds to import."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcli.testing.imports import NoHeavyImports

HEAVY = ("torch", "torchvision", "timm", "transformers", "peft", "sklearn", "onnx", "onnxscript", "onnxruntime")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nosuch", "there is no run `nosuch`"),
        ("folder", "`folder` is not a run directory of medcli"),
        ("resnet18", "`resnet18` is an architecture, and a run is asked for here"),
        ("siamese-unet", "`siamese-unet` is a difference model, and a run is asked for here"),
        ("subtraction", "`subtraction` has no weights, so there is nothing to export"),
    ],
)
def test_a_name_that_is_no_run(no_heavy_imports: NoHeavyImports, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder").mkdir()
    outcome = no_heavy_imports.cli("export", name, blocked=HEAVY, cwd=tmp_path)
    assert outcome.code == 2
    assert outcome.stderr.startswith(f"error: {said}"), outcome.stderr
    assert "hint: " in outcome.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]
