"""Batches in any order become predictions in the order of the samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from medcli.data.dataset import Preprocessing, Samples
from medcli.data.target import Target
from medcli.errors import RunFailure
from medcli.evaluation.scores import softmax
from medcli.models.heads import decode
from medcli.prediction.predict import predict_batches, suits_channels_last

TARGET = Target("ordinal", ("none", "mild", "severe"))
PREPROCESSING = Preprocessing(image_size=6, channels=3, mean=(0.2, 0.3, 0.4), std=(0.5, 0.25, 0.125))
IMAGES = torch.rand(11, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class FakeBatch:
    images: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor


class Images:
    def __len__(self) -> int:
        return len(IMAGES)


SAMPLES = Samples(
    ids=np.array([f"case{i}" for i in range(11)]),
    images=Images(),  # type: ignore[arg-type]
    labels=np.arange(11) % 3,
    patients=np.array([f"p{i // 2}" for i in range(11)]),
)


def batches(size: int, order: torch.Tensor) -> Iterator[FakeBatch]:
    labels = torch.from_numpy(SAMPLES.labels)
    for index in order.split(size):
        yield FakeBatch(IMAGES[index], labels[index], index)


def network(outputs: int = 3) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, outputs))


def run(model: nn.Module, size: int, order: torch.Tensor, **more: object) -> np.ndarray:
    found = predict_batches(
        model,
        batches(size, order),
        SAMPLES,
        target=TARGET,
        preprocessing=PREPROCESSING,
        **more,  # type: ignore[arg-type]
    )
    np.testing.assert_array_equal(found.ids, SAMPLES.ids)
    np.testing.assert_array_equal(found.labels, SAMPLES.labels)
    return found.logits


def by_hand(model: nn.Module) -> np.ndarray:
    model.eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (PREPROCESSING.mean, PREPROCESSING.std))
    with torch.no_grad():
        return model((IMAGES - mean) / std).numpy()


def test_order_batch_size_and_mode_do_not_matter() -> None:
    model = network()
    expected = by_hand(model)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for size, order in ((4, torch.arange(11)), (1, torch.randperm(11)), (11, torch.arange(10, -1, -1))):
        np.testing.assert_allclose(run(model, size, order), expected, atol=1e-6)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_channels_last_models_get_channels_last_images() -> None:
    model = network()
    expected = by_hand(model)
    seen: list[bool] = []
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model[0].register_forward_pre_hook(
        lambda _, images: seen.append(images[0].is_contiguous(memory_format=torch.channels_last))
    )
    np.testing.assert_allclose(run(model, 4, torch.arange(11)), expected, atol=1e-5)
    assert seen == [True, True, True]
    assert not suits_channels_last(model)
    assert suits_channels_last(nn.Sequential(*(nn.Conv2d(1, 1, 1) for _ in range(4))))


def test_ordinal_heads_are_decoded_to_log_probabilities() -> None:
    model = network(outputs=2)
    logits = run(model, 3, torch.arange(11), head_kind="corn")
    expected = decode(torch.from_numpy(by_hand(model)), TARGET, "corn").numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1, atol=1e-5)


def test_half_precision_stays_close_and_is_stored_as_float32() -> None:
    model = network()
    found = run(model, 4, torch.arange(11), precision="bf16")
    assert found.dtype == np.float32
    np.testing.assert_allclose(softmax(found), softmax(by_hand(model)), atol=0.05)


def test_counts_are_reported() -> None:
    counts: list[int] = []
    run(network(), 4, torch.arange(11), on_batch=counts.append)
    assert counts == [4, 4, 3]


def test_missing_samples_and_nan_are_failures() -> None:
    with pytest.raises(RunFailure, match="1 of 11 images were not predicted, first `case10`"):
        run(network(), 4, torch.arange(10))
    model = network()
    with torch.no_grad():
        model[-1].bias[1] = float("nan")
    with pytest.raises(RunFailure, match="`case0` is not a number \\(11 of 11"):
        run(model, 4, torch.arange(11))
