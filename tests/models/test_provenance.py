"""A saved network names the package that built it, also where that package is gone, older or left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from medcli.data.dataset import Preprocessing
from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.models.build import build_classifier, load_model, save_model
from medcli.models.spec import ModelSpec


@pytest.fixture
def saved(tmp_path: Path, fake_plugin):
    installed = fake_plugin("fake-net", version="1.4")
    spec = ModelSpec("medcli-fake/fake-net", 1, 8, Target("binary", ("a", "b")))
    save_model(tmp_path / "m.safetensors", build_classifier(spec).classifier, spec, Preprocessing(8, 1, (0.5,), (0.5,)))
    return tmp_path / "m.safetensors", installed


def test_the_same_version_loads_silently(saved) -> None:
    loaded = load_model(saved[0])
    assert loaded.caution == ""
    assert loaded.classifier(torch.zeros(1, 1, 8, 8)).shape == (1, 2)


def test_a_missing_package_is_named_with_its_version(saved) -> None:
    path, installed = saved
    shutil.rmtree(installed.metadata)
    shutil.rmtree(installed.source)
    with pytest.raises(UsageProblem, match=r"built by `medcli-fake` 1\.4, which is not installed") as raised:
        load_model(path)
    assert raised.value.hint == "pip install 'medcli-fake>=1.4'"
    assert raised.value.where == str(path)


def test_an_older_package_loads_with_a_sentence(saved, fake_plugin) -> None:
    path, installed = saved
    shutil.rmtree(installed.metadata)
    fake_plugin("fake-net", version="1.3")
    assert load_model(path).caution == (
        "written with medcli-fake 1.4, and 1.3 is installed: pip install 'medcli-fake>=1.4' brings it up to date"
    )


def test_a_package_left_out_is_not_called_missing(saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCLI_PLUGINS", "none")
    with pytest.raises(UsageProblem, match="which `MEDCLI_PLUGINS=none` leaves out"):
        load_model(saved[0])
