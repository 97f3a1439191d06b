"""Training on features is training with the backbone run every time: the same head, the same figures, exact resume."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medcli.errors import UsageProblem
from medcli.models.build import load_model
from medcli.models.nearest import NearestHead
from medcli.prediction.feature_cache import FeatureCache
from medcli.prediction.features import Extractor, View, weights_digest
from medcli.prediction.predict import raw_outputs
from medcli.runs.directory import RunDirectory, claim_run
from medcli.training.dry_run import dry_run
from medcli.training.engine import Prepared, prepare, raw_of, train
from medcli.training.frozen import FeatureBatches, passes
from medcli.training.label_guards import Swap
from medcli.training.loop import Trained
from medcli.training.overfit import overfit_batch
from medcli.training.plan import Plan
from medcli.training.progress import NoProgress

MakePlan = Callable[..., Plan]
MakeArchive = Callable[..., Path]

# The smallest member of every built-in family; batch normalisation, layer normalisation, dropout and drop path inside.
FAMILIES = {
    "custom1": 32,
    "resnet18": 32,
    "efficientnet_b0": 32,
    "efficientnet_lite0": 32,
    "densenet121": 32,
    "vit_tiny_patch16_224": 32,
    "deit_tiny_patch16_224": 32,
    "swin_tiny_patch4_window7_224": 56,
    "mobilenetv3_small_100": 32,
    "convnext_tiny": 32,
    "regnetx_032": 32,
    "timm/test_resnet": 32,
    "medcli-echo/echo": 32,
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDirectory]:
    def make(name: str = "run") -> RunDirectory:
        run = RunDirectory(tmp_path / name)
        claim_run(run, command="finetune")
        return run

    return make


MakeRun = Callable[..., RunDirectory]


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def conducted(plan: Plan, run: RunDirectory, **how: Any) -> tuple[Prepared, Trained]:
    prepared = prepare(plan)
    return prepared, train(prepared, run, NoProgress(), **how)


def on_images(prepared: Prepared, network: nn.Module, split: str) -> Tensor:
    batches = prepared.batches[split].in_order()
    return raw_outputs(network, batches.epoch(0), batches.samples, preprocessing=prepared.plan.preprocessing)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_backbone_keeps_every_bit_and_features_give_the_networks_figures(
    name: str, make_plan: MakePlan, make_run: MakeRun
) -> None:
    plan = make_plan(name, image_size=FAMILIES[name], strategy="frozen", lr=0.1, epochs=2)
    prepared = prepare(plan)
    backbone = prepared.built.classifier.backbone
    before, digest, head = state(backbone), weights_digest(backbone), state(prepared.built.classifier.medcli_head)
    run = make_run()
    train(prepared, run, NoProgress())
    assert same(before, state(backbone))
    assert weights_digest(backbone) == digest
    assert not any(module.training for module in backbone.modules())
    assert not same(head, state(prepared.built.classifier.medcli_head))
    loaded = load_model(run.model_file).classifier
    assert same(before, state(loaded.backbone))
    for split in ("val", "test"):
        figures = raw_of(prepared, loaded, split)
        torch.testing.assert_close(figures, on_images(prepared, loaded, split), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "sgd", "accumulate": 2, "batch_size": 5},
        {"head_norm": True, "ema": True, "ema_decay": 0.5},
        {"precision": "bf16"},
        {"class_weights": "balanced", "label_smoothing": 0.1},
    ],
)
def test_a_loop_that_runs_the_backbone_every_time_learns_the_same_head(
    settings: dict[str, Any], make_plan: MakePlan, make_run: MakeRun
) -> None:
    common = {"epochs": 3, "lr": 0.05, **settings}
    mine, _ = conducted(make_plan(strategy="frozen", **common), make_run("mine"))
    plain, _ = conducted(make_plan(freeze_backbone=True, **common), make_run("plain"))
    tolerance = {"rtol": 1e-2, "atol": 1e-3} if "precision" in settings else {"rtol": 1e-4, "atol": 1e-5}
    for kept, other in ((mine.parts.classifier, plain.parts.classifier), (mine.parts.network, plain.parts.network)):
        for name, value in other.state_dict().items():
            torch.testing.assert_close(kept.state_dict()[name], value, msg=name, **tolerance)
    best = [load_model(RunDirectory(Path(name)).model_file).classifier.state_dict() for name in ("mine", "plain")]
    for name, value in best[1].items():
        torch.testing.assert_close(best[0][name], value, msg=name, **tolerance)


def test_epochs_go_through_the_views_one_after_another(make_plan: MakePlan) -> None:
    plan = make_plan(strategy="frozen", feature_views=2, augment="medium", flip="both", epochs=5)
    prepared = prepare(plan)
    extractor = prepared.features.extractor  # type: ignore[union-attr]
    augment = prepare(make_plan(augment="medium", flip="both")).parts.augment
    assert augment is not None
    views = [extractor.features(prepared.batches["train"], View(1 + number, augment)).rows for number in range(2)]
    assert not torch.allclose(views[0], views[1], atol=1e-4)
    for epoch in range(5):
        order = prepared.batches["train"].rows(epoch)
        for batch, rows in zip(prepared.parts.batches.epoch(epoch), order, strict=True):
            assert torch.equal(batch.index, torch.from_numpy(rows))
            assert torch.equal(prepared.parts.images(batch, epoch), views[epoch % 2][rows])
    # More views than epochs would be computed for nothing.
    assert passes(make_plan(strategy="frozen", feature_views=9, epochs=3)) == 3 * 24 + 12 + 12


def test_without_views_augmentation_is_left_out_and_said(make_plan: MakePlan) -> None:
    prepared = prepare(make_plan(strategy="frozen", augment="light"))
    assert any("`--feature-views" in note for note in prepared.notes)
    assert not any("`--feature-views" in note for note in prepare(make_plan(strategy="frozen")).notes)
    plain = [batch.images for batch in prepare(make_plan(strategy="frozen")).parts.batches.epoch(0)]
    assert all(
        torch.equal(one.images, other) for one, other in zip(prepared.parts.batches.epoch(0), plain, strict=True)
    )


def test_views_that_do_not_fit_in_memory_are_read_again(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(strategy="frozen", feature_views=3, augment="light", epochs=3)
    wanted = [[batch.images for batch in prepare(plan).parts.batches.epoch(epoch)] for epoch in range(3)]
    monkeypatch.setattr("medcli.training.frozen.available_memory", lambda: 0)
    prepared = prepare(plan)
    batches = prepared.parts.batches
    assert isinstance(batches, FeatureBatches)
    for epoch in (0, 1, 2, 0):
        found = [batch.images for batch in batches.epoch(epoch)]
        assert all(torch.equal(one, other) for one, other in zip(found, wanted[epoch % 3], strict=True))
        assert len(batches._views.held) == 1


def test_features_are_computed_once_and_then_found(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    inner = Extractor._compute
    monkeypatch.setattr(Extractor, "_compute", lambda *given: (computed.append(1), inner(*given))[1])
    first = prepare(make_plan(strategy="frozen"))
    assert len(computed) == 3  # train, val, test
    assert any("computed in" in note for note in first.notes)
    again = prepare(make_plan(strategy="frozen", lr=0.5, batch_size=6, dropout=0.5))
    assert len(computed) == 3
    assert any("found in the cache: train, val, test" in note for note in again.notes)
    prepare(make_plan(strategy="frozen", mean=(0.1,)))
    assert len(computed) == 6
    prepare(make_plan(strategy="frozen", seed=2))  # other random weights
    assert len(computed) == 9


class Stopping(NoProgress):
    """Raises the signal that a user would send, after so many batches."""

    def __init__(self, after: int) -> None:
        self.left = after

    def step(self, **facts: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ema": True, "dropout": 0.3, "head_norm": True, "accumulate": 2},
        {"augment": "light", "feature_views": 2, "patience": 2},
    ],
)
@pytest.mark.parametrize("after", [1, 4, 6])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    after: int, settings: dict[str, Any], make_plan: MakePlan, make_run: MakeRun
) -> None:
    plan = make_plan(strategy="frozen", lr=0.05, **{"epochs": 4, "batch_size": 6, **settings})
    whole, straight = conducted(plan, make_run("whole"))
    stopped = prepare(plan)
    run = make_run("stopped")
    first = train(stopped, run, Stopping(after))
    assert first.signal
    resumed, second = conducted(plan, run, resume=True)
    assert not second.signal
    assert second.position.steps == straight.position.steps
    assert second.position.best == straight.position.best
    assert same(state(whole.parts.classifier), state(resumed.parts.classifier))
    assert same(state(whole.parts.network), state(resumed.parts.network))
    files = [load_model(RunDirectory(Path(name)).model_file).classifier for name in ("whole", "stopped")]
    assert same(state(files[0]), state(files[1]))


def test_a_killed_run_has_what_its_continuation_needs(make_plan: MakePlan, make_run: MakeRun) -> None:
    """Nothing but checkpoint and best head lie there after a kill; the best epoch may already be past."""
    plan = make_plan(strategy="frozen", lr=0.05, epochs=3)
    whole, _ = conducted(plan, make_run("whole"))
    run = make_run("killed")
    prepared, trained = conducted(make_plan(strategy="frozen", lr=0.05, epochs=3), run)
    run.model_file.unlink()
    del prepared, trained
    resumed, again = conducted(plan, run, resume=True)
    assert again.position.epoch == 3
    files = [load_model(RunDirectory(Path(name)).model_file).classifier for name in ("whole", "killed")]
    assert same(state(files[0]), state(files[1]))
    assert same(state(resumed.parts.classifier), state(whole.parts.classifier))


def test_checkpoints_hold_the_head_alone(make_plan: MakePlan, make_run: MakeRun) -> None:
    run = make_run()
    conducted(make_plan("resnet18", strategy="frozen", ema=True, epochs=1), run)
    assert run.checkpoint_file.stat().st_size < 100_000 < run.model_file.stat().st_size


def test_another_backbone_cannot_continue(make_plan: MakePlan, make_run: MakeRun) -> None:
    run = make_run()
    conducted(make_plan(strategy="frozen", epochs=1), run)
    with pytest.raises(UsageProblem, match="other weights than when this run began") as problem:
        conducted(make_plan(strategy="frozen", epochs=2, seed=3), run, resume=True)
    assert problem.value.code == "weights-changed"


def test_a_damaged_best_head_is_said(make_plan: MakePlan, make_run: MakeRun) -> None:
    run = make_run()
    conducted(make_plan(strategy="frozen", epochs=1), run)
    (run.path / "checkpoints" / "best-head.safetensors").write_bytes(b"none")
    with pytest.raises(UsageProblem, match="is damaged"):
        conducted(make_plan(strategy="frozen", epochs=2), run, resume=True)


def test_a_missing_label_has_no_gradient_at_all(make_plan: MakePlan, make_archive: MakeArchive) -> None:
    path = make_archive("many.npz", labels=3)
    prepared = prepare(make_plan(strategy="frozen", data=(str(path),), task="multilabel"))
    batch = next(iter(prepared.parts.batches.epoch(0)))
    features = batch.images.clone().requires_grad_()
    labels = batch.labels.clone().float()
    labels[:, 1] = float("nan")
    labels[0] = float("nan")
    head = prepared.parts.classifier.medcli_head
    prepared.parts.criterion(prepared.parts.forward(features), labels).backward()
    assert features.grad is not None
    assert torch.equal(features.grad[0], torch.zeros_like(features.grad[0]))
    assert features.grad[1].abs().sum() > 0
    assert head.linear.weight.grad is not None
    assert head.linear.bias.grad is not None
    assert torch.equal(head.linear.weight.grad[1], torch.zeros_like(head.linear.weight.grad[1]))
    assert float(head.linear.bias.grad[1]) == 0.0


def test_a_mirrored_view_has_mirrored_labels(make_plan: MakePlan, make_archive: MakeArchive) -> None:
    path = make_archive("sides.npz", labels=2)
    settings = {"data": (str(path),), "task": "multilabel", "flip": "horizontal", "epochs": 1}
    plan = replace(make_plan(strategy="frozen", feature_views=1, **settings), swap=Swap((1, 0), classes=False))
    prepared, plain = prepare(plan), prepare(replace(plan, strategy=None))
    augment = plain.parts.augment
    assert augment is not None
    truth = torch.from_numpy(np.asarray(plan.data.splits["train"].labels))
    mirrored = augment.mirrored(torch.arange(len(truth)), 1)
    assert 0 < int(mirrored.sum()) < len(truth)
    for batch in prepared.parts.batches.epoch(0):
        wanted = torch.where(mirrored[batch.index][:, None], truth[batch.index].flip(1), truth[batch.index])
        assert torch.equal(prepared.parts.labels(batch, 0), wanted)


@pytest.mark.parametrize("strategy", ["frozen", "knn"])
def test_a_rehearsal_keeps_nothing(strategy: str, make_plan: MakePlan, tmp_path: Path) -> None:
    prepared = prepare(make_plan(strategy=strategy, nearest=3), keep_features=False)
    figures = dry_run(prepared, steps_per_epoch=3, images=1000)
    assert not FeatureCache().directory.exists()
    assert (figures.loss is None) is (strategy == "knn")
    assert figures.hours > 0


def test_one_batch_of_features_is_learnt_by_heart(make_plan: MakePlan) -> None:
    prepared = prepare(make_plan("vit_tiny_patch16_224", strategy="frozen", lr=1.0), keep_features=False)
    assert overfit_batch(prepared).last < 0.1


def test_neighbours_are_a_run_like_any_other(make_plan: MakePlan, make_run: MakeRun) -> None:
    plan = make_plan(strategy="knn", nearest=3)
    run = make_run()
    prepared, trained = conducted(plan, run)
    assert trained == Trained(trained.position, 0, False)
    assert trained.position.epoch == 1
    loaded = load_model(run.model_file)
    assert loaded.spec.head_kind == "knn"
    head = loaded.classifier.get_submodule("medcli_head")
    assert isinstance(head, NearestHead)
    assert len(head.stored) == 24
    assert int(head.neighbours) == 3
    for split in ("val", "test"):
        torch.testing.assert_close(
            raw_of(prepared, loaded.classifier, split), on_images(prepared, loaded.classifier, split), rtol=0, atol=1e-5
        )
    assert any("of 24 training images the 3 nearest vote" in note for note in prepared.notes)


def test_grades_and_columns_vote_too(make_plan: MakePlan, make_archive: MakeArchive, make_run: MakeRun) -> None:
    grades = make_archive("grades.npz", classes=4)
    plan = make_plan(strategy="knn", nearest=3, data=(str(grades),), task="ordinal")
    assert (plan.loss, plan.spec.head_kind) == ("ce", "knn")
    _, trained = conducted(plan, make_run("grades"))
    assert trained.position.best.monitor == "qwk"
    columns = make_archive("columns.npz", labels=3)
    plan = make_plan(strategy="knn", nearest=3, data=(str(columns),), task="multilabel")
    _, trained = conducted(plan, make_run("columns"))
    assert trained.position.best.monitor == "auc"


def test_too_many_neighbours_are_refused_before_images_are_read(make_plan: MakePlan) -> None:
    with pytest.raises(UsageProblem, match="25 neighbours cannot vote among 24 training images"):
        make_plan(strategy="knn", nearest=25)


def test_the_number_of_neighbours_matters(make_plan: MakePlan, make_archive: MakeArchive) -> None:
    path = make_archive("noise.npz", classes=3)
    votes = []
    for nearest in (1, 9):
        prepared = prepare(make_plan(strategy="knn", nearest=nearest, data=(str(path),), task="multiclass"))
        votes.append(raw_of(prepared, prepared.built.classifier, "val"))
    assert not torch.allclose(votes[0], votes[1])
