"""The plugin as its users meet it: built by name, refused where it cannot be, encoders handed from run to run."""

from __future__ import annotations

import pytest

from medcli.errors import UsageProblem
from medcli.testing import conformance

OPTIONS = {"width": 1 / 16, "depth": 2}
WIDTH = {"width": 1 / 16}
# Exports, options and limits take seconds each: `make test-all` makes them for all.
QUICK = (
    "outline", "facts", "output", "finite", "gradients", "groups", "group-order", "magnitude", "encoder",
    "extras", "state-dict",
)  # fmt: skip


def test_importing_the_package_needs_no_torch(no_heavy_imports):
    assert no_heavy_imports("import medcli_longitudinal, medcli_longitudinal.constants").code == 0


@pytest.fixture(scope="module")
def classifier():
    """Tensors of `medcli train longitudinal-encoder`, without the training."""
    torch = pytest.importorskip("torch")
    from medcli_longitudinal import longitudinal_encoder

    torch.manual_seed(0)
    network = longitudinal_encoder(in_channels=1, image_size=64, **OPTIONS)
    state = {f"backbone.{name}": one for name, one in network.state_dict().items()}
    return state | {"medcli_head.linear.weight": torch.zeros(2, 40), "medcli_head.linear.bias": torch.zeros(2)}


@pytest.mark.parametrize(
    ("name", "options", "beside"),
    [
        ("longitudinal-mim-big", OPTIONS, ""),
        ("longitudinal-mim", OPTIONS, ""),
        ("longitudinal-subtract-big", WIDTH, "bottleneck."),
        ("longitudinal-subtract", WIDTH, "bottleneck."),
    ],
)
def test_a_classifiers_encoder_is_taken_over_whole(classifier, name, options, beside):
    import torch

    from medcli.diffmap.network import build_difference, load_encoder

    model = build_difference(name, in_channels=1, image_size=64, options=options, seed=3)
    report = load_encoder(model, classifier)
    own = model.encoder.state_dict()
    left = sum(key.startswith("backbone.encoder.bottleneck.") for key in classifier) if beside else 0
    assert (report.matched, report.total, report.head, report.spare) == (len(own), len(own), 2, left)
    prefix = "backbone.encoder.encoder." if beside else "backbone.encoder."
    assert all(torch.equal(tensor, classifier[prefix + key]) for key, tensor in own.items())


def test_pretraining_reaches_the_model_itself_and_runs_are_handed_on():
    import torch

    from medcli.diffmap.network import build_difference, build_discriminator, build_reconstruction, load_encoder

    first = build_difference("longitudinal-mim", in_channels=1, image_size=64, options=OPTIONS, seed=1)
    whole = build_reconstruction(first, "longitudinal-mim")
    assert whole.encoder is first.encoder
    second = build_difference("longitudinal-mim-big", in_channels=1, image_size=64, options=OPTIONS, seed=2)
    for state in (whole.state_dict(), first.state_dict(), first.encoder.state_dict()):
        assert load_encoder(second, state).matched == len(second.encoder.state_dict())
    assert torch.equal(second.encoder.encoder.stem.first.conv.weight, first.encoder.encoder.stem.first.conv.weight)
    assert build_discriminator(first)(torch.zeros(1, 1, 64, 64)).shape == (1, 1, 6, 6)


def test_another_size_is_refused_with_counts_and_nothing_changes(classifier):
    import torch

    from medcli.diffmap.network import build_difference, load_encoder

    model = build_difference("longitudinal-mim", in_channels=1, image_size=128, options=OPTIONS, seed=1)
    before = {key: one.clone() for key, one in model.state_dict().items()}
    with pytest.raises(UsageProblem) as caught:
        load_encoder(model, classifier)
    assert caught.value.code == "weights-do-not-fit"
    total = len(model.encoder.state_dict())
    assert f"{total - 1} of the encoder's {total} tensors match" in caught.value.message
    assert "[1, 4, 48] instead of [1, 16, 48]" in caught.value.message
    assert all(torch.equal(one, before[key]) for key, one in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "size", "near"),
    [("longitudinal-mim", 100, 96), ("longitudinal-mim-big", 32, 64), ("longitudinal-subtract", 40, 48)],
)
def test_sizes_it_cannot_take_name_the_nearest(name, size, near):
    from medcli.diffmap.network import build_difference

    with pytest.raises(UsageProblem) as caught:
        build_difference(name, in_channels=1, image_size=size)
    assert caught.value.hint == f"--image-size {near}"


def test_encoder_refuses_what_it_does_not_have():
    from medcli_longitudinal import longitudinal_encoder

    for wrong in ({"pretrained": True}, {"drop_path": 0.1}, {"weights": "nowhere.safetensors"}):
        with pytest.raises(UsageProblem):
            longitudinal_encoder(in_channels=1, image_size=64, **OPTIONS, **wrong)


def test_a_file_of_weights_restores_a_model(tmp_path):
    import torch
    from safetensors.torch import save_file

    from medcli.diffmap.network import build_difference

    first = build_difference("longitudinal-subtract", in_channels=1, image_size=32, options=WIDTH, seed=1)
    save_file(first.state_dict(), tmp_path / "model.safetensors")
    again = build_difference(
        "longitudinal-subtract",
        in_channels=1,
        image_size=32,
        options=WIDTH,
        weights=str(tmp_path / "model.safetensors"),
        seed=2,
    )
    assert all(torch.equal(one, again.state_dict()[key]) for key, one in first.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "allowed"),
    [
        ("longitudinal-mim", OPTIONS, 1e-4),
        ("longitudinal-mim-big", OPTIONS, 1e-4),
        # After so few steps the batch statistics are so young that float32 itself is 3e-4 away from float64 in torch.
        ("longitudinal-subtract", WIDTH, 3e-3),
        ("longitudinal-subtract-big", WIDTH, 3e-3),
    ],
)
def test_a_run_leaves_as_a_bundle(name, options, allowed, run_cli):
    words = [part for key, value in options.items() for part in ("--arch-opt", f"{key}={value}")]
    trained = run_cli(
        "diffmap", "train", "--model", name, "--data", "synthetic/chest-pairs", "--limit", "6", "--epochs", "3",
        "--image-size", "64", "--batch-size", "3", "--accumulate", "1", "--register", "none", "--workers", "0", *words,
        "--out", "run", in_process=True,
    )  # fmt: skip
    assert trained.code == 0, trained.stderr
    words = ("--out", "bundle", "--tolerance", str(allowed), "--json")
    done = run_cli("export", "run", *words, in_process=True)
    assert done.code == 0, done.stderr
    checked = done.json()["result"]["bundles"][0]["verification"]
    assert checked["batch_sizes"] == [1, 3]
    assert checked["map"] <= allowed


def test_train_takes_the_encoder(run_cli, tmp_path):
    done = run_cli(
        "train", "longitudinal-encoder", "--data", "synthetic/chest", "--task", "multilabel", "--limit", "24",
        "--epochs", "1", "--image-size", "64", "--in-channels", "1", "--batch-size", "8", "--out",
        str(tmp_path / "run"), *(part for key, value in OPTIONS.items() for part in ("--arch-opt", f"{key}={value}")),
        in_process=True,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()


test_package = conformance("medcli-longitudinal", only=("discoverable", "card", "listing-is-light"))
test_big = conformance("longitudinal-mim-big", options=OPTIONS, only=QUICK)
test_small = conformance("longitudinal-mim", options=OPTIONS, only=QUICK)
test_subtract = conformance("longitudinal-subtract", options=WIDTH, only=QUICK)
test_subtract_big = conformance("longitudinal-subtract-big", options=WIDTH, only=QUICK)
test_encoder = conformance("longitudinal-encoder", options=OPTIONS, only=(*QUICK, "channels", "attention", "drop-path"))
test_whole_big = pytest.mark.slow(conformance("longitudinal-mim-big", options=OPTIONS))
test_whole_small = pytest.mark.slow(conformance("longitudinal-mim", options=OPTIONS))
test_whole_subtract = pytest.mark.slow(conformance("longitudinal-subtract", options=WIDTH))
test_whole_subtract_big = pytest.mark.slow(conformance("longitudinal-subtract-big", options=WIDTH))
test_whole_encoder = pytest.mark.slow(conformance("longitudinal-encoder", options=OPTIONS))
