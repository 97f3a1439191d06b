"""`plugins new`: what it writes is a whole plugin of every kind; what it cannot write leaves nothing behind."""

from __future__ import annotations

import compileall
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

from medcli.errors import UsageProblem
from medcli.registry.discovery import discover
from medcli.scaffold.kinds import KINDS
from medcli.scaffold.names import check_free, plugin_name
from medcli.scaffold.package import render, write

OUTSIDE = {"README.md", "pyproject.toml", ".gitignore"}


@pytest.mark.parametrize(
    ("text", "offered", "distribution", "package", "identifier"),
    [
        ("mynet", "mynet", "medcli-mynet", "medcli_mynet", "mynet"),
        ("medcli-mynet", "mynet", "medcli-mynet", "medcli_mynet", "mynet"),
        ("my_net.v2", "my_net.v2", "medcli-my-net-v2", "medcli_my_net_v2", "my_net_v2"),
        ("3d", "3d", "medcli-3d", "medcli_3d", "3d"),
    ],
)
def test_one_name_gives_all(text, offered, distribution, package, identifier):
    name = plugin_name(text)
    assert (name.offered, name.distribution, name.package, name.identifier) == (
        offered,
        distribution,
        package,
        identifier,
    )


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("MyNet", "lower-case", "mynet"),
        ("my net", "lower-case", "my-net"),
        ("-net", "both ends", "net"),
        ("net-", "both ends", "net"),
        ("timm/x", "lower-case", "timm-x"),
        ("../up", "lower-case", "up"),
        ("medcli-", "both ends", "mynet"),
        ("medcli", "reserved", "mynet"),
        ("timm", "reserved", "mynet"),
        ("medcli-synthetic", "reserved", "mynet"),
    ],
)
def test_names_that_cannot_be_are_refused_with_one_that_can(text, said, hint):
    with pytest.raises(UsageProblem, match=said) as caught:
        plugin_name(text)
    assert caught.value.hint == f"medcli plugins new {hint}"
    plugin_name(hint)


def test_names_that_are_taken_are_refused(fake_plugin):
    fake_plugin("fake-net", distribution="medcli-other")
    for text in ("resnet18", "fake-net", "other"):
        with pytest.raises(UsageProblem, match="already"):
            check_free(plugin_name(text), discover())
    check_free(plugin_name("free-net"), discover())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["mynet", "my_net.v2-of-a-rather-long-name"])
def test_every_kind_renders_a_tidy_package(kind, text, tmp_path):
    name = plugin_name(text)
    rendered = render(name, kind)
    assert set(rendered) > OUTSIDE
    assert {path.partition("/")[0] for path in rendered} - OUTSIDE == {name.package, "tests"}
    write(tmp_path / "new", rendered)
    project = tomli.loads(rendered["pyproject.toml"])["project"]
    assert project["name"] == name.distribution
    assert project["entry-points"] == {KINDS[kind].group: {name.offered: f"{name.package}:build"}}
    assert all(text.endswith("\n") and not text.endswith("\n\n") and "$" not in text for text in rendered.values())
    assert compileall.compile_dir(tmp_path / "new", quiet=2)
    for arguments in (["check", "--select", "E,F,W,I,B,UP,A,ARG001,RUF100"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."],
            cwd=tmp_path / "new", capture_output=True, text=True, check=False,
        )  # fmt: skip
        # A long name may change where a line breaks.
        assert done.returncode == 0 or (arguments[0] == "format" and text != "mynet"), done.stdout


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow if kind in {"timm", "transformers"} else ()) for kind in KINDS],
)
def test_what_is_written_keeps_every_promise_as_it_is(kind, run_cli):
    written = run_cli("plugins", "new", "mynet", "--kind", kind, "--json", in_process=True)
    assert written.code == 0, written.stderr
    result = written.json()["result"]
    assert (result["name"], result["folder"], result["kind"]) == ("mynet", "medcli-mynet", kind)
    assert all((run_cli.directory / "medcli-mynet" / path).is_file() for path in result["files"])
    assert result["next"][:2] == ["pip install --editable medcli-mynet", "medcli plugins check medcli-mynet"]
    checked = run_cli("plugins", "check", "medcli-mynet", "--json")
    assert checked.code == 0, checked.stdout
    checks = checked.json()["result"]["checks"]
    skipped = {one["check"] for one in checks if one["outcome"] == "skipped"}
    # Only what is not installed or has nothing to act on.
    assert skipped <= {"onnx", "options", "lora", "drop-path", "attention"}
    assert checked.json()["result"]["passed"] > 20


def test_a_folder_with_something_in_it_is_left_alone(run_cli):
    folder = run_cli.directory / "medcli-mynet"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    refused = run_cli("plugins", "new", "mynet", in_process=True)
    assert (refused.code, refused.stdout) == (2, "")
    assert "is not empty" in refused.stderr
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    elsewhere = run_cli("plugins", "new", "mynet", "--out", "deep/er", "-q", in_process=True)
    assert (elsewhere.code, elsewhere.stdout) == (0, "deep/er\n")
    assert (run_cli.directory / "deep/er/medcli_mynet/medcli-card.toml").is_file()


def test_a_place_that_cannot_be_made_is_said(run_cli):
    (run_cli.directory / "file").write_text("")
    for place, said in (("file", "is a file"), ("file/below", "cannot be made")):
        refused = run_cli("plugins", "new", "mynet", "--out", place, in_process=True)
        assert (refused.code, refused.stdout) == (2, "")
        assert said in refused.stderr


def test_a_name_that_is_left_out_by_a_variable_is_taken_all_the_same(run_cli, fake_plugin):
    fake_plugin("fake-net")
    refused = run_cli("plugins", "new", "fake-net", env={"MEDCLI_PLUGINS": "none"}, in_process=True)
    assert refused.code == 2
    assert "medcli-fake" in refused.stderr
    assert not (run_cli.directory / "medcli-fake-net").exists()


def test_it_needs_no_torch(no_heavy_imports, tmp_path: Path):
    done = no_heavy_imports.cli("plugins", "new", "mynet", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "medcli train mynet" in done.stdout


def test_kinds_are_those_of_the_flag():
    from typing import get_args, get_type_hints

    from medcli.settings.groups import NewPluginSettings

    assert get_args(get_type_hints(NewPluginSettings)["kind"]) == tuple(KINDS)
