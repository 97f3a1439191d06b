"""Every strategy on every built-in family: what must not change does not, what must change does, at its rate."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.models.build import build_classifier
from medcli.models.classifier import Classifier
from medcli.models.spec import ModelSpec
from medcli.settings.groups import StrategySettings, TrainingSettings
from medcli.training.optimisers import make_optimizer, set_rate
from medcli.training.schedules import Schedule
from medcli.training.strategies import Tuning, plan_tuning, render_tuning, tuning_to_json

# The smallest member of every built-in family, at a size that all of its stages survive.
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
SMALL = "timm/test_resnet"
CPU = torch.device("cpu")


def network(name: str) -> Classifier:
    spec = ModelSpec(name, 3, FAMILIES[name], Target("multiclass", ("a", "b", "c")))
    classifier = build_classifier(spec, seed=3).classifier
    # Weights that start at zero (layer scale, last norms of residual branches) would hide that nothing reaches a block.
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return classifier


def learn(
    classifier: Classifier, tuning: Tuning, training: TrainingSettings, epochs: int = 1
) -> list[list[dict[str, float]]]:
    """Two steps an epoch on noise; the rates of every group at every step."""
    optimizer = make_optimizer(classifier, training, CPU, tuning)
    generator = torch.Generator().manual_seed(0)
    size = int(classifier.backbone.image_size) if hasattr(classifier.backbone, "image_size") else 32
    images = torch.randn(4, 3, size, size, generator=generator)
    labels = torch.tensor([0, 1, 2, 0])
    rates = []
    for epoch in range(epochs):
        tuning.begin_epoch(classifier, epoch)
        classifier.train()
        for step in (2 * epoch, 2 * epoch + 1):
            tuning.set_peaks(optimizer, epoch, step)
            set_rate(optimizer, 1.0)
            torch.nn.functional.cross_entropy(classifier(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            rates.append([{"block": group["block"], "lr": group["lr"]} for group in optimizer.param_groups])
    return rates


def snapshot(classifier: Classifier) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in classifier.state_dict().items()}


def changed(classifier: Classifier, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in classifier.state_dict().items() if not torch.equal(tensor, before[name])}


def settings(name: str, **more: object) -> StrategySettings:
    return StrategySettings(strategy=name, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FAMILIES)
def test_frozen_keeps_the_backbone_to_the_bit(name: str) -> None:
    classifier = network(name)
    training = TrainingSettings(lr=0.1)
    before = snapshot(classifier)
    learn(classifier, plan_tuning(classifier, settings("frozen"), training, 2), training)
    moved = changed(classifier, before)
    assert moved
    assert all(key.startswith("medcli_head.") for key in moved), sorted(moved)[:3]


@pytest.mark.parametrize("by", ["block", "stage"])
@pytest.mark.parametrize("name", FAMILIES)
def test_layerwise_rates_are_powers_of_the_decay_and_every_block_learns(name: str, by: str) -> None:
    classifier = network(name)
    training = TrainingSettings(lr=1e-2, optimizer="adamw", weight_decay=0.0)
    tuning = plan_tuning(classifier, settings("layerwise", layer_decay=0.7, decay_by=by), training, 2)
    before = snapshot(classifier)
    rates = learn(classifier, tuning, training)[-1]
    groups = classifier.layer_groups()
    depths = [len(groups) - 1 - i if by == "block" else groups[-1].stage - g.stage for i, g in enumerate(groups)]
    for rate in rates:
        assert rate["lr"] == pytest.approx(1e-2 * 0.7 ** depths[int(rate["block"])], rel=1e-9)
    values = [rate["lr"] for rate in rates]
    assert min(values) / max(values) == pytest.approx(0.7 ** max(depths), rel=1e-9)
    assert {rate["block"] for rate in rates} == set(range(len(groups)))
    moved = changed(classifier, before)
    for group in groups:
        assert moved & set(group.parameters), f"nothing of {group.name} learnt"
    if by == "block":
        # One step of Adam moves a number by about its rate: the ratio of the steps is that of the rates.
        first = max(float((classifier.state_dict()[n] - before[n]).abs().max()) for n in groups[0].parameters)
        assert first <= 2.1 * 2 * 1e-2 * 0.7 ** depths[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_gradual_releases_the_last_stages_at_the_epoch_it_names(name: str) -> None:
    classifier = network(name)
    training = TrainingSettings(lr=1e-2, epochs=3, weight_decay=0.0)
    tuning = plan_tuning(classifier, settings("gradual", unfreeze_at=(1,), unfreeze_groups=1), training, 2)
    groups = classifier.layer_groups()
    last = max(group.stage for group in groups[:-1])
    before = snapshot(classifier)
    learn(classifier, tuning, training, epochs=1)
    assert all(key.startswith("medcli_head.") for key in changed(classifier, before))
    learn(classifier, tuning, training, epochs=2)
    moved = changed(classifier, before)
    for group in groups[:-1]:
        assert bool(moved & set(group.parameters)) == (group.stage == last), group.name
    buffers = {f"backbone.{name}" for name, _ in classifier.backbone.named_buffers()}
    frozen = tuple(f"{module}." for group in groups[:-1] if group.stage < last for module in group.modules)
    assert not [key for key in moved & buffers if key.startswith(frozen)]


def test_full_moves_everything_and_freeze_layers_keeps_whole_stages() -> None:
    classifier = network(SMALL)
    training = TrainingSettings(lr=1e-2, freeze_layers=2, weight_decay=0.1)
    tuning = plan_tuning(classifier, settings("full", head_lr=3e-2), training, 2)
    before = snapshot(classifier)
    rates = learn(classifier, tuning, training)[-1]
    groups = classifier.layer_groups()
    moved = changed(classifier, before)
    for group in groups:
        assert bool(moved & set(group.parameters)) == (group.stage >= 2), group.name
    assert {rate["lr"] for rate in rates} == {1e-2, 3e-2}
    assert tuning.notes == (f"stages 0, 1 of {classifier.stages()} never learn",)


def test_a_block_that_joins_later_warms_up_while_the_others_go_on() -> None:
    classifier = network(SMALL)
    training = TrainingSettings(lr=1e-2, epochs=6)
    tuning = plan_tuning(classifier, settings("gradual", unfreeze_at=(0, 2), unfreeze_groups=1), training, 4)
    optimizer = make_optimizer(classifier, training, CPU, tuning)
    last, other = len(tuning.blocks) - 2, next(i for i, b in enumerate(tuning.blocks) if b.rates == ((2, 1e-2),))

    def peak(block: int, step: int) -> float:
        tuning.set_peaks(optimizer, step // 4, step)
        return next(group["peak_lr"] for group in optimizer.param_groups if group["block"] == block)

    assert [peak(last, step) for step in (0, 5, 8)] == [1e-2] * 3
    assert [peak(other, step) for step in (0, 7)] == [0.0, 0.0]
    assert [peak(other, step) for step in (8, 9, 10, 11, 12, 20)] == pytest.approx(
        [2.5e-3, 5e-3, 7.5e-3, 1e-2, 1e-2, 1e-2]
    )


def test_the_optimiser_keeps_its_state_when_a_stage_joins_in() -> None:
    classifier = network(SMALL)
    training = TrainingSettings(lr=1e-3, epochs=2)
    tuning = plan_tuning(classifier, settings("gradual", unfreeze_at=(1,), unfreeze_groups=1), training, 1)
    optimizer = make_optimizer(classifier, training, CPU, tuning)
    head = classifier.medcli_head.linear.weight
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    for epoch in range(2):
        tuning.begin_epoch(classifier, epoch)
        classifier.train()
        tuning.set_peaks(optimizer, epoch, epoch)
        torch.nn.functional.cross_entropy(classifier(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert int(optimizer.state[head]["step"]) == epoch + 1
    late = next(p for n, p in classifier.named_parameters() if n in tuning.blocks[-2].names)
    assert int(optimizer.state[late]["step"]) == 1


def test_a_probe_of_some_epochs_then_everything_at_one_rate() -> None:
    classifier = network(SMALL)
    training = TrainingSettings(lr=1e-4, epochs=10)
    tuning = plan_tuning(classifier, settings("lp-ft", probe_epochs=5, head_lr=1e-3), training, 2)
    head, *rest = reversed(tuning.blocks)
    assert [head.rate(epoch) for epoch in (0, 4, 5, 9)] == [1e-3, 1e-3, 1e-4, 1e-4]
    assert all([block.rate(epoch) for epoch in (0, 4, 5, 9)] == [None, None, 1e-4, 1e-4] for block in rest)


def test_named_rates_of_stages() -> None:
    classifier = network(SMALL)
    ladder = (1e-4, 1e-5, 1e-6)
    tuning = plan_tuning(classifier, settings("layerwise", stage_lr=ladder, head_lr=1e-3), TrainingSettings(), 2)
    stages = classifier.stages()
    for block in tuning.blocks[:-1]:
        assert block.rates == ((0, ladder[min(stages - block.stage, 3) - 1]),)
    assert tuning.blocks[-1].rates == ((0, 1e-3),)
    with pytest.raises(UsageProblem, match="this backbone has"):
        plan_tuning(classifier, settings("layerwise", stage_lr=(1e-4,) * 20), TrainingSettings(), 2)


def test_any_schedule_keeps_the_ratios() -> None:
    classifier = network(SMALL)
    for name in ("cosine", "step", "onecycle", "constant", "plateau"):
        training = TrainingSettings(lr=1e-3, scheduler=name, epochs=4)  # type: ignore[arg-type]
        tuning = plan_tuning(classifier, settings("layerwise", layer_decay=0.5), training, 3)
        optimizer = make_optimizer(classifier, training, CPU, tuning)
        schedule = Schedule.of(training, 3)
        for step in range(12):
            tuning.set_peaks(optimizer, step // 3, step)
            set_rate(optimizer, schedule.factor(step))
            by_block = {group["block"]: group["lr"] for group in optimizer.param_groups}
            rates = [by_block[index] for index in range(len(tuning.blocks))]
            assert all(early / late == pytest.approx(0.5) for early, late in pairwise(rates)), (name, step)


def test_epochs_of_a_recipe_beyond_the_run_are_dropped_and_said() -> None:
    classifier = network(SMALL)
    training = TrainingSettings(epochs=5)
    tuning = plan_tuning(classifier, settings("gradual", unfreeze_at=(1, 10, 20), unfreeze_groups=1), training, 2)
    assert "would also join in at epoch 10, 20" in tuning.notes[0]
    assert "never learn" in tuning.notes[1]
    whole = plan_tuning(classifier, settings("gradual", unfreeze_at=(1, 10), unfreeze_groups=9), training, 2)
    assert whole.notes == ()


def test_the_table_adds_up() -> None:
    classifier = network(SMALL)
    tuning = plan_tuning(classifier, settings("gradual", unfreeze_at=(1,), unfreeze_groups=1), TrainingSettings(), 2)
    total = classifier.parameter_counts().total
    assert sum(block["parameters"] for block in tuning_to_json(tuning)["blocks"]) == total
    text = render_tuning(tuning)
    assert "frozen, then 0.001 from epoch 1" in text
    assert sum(int(line.split("  ")[-2].strip().replace(",", "")) for line in text.splitlines()[1:]) == total
    with pytest.raises(UsageProblem, match="cannot be frozen"):
        plan_tuning(classifier, settings("full"), TrainingSettings(freeze_layers=99), 2)


def test_lp_ft_moves_weights_and_keeps_the_statistics_of_its_probe() -> None:
    classifier = network("resnet18")
    training = TrainingSettings(lr=1e-2, weight_decay=0.0)
    tuning = plan_tuning(classifier, settings("lp-ft"), training, 2)
    before = snapshot(classifier)
    learn(classifier, tuning, training)
    moved = changed(classifier, before)
    buffers = {f"backbone.{name}" for name, _ in classifier.backbone.named_buffers()}
    assert not moved & buffers
    for group in classifier.layer_groups():
        assert moved & set(group.parameters), group.name
    assert "lp-ft: BatchNorm keeps the statistics" in tuning.notes[0]
    learn(classifier, plan_tuning(classifier, settings("full"), training, 2), training)
    assert changed(classifier, before) & buffers, "full fine-tuning gathers statistics"
