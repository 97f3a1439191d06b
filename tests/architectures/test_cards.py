"""Every number on a built-in card is checked against the network itself, timm's own records, or the literature."""

from __future__ import annotations

import inspect

import pytest

from medcli.errors import UsageProblem
from medcli.plugin import ArchitectureCard
from medcli.registry.card_schema import RECIPE_SETTINGS
from medcli.registry.cards import card_problems, read_card, recipe_layer
from medcli.registry.discovery import discover, find, load_factory

REGISTRY = discover({"MEDCLI_PLUGINS": "none"})
NAMES = [entry.name for entry in REGISTRY.named()]
# Building and walking these takes seconds each.
HUGE = {"vit_large_patch16_224", "vit_huge_patch14_224", "efficientnet_b7", "densenet264", "efficientnet_b6"}
BUILT = [pytest.param(name, marks=pytest.mark.slow) if name in HUGE else name for name in NAMES]

# Published counts: (with 1000-class head, without head, features).
PUBLISHED = {
    "resnet18": (11_689_512, 11_176_512, 512),
    "resnet34": (21_797_672, 21_284_672, 512),
    "resnet50": (25_557_032, 23_508_032, 2048),
    "resnet101": (44_549_160, 42_500_160, 2048),
    "resnet152": (60_192_808, 58_143_808, 2048),
    "efficientnet_b0": (5_288_548, 4_007_548, 1280),
    "efficientnet_b1": (7_794_184, 6_513_184, 1280),
    "efficientnet_b2": (9_109_994, 7_700_994, 1408),
    "efficientnet_b3": (12_233_232, 10_696_232, 1536),
    "efficientnet_b4": (19_341_616, 17_548_616, 1792),
    "efficientnet_b5": (30_389_784, 28_340_784, 2048),
    "efficientnet_b6": (43_040_704, 40_735_704, 2304),
    "efficientnet_b7": (66_347_960, 63_786_960, 2560),
    "efficientnet_lite0": (4_652_008, 3_371_008, 1280),
    "densenet121": (7_978_856, 6_953_856, 1024),
    "densenet169": (14_149_480, 12_484_480, 1664),
    "densenet201": (20_013_928, 18_092_928, 1920),
    "densenet264": (33_337_704, 30_648_704, 2688),
    "vit_tiny_patch16_224": (5_717_416, 5_524_416, 192),
    "vit_small_patch16_224": (22_050_664, 21_665_664, 384),
    "vit_base_patch16_224": (86_567_656, 85_798_656, 768),
    "vit_large_patch16_224": (304_326_632, 303_301_632, 1024),
    "vit_huge_patch14_224": (632_045_800, 630_764_800, 1280),
    "deit_tiny_patch16_224": (5_717_416, 5_524_416, 192),
    "deit_small_patch16_224": (22_050_664, 21_665_664, 384),
    "deit_base_patch16_224": (86_567_656, 85_798_656, 768),
    "swin_tiny_patch4_window7_224": (28_288_354, 27_519_354, 768),
    "swin_small_patch4_window7_224": (49_606_258, 48_837_258, 768),
    "swin_base_patch4_window7_224": (87_768_224, 86_743_224, 1024),
    "mobilenetv3_small_100": (2_542_856, 1_517_856, 1024),
    "mobilenetv3_large_100": (5_483_032, 4_202_032, 1280),
    "convnext_tiny": (28_589_128, 27_820_128, 768),
    "regnetx_032": (15_296_552, 14_287_552, 1008),
}


def card_of(name: str) -> ArchitectureCard:
    card = read_card(find(REGISTRY, name))
    assert card is not None
    return card


def build(name: str, **options):
    import torch

    card = card_of(name)
    torch.set_num_threads(1)
    keywords = {"in_channels": card.in_channels, "image_size": card.input_size, **options}
    with torch.device("meta"):
        return load_factory(find(REGISTRY, name))(**keywords)


def test_built_in_cards_have_no_problems_and_none_is_missing():
    assert card_problems(REGISTRY) == ()
    assert all(card_of(name).summary for name in NAMES)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_counts_are_the_published_ones(name):
    card = card_of(name)
    assert (card.params_total, card.params, card.feature_dim) == PUBLISHED[name]


@pytest.mark.parametrize("name", NAMES)
def test_head_of_1000_classes_makes_the_difference(name):
    card = card_of(name)
    if name == "custom1":  # no published head
        assert card.params_total is None
        assert 0.9e6 < card.params < 1.1e6
    else:
        assert card.params_total - card.params == (card.feature_dim + 1) * 1000


@pytest.mark.parametrize("name", BUILT)
def test_network_is_what_its_card_says(name):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    card = card_of(name)
    network = build(name).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == card.params
    assert network.feature_dim == card.feature_dim
    groups = network.layer_groups()
    assert (len({group.stage for group in groups}), len(groups)) == (card.stages, card.blocks)
    images = torch.zeros(1, card.in_channels, card.input_size, card.input_size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        assert network(images).shape == (1, card.feature_dim)
    assert counter.get_total_flops() / 2e9 == pytest.approx(card.gmacs, abs=6e-4)


@pytest.mark.parametrize("name", NAMES)
def test_options_are_the_keywords_of_the_factory(name):
    parameters = inspect.signature(load_factory(find(REGISTRY, name))).parameters
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters.values())
    own = set(parameters) - {"in_channels", "image_size", "pretrained", "weights", "drop_path"}
    options = card_of(name).options
    assert own == set(options)
    assert {key: parameters[key].default for key in own} == {key: option.default for key, option in options.items()}


# One network for each factory module and answer: the fact belongs to the family.
@pytest.mark.parametrize(
    "name",
    [
        "resnet18", "efficientnet_b0", "efficientnet_lite0", "densenet121", "vit_tiny_patch16_224",
        "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mobilenetv3_small_100", "convnext_tiny",
        "regnetx_032", "custom1",
    ],
)  # fmt: skip
def test_drop_path_exists_where_the_card_says_so(name):
    if card_of(name).drop_path:
        build(name, drop_path=0.1)
    else:
        with pytest.raises(UsageProblem):
            build(name, drop_path=0.1)


@pytest.mark.parametrize(
    ("name", "impossible"),
    [
        ("densenet121", 28),
        ("convnext_tiny", 31),
        ("vit_tiny_patch16_224", 28),
        ("deit_tiny_patch16_224", 8),
        ("swin_tiny_patch4_window7_224", 30),
    ],
)
def test_sizes_that_cards_refuse_are_refused_and_the_nearest_is_built(name, impossible):
    nearest = card_of(name).size.nearest(impossible)
    assert nearest != impossible
    with pytest.raises(UsageProblem, match=str(nearest)):
        build(name, image_size=impossible)
    build(name, image_size=nearest)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "mobilenetv3_small_100", "regnetx_032", "custom1"])
def test_sizes_without_a_rule_go_down_to_a_pixel(name):
    assert card_of(name).size.nearest(1) == 1
    build(name, image_size=1)


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_timm_with_its_licence_and_normalisation(name):
    from timm.models import get_pretrained_cfg

    card = card_of(name)
    for weights in card.weights:
        config = get_pretrained_cfg(weights.source.removeprefix("timm/"))
        assert config.has_weights, weights
        assert config.hf_hub_id == weights.source
        assert weights.licence == (config.license or "")
        normalisation = card.normalisation_for(weights.tag)
        assert (normalisation.mean, normalisation.std) == (config.mean, config.std)
        assert (normalisation.interpolation, normalisation.crop) == (config.interpolation, config.crop_pct)
    assert bool(card.weights) == bool(card.default_weights)
    assert bool(card.weights) == (name not in {"custom1", "densenet264"})


def test_vit_is_fine_tuned_from_imagenet_21k():
    cards = [card_of(name) for name in NAMES if name.startswith("vit_")]
    assert {card.default_weights for card in cards} == {"in21k"}
    assert all(card.weight("in21k").source.endswith("in21k") for card in cards)


@pytest.mark.parametrize(
    ("name", "lr", "batch_size", "dropout"),
    [
        ("resnet50", 1e-3, 32, 0.3),
        ("efficientnet_b2", 1e-3, 32, 0.3),
        ("densenet121", 1e-3, 32, 0.2),
        ("vit_base_patch16_224", 1e-4, 16, 0.1),
        ("custom1", 1e-2, 64, None),
    ],
)
def test_train_recipes_are_those_of_the_documents(name, lr, batch_size, dropout):
    values = recipe_layer(card_of(name), "train").values
    assert (values["lr"], values["batch_size"], values.get("dropout")) == (lr, batch_size, dropout)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strategy", ["train", "frozen", "layerwise", "gradual", "full", "lp-ft", "lora"])
def test_every_recipe_value_names_its_source(name, strategy):
    recipe = card_of(name).recipes[strategy]
    assert recipe
    assert all(one.source for one in recipe.values())
    if card_of(name).drop_path is False:
        assert "drop_path" not in recipe
    targets = recipe.get("targets")
    assert targets is None or targets.value in card_of(name).lora_targets


def test_recipes_may_set_every_setting_that_takes_a_recipe():
    from medcli.settings.commands import COMMANDS

    taking = {name for name, setting in COMMANDS["train"].fields.items() if setting.option.from_recipe}
    assert taking <= set(RECIPE_SETTINGS)


@pytest.mark.parametrize(
    ("index", "resolution", "depth", "width"),
    [
        (0, 224, 1.0, 1.0),
        (1, 240, 1.1, 1.0),
        (2, 260, 1.2, 1.1),
        (3, 300, 1.4, 1.2),
        (4, 380, 1.8, 1.4),
        (5, 456, 2.2, 1.6),
        (6, 528, 2.6, 1.8),
        (7, 600, 3.1, 2.0),
    ],
)
def test_compound_scaling_of_efficientnet(index, resolution, depth, width):
    card = card_of(f"efficientnet_b{index}")
    assert (card.scaling.resolution, card.scaling.depth, card.scaling.width) == (resolution, depth, width)
    assert card.input_size == resolution


@pytest.mark.parametrize("name", NAMES)
def test_papers_can_be_cited(name):
    for reference in card_of(name).references:
        assert reference.bibtex().startswith("@")
        assert reference.url.startswith("https://")
    assert bool(card_of(name).references) == (name != "custom1")


def test_bibtex_is_complete():
    text = card_of("resnet50").references[0].bibtex()
    assert text == (
        "@inproceedings{he2016resnet,\n"
        "  title = {{Deep Residual Learning for Image Recognition}},\n"
        "  author = {He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},\n"
        "  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},\n"
        "  year = {2016},\n"
        "  url = {https://arxiv.org/abs/1512.03385}\n}"
    )
    assert r"transformers \& distillation" in card_of("deit_tiny_patch16_224").references[0].bibtex()


def test_list_of_timm_names_is_current():
    import timm

    from medcli.architectures.generate_names import FILE, render

    first = FILE.read_text(encoding="utf-8").partition("\n")[0]
    if first.split()[:3] != ["#", "timm", timm.__version__]:
        pytest.skip(f"the list is of {first}, installed is timm {timm.__version__}")
    assert render() == FILE.read_text(encoding="utf-8"), "run `python -m medcli.architectures.generate_names`"
