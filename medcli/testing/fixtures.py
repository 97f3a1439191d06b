"""pytest fixtures for authors of plugins and for medcli's own tests, registered through the `pytest11` entry point.

Every pytest run of an environment with medcli imports this module, so at import it costs the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from medcli.testing.command import RunCli
    from medcli.testing.hub import FakeHub
    from medcli.testing.imports import NoHeavyImports
    from medcli.testing.plugins import FakePlugin

__all__ = ["fake_hub", "fake_plugin", "isolated_plugins", "no_heavy_imports", "run_cli"]


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on this machine that `medcli models fetch` asks for one test; see `medcli.testing.hub.FakeHub`.

    The caches of weights are empty folders of the test, and nobody is logged in.
    """
    from medcli.testing.hub import FakeHub

    with FakeHub().running() as hub:
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        home = tmp_path / "hub-home"
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(home))
        monkeypatch.setenv("HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
        # The hub's library reads these once, when it is imported.
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield hub


@pytest.fixture
def fake_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePlugin]:
    """A callable that installs a made-up plugin for one test; see `medcli.testing.plugins.FakePlugin`."""
    from medcli.testing.plugins import FakePlugin

    plugins = FakePlugin(tmp_path / "fake-plugins")
    monkeypatch.syspath_prepend(str(plugins.root))
    yield plugins
    plugins.forget()


@pytest.fixture
def isolated_plugins(
    request: pytest.FixtureRequest, fake_plugin: FakePlugin, monkeypatch: pytest.MonkeyPatch
) -> FakePlugin:
    """`fake_plugin` in a world without other plugins: medcli's own names, and what the test installs, are all there is.

    Holds for child processes too, through `MEDCLI_PLUGINS`; `medcli plugins list` shows the others as excluded.
    """
    if "run_cli" in request.fixturenames:
        request.getfixturevalue("run_cli")  # it clears the variables of the environment, so it has to come first
    monkeypatch.setenv("MEDCLI_PLUGINS", "none")
    fake_plugin.on_install = lambda names: monkeypatch.setenv("MEDCLI_PLUGINS", ",".join(names))
    return fake_plugin


@pytest.fixture
def run_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunCli:
    """A callable that runs `medcli` and keeps its streams apart; see `medcli.testing.command.RunCli`.

    It starts in an empty directory with the user's settings and `MEDCLI_*` variables out of the way.
    """
    from medcli.testing.command import RunCli, forget_user_settings

    directory = tmp_path / "run-cli"
    directory.mkdir()
    forget_user_settings(monkeypatch, directory)
    return RunCli(directory)


@pytest.fixture
def no_heavy_imports() -> NoHeavyImports:
    """A callable that runs code in a child that cannot import torch and its like; see `medcli.testing.imports`."""
    from medcli.testing.imports import NoHeavyImports

    return NoHeavyImports()
