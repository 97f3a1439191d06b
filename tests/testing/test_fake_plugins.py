"""Made-up plugins of both kinds, alone in the world where a test wants them alone."""

from __future__ import annotations

from medcli.registry.discovery import CORE, DIFFERENCE_MODELS, discover, find, load_factory


def test_isolated_plugins_sees_the_core_and_what_the_test_installs(isolated_plugins, run_cli) -> None:
    assert {entry.distribution for entry in discover().entries} == {CORE}
    isolated_plugins("fake-net")
    isolated_plugins("other-net", distribution="medcli-other")
    assert {entry.distribution for entry in discover().entries} == {CORE, "medcli-fake", "medcli-other"}
    for in_process in (True, False):
        listed = run_cli("models", "list", "--json", in_process=in_process).json()["result"]["architectures"]
        assert {row["distribution"] for row in listed} == {CORE, "medcli-fake", "medcli-other"}


def test_a_fake_difference_model_keeps_the_contract(fake_plugin) -> None:
    import torch

    from medcli.plugin import DifferenceModel

    fake_plugin("fake-change", group=DIFFERENCE_MODELS)
    network = load_factory(find(discover(), "fake-change", DIFFERENCE_MODELS))(in_channels=1, image_size=8)
    assert isinstance(network, DifferenceModel)
    assert network(torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)).shape == (2, 1, 8, 8)
