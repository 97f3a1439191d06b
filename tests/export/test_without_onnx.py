"""Where the extra `export` is not installed: formats that do without ONNX are written, the others name the extra."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from medcli.testing.command import Outcome, RunCli

HIDING = """
from importlib.machinery import PathFinder

found = PathFinder.find_spec


def find_spec(name, path=None, target=None):
    hidden = name.partition(".")[0] in {"onnx", "onnxruntime", "onnxscript"}
    return None if hidden else found(name, path, target)


PathFinder.find_spec = staticmethod(find_spec)
"""


@pytest.fixture
def bare(workplace: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """medcli in a process that finds no package of ONNX."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HIDING)
    return partial(RunCli(workplace), env={"PYTHONPATH": str(tmp_path / "site")})


def test_weights_and_programs_of_torch_leave_without_onnx(bare: Callable[..., Outcome], tmp_path: Path) -> None:
    done = bare("export", "run", "--format", "safetensors", "--out", str(tmp_path / "weights"))
    assert done.code == 0, done.stderr
    assert (tmp_path / "weights" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "words",
    [
        ("export", "run", "--out", "nowhere"),
        ("predict", "bundle", "data/test"),
        ("evaluate", "run", "--data", "data", "--runtime", "onnx"),
        ("benchmark", "echo", "--runtime", "onnx"),
    ],
    ids=" ".join,
)
def test_what_needs_onnx_names_the_extra(words: tuple[str, ...], bare: Callable[..., Outcome], workplace: Path) -> None:
    done = bare(*words)
    assert done.code == 2, done.stderr
    assert "medcli[export]" in done.stderr
    assert not (workplace / "nowhere").exists()
