"""Neighbours against scikit-learn, with missing labels, in a model file and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from medcli.data.dataset import Preprocessing
from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.models.build import build_classifier, load_model, save_model
from medcli.models.heads import decode
from medcli.models.nearest import SMALLEST_SHARE, NearestHead
from medcli.models.spec import ModelSpec

K, D, N, ASKED = 7, 12, 60, 25
BINARY = Target("binary", ("no", "yes"))
GRADES = Target("ordinal", ("none", "mild", "severe", "worst"))
LABELS = Target("multilabel", ("a", "b", "c"))
OUTPUTS = Target("multioutput", outputs=(Output("zone", ("x", "y", "z")), Output("side", ("one", "other"))))


def features(count: int, seed: int) -> torch.Tensor:
    # Lengths that differ by far, which the cosine must not see.
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, D, generator=generator) * 10 ** torch.randn(count, 1, generator=generator)


def reference(labels: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    stored = features(N, 0).numpy()[rows]
    votes = KNeighborsClassifier(n_neighbors=K, metric="cosine", algorithm="brute").fit(stored, labels)
    return votes.predict_proba(features(ASKED, 1).numpy())


def head(target: Target, labels: torch.Tensor) -> NearestHead:
    own = NearestHead(D, target)
    own.remember(features(N, 0), labels, K)
    return own


@pytest.mark.parametrize("target", [BINARY, GRADES])
def test_shares_of_votes_are_those_of_scikit_learn(target: Target) -> None:
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, target.num_classes, N))
    raw = head(target, labels)(features(ASKED, 1))
    assert raw.isfinite().all()
    logits = decode(raw, target, "knn")
    np.testing.assert_allclose(logits.softmax(1).numpy(), reference(labels.numpy()), atol=4 * SMALLEST_SHARE)


def test_a_missing_label_does_not_vote() -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, (N, 3)).astype(np.float32)
    labels[random.random((N, 3)) < 0.4] = np.nan
    raw = head(LABELS, torch.from_numpy(labels))(features(ASKED, 1))
    for column in range(3):
        known = ~np.isnan(labels[:, column])
        wanted = reference(labels[known, column], known)[:, 1]
        np.testing.assert_allclose(raw[:, column].sigmoid().numpy(), wanted, atol=2 * SMALLEST_SHARE)


def test_labels_without_gaps_go_the_same_way() -> None:
    labels = np.random.default_rng(2).integers(0, 2, (N, 3)).astype(np.float32)
    raw = head(LABELS, torch.from_numpy(labels))(features(ASKED, 1))
    wanted = np.stack([reference(labels[:, column])[:, 1] for column in range(3)], axis=1)
    np.testing.assert_allclose(raw.sigmoid().numpy(), wanted, atol=2 * SMALLEST_SHARE)


def test_a_label_nobody_knows_is_open() -> None:
    labels = torch.full((N, 3), float("nan"))
    labels[:3, 1] = 1.0  # fewer than vote: all of them do
    shares = head(LABELS, labels)(features(ASKED, 1)).sigmoid()
    assert torch.allclose(shares[:, [0, 2]], torch.tensor(0.5))
    assert torch.allclose(shares[:, 1], torch.tensor(1.0), atol=2 * SMALLEST_SHARE)


def test_every_output_has_its_own_votes() -> None:
    random = np.random.default_rng(3)
    labels = np.stack([random.integers(0, 3, N), random.integers(0, 2, N)], axis=1)
    labels[random.random(labels.shape) < 0.3] = -1
    raw = head(OUTPUTS, torch.from_numpy(labels))(features(ASKED, 1))
    assert raw.shape == (ASKED, 2, 3)
    assert raw[:, 1, 2].isneginf().all()
    for column, size in ((0, 3), (1, 2)):
        known = labels[:, column] >= 0
        wanted = reference(labels[known, column], known)
        np.testing.assert_allclose(raw[:, column, :size].softmax(1).numpy(), wanted, atol=3 * SMALLEST_SHARE)


def test_half_precision_does_not_reorder_neighbours() -> None:
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 2, N))
    own = head(BINARY, labels)
    wanted = own(features(ASKED, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(own(features(ASKED, 1)), wanted)


@pytest.mark.parametrize("count", [0, N + 1])
def test_more_votes_than_cases_are_refused(count: int) -> None:
    with pytest.raises(UsageProblem, match=f"{count} neighbours cannot vote among {N}") as problem:
        NearestHead(D, BINARY).remember(features(N, 0), torch.zeros(N, dtype=torch.int64), count)
    assert problem.value.where == "--nearest"


def test_a_head_without_cases_says_so() -> None:
    with pytest.raises(UsageProblem, match="no cases to compare with"):
        NearestHead(D, BINARY)(features(2, 0))


def test_a_model_file_holds_the_cases(tmp_path: Path) -> None:
    spec = ModelSpec("timm/test_resnet", 3, 32, LABELS, head_kind="knn")
    classifier = build_classifier(spec, seed=0).classifier.eval()
    stored = torch.randn(N, classifier.feature_dim)
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, 2, (N, 3)).astype(np.float32))
    labels[::3, 0] = float("nan")
    own = classifier.get_submodule("medcli_head")
    assert isinstance(own, NearestHead)
    own.remember(stored, labels, 5)
    save_model(tmp_path / "knn.safetensors", classifier, spec, Preprocessing(32, 3, (0.5,), (0.5,)))
    loaded = load_model(tmp_path / "knn.safetensors")
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded.classifier(images), classifier(images))
    assert loaded.spec.head_kind == "knn"
    assert classifier.parameter_counts().head == 0
