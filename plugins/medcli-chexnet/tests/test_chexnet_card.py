"""The plugin as its users meet it: found by name, described truly, built from its card."""

from __future__ import annotations

import pytest

from medcli.plugin import Backbone
from medcli.registry.cards import card_problems, parse_options, read_card
from medcli.registry.discovery import discover, find, load_factory


@pytest.fixture(scope="module")
def entry():
    return find(discover(), "medcli-chexnet/chexnet")


def test_listing_and_importing_need_no_torch(no_heavy_imports):
    done = no_heavy_imports(
        "from medcli.registry.discovery import discover, find\n"
        "from medcli.registry.cards import read_card\n"
        "card = read_card(find(discover(), 'chexnet'))\n"
        "print(card.feature_dim, sys.modules.get('medcli_chexnet'))\n"
        "import medcli_chexnet"
    )
    assert (done.code, done.stderr, done.stdout.split()) == (0, "", ["1024", "None"])


def test_card_tells_the_truth(entry):
    card = read_card(entry)
    network = load_factory(entry)(in_channels=card.in_channels, image_size=card.size.minimum)
    assert sum(parameter.numel() for parameter in network.parameters()) == card.params == 6_953_856
    assert network.feature_dim == card.feature_dim
    groups = network.layer_groups()
    assert (len(groups), groups[-1].stage + 1) == (card.blocks, card.stages)
    assert isinstance(network, Backbone)
    assert not [problem for problem in card_problems(discover()) if problem.distribution == "medcli-chexnet"]


def test_nothing_is_pretrained_unless_a_file_is_given(entry):
    card = read_card(entry)
    assert (card.weights, card.default_weights) == ((), "")
    network = load_factory(entry)(in_channels=1, image_size=64)
    assert (network.pretrained_head, network.load_report) == (None, None)


def test_pixels_of_torchxrayvision(entry):
    card = read_card(entry)
    assert card.normalisation_for(None).mean == (0.485, 0.456, 0.406)
    options = parse_options(entry, card, ["pixels=xrv"])
    used = card.normalisation_for(None, options)
    for grey in (0, 51, 255):
        published = (2 * (grey / 255) - 1) * 1024
        assert (grey / 255 - used.mean[0]) / used.std[0] == pytest.approx(published)
    assert used.fit == "crop"


def test_options_and_their_values_are_those_of_the_loader(entry):
    from medcli_chexnet.layouts import LABELS

    card = read_card(entry)
    assert set(card.options["labels"].choices) == {"auto", "none", *LABELS}
    assert [len(set(names)) for names in LABELS.values()] == [14, 14, 18]
