"""Files in the published layouts, filled with random numbers, against a vision transformer written out in this file."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from medcli_retfound.layouts import DINOV2, GREEN, MAE, Layout
from medcli_retfound.network import build_network

from medcli.errors import UsageProblem

WIDTH, DEPTH, HEADS = 32, 3, 4
PATCH = {MAE: 16, DINOV2: 14, GREEN: 14}
REGISTERS = {MAE: 0, DINOV2: 0, GREEN: 4}


@dataclass
class Numbers:
    """A network as bare tensors; linear layers are (weight [out, in], bias), norms (gain, offset)."""

    cls: torch.Tensor
    registers: torch.Tensor
    positions: torch.Tensor  # [prefix + N, D]; Green has rows for patches alone
    prefix: int
    kernel: torch.Tensor
    bias: torch.Tensor
    blocks: list[dict[str, tuple[torch.Tensor, torch.Tensor] | torch.Tensor]]
    norm: tuple[torch.Tensor, torch.Tensor]


def draw(layout: Layout, *, depth: int = DEPTH, width: int = WIDTH, seed: int = 0) -> Numbers:
    source = torch.Generator().manual_seed(seed)

    def randn(*shape: int, scale: float = 0.3, mean: float = 0.0) -> torch.Tensor:
        # What half precision can hold, so that a file may be written in it.
        return (torch.randn(*shape, generator=source) * scale + mean).half().float()

    def linear(out: int, inner: int) -> tuple[torch.Tensor, torch.Tensor]:
        return randn(out, inner, scale=inner**-0.5), randn(out)

    def norm() -> tuple[torch.Tensor, torch.Tensor]:
        return randn(width, mean=1.0), randn(width)

    patch = PATCH[layout]
    prefix = 0 if layout is GREEN else 1
    blocks = []
    for _ in range(depth):
        block = {
            "norm1": norm(), "attn.qkv": linear(3 * width, width), "attn.proj": linear(width, width), "norm2": norm(),
            "mlp.fc1": linear(4 * width, width), "mlp.fc2": linear(width, 4 * width),
        }  # fmt: skip
        if layout is not MAE:
            block |= {"ls1.gamma": randn(width, scale=1.0), "ls2.gamma": randn(width, scale=1.0)}
        blocks.append(block)
    return Numbers(
        cls=randn(width),
        registers=randn(REGISTERS[layout], width),
        positions=randn(prefix + (layout.image_size // patch) ** 2, width),
        prefix=prefix,
        kernel=randn(width, 3, patch, patch, scale=(3 * patch * patch) ** -0.5),
        bias=randn(width),
        blocks=blocks,
        norm=norm(),
    )


def normed(x: torch.Tensor, gain_offset: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain_offset[0] + gain_offset[1]


def bicubic(old: int, new: int) -> torch.Tensor:
    """[new, old]: Catmull-Rom weights, widened where the grid gets coarser, each row summing to 1."""
    scale = old / new
    places = (torch.arange(new, dtype=torch.float64) + 0.5) * scale
    distance = ((torch.arange(old, dtype=torch.float64) + 0.5 - places[:, None]) / max(scale, 1.0)).abs()
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
    return weights / weights.sum(1, keepdim=True)


def positions_at(numbers: Numbers, grid: int) -> torch.Tensor:
    head, table = numbers.positions[: numbers.prefix], numbers.positions[numbers.prefix :]
    old = math.isqrt(len(table))
    if old == grid:
        return numbers.positions
    matrix = bicubic(old, grid)
    square = torch.einsum("yi,ijd,xj->yxd", matrix, table.double().reshape(old, old, -1), matrix)
    return torch.cat([head, square.reshape(grid * grid, -1).float()])


def tokens_of(numbers: Numbers, images: torch.Tensor, heads: int = HEADS) -> torch.Tensor:
    """All tokens before the last norm, [B, 1 + R + N, D]."""
    batch, _, side, _ = images.shape
    width, patch = len(numbers.cls), numbers.kernel.shape[-1]
    grid = side // patch
    cut = images.reshape(batch, -1, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5).reshape(batch, grid * grid, -1)
    x = cut @ numbers.kernel.reshape(width, -1).T + numbers.bias
    cls, registers = numbers.cls.expand(batch, 1, -1), numbers.registers.expand(batch, -1, -1)
    positions = positions_at(numbers, grid)
    x = torch.cat([cls, x], 1) + positions if numbers.prefix else torch.cat([cls, registers, x + positions], 1)
    for block in numbers.blocks:
        weight, bias = block["attn.qkv"]
        q, k, v = (normed(x, block["norm1"]) @ weight.T + bias).chunk(3, dim=-1)
        q, k, v = (part.reshape(batch, -1, heads, width // heads).transpose(1, 2) for part in (q, k, v))
        scores = q @ k.transpose(2, 3) / math.sqrt(width // heads)
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        mixed = (weights / weights.sum(-1, keepdim=True) @ v).transpose(1, 2).reshape(batch, -1, width)
        mixed = mixed @ block["attn.proj"][0].T + block["attn.proj"][1]
        x = x + mixed * block.get("ls1.gamma", 1.0)
        hidden = normed(x, block["norm2"]) @ block["mlp.fc1"][0].T + block["mlp.fc1"][1]
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + (hidden @ block["mlp.fc2"][0].T + block["mlp.fc2"][1]) * block.get("ls2.gamma", 1.0)
    return x


def features_of(layout: Layout, numbers: Numbers, images: torch.Tensor, pool: str, new_norm=None) -> torch.Tensor:
    x = tokens_of(numbers, images, HEADS)
    patches = slice(1 + REGISTERS[layout], None)
    if pool == "cls":
        return normed(x, numbers.norm)[:, 0]
    if layout is MAE:
        return normed(x[:, patches].mean(1), new_norm or (torch.ones(WIDTH), torch.zeros(WIDTH)))
    return normed(x, numbers.norm)[:, patches].mean(1)


def encoder(numbers: Numbers, block_name="blocks.{}.") -> dict[str, torch.Tensor]:
    """The names that the three layouts share."""
    state = {
        "cls_token": numbers.cls.reshape(1, 1, -1),
        "pos_embed": numbers.positions[None],
        "patch_embed.proj.weight": numbers.kernel,
        "patch_embed.proj.bias": numbers.bias,
    }
    if len(numbers.registers):
        state["reg_token"] = numbers.registers[None]
    for index, block in enumerate(numbers.blocks):
        for part, value in block.items():
            name = block_name.format(index) + part
            state |= (
                {name: value}
                if torch.is_tensor(value)
                else dict(zip((f"{name}.weight", f"{name}.bias"), value, strict=True))
            )
    return state | {"norm.weight": numbers.norm[0], "norm.bias": numbers.norm[1]}


def decoder(width: int = 16) -> dict[str, torch.Tensor]:
    names = ["decoder_embed.weight", "decoder_embed.bias", "decoder_norm.weight", "decoder_norm.bias"]
    names += ["decoder_pred.weight", "decoder_pred.bias", "decoder_pos_embed", "mask_token"]
    parts = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
    names += [f"decoder_blocks.{i}.{part}.{kind}" for i in range(8) for part in parts for kind in ("weight", "bias")]
    return {name: torch.randn(width) for name in names}


def around(state: dict[str, torch.Tensor]) -> dict[str, object]:
    """What the authors' training scripts save beside the network."""
    args = argparse.Namespace(model="mae_vit_large_patch16", blr=1.5e-4, epochs=800, norm_pix_loss=True, lr=None)
    moments = {"step": torch.tensor(7.0), "exp_avg": torch.zeros(4), "exp_avg_sq": torch.zeros(4)}
    optimizer = {"state": {0: moments}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95), "params": [0]}]}
    return {"model": state, "optimizer": optimizer, "epoch": 799, "scaler": {"scale": 65536.0}, "args": args}


def dinov2(numbers: Numbers, *, block_name="backbone.blocks.{}.", swiglu=False) -> dict[str, object]:
    state = {}
    for name, value in encoder(numbers, "blocks.{}.").items():
        if name.startswith("blocks."):
            _, index, rest = name.split(".", 2)
            name = block_name.format(index) + rest
            if swiglu:
                name = name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        else:
            name = f"backbone.{name}"
        state[name] = value
    state["backbone.mask_token"] = torch.randn(1, len(numbers.cls))
    heads = [f"dino_head.mlp.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")]
    heads += ["dino_head.last_layer.weight_g", "dino_head.last_layer.weight_v"]
    return {"teacher": state | {name: torch.randn(5) for name in heads}}


def written(folder: Path, content: object, name: str = "weights.pth") -> str:
    torch.save(content, folder / name)
    return str(folder / name)


def build(layout: Layout, weights: str | None, **options):
    small = {"depth": DEPTH, "embed_dim": WIDTH, "num_heads": HEADS}
    wanted = {"in_channels": 3, "image_size": layout.image_size, "pool": layout.pool} | small | options
    return build_network(layout, name="retfound-test", page="https://example.org", weights=weights, **wanted).eval()


def pictures(side: int, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(side))


def published(layout: Layout, numbers: Numbers) -> object:
    if layout is MAE:
        return around(encoder(numbers) | decoder())
    return dinov2(numbers) if layout is DINOV2 else encoder(numbers)


@pytest.mark.parametrize("side", [None, "coarser", "finer"])
@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize("layout", [MAE, DINOV2, GREEN], ids=["mae", "dinov2", "green"])
def test_published_file_gives_the_features_of_the_independent_network(tmp_path, layout, pool, side):
    numbers = draw(layout)
    own = layout.image_size // PATCH[layout]
    size = {None: own, "coarser": own - 5, "finer": own + 3}[side] * PATCH[layout]
    network = build(layout, written(tmp_path, published(layout, numbers)), pool=pool, image_size=size)
    images = pictures(size)
    with torch.no_grad():
        features = network(images)
    assert features.std() > 0.1
    torch.testing.assert_close(features, features_of(layout, numbers, images, pool), rtol=0, atol=1e-5)
    report = network.load_report
    new = 2 if layout is MAE and pool == "mean" else 0
    assert (report.matched, report.total) == (len(network.net.state_dict()) - new, len(network.net.state_dict()))
    assert report.resized == (() if side is None else ("pos_embed",))
    assert len(report.fresh) == new
    assert network.pretrained_head is None


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_decoder_is_left_out_and_counted(tmp_path, pool):
    network = build(MAE, written(tmp_path, around(encoder(draw(MAE)) | decoder())), pool=pool)
    unused = {"norm.weight", "norm.bias"} if pool == "mean" else set()
    assert set(network.load_report.ignored) == set(decoder()) | unused
    assert f"{104 + len(unused)} of other parts of the file left out" in network.load_report.sentence()


@pytest.mark.parametrize(
    "spelling",
    [{"swiglu": True}, {"block_name": "backbone.blocks.0.{}."}, {"block_name": "blocks.{}."}],
    ids=["mlp.w12", "chunks", "partly prefixed"],
)
def test_every_spelling_of_dinov2_is_the_same_network(tmp_path, spelling):
    numbers = draw(DINOV2)
    plain = build(DINOV2, written(tmp_path, dinov2(numbers), "plain.pth"))
    other = build(DINOV2, written(tmp_path, dinov2(numbers, **spelling), "other.pth"))
    images = pictures(224)
    with torch.no_grad():
        assert torch.equal(plain(images), other(images))
    assert len(other.load_report.ignored) == 9


def test_one_channel_sees_what_a_grey_picture_in_three_would(tmp_path):
    numbers = draw(MAE)
    file = written(tmp_path, published(MAE, numbers))
    grey = pictures(224, channels=1)
    with torch.no_grad():
        features = build(MAE, file, in_channels=1)(grey)
    torch.testing.assert_close(features, features_of(MAE, numbers, grey.repeat(1, 3, 1, 1), "mean"), rtol=0, atol=1e-5)


def fine_tuned(numbers: Numbers, pool: str) -> tuple[dict[str, object], tuple[torch.Tensor, torch.Tensor]]:
    """`checkpoint-best.pth` of the authors' code: five classes, and with the mean `fc_norm` instead of `norm`."""
    state, new_norm = encoder(numbers), (torch.rand(WIDTH) + 0.5, torch.randn(WIDTH))
    if pool == "mean":
        del state["norm.weight"], state["norm.bias"]
        state |= {"fc_norm.weight": new_norm[0], "fc_norm.bias": new_norm[1]}
    state |= {"head.weight": torch.randn(5, WIDTH), "head.bias": torch.randn(5)}
    return {key: value for key, value in around(state).items() if key in {"model", "epoch", "args"}}, new_norm


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_fine_tuned_checkpoint_brings_its_own_norm_and_head(tmp_path, pool):
    numbers = draw(MAE)
    content, new_norm = fine_tuned(numbers, pool)
    network = build(MAE, written(tmp_path, content, "checkpoint-best.pth"), pool=pool)
    images = pictures(224)
    with torch.no_grad():
        features = network(images)
    torch.testing.assert_close(features, features_of(MAE, numbers, images, pool, new_norm), rtol=0, atol=1e-5)
    assert network.load_report.fresh == ()
    assert network.load_report.head == ("head.weight", "head.bias")
    head = network.pretrained_head
    assert torch.equal(head.weight, content["model"]["head.weight"])
    assert torch.equal(head.bias, content["model"]["head.bias"])
    assert (head.class_names, head.task) == ((), "multiclass")


@pytest.mark.parametrize(("layout", "theirs"), [(MAE, "mean"), (MAE, "cls"), (DINOV2, "cls")])
def test_checkpoint_fine_tuned_with_the_other_pooling_is_refused(tmp_path, layout, theirs):
    content, _ = fine_tuned(draw(layout), theirs)
    with pytest.raises(UsageProblem, match=f"fine-tuned with `pool={theirs}`") as caught:
        build(layout, written(tmp_path, content), pool="cls" if theirs == "mean" else "mean")
    assert (caught.value.code, caught.value.hint) == ("weights-do-not-fit", f"--arch-opt pool={theirs}")


def test_fine_tuned_dinov2_loads_with_its_head(tmp_path):
    numbers = draw(DINOV2)
    network = build(DINOV2, written(tmp_path, fine_tuned(numbers, "cls")[0]))
    images = pictures(224)
    with torch.no_grad():
        torch.testing.assert_close(network(images), features_of(DINOV2, numbers, images, "cls"), rtol=0, atol=1e-5)
    assert network.pretrained_head.weight.shape == (5, WIDTH)


def refusal(layout: Layout, file: str, **options) -> UsageProblem:
    with pytest.raises(UsageProblem) as caught:
        build(layout, file, **options)
    return caught.value


def test_renamed_file_is_refused_with_counts_and_names(tmp_path):
    state = {name.replace("blocks", "layers"): value for name, value in encoder(draw(MAE)).items()}
    problem = refusal(MAE, written(tmp_path, {"model": state}), pool="cls")
    assert problem.code == "weights-do-not-fit"
    assert "`weights.pth` does not fit `retfound-test`: 6 of 42 tensors match" in str(problem)
    assert "36 are missing (blocks.0.norm1.weight" in str(problem)
    assert "36 are not part of it (layers.0.norm1.weight" in str(problem)


def test_file_of_a_shallower_network_is_refused(tmp_path):
    problem = refusal(MAE, written(tmp_path, published(MAE, draw(MAE, depth=2))), pool="cls")
    assert "30 of 42 tensors match; 12 are missing (blocks.2.norm1.weight" in str(problem)


def test_encoder_of_another_width_is_refused_with_shapes(tmp_path):
    problem = refusal(MAE, written(tmp_path, published(MAE, draw(MAE, width=64))))
    assert "40 have another shape (cls_token [1, 1, 64] instead of [1, 1, 32]" in str(problem)


def test_true_swiglu_is_refused_by_its_shapes(tmp_path):
    numbers = draw(DINOV2)
    for block in numbers.blocks:
        block["mlp.fc1"] = (torch.randn(176, WIDTH), torch.randn(176))
        block["mlp.fc2"] = (torch.randn(WIDTH, 88), torch.randn(WIDTH))
    problem = refusal(DINOV2, written(tmp_path, dinov2(numbers, swiglu=True)))
    assert "9 have another shape (blocks.0.mlp.fc1.weight [176, 32] instead of [128, 32]" in str(problem)


@pytest.mark.parametrize(("layout", "other"), [(MAE, DINOV2), (DINOV2, MAE), (GREEN, DINOV2), (MAE, GREEN)])
def test_file_of_another_layout_is_refused(tmp_path, layout, other):
    problem = refusal(layout, written(tmp_path, published(other, draw(other))), pool="cls")
    assert problem.code == "weights-do-not-fit"


def test_tensor_that_belongs_nowhere_is_refused(tmp_path):
    state = encoder(draw(MAE)) | {"adapter.weight": torch.zeros(3)}
    assert "1 are not part of it (adapter.weight)" in str(refusal(MAE, written(tmp_path, {"model": state})))


def test_truncated_file_is_refused(tmp_path):
    whole = Path(written(tmp_path, published(MAE, draw(MAE))))
    part = tmp_path / "part.pth"
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert refusal(MAE, str(part)).code == "bad-weights"


class Touch:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_file_that_would_run_code_is_refused_and_runs_none(tmp_path):
    content = around(encoder(draw(MAE)))
    content["args"].callback = Touch(tmp_path / "ran")
    assert refusal(MAE, written(tmp_path, content)).code == "unsafe-weights"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("file", "pretrained"), [(None, True), ("nature", False), ("absent.pth", False)])
def test_weights_that_are_not_there_say_where_to_ask(file, pretrained):
    problem = refusal(MAE, file, pretrained=pretrained)
    assert problem.code == "no-weights"
    assert problem.hint == "get them at https://example.org, then give `--weights FILE`"


def test_unknown_pooling_is_refused():
    assert refusal(MAE, None, pool="max").code == "bad-option"


@pytest.mark.slow
def test_true_size_loads_and_agrees(tmp_path):
    from medcli_retfound import retfound_cfp

    numbers = draw(MAE, depth=24, width=1024)
    half = {name: value.half() for name, value in (encoder(numbers) | decoder()).items()}
    file = written(tmp_path, {"model": half, "args": argparse.Namespace()}, "RETFound_cfp_weights.pth")
    images = pictures(224)[:1]
    with torch.no_grad():
        features = retfound_cfp(in_channels=3, image_size=224, weights=file, pool="cls").eval()(images)
        tokens = tokens_of(numbers, images, heads=16)
    reference = normed(tokens, numbers.norm)[:, 0]
    torch.testing.assert_close(features, reference, rtol=0, atol=1e-4)
