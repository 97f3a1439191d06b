"""Cards are read without running their package; what is wrong in one is said with its file and line."""

from __future__ import annotations

import sys

import pytest

from medcli.errors import Problems, UsageProblem
from medcli.plugin import SizeRule
from medcli.registry.cards import card_problems, parse_options, read_card, recipe_layer
from medcli.registry.discovery import discover, find

ONLY_CORE = {"MEDCLI_PLUGINS": "none"}


def card_of(name: str):
    return read_card(find(discover(ONLY_CORE), name))


def plugin_card(fake_plugin, text: str, name: str = "fake-net"):
    fake_plugin(name, card=text)
    return read_card(find(discover(), name))


def test_card_is_read_without_executing_the_package(fake_plugin):
    fake_plugin("fake-net", broken="init")
    card = read_card(find(discover(), "fake-net"))
    assert (card.name, card.family, card.params, card.feature_dim) == ("fake-net", "fake", 16, 8)
    assert "medcli_fake" not in sys.modules


def test_reading_all_cards_needs_no_torch(no_heavy_imports):
    done = no_heavy_imports(
        "from medcli.registry.discovery import discover\n"
        "from medcli.registry.cards import card_problems, read_card\n"
        "registry = discover()\n"
        "print(len([read_card(entry).params for entry in registry.named()]) > 30, card_problems(registry))",
        blocked=("torch", "timm", "numpy", "pydantic", "rich", "typer"),
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["True", "()"]


def test_plugin_without_a_card_says_nothing(fake_plugin):
    fake_plugin("fake-net", card=False)
    entry = find(discover(), "fake-net")
    assert read_card(entry) is None
    assert parse_options(entry, None, ("a=1", "b=x", "c=true", "d=0.5")) == {"a": 1, "b": "x", "c": True, "d": 0.5}
    assert recipe_layer(None, "train") is None


def test_card_that_leaves_the_architecture_out_says_nothing(fake_plugin):
    assert plugin_card(fake_plugin, "api = 1\n") is None


def test_broken_card_is_a_problem_and_other_plugins_are_not_touched(fake_plugin):
    fake_plugin("fake-net", broken="card")
    fake_plugin("good-net", distribution="medcli-good")
    registry = discover()
    assert registry.problems == ()
    assert [(one.distribution, one.entry, one.stage) for one in card_problems(registry)] == [
        ("medcli-fake", "fake-net", "card")
    ]
    assert read_card(find(registry, "good-net")).family == "fake"


def test_one_bad_table_leaves_its_neighbours_readable(fake_plugin):
    text = '[architectures.one]\nsummary = "x"\nparams = "many"\n[architectures.two]\nsummary = "y"\n'
    fake_plugin(entry_points={"one": "medcli_fake.net:build", "two": "medcli_fake.net:build"}, card=text)
    registry = discover()
    assert read_card(find(registry, "two")).summary == "y"
    with pytest.raises(UsageProblem, match="must be a whole number"):
        read_card(find(registry, "one"))


@pytest.mark.parametrize(
    ("lines", "line", "message", "hint"),
    [
        ('summary = "x"\nfeature_dims = 8', 4, "`architectures.fake-net.feature_dims` is no known key", "feature_dim"),
        ('summary = "x"\n\nparams = 1.5', 5, "must be a whole number, not 1.5", None),
        ("params = 3", 2, "lacks `summary`", None),
        ('summary = "x"\ntrainable = 1', 4, "must be true or false", None),
        ('summary = "x"\ninput_size = 0', 4, "is 0", None),
        ('summary = "x"\n[architectures.fake-net.normalisation]\nmean = [0.5]\nstd = [0.0]', 4, "above 0", None),
        (
            'summary = "x"\n[architectures.fake-net.normalisation]\nmean = [0.5]\nstd = [1]\ninterpolation = "cubic"',
            7,
            "is `cubic`, not one of",
            "bicubic",
        ),
        (
            'summary = "x"\nweights = [\n  { tag = "a", source = "b" },\n  { tag = "c", sorce = "d", source = "e" }]',
            6,
            "`architectures.fake-net.weights.1.sorce` is no known key",
            "source",
        ),
        ('summary = "x"\ndefault_weights = "in1k"', 4, "which `weights` does not list", None),
        (
            'summary = "x"\n[architectures.fake-net.recipes.train]\nlr = 0.1',
            5,
            "`architectures.fake-net.recipes.train.lr` names no source",
            None,
        ),
        (
            'summary = "x"\n[architectures.fake-net.recipes.train]\nsource = "s"\nlearning_rate = 0.1',
            6,
            "is no setting of a recipe",
            None,
        ),
        (
            'summary = "x"\n[architectures.fake-net.recipes.trian]\nlr = { value = 1, source = "s" }',
            4,
            "is no strategy",
            "train",
        ),
        (
            'summary = "x"\n[architectures.fake-net.options.width]\ntype = "int"\ndefault = "wide"\nhelp = "h"',
            6,
            "must be a whole number",
            None,
        ),
        ('summary = "x"\ninherits = "nobody"', 4, "no table `[defaults.nobody]`", None),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(fake_plugin, lines, line, message, hint):
    with pytest.raises(UsageProblem) as caught:
        plugin_card(fake_plugin, f"api = 1\n[architectures.fake-net]\n{lines}\n")
    assert message in caught.value.message
    assert caught.value.where.startswith("medcli-fake 1.0, ")
    assert caught.value.where.endswith(f"medcli-card.toml:{line}")
    if hint:
        assert hint in caught.value.hint


def test_everything_wrong_is_said_at_once(fake_plugin):
    with pytest.raises(Problems) as caught:
        plugin_card(fake_plugin, '[architectures.fake-net]\nsummary = 3\nparms = 1\nfamily = ["a"]\n')
    assert len(caught.value.problems) == 3


def test_broken_toml_names_line_and_column(fake_plugin):
    with pytest.raises(UsageProblem, match="no valid TOML") as caught:
        plugin_card(fake_plugin, 'api = 1\n[architectures.fake-net]\nsummary = "x\n')
    assert "medcli-card.toml:3:" in caught.value.where


def test_unknown_top_level_key_is_a_problem_with_its_nearest(fake_plugin):
    card = plugin_card(fake_plugin, 'architecture = 1\n[architectures.fake-net]\nsummary = "x"\n')
    assert card.summary == "x"
    (problem,) = card_problems(discover())
    assert "unknown key `architecture`" in problem.cause
    assert "`architectures`" in problem.hint


def test_table_without_entry_point_is_a_problem(fake_plugin):
    plugin_card(fake_plugin, '[architectures.fake-net]\nsummary = "x"\n[architectures.ghost]\nsummary = "y"\n')
    (problem,) = card_problems(discover())
    assert (problem.entry, "no entry point" in problem.cause) == ("ghost", True)


def test_includes_are_one_card_and_must_match(fake_plugin):
    installed = fake_plugin("fake-net", card='include = ["cards/*.toml"]\n[defaults.all]\nfamily = "kin"\n')
    (installed.source / "cards").mkdir()
    (installed.source / "cards" / "a.toml").write_text(
        '[architectures.fake-net]\ninherits = "all"\nsummary = "x"\n', encoding="utf-8"
    )
    card = read_card(find(discover(), "fake-net"))
    assert (card.family, card.place.endswith("a.toml:1")) == ("kin", True)


@pytest.mark.parametrize("pattern", ["absent/*.toml", "../*.toml", "/etc/*.toml"])
def test_include_that_matches_nothing_or_leaves_the_package_is_a_problem(fake_plugin, pattern):
    fake_plugin("fake-net", card=f'include = ["{pattern}"]\n[architectures.fake-net]\nsummary = "x"\n')
    assert [pattern in problem.cause for problem in card_problems(discover())] == [True]


def test_inheritance_merges_tables_and_replaces_the_rest(fake_plugin):
    card = plugin_card(
        fake_plugin,
        """
[sources]
book = "a whole book"

[defaults.kin]
family = "kin"
modalities = ["a", "b"]

[defaults.kin.recipes.train]
source = "book"
lr = 0.1
epochs = 5

[defaults.cousin]
inherits = "kin"

[defaults.cousin.recipes.train]
lr = { value = 0.2, source = "letter" }

[architectures.fake-net]
inherits = "cousin"
summary = "x"
modalities = ["c"]
""",
    )
    assert card.family == "kin"
    assert card.modalities == ("c",)
    recipe = card.recipes["train"]
    assert (recipe["lr"].value, recipe["lr"].source) == (0.2, "letter")
    assert (recipe["epochs"].value, recipe["epochs"].source) == (5, "a whole book")
    assert recipe["lr"].place.endswith("medcli-card.toml:18")


def test_circular_inheritance_is_refused(fake_plugin):
    text = '[defaults.a]\ninherits = "b"\n[defaults.b]\ninherits = "a"\n'
    text += '[architectures.fake-net]\ninherits = "a"\nsummary = ""\n'
    with pytest.raises(UsageProblem, match="inherits itself"):
        plugin_card(fake_plugin, text)


def test_wrong_api_is_a_problem_and_using_it_a_usage_problem(fake_plugin):
    fake_plugin("fake-net", broken="api")
    registry = discover()
    (problem,) = card_problems(registry)
    assert "API 99" in problem.cause
    with pytest.raises(UsageProblem) as caught:
        read_card(find(registry, "fake-net"))
    assert (caught.value.code, caught.value.hint) == ("plugin-api", "upgrade medcli")


def test_options_are_typed_by_the_card():
    entry = find(discover(ONLY_CORE), "vit_base_patch16_224")
    card = read_card(entry)
    options = parse_options(entry, card, ("patch_size=8", "attention-dropout=0", "pool=mean"))
    assert options == {"patch_size": 8, "attention_dropout": 0.0, "pool": "mean"}
    assert type(options["attention_dropout"]) is float
    assert parse_options(entry, card, ()) == {}


@pytest.mark.parametrize(
    ("pair", "message", "hint"),
    [
        ("patchsize=8", "has no option `patchsize`", "`patch_size`"),
        ("patch_size=8.5", "must be a whole number, not 8.5", ""),
        ("patch_size=0", "is 0, below 1", ""),
        ("attention_dropout=nan", "is nan, below 0", ""),
        ("pool=max", "is `max`, not one of `cls`, `mean`", ""),
        ("pool", "not of the form KEY=VALUE", None),
    ],
)
def test_bad_option_is_a_usage_problem(pair, message, hint):
    entry = find(discover(ONLY_CORE), "vit_base_patch16_224")
    with pytest.raises(UsageProblem) as caught:
        parse_options(entry, read_card(entry), (pair,))
    assert message in caught.value.message
    assert caught.value.where == f"--arch-opt {pair}"
    if hint:
        assert hint in caught.value.hint


def test_several_bad_options_are_said_at_once():
    entry = find(discover(ONLY_CORE), "convnext_tiny")
    with pytest.raises(Problems) as caught:
        parse_options(entry, read_card(entry), ("a=1", "b=2"))
    assert len(caught.value.problems) == 2


def test_recipe_layer_names_card_recipe_and_source():
    layer = recipe_layer(card_of("custom1"), "train")
    assert layer.name == "recipe"
    assert layer.values == {"lr": 1e-2, "batch_size": 64, "epochs": 20}
    assert layer.where["lr"] == "card of custom1, recipe train (CSI-Predictor, guide to model architectures)"


def test_recipe_any_holds_for_every_strategy_and_yields_to_its_own(fake_plugin):
    card = plugin_card(
        fake_plugin,
        '[architectures.fake-net]\nsummary = "x"\n[architectures.fake-net.recipes]\n'
        'any = { source = "s", dropout = 0.3, lr = 0.5 }\ntrain = { source = "t", lr = 0.1 }\n',
    )
    assert recipe_layer(card, "train").values == {"dropout": 0.3, "lr": 0.1}
    assert recipe_layer(card, "frozen").values == {"dropout": 0.3, "lr": 0.5}


def test_namespace_card_says_what_the_list_says_and_no_more():
    card = card_of("timm/vit_base_patch16_224")
    assert (card.input_size, card.params, card.feature_dim) == (224, None, None)
    assert card.normalisation.mean == (0.5, 0.5, 0.5)
    assert card.default_weights == "augreg2_in21k_ft_in1k"
    assert card.normalisation_for("dino").mean == (0.485, 0.456, 0.406)
    assert card.weight("mae").licence == "cc-by-nc-4.0"
    assert card_of("timm/vit_base_patch16_224.dino").default_weights == "dino"
    assert card_of("timm/vit_base_patch16_224.dino").normalisation.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("rule", "options", "side", "nearest"),
    [
        (SizeRule(), {}, 1, 1),
        (SizeRule(minimum=29), {}, 28, 29),
        (SizeRule(minimum=29), {}, 300, 300),
        (SizeRule(minimum=16, multiple=16), {}, 28, 32),
        (SizeRule(minimum=16, multiple=16), {}, 23, 16),
        (SizeRule(minimum=16, multiple=16), {}, 1, 16),
        (SizeRule(minimum=16, multiple=16), {}, 224, 224),
        (SizeRule(minimum=16, multiple=16, multiple_option="patch_size"), {"patch_size": 14}, 28, 28),
        (SizeRule(minimum=16, multiple=16, multiple_option="patch_size"), {"patch_size": 4}, 9, 8),
        (SizeRule(minimum=30, multiple=16), {}, 1, 32),
        (SizeRule(multiple=4, maximum=30), {}, 100, 28),
    ],
)
def test_nearest_valid_image_size(rule, options, side, nearest):
    assert rule.nearest(side, options) == nearest
    assert rule.nearest(nearest, options) == nearest
