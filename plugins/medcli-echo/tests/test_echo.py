"""The plugin as its users meet it: found by name, described by its card, built to the same numbers every time."""

from __future__ import annotations

import math

import pytest

from medcli.errors import UsageProblem
from medcli.plugin import Backbone
from medcli.registry.cards import read_card
from medcli.registry.discovery import discover, find, load_factory
from medcli.testing import conformance


@pytest.fixture
def entry():
    return find(discover(), "medcli-echo/echo")


def test_name_and_card_are_known_without_torch(no_heavy_imports):
    done = no_heavy_imports(
        "from medcli.registry.discovery import discover, find\n"
        "from medcli.registry.cards import read_card\n"
        "card = read_card(find(discover(), 'echo'))\n"
        "print(card.feature_dim, sys.modules.get('medcli_echo'))"
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["8", "None"]


def test_importing_the_package_needs_no_torch(no_heavy_imports):
    assert no_heavy_imports("import medcli_echo").code == 0


def test_weights_are_a_fixed_function(entry):
    import torch

    torch.manual_seed(1)
    network = load_factory(entry)(in_channels=1, image_size=8)
    assert network.spread.weight.flatten().tolist() == pytest.approx([math.sin(i) for i in (1, 2, 3, 4)])
    # A constant picture of ones: channel c holds sin(c + 1), so feature 0 is a sum that can be written out.
    expected = sum(math.sin(1 + i // 16) * math.sin(i + 1) / 8 for i in range(64))
    features = network(torch.ones(1, 1, 8, 8))
    assert features.shape == (1, 8)
    assert features[0, 0].item() == pytest.approx(expected, abs=1e-6)


def test_tag_halves_every_weight(entry):
    import torch

    build = load_factory(entry)
    images = torch.ones(1, 3, 5, 7)
    assert torch.allclose(
        build(in_channels=3, image_size=5, weights="half")(images), build(in_channels=3, image_size=5)(images) / 4
    )


def test_card_tells_the_truth(entry):
    card = read_card(entry)
    network = load_factory(entry)(in_channels=card.in_channels, image_size=card.input_size)
    assert sum(parameter.numel() for parameter in network.parameters()) == card.params
    assert network.feature_dim == card.feature_dim
    assert isinstance(network, Backbone)
    named = [name for group in network.layer_groups() for name in group.parameters]
    assert named == [name for name, _ in network.named_parameters()]


@pytest.mark.parametrize("wrong", [{"weights": "other"}, {"drop_path": 0.1}])
def test_what_it_cannot_do_is_refused(entry, wrong):
    with pytest.raises(UsageProblem):
        load_factory(entry)(in_channels=1, image_size=8, **wrong)


test_conformance = conformance("medcli-echo")
