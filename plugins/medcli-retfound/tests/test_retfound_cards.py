"""Each architecture at its true size, on the meta device: counts, names in the files, and what its card says."""

from __future__ import annotations

import inspect
from fnmatch import fnmatchcase

import pytest

from medcli.registry.cards import card_problems, read_card
from medcli.registry.discovery import discover, find, load_factory

MAE = ("retfound-cfp", "retfound-oct", "retfound-mae-meh", "retfound-mae-shanghai")
DINOV2 = ("retfound-dinov2-meh", "retfound-dinov2-shanghai")
NAMES = (*MAE, *DINOV2, "retfound-green")
PUBLISHED = {  # parameters, features, side in pixels, stages
    **dict.fromkeys(MAE, (303_301_632, 1024, 224, 25)),
    **dict.fromkeys(DINOV2, (303_227_904, 1024, 224, 25)),
    "retfound-green": (21_832_704, 384, 392, 13),
}


@pytest.fixture(scope="module")
def registry():
    return discover({"MEDCLI_PLUGINS": "medcli-retfound"})


def outline(registry, name, **options):
    import torch

    card = read_card(find(registry, name))
    with torch.device("meta"):
        return load_factory(find(registry, name))(in_channels=3, image_size=card.input_size, **options)


def test_cards_have_no_problems(registry):
    assert card_problems(registry) == ()
    own = [entry.name for entry in registry.named() if entry.distribution == "medcli-retfound"]
    assert sorted(own) == sorted(NAMES)


def test_names_and_cards_are_known_without_torch(no_heavy_imports):
    done = no_heavy_imports(
        "from medcli.registry.discovery import discover, find, load_factory\n"
        "from medcli.registry.cards import read_card\n"
        "entry = find(discover(), 'retfound-cfp')\n"
        "print(read_card(entry).params, sys.modules.get('medcli_retfound'))\n"
        "load_factory(entry)"
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["303301632", "None"]


@pytest.mark.parametrize(
    ("name", "pool"),
    [*((name, None) for name in NAMES), (MAE[0], "cls"), (DINOV2[0], "mean"), ("retfound-green", "cls")],
)
def test_true_network_is_what_its_card_says(registry, name, pool):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    card = read_card(find(registry, name))
    network = outline(registry, name, drop_path=0.2, **({"pool": pool} if pool else {})).eval()
    groups = network.layer_groups()
    count = sum(parameter.numel() for parameter in network.parameters())
    assert (count, network.feature_dim, network.image_size, len(groups)) == PUBLISHED[name]
    assert (card.params, card.feature_dim, card.input_size, card.blocks) == PUBLISHED[name]
    assert [group.stage for group in groups] == list(range(card.stages))
    named = [parameter for group in groups for parameter in group.parameters]
    assert sorted(named) == sorted(parameter for parameter, _ in network.named_parameters())
    images = torch.zeros(1, 3, card.input_size, card.input_size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        assert network(images).shape == (1, card.feature_dim)
    assert counter.get_total_flops() / 2e9 == pytest.approx(card.gmacs, abs=6e-4)


def block_shapes(width: int) -> dict[str, tuple[int, ...]]:
    linear = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    shapes = {f"{part}.weight": (out * width, inner * width) for part, (out, inner) in linear.items()}
    shapes |= {f"{part}.bias": (out * width,) for part, (out, _) in linear.items()}
    return shapes | {f"norm{i}.{kind}": (width,) for i in (1, 2) for kind in ("weight", "bias")}


def published_names(name: str) -> dict[str, tuple[int, ...]]:
    """Every tensor of the encoder in the published file, under the file's name."""
    width, depth, patch, prefix = (384, 12, 14, 0) if name == "retfound-green" else (1024, 24, 14, 1)
    patch = 16 if name in MAE else patch
    grid = PUBLISHED[name][2] // patch
    shapes = {
        "cls_token": (1, 1, width), "pos_embed": (1, prefix + grid * grid, width),
        "patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,),
        "norm.weight": (width,), "norm.bias": (width,),
    }  # fmt: skip
    for index in range(depth):
        inner = block_shapes(width)
        if name not in MAE:
            inner |= {"ls1.gamma": (width,), "ls2.gamma": (width,)}
        shapes |= {f"blocks.{index}.{part}": shape for part, shape in inner.items()}
    if name == "retfound-green":
        shapes["reg_token"] = (1, 4, width)
    if name in DINOV2:
        spelled = {key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): key for key in shapes}
        return {f"backbone.{theirs}": shapes[key] for theirs, key in spelled.items()}
    return shapes


@pytest.mark.parametrize("name", NAMES)
def test_every_published_tensor_has_its_place_at_true_size(registry, name):
    from medcli_retfound.layouts import dinov2_name

    mapped = {dinov2_name(key) if name in DINOV2 else key: shape for key, shape in published_names(name).items()}
    network = outline(registry, name, pool="cls")
    assert {key: tuple(value.shape) for key, value in network.net.state_dict().items()} == mapped
    if name in MAE:
        norm = {f"norm.{kind}": f"fc_norm.{kind}" for kind in ("weight", "bias")}
        with_mean = {norm.get(key, key): shape for key, shape in mapped.items()}
        found = outline(registry, name, pool="mean").net.state_dict()
        assert {key: tuple(value.shape) for key, value in found.items()} == with_mean


@pytest.mark.parametrize("name", NAMES)
def test_options_are_the_keywords_of_the_factory(registry, name):
    parameters = inspect.signature(load_factory(find(registry, name))).parameters
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters.values())
    options = read_card(find(registry, name)).options
    assert set(parameters) - {"in_channels", "image_size", "pretrained", "weights", "drop_path"} == set(options)
    assert options["pool"].default == parameters["pool"].default == ("cls" if name in DINOV2 else "mean")


def adapter_parameters(registry, name, targets, rank, classes=5):
    """Of LoRA on the linear layers that the card's patterns name, with a LayerNorm and a linear layer as head."""
    from torch import nn

    card, network = read_card(find(registry, name)), outline(registry, name, pool="cls")
    patterns = card.lora_targets[targets]
    chosen = {
        path: module
        for path, module in network.named_modules()
        if any(fnmatchcase(path, pattern) for pattern in patterns)
    }
    assert all(type(module) is nn.Linear for module in chosen.values())
    adapters = sum(rank * (module.in_features + module.out_features) for module in chosen.values())
    head = 2 * card.feature_dim + (card.feature_dim + 1) * classes
    return adapters + head, len(chosen)


@pytest.mark.parametrize(
    ("name", "targets", "rank", "parameters", "modules"),
    [
        ("retfound-cfp", "qkv", 4, 400_389, 24),
        ("retfound-cfp", "qkv", 8, 793_605, 24),
        ("retfound-dinov2-meh", "qkv", 8, 793_605, 24),
        ("retfound-cfp", "qkv", 16, 1_580_037, 24),
        ("retfound-cfp", "qkv", 32, 3_152_901, 24),
        ("retfound-cfp", "attn", 8, 1_186_821, 48),
        ("retfound-cfp", "mlp", 8, 2 * 24 * 8 * 5 * 1024 + 7_173, 48),
        ("retfound-green", "qkv", 8, 150_149, 12),
    ],
)
def test_lora_trains_the_published_number_of_parameters(registry, name, targets, rank, parameters, modules):
    assert adapter_parameters(registry, name, targets, rank) == (parameters, modules)


def test_lora_on_retfound_has_the_published_total(registry):
    trained, _ = adapter_parameters(registry, "retfound-cfp", "qkv", 8)
    assert read_card(find(registry, "retfound-cfp")).params + trained == 304_095_237


@pytest.mark.parametrize("name", NAMES)
def test_weights_say_where_they_come_from(registry, name):
    card = read_card(find(registry, name))
    (weights,) = card.weights
    assert card.default_weights == weights.tag
    if name == "retfound-green":
        assert not weights.gated
        assert weights.source.endswith("/" + weights.file)
    else:
        owner, _, repository = weights.source.partition("/")
        assert (owner, weights.file, weights.gated) == ("YukunZhou", f"{repository}.pth", True)


def test_layerwise_recipe_is_the_published_one(registry):
    recipe = {key: one.value for key, one in read_card(find(registry, "retfound-cfp")).recipes["layerwise"].items()}
    assert recipe["lr"] == pytest.approx(5e-3 * 16 / 256)
    assert (recipe["layer_decay"], recipe["drop_path"], recipe["warmup_epochs"]) == (0.65, 0.2, 10.0)
