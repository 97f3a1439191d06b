"""The network as a graph answers like the classifier, for every kind of head and for several models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medcli import build
from medcli.bundles.bundle import open_session
from medcli.data.target import Output, Target
from medcli.errors import RunFailure, UsageProblem
from medcli.evaluation.members import mean_logits
from medcli.export.graph import MeanNetwork, Network, export_onnx, write_network
from medcli.models.classifier import Classifier
from medcli.models.heads import HeadKind

ZONES = Target("multioutput", outputs=(Output("left", ("0", "1", "2")), Output("right", ("0", "1"))))
GRADES = Target("ordinal", ("0", "1", "2", "3"))
LABELS = Target("multilabel", ("a", "b", "c"))


def classifier(target: Target, kind: HeadKind = "linear", seed: int = 0) -> Classifier:
    model = build("echo", target=target, head_kind=kind, image_size=16, seed=seed)
    for parameter in model.medcli_head.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
    return model


def neighbours(target: Target, missing: bool) -> Classifier:
    model = build("echo", target=target, head_kind="knn", image_size=16, seed=0)
    random = torch.Generator().manual_seed(1)
    shape = (20, *target.logits_shape[:1]) if target.task in {"multilabel", "multioutput"} else (20,)
    labels = torch.randint(0, 2, shape, generator=random)
    if missing:
        labels[3:6, 0] = -1
    if target.task == "multilabel":
        labels = labels.float().masked_fill(labels < 0, float("nan"))
    model.medcli_head.remember(torch.randn(20, model.feature_dim, generator=random), labels, 5)  # type: ignore[operator]
    return model


def differences(network: nn.Module, file: Path) -> tuple[float, float]:
    """Of logits and features, over batches of 1, 3 and 8; where one is -inf, the other has to be too."""
    session = open_session(file, threads=1)
    worst = [0.0, 0.0]
    for count in (1, 3, 8):
        images = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            expected = [one.numpy() for one in network(images)]
        found = session.run(["logits", "features"], {"images": images.numpy()})
        for place in range(2):
            assert found[place].shape == expected[place].shape
            assert np.array_equal(np.isneginf(found[place]), np.isneginf(expected[place]))
            finite = np.isfinite(expected[place])
            gaps = np.abs(found[place][finite] - expected[place][finite])
            worst[place] = max(worst[place], float(gaps.max()))
    return worst[0], worst[1]


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(classifier(ZONES), id="zones"),
        pytest.param(classifier(GRADES, "corn"), id="corn"),
        pytest.param(classifier(GRADES, "coral"), id="coral", marks=pytest.mark.slow),
        pytest.param(neighbours(LABELS, missing=True), id="knn-labels", marks=pytest.mark.slow),
        pytest.param(neighbours(ZONES, missing=True), id="knn-zones"),
        pytest.param(neighbours(GRADES, missing=False), id="knn-grades", marks=pytest.mark.slow),
    ],
)
def test_every_head_leaves_as_a_graph(model: Classifier, tmp_path: Path) -> None:
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        logits, features = Network(model)(images)
        assert torch.equal(logits, model.decode(model(images)))
        assert torch.equal(features, model.features(images))
    export_onnx(model, tmp_path / "n.onnx", channels=3, image_size=16)
    assert max(differences(Network(model), tmp_path / "n.onnx")) < 1e-5


@pytest.mark.parametrize(
    "target", [pytest.param(ZONES, id="zones"), pytest.param(LABELS, id="labels", marks=pytest.mark.slow)]
)
def test_several_models_leave_as_the_mean_of_their_scores(target: Target, tmp_path: Path) -> None:
    models = [classifier(target, seed=seed) for seed in range(3)]
    models[2].backbone = models[1].backbone
    weights = (0.5, 0.2, 0.3)
    network = MeanNetwork(models, weights)
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        stacked = np.stack([one.decode(one(images)).numpy() for one in models])
        logits, features = network(images)
    expected = mean_logits(stacked, target, weights)
    finite = np.isfinite(expected)
    assert np.abs(logits.numpy()[finite] - expected[finite]).max() < 1e-5
    assert np.isneginf(logits.numpy()[~finite]).all()
    assert features.shape == (6, 2 * models[0].feature_dim)
    write_network(network, tmp_path / "n.onnx", channels=3, image_size=16, opset=18)
    assert max(differences(network, tmp_path / "n.onnx")) < 1e-5


class _Changed(nn.Module):
    def __init__(self, backbone: nn.Module, change: str) -> None:
        super().__init__()
        self.inner, self.change, self.feature_dim = backbone, change, backbone.feature_dim

    def forward(self, images: Tensor) -> Tensor:
        if self.change == "operator":
            images = torch.special.bessel_j0(images)
        elif images.mean() > 0:
            images = images + 1
        return self.inner(images)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("change", "named"), [("operator", "bessel_j0"), ("numbers", "in `forward`): what it computes there depends on")]
)
def test_a_network_that_cannot_leave_is_named(change: str, named: str, tmp_path: Path) -> None:
    model = classifier(LABELS)
    model.backbone = _Changed(model.backbone, change)
    with pytest.raises(RunFailure, match="the network") as caught:
        export_onnx(model, tmp_path / "n.onnx", channels=3, image_size=16)
    assert named in caught.value.message
    assert caught.value.code == "not-exportable"
    assert not (tmp_path / "n.onnx").exists()


@pytest.mark.parametrize("opset", [17, 24])
def test_an_opset_that_would_not_be_written_is_refused(opset: int, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=f"opset {opset}"):
        export_onnx(classifier(LABELS), tmp_path / "n.onnx", channels=3, image_size=16, opset=opset)


def test_large_weights_lie_beside_a_graph_that_names_no_file_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medcli.export.graph.INLINE_LIMIT", 10)
    model = classifier(LABELS)
    export_onnx(model, tmp_path / "n.onnx", channels=3, image_size=16, opset=23)
    assert (tmp_path / "n.onnx.data").is_file()
    assert max(differences(Network(model), tmp_path / "n.onnx")) < 1e-5
    written = (tmp_path / "n.onnx").read_bytes()
    assert b".py" not in written
    assert b"stack_trace" not in written
