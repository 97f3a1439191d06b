"""The built-in difference models: what they compute, what they refuse, and encoders taken over from other runs."""

from __future__ import annotations

import pytest

from medcli.errors import UsageProblem
from medcli.testing import conformance

torch = pytest.importorskip("torch")

from medcli.diffmap.network import build_difference, build_discriminator, build_reconstruction, load_encoder  # noqa: E402
from medcli.plugin import TimmBackbone  # noqa: E402

SMALL = {"encoder": "test_resnet", "width": 4}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name: str, **keywords):
    return build_difference(name, **{"in_channels": 1, "image_size": 64, **keywords})


def pair():
    return torch.rand(2, 2, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def test_subtraction_by_hand():
    model = build("subtraction", options={"normalise": "none", "smooth": 1})
    before, after = torch.zeros(2, 1, 1, 4, 4)
    before[0, 0, 1, 2], after[0, 0, 3, 3] = 0.25, 0.5
    expected = torch.zeros(1, 1, 4, 4)
    expected[0, 0, 1, 2], expected[0, 0, 3, 3] = -0.25, 0.5
    assert torch.equal(model(before, after), expected)
    assert torch.equal(build("subtraction", map="magnitude", options={"normalise": "none", "smooth": 1})(before, after),
                       expected.abs())  # fmt: skip


@pytest.mark.parametrize("normalise", ["range", "moments"])
def test_subtraction_does_not_see_exposure_and_is_odd(normalise):
    model = build("subtraction", options={"normalise": normalise})
    before, after = pair()
    assert float(model(before, before).abs().max()) == 0
    assert torch.equal(model(before, after), -model(after, before))
    brighter = before * 0.5 + 0.3
    assert float(model(before, brighter).abs().max()) < 1e-5


def test_a_blank_picture_gives_a_finite_map():
    before, after = pair()
    found = build("subtraction")(torch.full_like(before, 0.4), after)
    assert bool(torch.isfinite(found).all())
    assert float(found.abs().max()) <= 1


@pytest.mark.parametrize(
    ("name", "options", "code"),
    [
        ("subtraction", {"smooth": 4}, "bad-option"),
        ("siamese-unet", {"encoder": "resnt18"}, "no-difference-encoder"),
        ("siamese-unet", {"enkoder": "resnet18"}, "bad-option"),
        ("siamese-unet", {"map": "signed"}, "bad-option"),
        ("siamese-unt", {}, "unknown-architecture"),
        ("resnet18", {}, "unknown-architecture"),
    ],
)
def test_what_cannot_be_built_is_refused(name, options, code):
    with pytest.raises(UsageProblem) as caught:
        build(name, options=options)
    assert caught.value.code == code
    assert caught.value.hint


def test_other_kinds_are_named():
    with pytest.raises(UsageProblem, match="is an architecture, and a difference model is asked for"):
        build("resnet18")


@pytest.mark.parametrize("encoder", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
@pytest.mark.parametrize("kind", ["signed", "magnitude"])
def test_siamese_unet_on_encoders_of_every_kind(encoder, kind):
    size = 160 if encoder == "test_vit" else 64
    model = build("siamese-unet", image_size=size, map=kind, options={**SMALL, "encoder": encoder}, seed=0).train()
    before, after = torch.rand(2, 2, 1, size, size)
    found = model(before, after)
    assert found.shape == (2, 1, size, size)
    low = -1 if kind == "signed" else 0
    assert low <= float(found.detach().min()) <= float(found.detach().max()) <= 1
    (found * torch.randn_like(found)).sum().backward()
    assert model.encoder.state_dict().keys() == model.encoder_tensors(model.encoder.state_dict())[0].keys()
    whole = build_reconstruction(model, "siamese-unet")
    assert whole.encoder is model.encoder
    assert whole.eval()(before).shape == before.shape
    # The encoder of a classifier of the same network, as `medcli train` keeps it.
    classifier = TimmBackbone(encoder, in_channels=1, image_size=size)
    state = {f"backbone.{key}": one for key, one in classifier.state_dict().items()}
    report = load_encoder(model, state | {"medcli_head.linear.weight": torch.zeros(2, 3)})
    assert (report.matched, report.head) == (len(model.encoder.state_dict()), 1)
    first = next(iter(model.encoder_tensors(classifier.net.state_dict())[0]))
    assert torch.equal(model.encoder.state_dict()[first], next(iter(classifier.net.state_dict().values())))


def test_seed_decides_and_leaves_chance_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again = (build("siamese-unet", options=SMALL, seed=1) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(one, again.state_dict()[key]) for key, one in first.state_dict().items())


@pytest.mark.parametrize("other", ["resnet34", "resnet10t"])
def test_an_encoder_of_another_network_is_refused_with_counts(other):
    model = build("siamese-unet", options={"encoder": "resnet18", "width": 4}, seed=0)
    before = {key: one.clone() for key, one in model.state_dict().items()}
    with torch.device("cpu"):
        state = {f"backbone.{key}": one for key, one in TimmBackbone(other, in_channels=1).state_dict().items()}
    with pytest.raises(UsageProblem, match="of the encoder's 120 tensors match") as caught:
        load_encoder(model, state)
    assert caught.value.code == "weights-do-not-fit"
    assert all(torch.equal(one, before[key]) for key, one in model.state_dict().items())


def test_a_model_without_encoder_takes_none():
    with pytest.raises(UsageProblem) as caught:
        load_encoder(build("subtraction"), {"backbone.net.conv1.weight": torch.zeros(1)})
    assert caught.value.code == "no-encoder"
    with pytest.raises(UsageProblem, match="cannot be pretrained"):
        build_reconstruction(build("subtraction"), "subtraction")


def test_every_model_has_a_judge():
    judge = build_discriminator(build("subtraction"))
    assert judge(torch.zeros(2, 1, 64, 64)).shape == (2, 1, 6, 6)


def test_difference_models_are_listed_and_shown(run_cli):
    listed = run_cli("models", "list", "--json", in_process=True).json()["result"]
    rows = {row["name"]: row for row in listed["difference_models"]}
    assert rows["siamese-unet"]["kind"] == "difference"
    assert "siamese-unet" not in {row["name"] for row in listed["architectures"]}
    names = run_cli("models", "list", "--difference", "-q", in_process=True).stdout.split()
    assert names[:2] == ["siamese-unet", "subtraction"]
    shown = run_cli("models", "show", "siamese-unet", "--layers", "--arch-opt", "encoder=test_resnet", in_process=True)
    assert shown.code == 0, shown.stderr
    assert "difference model: two images in" in shown.stdout
    assert "in the encoder)" in shown.stdout
    refused = run_cli("models", "show", "siamese-unet", "--classes", "3", in_process=True)
    assert (refused.code, refused.stdout) == (2, "")


QUICK = ("outline", "facts", "channels", "output", "finite", "batch-of-one", "groups", "magnitude", "encoder", "extras")
test_subtraction_conforms = conformance("medcli/subtraction", only=QUICK)
test_unet_conforms = conformance("medcli/siamese-unet", options=SMALL, only=(*QUICK, "gradients", "group-order"))
test_unet_conforms_wholly = pytest.mark.slow(conformance("medcli/siamese-unet", options=SMALL))
test_subtraction_conforms_wholly = pytest.mark.slow(conformance("medcli/subtraction"))
