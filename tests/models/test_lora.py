"""Adapters on every built-in family: they start at the base's outputs, change them, merge, and come back the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn

from medcli import build
from medcli.errors import RunFailure, UsageProblem
from medcli.models.base import state_digest
from medcli.models.build import ModelSpec, build_outline
from medcli.models.classifier import Classifier
from medcli.models.spec import Target

SMALLEST = {
    "resnet18": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "mobilenetv3_small_100": 32,
    "regnetx_032": 32,
    "convnext_tiny": 32,
    "custom1": 32,
    "vit_tiny_patch16_224": 32,
    "deit_tiny_patch16_224": 32,
    "swin_tiny_patch4_window7_224": 56,
    "timm/test_vit": 32,
    "echo": 16,
}
VARIANTS = ("lora", "dora", "rslora", "pissa")
TINY = "timm/test_vit"


def trained(architecture: str, size: int, classes: int = 3) -> Classifier:
    """A network as pretraining leaves one: no residual branch is multiplied by zero."""
    network = build(architecture, num_classes=classes, image_size=size, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.backbone.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return network


def pictures(size: int) -> torch.Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(2))


def base_state(network: Classifier) -> dict[str, torch.Tensor]:
    return {
        name.replace(".base_layer", ""): value.clone()
        for name, value in network.backbone.state_dict().items()
        if ".lora_" not in name
    }


def learn(network: Classifier, images: torch.Tensor, steps: int = 2) -> None:
    network.train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), torch.tensor([0, 1, 2])).backward()
        optimizer.step()
    network.eval()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("architecture", "size"), SMALLEST.items())
def test_an_adapter_starts_acts_merges_and_comes_back(
    architecture: str, size: int, variant: str, tmp_path: Path
) -> None:
    network, images = trained(architecture, size), pictures(size)
    before, state = network(images), base_state(network)
    try:
        network.add_adapter(rank=2, variant=variant)  # type: ignore[arg-type]
    except UsageProblem as problem:
        assert (variant, problem.code) == ("pissa", "pissa-on-convolutions")  # noqa: PT017 (some have none)
        assert torch.equal(network(images), before)
        return
    start = network(images)
    assert torch.equal(start, before) if variant != "pissa" else (start - before).abs().max() <= 1e-4
    unchanged = base_state(network)
    learn(network, images)
    after = network(images).detach()
    assert (after - before).abs().max() > 1e-5
    learnt = base_state(network)
    assert state_digest(learnt) == state_digest(unchanged)
    if variant != "pissa":
        assert state_digest(learnt) == state_digest(state)
    network.save_adapter(tmp_path)
    again = trained(architecture, size)
    again.load_adapter(tmp_path)
    assert torch.equal(again(images), after) if variant != "pissa" else (again(images) - after).abs().max() <= 1e-4
    assert network.merge() <= 1e-5 * max(1.0, float(after.abs().max()))
    assert network.adapters is None
    torch.testing.assert_close(network(images), after, atol=1e-5, rtol=1e-5)
    assert base_state(network).keys() == state.keys()
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_only_adapter_and_head_learn_and_batch_statistics_rest() -> None:
    network = trained("resnet18", 32)
    network.add_adapter(rank=2, dropout=0.5)
    assert all(
        (".lora_" in n or n.startswith("medcli_head.")) == p.requires_grad for n, p in network.named_parameters()
    )
    network.train()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(module.training for module in norms)
    assert any(module.training for module in network.modules() if isinstance(module, nn.Dropout))
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    network(pictures(32))
    assert all(torch.equal(value, buffers[name]) for name, value in network.named_buffers())


@pytest.mark.parametrize(("rank", "trainable"), [(4, 400_389), (8, 793_605), (16, 1_580_037), (32, 3_152_901)])
def test_published_counts_on_vit_large(rank: int, trainable: int) -> None:
    classes = Target("multiclass", tuple("01234"))
    for norm, less in ((True, 0), (False, 2048)):
        spec = ModelSpec("medcli/vit_large_patch16_224", 3, 224, classes, head_norm=norm)
        network = build_outline(spec)
        network.add_adapter(rank=rank)
        assert network.parameter_counts().trainable == trainable - less
        assert network.parameter_counts().total == 303_301_632 + trainable - less
        assert network.parameter_counts().head == 7_173 - less
    network = build_outline(ModelSpec("medcli/vit_large_patch16_224", 3, 224, classes, head_norm=True))
    network.add_adapter(rank=8, targets="attn")
    assert network.parameter_counts().trainable == 1_186_821


def test_plain_peft_reads_what_is_saved(tmp_path: Path) -> None:
    for variant in VARIANTS:
        network, images = trained(TINY, 32), pictures(32)
        network.add_adapter(rank=2, variant=variant)  # type: ignore[arg-type]
        learn(network, images)
        network.save_adapter(tmp_path / variant)
        theirs = PeftModel.from_pretrained(trained(TINY, 32), str(tmp_path / variant)).eval()
        torch.testing.assert_close(theirs(images), network(images), atol=1e-5, rtol=1e-5)
        assert sorted(path.name for path in (tmp_path / variant).iterdir()) == [
            "adapter_config.json",
            "adapter_model.safetensors",
            "medcli.json",
        ]


def test_what_plain_peft_wrote_can_be_loaded(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base, images = trained(TINY, 32), pictures(32)
    names = [f"blocks.{index}.attn.qkv" for index in range(6)]
    bare = get_peft_model(base.backbone.net, LoraConfig(r=2, target_modules=names))  # type: ignore[arg-type, union-attr]
    for name, parameter in bare.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    expected = bare(images)
    bare.save_pretrained(tmp_path)
    network = trained(TINY, 32)
    network.load_adapter(tmp_path)
    torch.testing.assert_close(network.features(images), expected)


def test_switching_takes_the_head_along_and_leaves_the_base(tmp_path: Path) -> None:
    images = pictures(32)
    expected = {}
    for name, steps in (("aptos", 2), ("messidor.v2", 4)):
        network = trained(TINY, 32)
        network.add_adapter(rank=2)
        learn(network, images, steps)
        network.save_adapter(tmp_path / name)
        expected[name] = network(images)
    network = trained(TINY, 32)
    for name in expected:
        network.load_adapter(tmp_path / name, name)
    for name in (*expected, *expected):
        network.set_adapter(name)
        assert torch.equal(network(images), expected[name])
    network.load_adapter(tmp_path / "aptos", "messidor.v2")
    assert torch.equal(network(images), expected["aptos"])
    with pytest.raises(UsageProblem, match="no adapter `odir`"):
        network.set_adapter("odir")


def test_adapters_for_other_targets_share_a_base(tmp_path: Path) -> None:
    two = trained(TINY, 32, classes=2)
    two.add_adapter(rank=2)
    two.save_adapter(tmp_path)
    network = trained(TINY, 32)
    network.add_adapter(rank=4)
    network.load_adapter(tmp_path, "two")
    assert network(pictures(32)).shape == (3, 2)
    assert network.target.num_classes == 2
    network.set_adapter("default")
    assert network(pictures(32)).shape == (3, 3)


def dead(network: Classifier) -> None:
    """The qkv layers of beit, eva02 and swinv2 are used like this: their weight, without calling them."""

    class Uncalled(nn.Linear):
        pass

    for block in network.backbone.net.blocks:  # type: ignore[union-attr]
        layer, attention = block.attn.qkv, block.attn
        attention.plain = layer
        attention.forward = lambda x, a=attention, **_: a.proj(
            nn.functional.linear(x, a.qkv.weight, a.qkv.bias)[..., : x.shape[-1]]
        )


def test_adapters_that_would_never_learn_are_refused() -> None:
    network = trained(TINY, 32)
    dead(network)
    before = network(pictures(32))
    with pytest.raises(UsageProblem, match=r"6 of 6 adapters .* `net.blocks.0.attn.qkv`") as caught:
        network.add_adapter(rank=2)
    assert caught.value.code == "dead-adapters"
    assert network.adapters is None
    assert torch.equal(network(pictures(32)), before)
    network.add_adapter(rank=2, targets="mlp")


def test_a_merge_that_would_change_outputs_is_undone() -> None:
    network = trained(TINY, 32)
    network.add_adapter(rank=2)
    learn(network, pictures(32))
    before = network(pictures(32))
    layer = network.backbone.net.blocks[0].attn.qkv  # type: ignore[union-attr, index]
    layer.get_delta_weight = lambda adapter: torch.ones_like(layer.base_layer.weight)
    with pytest.raises(RunFailure, match="nothing was merged"):
        network.merge()
    assert torch.equal(network(pictures(32)), before)


@pytest.mark.parametrize(
    ("wrong", "code", "says"),
    [
        ({"rank": -1}, "bad-rank", "no rank"),
        ({"rank": 0}, "bad-rank", "no rank"),
        ({"rank": 10_000}, "bad-rank", "larger than 6 of 6 layers"),
        ({"targets": "*.nothing"}, "no-targets", "matches no module"),
        ({"targets": "*patch_embed*"}, "no-targets", "never adapted"),
        ({"targets": "conv"}, "no-targets", "matches no module"),
    ],
)
def test_refusals_leave_the_network_alone(wrong: dict[str, object], code: str, says: str) -> None:
    network = trained(TINY, 32)
    with pytest.raises(UsageProblem, match=says) as caught:
        network.add_adapter(**wrong)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert network.adapters is None
    assert not [name for name, _ in network.named_modules() if "lora" in name]
    if code == "no-targets":
        assert "qkv (6)" in str(caught.value.hint) or "mlp" in str(caught.value.hint)


def test_dora_refuses_convolutions_that_pad_their_own_way() -> None:
    with pytest.raises(UsageProblem, match="pad in a way of their own"):
        trained("timm/tf_efficientnet_b0", 32).add_adapter(rank=2, variant="dora")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    network = trained(TINY, 32)
    network.add_adapter(rank=2)
    network.save_adapter(tmp_path / "adapter")
    return tmp_path / "adapter"


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def change(**settings: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))

    return edit


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: flip_a_bit(folder / "adapter_model.safetensors"), "not those that were written"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"nonsense"), "is damaged"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "holds no `adapter_model"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "holds no adapter"),
        (lambda folder: (folder / "medcli.json").write_text("[]"), "is damaged"),
        (change(peft_type="LOHA"), "a LOHA adapter"),
        (change(megatron_core="os", megatron_config={"a": 1}), "does not know"),
        (change(r=4), "does not fit this network"),
        (change(r=-4), "is damaged"),
    ],
)
def test_a_damaged_adapter_is_refused(damage: Callable[[Path], object], says: str, saved: Path) -> None:
    damage(saved)
    with pytest.raises(UsageProblem, match=says):
        trained(TINY, 32).load_adapter(saved)


def test_another_base_is_refused(saved: Path) -> None:
    other = build(TINY, num_classes=3, image_size=32, seed=5)
    with pytest.raises(UsageProblem, match="other weights") as caught:
        other.load_adapter(saved)
    assert caught.value.code == "other-base"
    with pytest.raises(UsageProblem, match="its architecture"):
        trained("timm/test_vit2", 32).load_adapter(saved)
    with pytest.raises(UsageProblem, match="its image size"):
        trained(TINY, 64).load_adapter(saved)


def test_layer_groups_follow_the_wrapped_names() -> None:
    network = trained(TINY, 32)
    groups = network.layer_groups()
    network.add_adapter(rank=2)
    names = {name for name, _ in network.named_parameters()}
    wrapped = network.layer_groups()
    assert [group.name for group in wrapped] == [group.name for group in groups]
    assert all(name in names for group in wrapped for name in group.parameters)
