"""Nothing but `models fetch` reaches out: proven by forbidding connections, and by reading who could make one."""

from __future__ import annotations

import ast
import socket
from pathlib import Path

import pytest

import medcli

SMALL = (
    "--limit",
    "8",
    "--epochs",
    "1",
    "--image-size",
    "32",
    "--batch-size",
    "4",
    "--workers",
    "0",
    "--bootstrap",
    "0",
)
PACKAGE = Path(medcli.__file__).parent
PLUGINS = PACKAGE.parent / "plugins"
DOOR = PACKAGE / "registry" / "fetch.py"
CLIENTS = {
    "aiohttp",
    "ftplib",
    "http.client",
    "httpx",
    "httpx2",
    "pooch",
    "requests",
    "urllib.request",
    "urllib3",
    "wget",
}
CALLS = {
    "download_url_to_file",
    "from_pretrained",
    "hf_hub_download",
    "load_state_dict_from_url",
    "snapshot_download",
    "urlopen",
    "urlretrieve",
}


@pytest.fixture
def offline(run_cli, monkeypatch, tmp_path):
    """Runs commands in this process while every connection is an error; the caches of weights are empty."""
    tried = []

    def refuse(*arguments, **_):
        tried.append(arguments)
        raise AssertionError(f"a connection was tried: {arguments}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    yield lambda *words: run_cli(*words, in_process=True)
    assert tried == []


@pytest.mark.parametrize("ask", [["--pretrained"], ["--weights", "in1k-tv"]])
def test_a_training_that_lacks_its_weights_names_the_command_that_fetches_them(offline, run_cli, ask):
    done = offline("train", "resnet18", "--data", "synthetic/chest", *SMALL[:-2], *ask)
    assert done.code == 2
    assert f"medcli models fetch resnet18 --weights {'in1k' if len(ask) == 1 else ask[1]}" in done.stderr
    assert "--weights FILE" in done.stderr
    assert not (run_cli.directory / "runs").exists()


def test_names_of_timm_are_refused_alike(offline):
    done = offline("train", "timm/test_resnet", "--data", "synthetic/chest", *SMALL[:-2], "--pretrained")
    assert done.code == 2
    assert "medcli models fetch timm/test_resnet.r160_in1k" in done.stderr


def test_training_and_evaluating_reach_nobody(offline):
    trained = offline("train", "custom1", "--data", "synthetic/chest", *SMALL[:-2], "--out", "run")
    assert trained.code == 0, trained.stderr
    done = offline("evaluate", "run", "--bootstrap", "0")
    assert done.code == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["models", "list"],
        ["models", "show", "resnet18"],
        ["models", "show", "timm/test_resnet", "--layers"],
        ["models", "verify", "resnet18"],
        ["evaluate", "resnet18", "--pretrained", "--data", "synthetic/chest"],
    ],
)
def test_looking_reaches_nobody(offline, words):
    assert offline(*words).code in {0, 2}


def sources() -> list[Path]:
    files = [*PACKAGE.rglob("*.py"), *(path for path in PLUGINS.rglob("*.py") if "tests" not in path.parts)]
    return [path for path in files if path != DOOR]


def ways_out(path: Path) -> list[str]:
    """Clients that a file imports and downloads that it calls."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{name}" for name in names), *names]
        found += [name for name in names if name in CLIENTS | CALLS or name.partition(".")[0] in CLIENTS]
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = {word.arg: word.value for word in node.keywords}
            found += [name] if name in CALLS else []
            if name == "create_model" and getattr(given.get("pretrained"), "value", False) is not False:
                found.append("create_model(pretrained=…)")
    return found


def test_one_file_can_download():
    assert {str(path.relative_to(PACKAGE.parent)): out for path in sources() if (out := ways_out(path))} == {}
    assert {"pooch", "hf_hub_download"} <= set(ways_out(DOOR))


def test_only_the_command_that_fetches_opens_that_file():
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if path != DOOR and "medcli.registry.fetch" in path.read_text(encoding="utf-8")
    }
    assert users == {"cli/commands/models_fetch.py"}
