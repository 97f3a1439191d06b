"""What an architecture needs beside its plugin: said by metadata before anything is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcli.errors import UsageProblem
from medcli.registry.cards import card_problems
from medcli.registry.catalogue import catalogue
from medcli.registry.discovery import discover, find, load_factory
from medcli.registry.layout import install_line
from medcli.registry.requirements import unmet
from medcli.registry.unknown import KNOWN_PLUGINS
from medcli.testing.command import RunCli


def test_requirements_are_compared_by_version() -> None:
    assert unmet(()) == ()
    assert unmet(("torch>=2", "pytest", "nobody-has-this>=1", "torch>=99")) == ("nobody-has-this>=1", "torch>=99")
    assert unmet(('nobody-has-this; python_version < "3"',)) == ()
    assert install_line(("a>=1", "b")) == "pip install 'a>=1' b"


def test_an_unavailable_architecture_is_listed_and_refused_without_import(fake_plugin, tmp_path: Path) -> None:
    fake_plugin("fake-net", broken="init", extra='requires = ["nobody-has-this>=1.2"]')
    (listed,) = [one for one in catalogue(discover()).listed if one.label == "fake-net"]
    assert listed.missing == ("nobody-has-this>=1.2",)
    with pytest.raises(UsageProblem, match="which is not installed") as raised:
        load_factory(find(discover(), "fake-net"))
    assert raised.value.hint == "pip install 'nobody-has-this>=1.2'"
    medcli = RunCli(tmp_path)
    shown = medcli("models", "list", "--family", "fake", in_process=True)
    assert "unavailable: pip install 'nobody-has-this>=1.2'" in shown.stdout
    trained = medcli("train", "fake-net", "--data", "synthetic/chest", "--limit", "20", "--image-size", "16")
    assert trained.code == 2
    assert "`fake-net` needs `nobody-has-this>=1.2`" in trained.stderr
    assert "Traceback" not in trained.stderr


def test_a_malformed_requirement_is_a_card_problem(fake_plugin) -> None:
    fake_plugin("fake-net", extra='requires = ["not a requirement >"]')
    (problem,) = [one for one in card_problems(discover()) if one.distribution == "medcli-fake"]
    assert "is no requirement" in problem.cause


@pytest.mark.parametrize("name", sorted(KNOWN_PLUGINS))
def test_published_plugins_are_named_where_they_are_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medcli.registry.unknown.installed_version", lambda _: "")
    monkeypatch.setenv("MEDCLI_PLUGINS", "")
    registry = discover({"MEDCLI_PLUGINS": "none"})
    with pytest.raises(UsageProblem) as raised:
        find(registry, name)
    assert f"`pip install {KNOWN_PLUGINS[name]}` offers it" in str(raised.value.hint)


def test_a_plugin_left_out_is_named(fake_plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_plugin("fake-net")
    monkeypatch.setenv("MEDCLI_PLUGINS", "none")
    with pytest.raises(UsageProblem) as raised:
        find(discover(), "fake-net")
    assert "`medcli-fake` offers it, and `MEDCLI_PLUGINS=none` leaves it out" in str(raised.value.hint)
