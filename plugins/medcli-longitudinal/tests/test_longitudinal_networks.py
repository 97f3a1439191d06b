"""The networks: sizes to the digit, shapes, ranges, gradients, and the document's own words in code."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch")

from medcli_longitudinal import constants, models  # noqa: E402
from medcli_longitudinal.constants import BLOCKS, Sizes  # noqa: E402
from medcli_longitudinal.encoder import plans  # noqa: E402

TINY = Sizes(image_size=64, width=1 / 16, depth=2)
PAIRED = ("LongitudinalMIMModelBig", "LongitudinalMIMModel", "SubtractModelBig", "SubtractModel")
USAGE = """
from medcli_longitudinal.models import LongitudinalMIMModelBig
from medcli_longitudinal.constants import DEVICE

# Initialize model
model = LongitudinalMIMModelBig().to(DEVICE)

# Forward pass
baseline = torch.randn(4, 1, 512, 512).to(DEVICE)  # [B, C, H, W]
followup = torch.randn(4, 1, 512, 512).to(DEVICE)

diff_pred = model(baseline, followup)  # [4, 1, 512, 512]
"""


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def count(network) -> int:
    return sum(one.numel() for one in network.parameters())


def tiny(name: str, seed: int = 0, **keywords):
    torch.manual_seed(seed)
    return getattr(models, name)(sizes=TINY, **keywords)


def outline(name: str, *given, **keywords):
    with torch.device("meta"):
        return getattr(models, name)(*given, **keywords)


# The public code's table of blocks and models.
@pytest.mark.parametrize(
    ("name", "given", "parameters"),
    [
        ("ChannelExpansionBlock", (), 5_144),
        ("EfficientNetMiniEncoder", (), 10_743_408),
        ("ConvBlockBranch", (640,), 7_375_360),
        ("FeatureEmbeddings", (), 738_048),
        ("VisionTransformer", (), 85_054_464),
        ("FeatureCompression", (), 91_035_520),
        ("BottleneckEncoder", (), 213_846_768),
        ("Decoder6", (), 9_294_210),
        ("Decoder5", (), 9_222_338),
        ("Decoder4", (), 6_483_282),
        ("Decoder2", (), 7_120_162),
        ("Decoder1", (), 163_840),
        ("PatchDecoder6", (), 7_779_981),
        ("TechnicalBottleneck", (), 2_845_956),
        ("SubtractModel", (), 64_289_778),
        ("SubtractModelBig", (), 110_887_538),
    ],
)
def test_parameters_are_those_of_the_public_code_to_the_digit(name, given, parameters):
    assert count(outline(name, *given)) == parameters


def test_blocks_around_a_transformer_have_its_parameters_and_their_own():
    with torch.device("meta"):
        assert count(models.TransformerBranch(torch.nn.Identity())) == 4_887_296
        assert count(models.BottleneckBlock(models.VisionTransformer())) == 188_352_640


def test_what_the_public_code_never_runs_is_frozen():
    unused = [one.numel() for one in outline("SubtractModelBig").parameters() if not one.requires_grad]
    assert sum(unused) == 2_345_600


@pytest.mark.parametrize(
    ("index", "inputs", "expanded", "outputs", "kernel", "stride", "squeezed", "parameters"),
    [
        (0, 64, 64, 32, 3, 1, 16, 4_944),
        (4, 32, 192, 48, 3, 2, 8, 21_224),
        (11, 48, 288, 80, 5, 2, 12, 52_588),
        (18, 80, 480, 160, 3, 2, 20, 141_460),
        (28, 160, 960, 224, 5, 1, 40, 474_728),
        (38, 224, 1344, 384, 5, 2, 56, 1_008_824),
        (51, 384, 2304, 640, 3, 1, 96, 2_835_296),
        (52, 640, 3840, 640, 3, 1, 160, 6_199_200),
    ],
)
def test_chosen_blocks_are_efficientnet_b7s(index, inputs, expanded, outputs, kernel, stride, squeezed, parameters):
    plan = plans()[index]
    assert (plan.inputs, plan.expanded, plan.outputs) == (inputs, expanded, outputs)
    assert (plan.kernel, plan.stride, plan.squeezed) == (kernel, stride, squeezed)
    with torch.device("meta"):
        assert count(models.MBConv(plan)) == parameters


def test_all_blocks_of_b7_have_the_parameters_of_an_independent_implementation():
    import timm

    with torch.device("meta"):
        theirs = timm.create_model("tf_efficientnet_b7").blocks
        # timm counts a block's squeeze and norms as we do; stages there, one list here.
        expected = [count(block) for stage in theirs for block in stage]
        ours = [count(models.MBConv(plan)) for plan in plans()]
    assert ours == expected


def test_a_block_computes_what_an_independent_implementation_does():
    """Block 4 of B7 in timm: asymmetric padding at stride 2, squeeze and excitation, batch norm in eval mode."""
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_b7").blocks[1][0].eval()
    ours = models.MBConv(plans()[4]).eval()
    for norm in theirs.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.eps = 1e-5
    state = dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True))
    ours.load_state_dict(state)
    maps = torch.randn(1, 32, 16, 16)
    with torch.no_grad():
        assert torch.allclose(ours(maps), theirs(maps), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("LongitudinalMIMModelBig", 162e6, 198e6),
        ("LongitudinalMIMModel", 108e6, 132e6),
        ("MaskedReconstructionModel", 90e6, 110e6),
    ],
)
def test_the_documents_models_are_within_a_tenth_of_its_sizes(name, low, high):
    assert low < count(outline(name)) < high


def test_full_size_shapes_without_memory():
    with torch.device("meta"):
        image = torch.zeros(1, 1, 512, 512)
        maps = models.EfficientNetMiniEncoder().maps(image)
        assert [tuple(one.shape[1:]) for one in maps] == [(48, 256, 256), (80, 128, 128), (224, 64, 64), (640, 32, 32)]
        feature = torch.zeros(1, 640, 32, 32)
        assert models.BottleneckBlock(models.VisionTransformer())(feature).shape == feature.shape
        assert models.TechnicalBottleneck().eval()(feature).shape == feature.shape
        for name in ("Decoder6", "Decoder5", "Decoder4", "Decoder2", "Decoder1", "PlainDecoder"):
            assert getattr(models, name)()(feature).shape == image.shape
        assert models.PatchDecoder6()(feature).shape == (1, 1, 128, 128)
        assert models.Discriminator()(image).shape == (1, 1, 62, 62)
        assert models.ClassificationModel(in_channels=1, labels_num=14)(image).shape == (1, 14)
        assert models.MaskedReconstructionModel(in_channels=1)(image).shape == image.shape
        layer = models.ChannelExpansionLayer(in_channels=64, out_multiplier=2)
        assert layer(torch.zeros(1, 64, 8, 8)).shape == (1, 128, 8, 8)
        block = models.DecoderBlock(640, 320, deconv_kernel_size=2, deconv_stride=2, sigmoid=False)
        assert block(feature).shape == (1, 320, 64, 64)


def test_the_documents_usage_runs_as_written():
    # Weightless: the snippet's four pairs would take 20 GB. `test_usage_with_numbers` computes them, smaller.
    names: dict = {"torch": torch}
    with torch.device("meta"):
        exec(USAGE.replace(".to(DEVICE)", ""), names)
    assert names["diff_pred"].shape == (4, 1, 512, 512)
    assert isinstance(names["DEVICE"], torch.device)
    for parameter in names["model"].encoder.parameters():
        parameter.requires_grad = False
    assert any(one.requires_grad for one in names["model"].parameters())


@pytest.mark.slow
def test_usage_with_numbers():
    names: dict = {"torch": torch}
    with torch.no_grad():
        exec(USAGE.replace("(4, 1", "(1, 1"), names)
    found = names["diff_pred"]
    assert found.shape == (1, 1, 512, 512)
    assert bool(((found >= 0) & (found <= 1)).all())


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize("kind", ["signed", "magnitude"])
def test_every_trained_parameter_gets_a_gradient_and_maps_keep_their_range(name, kind):
    network = tiny(name, map=kind).train()
    before, after = torch.rand(2, 2, 1, 64, 64)
    found = network(before, after)
    assert found.shape == (2, 1, 64, 64)
    assert float(found.detach().min()) >= (-1 if kind == "signed" else 0)
    assert float(found.detach().max()) <= 1
    (found * torch.randn_like(found)).sum().backward()
    trained = {key: one for key, one in network.named_parameters() if one.requires_grad}
    assert [key for key, one in trained.items() if one.grad is None or not bool(one.grad.any())] == []
    named = [key for group in network.layer_groups() for key in group.parameters]
    assert sorted(named) == sorted(key for key, _ in network.named_parameters())
    if kind == "signed":
        return
    assert models.Discriminator(width=8)(found.detach()).shape[:2] == (2, 1)


@pytest.mark.parametrize("name", ["MaskedReconstructionModel", "ClassificationModel", "ContrastiveEncoder"])
def test_auxiliary_networks_learn_in_every_parameter(name):
    network = tiny(name).train()
    found = network(torch.rand(3, 1, 64, 64))
    (found * torch.randn_like(found)).sum().backward()
    assert [key for key, one in network.named_parameters() if one.grad is None or not bool(one.grad.any())] == []
    if name == "ContrastiveEncoder":
        assert torch.allclose(found.norm(dim=1), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("name", ["LongitudinalMIMModelBig", "SubtractModelBig"])
def test_checkpointing_changes_neither_gradients_nor_statistics(name):
    results = []
    for enabled in (False, True):
        network = tiny(name, map="signed").train()
        network.set_grad_checkpointing(enabled)
        torch.manual_seed(1)  # channel dropout
        network(*torch.linspace(0, 1, 2 * 2 * 64 * 64).reshape(2, 2, 1, 64, 64).sin()).square().sum().backward()
        gradients = {key: one.grad for key, one in network.named_parameters() if one.grad is not None}
        results.append((gradients, dict(network.named_buffers())))
    (plain, buffers), (again, counted) = results
    assert plain.keys() == again.keys()
    assert all(torch.allclose(plain[key], again[key], atol=1e-6) for key in plain)
    assert all(torch.equal(buffers[key], counted[key]) for key in buffers)


def test_the_switch_of_initial_weights():
    start = tiny("SubtractModel")
    conv = start.features[0].conv1.weight
    assert float(conv.detach().std()) == pytest.approx((2 / conv[0].numel()) ** 0.5, rel=0.05)
    own = models.SubtractModel(sizes=Sizes(64, 1 / 16, 2, init_weights=False)).features[0].conv1.weight
    assert float(own.detach().std()) == pytest.approx((1 / 3 / own[0].numel()) ** 0.5, rel=0.05)
    position = tiny("MaskedReconstructionModel").encoder.bottleneck.transformer.embeddings.position
    assert 0.01 < float(position.detach().std()) < 0.03


def test_other_numbers_of_channels_as_in_the_public_code():
    with torch.device("meta"):
        four = models.EfficientNetMiniEncoder(BLOCKS, 4, *Sizes().expansions(4))
        two = models.EfficientNetMiniEncoder(block_idxs=BLOCKS, inp=2, exp=4.0, exp2=8.0, dropout=False)
    assert count(four) - 10_743_408 == 7_368
    assert count(two) - 10_743_408 == 8 * 49
    with pytest.raises(ValueError, match="the first block takes 64"):
        models.EfficientNetMiniEncoder(BLOCKS, 3, 8.0, 8.0)
    with pytest.raises(ValueError, match="the next one takes"):
        models.EfficientNetMiniEncoder((0, 11))


def test_constants_are_the_documents():
    said = dict(
        re.findall(r"(\w+) = (\d+)", "IMG_SIZE = 512 FEATURE_SIZE = 32 FEATURE_CHANNELS = 640 HIDDEN_CHANNELS = 768")
    )
    said |= {"INTER_CHANNELS": 704, "PATCHES_NUM": 256, "GROUP_NORM_GROUPS": 32}
    assert {key: int(value) for key, value in said.items()} == {key: getattr(constants, key) for key in said}
    assert constants.INIT_STD == 0.02
    assert constants.INIT_WEIGHTS is True
    published = constants.PUBLISHED
    assert (published.feature_size, published.patches, published.hidden_channels) == (32, 256, 768)
