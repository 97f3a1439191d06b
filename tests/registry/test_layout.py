"""What is missing is installed by the tool that keeps it: pip, `uv pip`, `uv tool` and pipx, each by what it leaves."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from medcli.errors import UsageProblem
from medcli.registry.discovery import discover, find
from medcli.registry.layout import install_line, layout_of, reinstall_line

RECEIPT = """
[tool]
requirements = [{requirements}]
constraints = [{{ name = "torch", specifier = "==2.15.0" }}]
entrypoints = [{{ name = "medcli", install-path = "/home/me/.local/bin/medcli", from = "medcli" }}]
"""


def uv_tool(folder: Path, *requirements: str) -> Path:
    """The folder of a tool as uv leaves it, `uv-receipt.toml` in it."""
    home = folder / "tools" / "medcli"
    home.mkdir(parents=True)
    (home / "uv-receipt.toml").write_text(RECEIPT.format(requirements=", ".join(requirements)))
    return home


def pipx(folder: Path, given: str) -> Path:
    """The folder of an application as pipx leaves it."""
    home = folder / "venvs" / "medcli"
    home.mkdir(parents=True)
    injected = {"medcli-echo": {"package": "medcli-echo", "package_or_url": "medcli-echo"}}
    kept = {"main_package": {"package": "medcli", "package_or_url": given}, "injected_packages": injected}
    (home / "pipx_metadata.json").write_text(json.dumps(kept))
    return home


@pytest.mark.parametrize(
    ("requirements", "line"),
    [
        (['{ name = "medcli" }'], "uv tool install medcli --with 'medcli[export]'"),
        (
            ['{ name = "medcli", extras = ["nifti"], specifier = ">=0.1" }', '{ name = "medcli-echo" }'],
            "uv tool install 'medcli[nifti]>=0.1' --with medcli-echo --with 'medcli[export]'",
        ),
        (
            ['{ name = "medcli", path = "/w/medcli.whl" }', '{ name = "medcli-echo", directory = "/my plugins/echo" }'],
            "uv tool install /w/medcli.whl --with '/my plugins/echo' --with 'medcli[export]'",
        ),
        (
            ['{ name = "medcli", editable = "/src/medcli" }', '{ name = "medcli-echo", editable = "/src/echo" }'],
            "uv tool install --editable /src/medcli --with-editable /src/echo --with 'medcli[export]'",
        ),
        (
            ['{ name = "medcli" }', '{ name = "medcli-echo", git = "https://example.org/echo.git?rev=v1" }'],
            "uv tool install medcli --with 'medcli-echo @ git+https://example.org/echo.git?rev=v1' "
            "--with 'medcli[export]'",
        ),
    ],
)
def test_uv_tool_is_told_again_what_it_would_forget(requirements: list[str], line: str, tmp_path: Path) -> None:
    layout = layout_of(uv_tool(tmp_path, *requirements))
    assert layout.install(("medcli[export]",)) == line
    assert layout.reinstall(("torch",)) == "uv tool upgrade --reinstall medcli"


def test_a_plugin_under_development_stays_editable(tmp_path: Path) -> None:
    assert layout_of(tmp_path).install(("my net",), editable=True) == "pip install --editable 'my net'"
    uv = layout_of(uv_tool(tmp_path, '{ name = "medcli" }'))
    assert uv.install(("net",), editable=True) == "uv tool install medcli --with-editable net"
    assert layout_of(pipx(tmp_path, "medcli")).install(("net",), editable=True) == (
        "pipx inject --force --editable medcli net"
    )


@pytest.mark.parametrize(
    ("given", "wanted", "words"),
    [
        ("medcli", "medcli-echo>=0.2", "'medcli-echo>=0.2'"),
        ("medcli", "medcli[export]", "'medcli[export]'"),
        ("medcli[nifti]==0.1.0", "medcli[export]", "'medcli[export,nifti]'"),
        ("/wheels/medcli-0.1.0-py3-none-any.whl", "medcli[export]", "'medcli[export]'"),
    ],
)
def test_pipx_injects_and_keeps_the_extras_there_are(given: str, wanted: str, words: str, tmp_path: Path) -> None:
    layout = layout_of(pipx(tmp_path, given))
    assert layout.install((wanted,)) == f"pipx inject --force medcli {words}"
    assert layout.reinstall(("torch",)) == "pipx reinstall medcli"


def test_an_environment_without_pip_is_for_uv_pip(tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\nuv = 0.13.9\nversion_info = 3.11.7\n")
    assert layout_of(tmp_path).install(("a>=1", "b")) == "uv pip install 'a>=1' b"
    assert layout_of(tmp_path).reinstall(("torch",)) == "uv pip install --reinstall torch"
    (tmp_path / "lib/python3.11/site-packages/pip").mkdir(parents=True)
    assert layout_of(tmp_path).install(("a>=1", "b")) == "pip install 'a>=1' b"
    assert layout_of(tmp_path).reinstall(("torch",)) == "pip install --force-reinstall torch"


@pytest.mark.parametrize("text", ["", "not toml [", "[tool]\nrequirements = []\n", "[tool]\nrequirements = 1\n"])
def test_a_receipt_that_cannot_be_read_is_no_reason_to_fail(text: str, tmp_path: Path) -> None:
    (tmp_path / "uv-receipt.toml").write_text(text)
    (tmp_path / "pipx_metadata.json").write_text(text)
    assert layout_of(tmp_path).tool == "pip"


def test_messages_name_the_tool_of_the_running_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = uv_tool(tmp_path, '{ name = "medcli" }', '{ name = "medcli-echo" }')
    monkeypatch.setattr(sys, "prefix", str(home))
    assert install_line(("x",)) == "uv tool install medcli --with medcli-echo --with x"
    assert reinstall_line(("torch",)) == "uv tool upgrade --reinstall medcli"
    monkeypatch.setattr("medcli.registry.unknown.installed_version", lambda _: "")
    with pytest.raises(UsageProblem) as raised:
        find(discover({"MEDCLI_PLUGINS": "none"}), "retfound-cfp")
    assert "`uv tool install medcli --with medcli-echo --with medcli-retfound` offers it" in str(raised.value.hint)


def test_nothing_else_writes_an_install_line() -> None:
    package = Path(sys.modules["medcli"].__file__ or "").parent
    texts = {path.relative_to(package).as_posix(): path.read_text() for path in package.rglob("*.py")}
    # The kit for authors speaks to someone in the folder of a package, whose environment is theirs.
    said = {
        name for name, text in texts.items() if re.search(r"pip install\b", text) and not name.startswith("testing/")
    }
    assert said == {"registry/layout.py"}
