"""What doctor sees and advises, on machines that lack something."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import pytest

from medcli.doctor import examination
from medcli.doctor.examination import devices, extras, packages, places, plugins, without_private_paths
from medcli.testing.plugins import FakePlugin

FACTS = {"cores": 2, "threads": 2, "memory": 8 * 2**30, "accelerators": [], "cuda_build": True}


def test_versions_are_those_installed() -> None:
    found = {one.name: one.value for one in packages()}
    assert found["python"] == platform.python_version()
    assert found["torch"] == metadata.version("torch")
    assert all(one.status == "ok" for one in packages())


def test_a_version_that_medcli_does_not_accept_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    true = metadata.version

    def version(name: str) -> str:
        if name == "rich":
            raise metadata.PackageNotFoundError
        return "1.0" if name == "torch" else true(name)

    monkeypatch.setattr(metadata, "version", version)
    bad = {one.name: one for one in packages() if one.status == "problem"}
    assert set(bad) == {"torch", "rich"}
    assert bad["torch"].advice.startswith("`pip install 'torch")
    assert bad["rich"].value == "not installed"


def test_every_extra_is_judged_by_what_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {one.name for one in extras()}
    assert {"dicom", "export", "search", "diffmap"} <= names
    assert not names & {"all", "dev", "testing"}
    monkeypatch.setattr(examination, "_version", lambda name: None if name == "onnx" else "999")
    lacking = {one.name: one for one in extras() if one.status == "note"}
    assert list(lacking) == ["export"]
    assert (lacking["export"].value, lacking["export"].advice) == ("lacks onnx", "`pip install 'medcli[export]'`")


def test_a_broken_plugin_is_a_problem_and_the_others_are_not(fake_plugin: FakePlugin) -> None:
    fake_plugin(distribution="medcli-broken", card="this is no TOML")
    found = {one.name: one for one in plugins()}
    assert found["medcli-broken"].status == "problem"
    assert found["medcli-broken"].advice
    assert found["built in"].status == "ok"


def test_a_place_that_cannot_be_written_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination.os, "access", lambda path, mode: False)
    assert {one.status for one in places() if one.name == "cache"} == {"problem"}


def test_little_disk_and_little_memory_are_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "LEAST_DISK", 2**80)
    assert next(one for one in places() if one.name == "cache").status == "note"
    memory = next(one for one in devices({**FACTS, "memory": 2**30}, "") if one.name == "memory")
    assert (memory.value, memory.status) == ("1.0 GiB free", "note")


def test_accelerators_are_named_and_their_absence_explained() -> None:
    gpu = {"name": "cuda:0", "about": "a card, 8 GiB"}
    assert [one.value for one in devices({**FACTS, "accelerators": [gpu]}, "")][-1] == "a card, 8 GiB"
    assert "nvidia-smi" in devices(FACTS, "")[-1].advice
    assert "nvidia-smi" not in devices({**FACTS, "cuda_build": False}, "")[-1].advice


def test_a_torch_that_dies_on_import_is_one_problem() -> None:
    (only,) = devices(None, "the process was killed by SIGSEGV")
    assert only.status == "problem"
    assert "SIGSEGV" in only.value


def test_a_bug_report_names_neither_person_nor_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/mara")
    monkeypatch.setenv("USER", "mara")
    monkeypatch.setattr(examination.platform, "node", lambda: "ward7-pc")
    text = without_private_paths("/home/mara/data on ward7-pc by mara")
    assert text == "~/data on HOST by USER"
