"""The loop against plain PyTorch, and every way in which a setting must change what is learnt."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from medcli.data.augment import MODALITIES
from medcli.data.resize import normalise
from medcli.errors import RunFailure, UsageProblem
from medcli.models.build import build_classifier
from medcli.training.best import Best
from medcli.training.checkpoint import Position
from medcli.training.engine import Prepared, prepare, raw_of
from medcli.training.imbalance import distortions
from medcli.training.interruption import Interruption
from medcli.training.loop import fit, learn_epoch
from medcli.training.plan import Plan
from medcli.training.progress import NoProgress

MakePlan = Callable[..., Plan]


class Notebook:
    """A journal that keeps everything in memory."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.progress = NoProgress()
        self.rows: list[dict[str, Any]] = []
        self.saved: list[Position] = []
        self.best: dict[str, torch.Tensor] = {}

    def validate(self, network: nn.Module) -> dict[str, float]:
        raw = raw_of(self.prepared, network, "val")
        labels = torch.from_numpy(np.asarray(self.prepared.batches["val"].samples.labels))
        return {
            "loss": float(self.prepared.parts.criterion(raw, labels)),
            "auc": 0.5,
            "qwk": 0.5,
            "f1": float(raw.sum()),
        }

    def improved(self, position: Position) -> None:
        network = self.prepared.parts.network
        self.best = {name: value.clone() for name, value in network.state_dict().items()}

    def epoch_done(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def save(self, position: Position) -> None:
        self.saved.append(position)


def run(plan: Plan, epochs: int | None = None) -> tuple[Prepared, Notebook, Position]:
    prepared = prepare(plan)
    notebook = Notebook(prepared)
    position = fit(
        prepared.parts, Position(Best(plan.monitor)), notebook, Interruption(), epochs or plan.training.epochs
    )
    return prepared, notebook, position


def state(prepared: Prepared) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in prepared.parts.classifier.state_dict().values()])


def test_a_hand_written_loop_gives_the_same_weights(make_plan: MakePlan) -> None:
    plan = make_plan(optimizer="sgd", lr=0.05, weight_decay=0.01, scheduler="constant", warmup_epochs=0, clip_grad=0.5)
    prepared, _, _ = run(plan)

    torch.manual_seed(plan.compute.seed)
    model = build_classifier(plan.spec).classifier.to(memory_format=torch.channels_last).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        lr=0.05,
        momentum=0.9,
        nesterov=True,
    )
    for epoch in range(2):
        for batch in prepared.batches["train"].epoch(epoch):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(normalise(batch.images, plan.preprocessing)), batch.labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
    ours = prepared.parts.classifier.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_accumulation_learns_what_one_large_batch_learns(make_plan: MakePlan) -> None:
    # A network with LayerNorm, because batch statistics differ between large and small batches.
    common = {"architecture": "timm/test_vit", "image_size": 160, "optimizer": "sgd", "lr": 0.01, "epochs": 1}
    large, _, _ = run(make_plan(batch_size=12, **common))
    small, _, _ = run(make_plan(batch_size=4, accumulate=3, **common))
    torch.testing.assert_close(state(large), state(small), rtol=1e-4, atol=1e-6)


BASE: dict[str, Any] = {}
CHANGES: list[dict[str, Any]] = [
    {"epochs": 3},
    {"lr": 3e-3},
    {"optimizer": "sgd"},
    {"optimizer": "adam", "weight_decay": 0.5},
    {"weight_decay": 0.5},
    {"scheduler": "step", "step_at": (0.5,)},
    {"scheduler": "onecycle"},
    {"scheduler": "constant"},
    {"warmup_epochs": 0.0},
    {"min_lr": 9e-4},
    {"loss": "focal"},
    {"loss": "focal", "focal_gamma": 5.0},
    {"class_weights": "1,3"},
    {"label_smoothing": 0.2},
    {"augment": "light"},
    {"augment": "medium"},
    {"augment": "heavy"},
    {"flip": "horizontal"},
    {"flip": "vertical"},
    {"augment": "randaugment"},
    {"augment": "autoaugment"},
    *({"augment": "modality", "modality": name} for name in MODALITIES),
    {"sampler": "balanced"},
    {"mixup": 0.4},
    {"cutmix": 1.0},
    {"accumulate": 2},
    {"clip_grad": 0.01},
    {"freeze_layers": 1},
    {"freeze_backbone": True},
    {"seed": 1},
    {"batch_size": 6},
    {"precision": "bf16"},
    {"dropout": 0.5},
    {"head_norm": True},
    {"drop_path": 0.3},
    {"image_size": 40},
    {"in_channels": 1},
    {"mean": (0.2,)},
    {"std": (0.7,)},
    {"limit": 10},
]


@pytest.fixture
def baseline(make_plan: MakePlan) -> torch.Tensor:
    return state(run(make_plan())[0])


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def test_the_same_settings_give_the_same_weights(make_plan: MakePlan, baseline: torch.Tensor) -> None:
    assert same(baseline, state(run(make_plan())[0]))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: ",".join(f"{k}={v}" for k, v in change.items()))
def test_every_setting_changes_what_is_learnt(
    make_plan: MakePlan, baseline: torch.Tensor, change: dict[str, Any]
) -> None:
    assert not same(baseline, state(run(make_plan(**change))[0]))


def test_unbalanced_data_makes_the_weight_rules_act(make_plan: MakePlan, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = random.integers(0, 255, (16, 32, 32), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(16) < 4).astype(np.uint8)[:, None]
    np.savez(tmp_path / "rare.npz", **arrays)
    results = [
        state(run(make_plan(data=(str(tmp_path / "rare.npz"),), class_weights=rule))[0])
        for rule in ("none", "balanced", "sqrt")
    ]
    assert not same(results[0], results[1])
    assert not same(results[1], results[2])
    for tau in (0.5, 1.0):
        adjusted = state(run(make_plan(data=(str(tmp_path / "rare.npz"),), logit_adjust=tau))[0])
        assert not any(same(adjusted, other) for other in results)
        results.append(adjusted)


def test_the_kind_of_picture_reduces_a_policy(make_plan: MakePlan) -> None:
    words = {"augment": "randaugment", "epochs": 3}
    whole, chest, skin = (
        state(run(make_plan(modality=name, **words))[0]) for name in (None, "chest-xray", "dermoscopy")
    )
    assert not same(whole, chest)
    assert not same(chest, skin)


def test_labels_that_change_sides_are_learnt_otherwise(make_plan: MakePlan, make_archive: Callable[..., Path]) -> None:
    data = (str(make_archive("sides.npz", labels=2)),)
    words: dict[str, Any] = {"data": data, "class_names": ("one", "other"), "task": "multilabel", "flip": "horizontal"}
    plain, swapped = (state(run(make_plan(swap_on_flip=pairs, **words))[0]) for pairs in ((), ("one:other",)))
    assert not same(plain, swapped)


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({"loss": "focal"}, ["--loss focal"]),
        ({"class_weights": "balanced"}, ["--class-weights"]),
        ({"sampler": "balanced"}, ["--sampler balanced"]),
        ({"logit_adjust": 1.0}, ["--logit-adjust"]),
        ({"mixup": 0.2, "cutmix": 1.0}, ["--mixup", "--cutmix"]),
        ({"label_smoothing": 0.1}, ["--label-smoothing"]),
    ],
    ids=str,
)
def test_what_distorts_probabilities_is_said(make_plan: MakePlan, change: dict[str, Any], reasons: list[str]) -> None:
    plan = make_plan(**change)
    notes = [note for note in plan.notes if note.startswith("probabilities:")]
    assert len(notes) == 1
    assert "calibrate on untouched data" in notes[0]
    assert list(distortions(plan.training, plan.loss)) == [f"`{reason}`" for reason in reasons]
    assert all(f"`{reason}`" in notes[0] for reason in reasons)


def test_nothing_is_said_of_undistorted_probabilities(make_plan: MakePlan) -> None:
    assert not [note for note in make_plan(augment="light").notes if note.startswith("probabilities:")]


@pytest.mark.parametrize("change", [{"workers": 1, "cache": "off"}, {"cache": "disk"}, {"cache_limit": 0.0}])
def test_how_images_are_kept_changes_nothing(
    make_plan: MakePlan, baseline: torch.Tensor, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert same(baseline, state(run(make_plan(**change))[0]))


def test_gradient_checkpointing_learns_the_same(make_plan: MakePlan) -> None:
    common = {"architecture": "timm/test_vit", "image_size": 160, "epochs": 1}
    plain, checkpointed = make_plan(**common), make_plan(grad_checkpointing=True, **common)
    calls: list[int] = []
    original = torch.utils.checkpoint.checkpoint

    def spy(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.checkpoint.checkpoint", spy)
        torch.testing.assert_close(state(run(plain)[0]), state(run(checkpointed)[0]), rtol=1e-5, atol=1e-7)
    assert calls, "nothing was recomputed"


@pytest.mark.slow
def test_compiling_learns_the_same(make_plan: MakePlan, baseline: torch.Tensor) -> None:
    compiled, _, _ = run(make_plan(compile=True))
    assert hasattr(compiled.parts.forward, "_orig_mod")
    torch.testing.assert_close(state(compiled), baseline, rtol=1e-2, atol=1e-2)


def test_a_frozen_backbone_is_bit_identical_afterwards(make_plan: MakePlan) -> None:
    plan = make_plan(freeze_backbone=True, lr=0.1)
    torch.manual_seed(plan.compute.seed)
    before = build_classifier(plan.spec).classifier.state_dict()
    after = run(plan)[0].parts.classifier.state_dict()
    for name, value in before.items():
        assert torch.equal(value, after[name]) is name.startswith("backbone."), name


def test_the_moving_average_is_what_is_judged_and_kept(make_plan: MakePlan) -> None:
    prepared, notebook, _ = run(make_plan(ema=True, ema_decay=0.5))
    parts = prepared.parts
    assert parts.ema is not None
    averaged, current = parts.ema.module.state_dict(), parts.classifier.state_dict()
    assert any(not torch.equal(averaged[name], current[name]) for name in current)
    plain, own, _ = run(make_plan())
    assert torch.equal(state(prepared), state(plain)), "the average must not steer what is learnt"
    assert notebook.rows[-1]["val_loss"] != own.rows[-1]["val_loss"]
    slower, _, _ = run(make_plan(ema=True, ema_decay=0.01))
    assert slower.parts.ema is not None
    other = slower.parts.ema.module.state_dict()
    assert any(not torch.equal(averaged[name], other[name]) for name in averaged)


def test_patience_stops_and_the_best_weights_are_kept(make_plan: MakePlan) -> None:
    _, notebook, position = run(make_plan(patience=2, epochs=9))
    assert position.best.epoch == 0  # the notebook's auc never moves
    assert position.epoch == 3
    assert [row["best"] for row in notebook.rows] == [True, False, False]


def test_monitor_chooses_by_what_it_names(make_plan: MakePlan) -> None:
    _, notebook, position = run(make_plan(monitor="loss", epochs=4, lr=0.01))
    losses = [row["val_loss"] for row in notebook.rows]
    assert position.best.epoch == int(np.argmin(losses))
    assert position.best.value == min(losses)


def test_plateau_lowers_the_rate(make_plan: MakePlan) -> None:
    _, notebook, _ = run(make_plan(scheduler="plateau", epochs=9, warmup_epochs=0, step_gamma=0.5))
    rates = [row["lr"] for row in notebook.rows]
    assert rates[0] == 1e-3
    assert rates[-1] == pytest.approx(5e-4)


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_checkpoints_come_as_often_as_asked_and_always_at_the_end(
    make_plan: MakePlan, every: int, expected: list[int]
) -> None:
    _, notebook, _ = run(make_plan(checkpoint_every=every, epochs=5))
    assert [position.epoch for position in notebook.saved] == expected


def test_a_loss_that_is_no_number_names_the_images(make_plan: MakePlan) -> None:
    prepared = prepare(make_plan())
    with torch.no_grad():
        next(prepared.parts.classifier.parameters()).fill_(float("nan"))
    with pytest.raises(RunFailure) as failure:
        learn_epoch(prepared.parts, Position(Best("auc")), Interruption(), NoProgress())
    shown = str(failure.value)
    ids = set(map(str, prepared.batches["train"].samples.ids))
    assert any(name in shown for name in ids)
    assert "--lr" in shown


def test_an_interrupted_epoch_stops_after_a_whole_window(make_plan: MakePlan) -> None:
    prepared = prepare(make_plan(batch_size=4, accumulate=2))
    interruption = Interruption()
    interruption.signal = 2
    position = learn_epoch(prepared.parts, Position(Best("auc")), interruption, NoProgress())
    assert (position.batch, position.steps, position.seen) == (2, 1, 8)
    assert math.isfinite(position.loss_sum)


def test_a_last_batch_of_one_image_is_left_out(make_plan: MakePlan) -> None:
    prepared = prepare(make_plan(batch_size=23))
    assert [len(batch.index) for batch in prepared.batches["train"].epoch(0)] == [23]


def test_a_side_in_the_labels_forbids_mirroring(make_plan: MakePlan) -> None:
    with pytest.raises(UsageProblem, match="name a side"):
        make_plan(flip="horizontal", class_names=("left lung", "right lung"))
    make_plan(flip="vertical", class_names=("left lung", "right lung"))


@pytest.mark.parametrize(
    "settings",
    [{"loss": "corn"}, {"loss": "bce"}, {"monitor": "qwk"}, {"precision": "fp16"}, {"device": "tpu"}],
)
def test_what_does_not_fit_is_refused(make_plan: MakePlan, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageProblem):
        prepare(make_plan(**settings))


def test_a_grid_of_tasks_learns(make_plan: MakePlan, make_archive: Callable[..., Path]) -> None:
    graded = make_archive("graded.npz", classes=4)
    labelled = make_archive("labelled.npz", labels=3)
    for path, task, loss in (
        (graded, "ordinal", "corn"),
        (graded, "ordinal", "coral"),
        (graded, "multiclass", "ce"),
        (labelled, "multilabel", "bce"),
        (labelled, "multilabel", "asl"),
        (labelled, "multilabel", "focal"),
    ):
        plan = make_plan(data=(str(path),), task=task, loss=loss, epochs=6, lr=0.01, warmup_epochs=0.5)
        _, notebook, _ = run(plan)
        assert notebook.rows[-1]["train_loss"] < notebook.rows[0]["train_loss"], (task, loss)


def test_replacing_settings_keeps_the_plan_honest(make_plan: MakePlan) -> None:
    plan = make_plan()
    assert replace(plan, loss="focal").loss == "focal"
    assert plan.notes, "random weights must be said"


def test_deterministic_kernels_are_asked_for(make_plan: MakePlan) -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    prepare(make_plan(deterministic=True))
    assert torch.are_deterministic_algorithms_enabled()


def test_small_pictures_enlarged_by_default_are_said(make_plan: MakePlan) -> None:
    said = prepare(make_plan(image_size=None, architecture="timm/test_resnet")).notes
    assert any("--image-size 32" in note for note in said)
    assert not any("enlarged" in note for note in prepare(make_plan(image_size=96)).notes)
