"""The page for plugin authors keeps its word: its reference is current, and every block of code on it works."""

from __future__ import annotations

import importlib
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from dataclasses import fields
from pathlib import Path

import pytest
import tomli
import torch
from safetensors.torch import save_file

import medcli.plugin
from medcli.errors import UsageProblem
from medcli.plugin import ArchitectureCard
from medcli.registry.card_schema import RECIPE_SETTINGS, STRATEGIES

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
PAGE = (PLUGINS / "README.md").read_text(encoding="utf-8")
REFERENCE = runpy.run_path(str(PLUGINS / "card_reference.py"))
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FILES = {text.splitlines()[0].removeprefix("# "): text for kind, text in BLOCKS if kind in {"python", "toml"}}
# The first is typed by `tests/e2e/test_third_party_plugin.py`, in an environment where pip may install.
SHELL = [text for kind, text in BLOCKS if kind == "sh"]


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the page, each where its first line says."""
    root = tmp_path / "page"
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    before = set(sys.modules)
    yield root
    for name in set(sys.modules) - before:
        if name.startswith(("medcli_own", "medcli_family", "medcli_paired")):
            del sys.modules[name]


def test_the_reference_is_current():
    assert REFERENCE["page_with_reference"](PAGE) == PAGE, "run `make generate`"


def test_everything_public_is_explained():
    tables = {kind.__name__ for kind, _ in REFERENCE["SECTIONS"]} | {"Recipe", "RecipeValue"}
    assert [name for name in medcli.plugin.__all__ if name not in PAGE and name not in tables] == []
    for field in fields(ArchitectureCard):
        assert f"`{field.name}`" in PAGE or field.name in {"name", "place"}, field.name
    for name in (*RECIPE_SETTINGS, *STRATEGIES):
        assert f"`{name}`" in PAGE


def test_every_block_is_a_file_or_typed():
    assert {kind for kind, _ in BLOCKS} == {"python", "toml", "sh"}
    assert all(re.fullmatch(r"[\w./-]+\.(toml|py)", path) for path in FILES)
    assert len(FILES) + len(SHELL) == len(BLOCKS)
    assert len(SHELL) == 2


@pytest.mark.parametrize("folder", ["smallest", "own", "paired", pytest.param("family", marks=pytest.mark.slow)])
def test_examples_keep_every_promise(folder: str, examples: Path, run_cli):
    done = run_cli("plugins", "check", str(examples / folder), "--json")
    assert done.code == 0, done.stdout
    assert done.json()["result"]["passed"] >= 18


def test_what_is_typed_works_where_the_examples_lie(examples: Path, run_cli):
    for line in SHELL[1].splitlines():
        program, *words = line.split()
        assert program == "medcli"
        if words[1] != "check":  # done above, at some cost
            assert run_cli(*words, cwd=examples, in_process=True).code == 0
        else:
            assert (examples / words[2] / "pyproject.toml").is_file()


def test_own_reads_the_layout_its_page_describes(examples: Path, tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(str(examples / "own"))
    own = importlib.import_module("medcli_own").own
    torch.manual_seed(0)
    trained = own(in_channels=3, image_size=32).eval()
    layout = {key.replace("mix.", "conv2."): tensor for key, tensor in trained.state_dict().items()}
    head = {"classifier.weight": torch.rand(2, 8), "classifier.bias": torch.rand(2)}
    file = tmp_path / "own.safetensors"
    save_file({**layout, **head, "decoder.weight": torch.rand(3)}, file)
    again = own(in_channels=3, image_size=32, weights=str(file)).eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(images), trained(images))
    assert (again.load_report.matched, again.load_report.total) == (4, 4)
    assert torch.equal(again.pretrained_head.weight, head["classifier.weight"])
    # One channel of three equal ones gives the same features.
    grey = own(in_channels=1, image_size=32, weights=str(file)).eval()
    assert torch.allclose(grey(images[:, :1]), trained(images[:, :1].repeat(1, 3, 1, 1)), atol=1e-6)
    save_file({key: tensor for key, tensor in layout.items() if key != "conv2.bias"}, file)
    with pytest.raises(UsageProblem, match="3 of 4"):
        own(in_channels=3, image_size=32, weights=str(file))


def test_family_reads_the_layout_its_page_describes(examples: Path, tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(str(examples / "family"))
    family = importlib.import_module("medcli_family")
    trained = family.from_timm(in_channels=3, image_size=32).eval()
    layout = {f"student.{key}": tensor for key, tensor in trained.net.state_dict().items()}
    head = {"head.fc.weight": torch.rand(2, 192), "head.fc.bias": torch.rand(2)}
    file = tmp_path / "family.pth"
    torch.save(
        {"teacher": {**layout, **head, "mask_token": torch.rand(192), "decoder_x": torch.rand(2)}, "epoch": 7}, file
    )
    again = family.from_timm(in_channels=3, image_size=32, weights=str(file)).eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(images), trained(images))
    assert again.pretrained_head.class_names == ("low", "high")
    assert sorted(again.load_report.ignored) == ["decoder_x", "head.fc.bias", "head.fc.weight", "mask_token"]
    without = {key: tensor for key, tensor in layout.items() if not key.startswith("student.norm.")}
    torch.save({**without, **head}, file)
    assert again.load_report.fresh == ()
    fresh = family.from_timm(in_channels=3, image_size=32, weights=str(file)).load_report.fresh
    assert sorted(fresh) == ["norm.bias", "norm.weight"]
    network = family.from_transformers(in_channels=1, image_size=64).eval()
    assert network(torch.rand(2, 1, 64, 64)).shape == (2, 48)


def test_paired_keeps_its_weights(examples: Path, tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(str(examples / "paired"))
    paired = importlib.import_module("medcli_paired").paired
    trained = paired(in_channels=1, image_size=16).eval()
    save_file(trained.state_dict(), tmp_path / "paired.safetensors")
    again = paired(in_channels=1, image_size=16, weights=str(tmp_path / "paired.safetensors")).eval()
    images = torch.rand(2, 3, 1, 16, 16)
    assert torch.equal(again(*images), trained(*images))


@pytest.mark.parametrize("folder", ["own", "own-setuptools", "own-uv"])
def test_every_way_of_packaging_takes_the_card_along(folder: str, examples: Path, tmp_path: Path):
    project = tomli.loads((examples / folder / "pyproject.toml").read_text())
    assert project["project"]["entry-points"] == {"medcli.architectures": {"own": "medcli_own:own"}}
    backend = project["build-system"]["build-backend"].partition(".")[0]
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"`{backend}` is not installed here")
    if folder != "own":
        shutil.copytree(examples / "own" / "medcli_own", examples / folder / "medcli_own")
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path / "wheels")]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *words, str(examples / folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert {"medcli_own/__init__.py", "medcli_own/network.py", "medcli_own/medcli-card.toml"} <= set(
        zipfile.ZipFile(wheel).namelist()
    )


def test_a_project_pins_what_it_needs(examples: Path, run_cli):
    checked = run_cli("config", "check", cwd=examples / "project", in_process=True)
    assert checked.code == 0, checked.stderr
    file = examples / "project" / "medcli.toml"
    file.write_text(file.read_text().replace("medcli>=0.1", "medcli-own>=7"))
    refused = run_cli("train", "custom1", "--data", "synthetic/chest", cwd=examples / "project", in_process=True)
    assert refused.code == 2
    assert "pip install 'medcli-own>=7'" in refused.stderr
