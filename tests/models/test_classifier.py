"""The classifier as training sees it: what is frozen stays bit-identical, the rest learns."""

from __future__ import annotations

import pytest
import torch

from medcli.data.target import Target
from medcli.errors import UsageProblem
from medcli.models.classifier import Classifier
from medcli.models.timm_backbone import TimmBackbone

THREE = Target("multiclass", tuple("abc"))


def tiny(name="test_resnet", *, dropout=0.5, **options):
    torch.manual_seed(0)
    return Classifier(TimmBackbone(name, image_size=32, **options), THREE, dropout=dropout)


def a_few_steps(model, steps=3):
    torch.manual_seed(1)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def in_groups(groups, name):
    owner = name.rpartition(".")[0]
    return any(name in group.parameters or owner in group.modules for group in groups)


@pytest.mark.parametrize(
    ("name", "options"),
    [("test_resnet", {"drop_path": 0.3}), ("test_efficientnet", {"drop_path": 0.3}), ("test_vit", {"drop_path": 0.3})],
)
def test_frozen_backbone_is_bit_identical_after_training(name, options):
    model = tiny(name, **options)
    model.freeze_backbone()
    before = state(model)
    a_few_steps(model)
    after = model.state_dict()
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]) == (not key.startswith("medcli_head.linear")), key
    model.train()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.features(images), model.features(images)), "drop path of a frozen backbone must not act"
    assert not torch.equal(model(images), model(images)), "the head's dropout must act"


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
@pytest.mark.parametrize("count", [1, 2])
def test_frozen_stages_are_bit_identical_and_the_rest_learns(name, count):
    model = tiny(name)
    model.freeze_stages(count)
    frozen = model.frozen_groups()
    assert {group.stage for group in frozen} == set(range(count))
    before = state(model)
    a_few_steps(model)
    for key, tensor in model.state_dict().items():
        assert torch.equal(before[key], tensor) == in_groups(frozen, key), key


def test_frozen_normalisation_layers_are_in_eval_and_the_others_train():
    model = tiny()
    model.freeze_stages(2)
    model.train()
    frozen = {module for group in model.frozen_groups() for module in group.modules}
    modes = {
        name: module.training for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)
    }
    assert len(set(modes.values())) == 2
    for name, training in modes.items():
        assert training == (name not in frozen)
    model.eval()
    assert not any(module.training for module in model.modules())
    model.train()
    assert modes == {n: m.training for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}


def test_unfreezing_gives_everything_back():
    model = tiny()
    model.train()
    model.freeze_backbone()
    counts = model.parameter_counts()
    assert counts.trainable == counts.head == model.feature_dim * 3 + 3
    assert counts.total == counts.backbone + counts.head == sum(p.numel() for p in model.parameters())
    model.unfreeze_backbone()
    assert model.parameter_counts().trainable == counts.total
    assert all(module.training for module in model.modules())
    assert model.frozen_groups() == ()


def test_freezing_all_stages_is_freezing_the_backbone():
    model = tiny()
    model.freeze_stages(model.stages())
    assert model.parameter_counts().trainable == model.parameter_counts().head
    model.train()
    assert not model.backbone.training
    with pytest.raises(UsageProblem, match="has 5, the stem included"):
        model.freeze_stages(6)


def test_frozen_parameters_take_no_gradient():
    model = tiny()
    model.freeze_stages(1)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    frozen = {name for group in model.frozen_groups() for name in group.parameters}
    assert frozen
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name in frozen)


def test_groups_cover_every_parameter_once_and_end_with_the_head():
    model = tiny("test_vit")
    groups = model.layer_groups()
    named = [name for group in groups for name in group.parameters]
    assert sorted(named) == sorted(name for name, _ in model.named_parameters())
    assert groups[-1].name == "medcli_head"
    assert groups[-1].stage == model.stages() == groups[-2].stage + 1


def test_forward_is_head_of_features():
    model = tiny().eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images), model.medcli_head.linear(model.features(images)))
    assert model.feature_map(images).mean((2, 3)).shape == model.features(images).shape
    assert torch.equal(model.decode(model(images)), model(images))


class Plain(torch.nn.Module):
    """The least a plugin may offer."""

    feature_dim = 3

    def forward(self, images):
        return images.mean((2, 3))

    def layer_groups(self):
        return ()


def test_backbone_without_optional_parts_is_told_so():
    model = Classifier(Plain(), THREE)
    images = torch.zeros(1, 3, 8, 8)
    assert model(images).shape == (1, 3)
    for call in (lambda: model.attention_maps(images), lambda: model.feature_map(images), model.set_grad_checkpointing):
        with pytest.raises(UsageProblem, match="this backbone"):
            call()
