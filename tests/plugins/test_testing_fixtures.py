"""The fixtures that plugin authors get: they must find what they claim to find."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medcli.errors import RunFailure
from medcli.registry.discovery import discover, find, load_factory


def test_fake_plugin_builds_a_network_that_keeps_the_contract(fake_plugin):
    import torch

    from medcli.plugin import Backbone

    fake_plugin("fake-net")
    network = load_factory(find(discover(), "fake-net"))(in_channels=1, image_size=8)
    assert isinstance(network, Backbone)
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 8)


def test_fake_plugin_is_gone_after_its_test():
    assert "medcli-fake" not in {entry.distribution for entry in discover().entries}
    assert "medcli_fake" not in sys.modules


def test_blocker_refuses_listed_packages_and_no_others(no_heavy_imports):
    refused = no_heavy_imports("import torch")
    assert refused.code == 1
    assert "refused by no_heavy_imports" in refused.stderr
    assert no_heavy_imports("import json, numpy").code == 0
    assert no_heavy_imports("import json", blocked=("json",)).code == 1


def test_blocker_also_holds_for_imports_of_imports(no_heavy_imports):
    assert "refused" in no_heavy_imports("import medcli; medcli.build").stderr


def test_child_sees_plugins_of_this_test(fake_plugin, no_heavy_imports):
    fake_plugin("fake-net")
    done = no_heavy_imports(
        "from medcli.registry.discovery import discover, find; print(find(discover(), 'fake-net').qualified)"
    )
    assert done.stdout == "medcli-fake/fake-net\n"


def test_run_cli_keeps_streams_and_codes_apart(run_cli):
    for in_process in (False, True):
        good = run_cli("--version", in_process=in_process)
        assert (good.code, good.stdout.startswith("medcli"), good.stderr) == (0, True, "")
        bad = run_cli("models", "show", "nothing", in_process=in_process)
        assert (bad.code, bad.stdout) == (2, "")
        assert "unknown architecture" in bad.stderr


def test_run_cli_leaves_the_process_as_it_was(run_cli):
    before = (dict(os.environ), Path.cwd(), list(sys.argv))
    run_cli("models", "list", env={"MEDCLI_PLUGINS": "none"}, in_process=True)
    assert (dict(os.environ), Path.cwd(), sys.argv) == before


def test_run_cli_hides_the_settings_of_the_user(run_cli, monkeypatch):
    assert not [name for name in os.environ if name.startswith("MEDCLI_")]
    assert "config-of-nobody" in os.environ["XDG_CONFIG_HOME"]


@pytest.mark.parametrize("broken", ["import", "exit", "missing", "attribute", "init"])
def test_each_way_to_break_loading_breaks_it(fake_plugin, broken):
    fake_plugin("fake-net", broken=broken)
    with pytest.raises(RunFailure):
        load_factory(find(discover(), "fake-net"))


def test_registering_the_fixtures_imports_nothing_heavy():
    code = (
        "import sys; import medcli.testing.fixtures; "
        "print([name for name in ('torch', 'numpy', 'typer', 'medcli.registry.discovery') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
