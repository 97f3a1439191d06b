"""RAD-DINO as its users meet it: files in the published layouts give the features of an independent implementation."""

from __future__ import annotations

import json
import math
import os
import pickle

import pytest

from medcli.errors import UsageProblem
from medcli.plugin import Backbone
from medcli.registry.cards import parse_options, read_card
from medcli.registry.discovery import discover, find, load_factory

torch = pytest.importorskip("torch")
F = torch.nn.functional

WIDTH, HEADS, BLOCKS, PATCH, GRID = 48, 4, 3, 14, 5
SIZE = GRID * PATCH


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def entry():
    return find(discover(), "medcli-raddino/raddino")


def published_names(width=WIDTH, blocks=BLOCKS, grid=GRID):
    """Name and shape of every tensor of `model.safetensors`, as transformers 4 wrote them."""
    shapes = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.mask_token": (1, width),
        "embeddings.position_embeddings": (1, grid * grid + 1, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, PATCH, PATCH),
        "embeddings.patch_embeddings.projection.bias": (width,),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
    }
    for number in range(blocks):
        block = f"encoder.layer.{number}"
        for part, (rows, columns) in {
            "attention.attention.query": (width, width),
            "attention.attention.key": (width, width),
            "attention.attention.value": (width, width),
            "attention.output.dense": (width, width),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }.items():
            shapes[f"{block}.{part}.weight"] = (rows, columns)
            shapes[f"{block}.{part}.bias"] = (rows,)
        for norm in ("norm1", "norm2"):
            shapes[f"{block}.{norm}.weight"] = shapes[f"{block}.{norm}.bias"] = (width,)
        for scale in ("layer_scale1", "layer_scale2"):
            shapes[f"{block}.{scale}.lambda1"] = (width,)
    return shapes


@pytest.fixture
def published():
    generator = torch.Generator().manual_seed(5)
    return {
        name: torch.randn(shape, generator=generator)
        * (0.5 if name.endswith("lambda1") else 1.5 / math.sqrt(shape[-1]))
        for name, shape in published_names().items()
    }


def reference(state, images, *, heads=HEADS):
    """DINOv2 in plain torch, double precision: tokens [B, 1 + N, D] after the last norm."""
    w = {name: tensor.double() for name, tensor in state.items()}

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]
        )

    batch, _, height, width = images.shape
    rows, columns = height // PATCH, width // PATCH
    cut = images.double().reshape(batch, -1, rows, PATCH, columns, PATCH).permute(0, 2, 4, 1, 3, 5)
    kernel = w["embeddings.patch_embeddings.projection.weight"].flatten(1)
    patches = cut.reshape(batch, rows * columns, -1) @ kernel.T + w["embeddings.patch_embeddings.projection.bias"]
    table = w["embeddings.position_embeddings"][0]
    side, dim = math.isqrt(len(table) - 1), table.shape[1]
    grid = table[1:].reshape(side, side, dim).permute(2, 0, 1)
    if (rows, columns) != (side, side):
        grid = bicubic(bicubic(grid, columns).transpose(1, 2), rows).transpose(1, 2)
    x = torch.cat(
        [(w["embeddings.cls_token"][0] + table[:1]).expand(batch, 1, dim), patches + grid.flatten(1).T], dim=1
    )
    for number in range(sum(name.endswith("norm1.weight") for name in w)):
        block = f"encoder.layer.{number}"
        y = norm(x, f"{block}.norm1")
        q, k, v = (
            linear(y, f"{block}.attention.attention.{one}").reshape(batch, -1, heads, dim // heads).transpose(1, 2)
            for one in ("query", "key", "value")
        )
        mixed = (q @ k.transpose(2, 3) / math.sqrt(dim // heads)).softmax(-1) @ v
        mixed = linear(mixed.transpose(1, 2).reshape(batch, -1, dim), f"{block}.attention.output.dense")
        x = x + w[f"{block}.layer_scale1.lambda1"] * mixed
        y = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
        y = linear(y * 0.5 * (1 + torch.erf(y / math.sqrt(2))), f"{block}.mlp.fc2")
        x = x + w[f"{block}.layer_scale2.lambda1"] * y
    return norm(x, "layernorm")


def bicubic(rows, size, a=-0.75):
    """The last axis resampled to `size` by cubic convolution, borders repeated, pixel centres aligned."""
    old = rows.shape[-1]
    matrix = torch.zeros(size, old, dtype=rows.dtype)
    for new in range(size):
        place = (new + 0.5) * old / size - 0.5
        for near in range(math.floor(place) - 1, math.floor(place) + 3):
            d = abs(place - near)
            weight = (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            matrix[new, min(max(near, 0), old - 1)] += weight
    return rows @ matrix.T


def small(**arguments):
    """The plugin's own builder at a width that tests can afford; users have no such option."""
    from medcli_raddino.network import build
    from transformers import Dinov2Config

    config = Dinov2Config(
        hidden_size=WIDTH, num_hidden_layers=BLOCKS, num_attention_heads=HEADS, image_size=SIZE, patch_size=PATCH
    )
    return build(config, **{"in_channels": 3, "image_size": SIZE, **arguments}).eval()


def save(state, path):
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return str(path)


def hub_folder(state, folder):
    """As a download of the repository leaves it."""
    save(state, folder / "model.safetensors")
    config = {
        "architectures": ["Dinov2Model"], "model_type": "dinov2", "hidden_size": WIDTH, "num_hidden_layers": BLOCKS,
        "num_attention_heads": HEADS, "mlp_ratio": 4, "patch_size": PATCH, "image_size": SIZE, "hidden_act": "gelu",
        "layer_norm_eps": 1e-6, "qkv_bias": True, "use_swiglu_ffn": False, "layerscale_value": 1.0,
        "torch_dtype": "float32", "transformers_version": "4.34.1",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "BitImageProcessor", "image_mean": [0.5307] * 3, "image_std": [0.2583] * 3})
    )
    return str(folder)


def dinov2_names(state):
    """As DINOv2's own code names them (`backbone_compatible.safetensors`)."""
    theirs = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": state["embeddings.position_embeddings"],
        "mask_token": state["embeddings.mask_token"],
    }
    for kind in ("weight", "bias"):
        theirs[f"patch_embed.proj.{kind}"] = state[f"embeddings.patch_embeddings.projection.{kind}"]
        theirs[f"norm.{kind}"] = state[f"layernorm.{kind}"]
        for number in range(BLOCKS):
            old, new = f"encoder.layer.{number}", f"blocks.{number}"
            theirs[f"{new}.attn.qkv.{kind}"] = torch.cat(
                [state[f"{old}.attention.attention.{one}.{kind}"] for one in ("query", "key", "value")]
            )
            theirs[f"{new}.attn.proj.{kind}"] = state[f"{old}.attention.output.dense.{kind}"]
            for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                theirs[f"{new}.{part}.{kind}"] = state[f"{old}.{part}.{kind}"]
            for which in (1, 2):
                theirs[f"{new}.ls{which}.gamma"] = state[f"{old}.layer_scale{which}.lambda1"]
    return theirs


LAYOUTS = {
    "file": lambda state, place: save(state, place / "model.safetensors"),
    "folder": lambda state, place: hub_folder(state, place / "rad-dino"),
    "dinov2": lambda state, place: save(dinov2_names(state), place / "backbone_compatible.safetensors"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [SIZE, 42, 112])
def test_features_are_those_of_an_independent_implementation(layout, size, published, tmp_path):
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    tokens = reference(published, images)
    weights = LAYOUTS[layout](published, tmp_path)
    for pool, expected in (("cls", tokens[:, 0]), ("mean", tokens[:, 1:].mean(1))):
        backbone = small(image_size=size, weights=weights, pool=pool)
        with torch.no_grad():
            assert (backbone(images).double() - expected).abs().max() < 1e-5
    report = backbone.load_report
    assert report.matched == report.total == len(published) - 1
    assert len(report.ignored) == 1
    assert report.ignored[0].endswith("mask_token")


def test_features_of_pictures_that_are_not_square(published, tmp_path):
    images = torch.randn(1, 3, 84, 56)
    backbone = small(weights=save(published, tmp_path / "model.safetensors"))
    expected = reference(published, images)
    with torch.no_grad():
        assert (backbone(images).double() - expected[:, 0]).abs().max() < 1e-5
        patches = backbone.feature_map(images)
    assert (patches.double() - expected[:, 1:].transpose(1, 2).reshape(1, WIDTH, 6, 4)).abs().max() < 1e-5


def test_grey_pictures_see_the_summed_patch_convolution(published, tmp_path):
    images = torch.randn(2, 1, SIZE, SIZE)
    backbone = small(in_channels=1, weights=save(published, tmp_path / "model.safetensors"))
    with torch.no_grad():
        difference = backbone(images).double() - reference(published, images.expand(-1, 3, -1, -1))[:, 0]
    assert difference.abs().max() < 1e-5


def test_attention_maps_count_the_class_token_first(published, tmp_path):
    backbone = small(weights=save(published, tmp_path / "model.safetensors"))
    maps = backbone.attention_maps(torch.randn(1, 3, SIZE, SIZE))
    assert maps.shape == (1, HEADS, 1 + GRID**2, 1 + GRID**2)
    assert torch.allclose(maps.sum(-1), torch.ones(()), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: {f"{name}_": value for name, value in state.items()}, "0 of 60 tensors match; 60 are missing"),
        (
            lambda state: {name: value for name, value in state.items() if ".2." not in name},
            r"42 of 60 tensors match; 18 are missing \(encoder.layer.2.",
        ),
        (
            lambda state: {name: value[:24] if "fc1" in name else value for name, value in state.items()},
            r"54 of 60 tensors match; 6 have another shape \(encoder.layer.0.mlp.fc1.weight \[24, 48\]",
        ),
        (
            lambda state: {**state, "dino_head.mlp.0.weight": torch.zeros(2)},
            r"not part of it \(dino_head.mlp.0.weight\)",
        ),
        (
            lambda state: {
                **dinov2_names(state),
                "blocks.1.attn.qkv.weight": torch.zeros(100, WIDTH),
            },
            "1 are not part of it",
        ),
    ],
    ids=["renamed", "half", "shapes", "more", "fused"],
)
def test_files_that_do_not_fit_are_refused_with_counts_and_names(change, said, published, tmp_path):
    weights = save(change(published), tmp_path / "other.safetensors")
    with pytest.raises(UsageProblem, match=said) as caught:
        small(weights=weights)
    assert caught.value.code == "weights-do-not-fit"
    assert "`other.safetensors` does not fit `raddino`" in caught.value.message


def test_cut_off_and_malicious_files_are_refused(published, tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch ran",)

    monkeypatch.chdir(tmp_path)
    whole = tmp_path / "model.safetensors"
    save(published, whole)
    whole.write_bytes(whole.read_bytes()[:-1000])
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Evil()}, protocol=2))
    for name, code in (("model.safetensors", "bad-weights"), ("pytorch_model.bin", "unsafe-weights")):
        with pytest.raises(UsageProblem) as caught:
            small(weights=str(tmp_path / name))
        assert caught.value.code == code
    assert not (tmp_path / "ran").exists()


def test_folder_of_another_model_is_refused_by_its_configuration(published, tmp_path):
    folder = hub_folder(published, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "num_attention_heads": 6}))
    with pytest.raises(UsageProblem, match="num_attention_heads 6 instead of 4"):
        small(weights=folder)


def test_size_that_is_no_multiple_of_the_patch_is_refused(entry):
    with torch.device("meta"), pytest.raises(UsageProblem, match="nearest size it can take is 518") as caught:
        load_factory(entry)(in_channels=3, image_size=512)
    assert caught.value.code == "bad-image-size"


def test_name_and_card_are_known_without_torch(no_heavy_imports):
    done = no_heavy_imports(
        "from medcli.registry.discovery import discover, find\n"
        "from medcli.registry.cards import read_card\n"
        "card = read_card(find(discover(), 'raddino'))\n"
        "print(card.feature_dim, sys.modules.get('medcli_raddino'))\n"
        "import medcli_raddino"
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["768", "None"]


def test_card_tells_the_truth_at_full_size(entry):
    from torch.utils.flop_counter import FlopCounterMode

    card = read_card(entry)
    with torch.device("meta"):
        backbone = load_factory(entry)(in_channels=card.in_channels, image_size=card.input_size).eval()
    assert isinstance(backbone, Backbone)
    names = published_names(width=768, blocks=12, grid=37)
    # The published count has the mask token in it, which only pretraining reads.
    assert sum(math.prod(shape) for shape in names.values()) == 86_580_480
    assert sum(parameter.numel() for parameter in backbone.parameters()) == card.params == 86_580_480 - 768
    assert len(backbone.state_dict()) == len(names) - 1
    assert backbone.feature_dim == card.feature_dim
    groups = backbone.layer_groups()
    assert (len(groups), 1 + groups[-1].stage) == (card.blocks, card.stages)
    with FlopCounterMode(display=False) as counter, torch.device("meta"), torch.no_grad():
        backbone.net.set_attn_implementation("eager")
        assert backbone(torch.zeros(1, 3, 518, 518)).shape == (1, 768)
    assert counter.get_total_flops() / 2e9 == pytest.approx(card.gmacs, abs=6e-4)
    modules = [name for name, _ in backbone.named_modules()]
    for pattern in card.lora_targets["attn"] + card.lora_targets["mlp"]:
        assert sum(name.endswith(pattern[1:]) for name in modules) == 12


def test_published_names_at_full_size_become_those_of_the_network(entry):
    from medcli.models.transformers_files import converted_names

    with torch.device("meta"):
        backbone = load_factory(entry)(in_channels=3, image_size=224)
        file = {name: torch.empty(shape) for name, shape in published_names(width=768, blocks=12, grid=37).items()}
    found = {name: tensor.shape for name, tensor in converted_names(backbone.net, file).items()}
    found.pop("embeddings.mask_token")
    assert found == {name: tensor.shape for name, tensor in backbone.net.state_dict().items()}


def test_official_processor_decides_how_pictures_are_prepared(entry):
    card = read_card(entry)
    assert parse_options(entry, card, ["official_processor=false"]) == {"official_processor": False}
    for tag in (None, "rad-dino", "model.safetensors"):
        official = card.normalisation_for(tag, {"official_processor": True})
        assert official == card.normalisation_for(tag) == card.normalisation
        assert (official.mean, official.std) == ((0.5307,), (0.2583,))
        assert (official.fit, official.interpolation) == ("crop", "bicubic")
        other = card.normalisation_for(tag, {"official_processor": False})
        assert (other.mean, other.std, other.fit) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "squash")


def test_preparation_differs_from_the_published_processor_by_rounding_only(entry, tmp_path):
    """The processor rounds to 8 bits after its resize and between its passes, medcli does not."""
    import numpy as np
    from PIL import Image
    from transformers import BitImageProcessor

    from medcli.data.dataset import Preprocessing
    from medcli.data.decode import read_picture
    from medcli.data.resize import normalise, to_tensor

    # The longer side would be 632.67 pixels: both cut it to 632.
    y, x = np.mgrid[0:524, 0:640]
    smooth = 127 + 60 * np.sin(x / 37) + 50 * np.cos(y / 23 + x / 90)
    Image.fromarray(smooth.round().astype("uint8")).save(tmp_path / "smooth.png")
    wanted = read_card(entry).normalisation
    preprocessing = Preprocessing(
        image_size=518,
        channels=3,
        mean=wanted.mean,
        std=wanted.std,
        interpolation=wanted.interpolation,
        fit=wanted.fit,
    )
    ours = normalise(to_tensor(read_picture(tmp_path / "smooth.png"), preprocessing)[None], preprocessing)
    processor = BitImageProcessor(
        size={"shortest_edge": 518},
        resample=3,
        crop_size={"height": 518, "width": 518},
        image_mean=[0.5307] * 3,
        image_std=[0.2583] * 3,
    )
    theirs = processor(Image.open(tmp_path / "smooth.png").convert("RGB"), return_tensors="pt")["pixel_values"]
    assert ours.shape == theirs.shape == (1, 3, 518, 518)
    levels = (ours - theirs).abs() * 0.2583 * 255
    assert 0.3 < levels.max() < 1.2
