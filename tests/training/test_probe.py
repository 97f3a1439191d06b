"""The probe against scikit-learn and against its own optimum, for every kind of target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from medcli.data.target import Output, Target
from medcli.models.heads import Head, HeadKind
from medcli.prediction.feature_cache import FeatureCache
from medcli.runs.directory import RunDirectory, claim_run
from medcli.training import probe
from medcli.training.engine import prepare, raw_of, train
from medcli.training.losses import make_criterion
from medcli.training.plan import Plan
from medcli.training.probe import SETTLED, Probe, fit_head, probe_head
from medcli.training.progress import NoProgress

D, N = 10, 240
BINARY = Target("binary", ("no", "yes"))
CLASSES = Target("multiclass", ("a", "b", "c"))
GRADES = Target("ordinal", ("none", "mild", "severe", "worst"))
LABELS = Target("multilabel", ("a", "b", "c"))
OUTPUTS = Target("multioutput", outputs=(Output("zone", ("x", "y", "z")), Output("side", ("one", "other"))))


def features(seed: int, count: int = N) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(-3, 3, D)  # features of a backbone differ in size by far
    return torch.randn(count, D, generator=generator) * scales + scales * 2


def labels(target: Target, x: Tensor, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = (x - x.mean(0)) / x.std(0)
    noise = torch.randn(len(x), 3, generator=generator)
    score = z[:, :3] + z[:, 3:6] + noise
    if target.task == "multilabel":
        truth = (score > 0).float()
        truth[torch.rand(truth.shape, generator=generator) < 0.3] = float("nan")
        return truth
    if target.task == "multioutput":
        truth = torch.stack([score.argmax(1), (score[:, 0] > 0).long()], dim=1)
        truth[torch.rand(truth.shape, generator=generator) < 0.3] = -1
        return truth
    if target.task == "ordinal":
        return torch.bucketize(score[:, 0].contiguous(), torch.tensor([-1.5, 0.0, 1.5]))
    return score[:, : target.num_classes].argmax(1)


@pytest.fixture
def strength(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    return lambda value: monkeypatch.setattr(probe, "STRENGTHS", (value,))


def fitted(
    target: Target, kind: HeadKind = "linear", weights: Tensor | None = None, norm: bool = False
) -> tuple[Head, Probe]:
    torch.manual_seed(0)
    head = Head(D, target, kind, dropout=0.5, norm=norm)
    loss: Any = {"linear": "bce" if target.task == "multilabel" else "ce"}.get(kind, kind)
    x, y = features(1), features(2)
    found = fit_head(
        head, (x, labels(target, x)), (y, labels(target, y)), make_criterion(target, loss, weights=weights)
    )
    return head, found


@pytest.mark.parametrize("value", [1e-1, 1e-3])
@pytest.mark.parametrize("target", [BINARY, CLASSES])
def test_it_is_logistic_regression(target: Target, value: float, strength: Callable[[float], None]) -> None:
    strength(value)
    head, found = fitted(target)
    x = features(1)
    scaler = StandardScaler().fit(x.double().numpy())
    # Two softmax rows are penalised each: half the penalty of one logistic row, which has the difference as weight.
    factor = 2 if target is BINARY else 1
    model = LogisticRegression(C=factor / (value * N), tol=1e-10, max_iter=10_000)
    model.fit(scaler.transform(x.double().numpy()), labels(target, x).numpy())
    wanted = model.predict_proba(scaler.transform(features(3).double().numpy()))
    with torch.inference_mode():
        shares = head.eval()(features(3)).softmax(1).numpy()
    np.testing.assert_allclose(shares, wanted, atol=2e-3)
    assert found.gradient <= SETTLED
    assert found.strength == value


def test_class_weights_count(strength: Callable[[float], None]) -> None:
    strength(1e-2)
    weights = torch.tensor([1.0, 4.0])
    head, _ = fitted(BINARY, weights=weights)
    x, truth = features(1), labels(BINARY, features(1))
    scaler = StandardScaler().fit(x.double().numpy())
    # A mean weighted by classes: the sum over cases divided by the sum of their weights.
    model = LogisticRegression(C=2 / (1e-2 * float(weights[truth].sum())), class_weight={0: 1, 1: 4}, tol=1e-10)
    model.fit(scaler.transform(x.double().numpy()), truth.numpy())
    wanted = model.predict_proba(scaler.transform(features(3).double().numpy()))
    with torch.inference_mode():
        np.testing.assert_allclose(head.eval()(features(3)).softmax(1).numpy(), wanted, atol=2e-3)


def test_every_label_is_fitted_to_the_cases_that_have_it(strength: Callable[[float], None]) -> None:
    strength(1e-2)
    head, _ = fitted(LABELS)
    x = features(1)
    truth = labels(LABELS, x).numpy()
    scaler = StandardScaler().fit(x.double().numpy())
    inputs = scaler.transform(x.double().numpy())
    with torch.inference_mode():
        shares = head.eval()(features(3)).sigmoid().numpy()
    for column in range(3):
        known = ~np.isnan(truth[:, column])
        # The loss is the mean over labels of each label's own mean.
        model = LogisticRegression(C=1 / (3 * 1e-2 * known.sum()), tol=1e-10)
        model.fit(inputs[known], truth[known, column])
        wanted = model.predict_proba(scaler.transform(features(3).double().numpy()))[:, 1]
        np.testing.assert_allclose(shares[:, column], wanted, atol=2e-3)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    ("target", "kind"),
    [(GRADES, "corn"), (GRADES, "coral"), (GRADES, "linear"), (OUTPUTS, "linear"), (LABELS, "linear")],
)
def test_nothing_nearby_is_better(
    target: Target, kind: HeadKind, norm: bool, strength: Callable[[float], None]
) -> None:
    """The folded head is at the bottom of the penalised loss of the raw features, whatever the target."""
    value = 1e-3
    strength(value)
    head, found = fitted(target, kind, norm=norm)
    head = head.eval().double()
    loss: Any = {"linear": "bce" if target.task == "multilabel" else "ce"}.get(kind, kind)
    criterion = make_criterion(target, loss)
    x = features(1)
    truth = labels(target, x)
    inputs = head.norm(x.double()).detach()
    scale = inputs.std(dim=0, correction=0)

    def objective(weight: Tensor) -> float:
        with torch.no_grad():
            before = head.linear.weight.clone()
            head.linear.weight.copy_(weight)
            value_now = criterion(head(x.double()), truth) + 0.5 * value * (weight * scale).square().sum()
            head.linear.weight.copy_(before)
            return float(value_now)

    weight = head.linear.weight.detach().clone()
    lowest = objective(weight)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        step = torch.randn(weight.shape, generator=generator, dtype=torch.float64) / scale
        assert objective(weight + 0.02 * step) > lowest
    assert found.gradient <= SETTLED
    assert np.isfinite(found.loss)


def test_the_strength_is_the_one_that_judges_validation_best() -> None:
    torch.manual_seed(0)
    x, y = features(1, 30), features(2)
    truth = torch.randint(0, 2, (30,), generator=torch.Generator().manual_seed(1))  # nothing to learn
    criterion = make_criterion(BINARY, "ce")
    held_out = torch.randint(0, 2, (N,), generator=torch.Generator().manual_seed(2))
    noise = fit_head(Head(D, BINARY), (x, truth), (y, held_out), criterion)
    x = features(1)
    signal = fit_head(Head(D, BINARY), (x, labels(BINARY, x)), (y, labels(BINARY, y)), criterion)
    assert noise.strength == max(probe.STRENGTHS)
    assert signal.strength < 0.1
    assert f"L2 strength {signal.strength:g} chosen on val" in signal.sentence()
    assert "converged in" in signal.sentence()


def test_features_that_never_vary_change_nothing(strength: Callable[[float], None]) -> None:
    strength(1e-2)
    x, y = features(1), features(2)
    truth, judged = labels(BINARY, x), labels(BINARY, y)
    constant = torch.cat([x, torch.full((N, 2), 3.0)], dim=1), torch.cat([y, torch.full((N, 2), 3.0)], dim=1)
    one, two = Head(D, BINARY), Head(D + 2, BINARY)
    criterion = make_criterion(BINARY, "ce")
    fit_head(one, (x, truth), (y, judged), criterion)
    fit_head(two, (constant[0], truth), (constant[1], judged), criterion)
    with torch.inference_mode():
        torch.testing.assert_close(two.eval()(constant[1]), one.eval()(y), rtol=1e-3, atol=2e-3)


MakePlan = Callable[..., Plan]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("settings", [{}, {"ema": True}, {"freeze_layers": 2}, {"augment": "light"}])
def test_the_network_starts_from_the_fitted_head(make_plan: MakePlan, settings: dict[str, Any]) -> None:
    prepared = prepare(make_plan("vit_tiny_patch16_224", strategy="lp-ft", **settings))
    backbone = {name: value.clone() for name, value in prepared.built.classifier.backbone.state_dict().items()}
    modes = [module.training for module in prepared.built.classifier.train().modules()]
    val = torch.from_numpy(np.asarray(prepared.batches["val"].samples.labels))
    before = prepared.parts.criterion(raw_of(prepared, prepared.parts.classifier, "val"), val)
    notes = probe_head(prepared, cache=FeatureCache())
    for network in (prepared.parts.classifier, prepared.parts.network):
        assert prepared.parts.criterion(raw_of(prepared, network, "val"), val) < 0.9 * before
    now = prepared.built.classifier.backbone.state_dict()
    assert all(torch.equal(now[name], value) for name, value in backbone.items())
    assert [module.training for module in prepared.built.classifier.modules()] == modes
    assert notes[-1].startswith("probe: the head converged in")


def test_a_run_begins_with_the_probe_and_its_continuation_does_not(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    plan = make_plan(strategy="lp-ft", epochs=1, lr=1e-6)
    run = RunDirectory(tmp_path / "run")
    claim_run(run, command="finetune")
    train(prepare(plan), run, NoProgress(), say=said.append)
    assert sum("probe:" in text for text in said) == 1
    train(prepare(plan), run, NoProgress(), say=said.append, resume=True, extend=1)
    assert sum("probe:" in text for text in said) == 1
    # `--probe-epochs` trains the head instead.
    other = RunDirectory(tmp_path / "other")
    claim_run(other, command="finetune")
    train(prepare(make_plan(strategy="lp-ft", probe_epochs=1)), other, NoProgress(), say=said.append)
    assert sum("probe:" in text for text in said) == 1
