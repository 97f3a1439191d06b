"""Every method against a definition of its own, by hand or by captum; the choice of method; refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medcli import build
from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.explain.attending import attention_map, gradient_rollout, rollout, rollout_map
from medcli.explain.cams import gradcam, gradcam_plus_plus, hirescam, layercam
from medcli.explain.changing import integrated_gradients, occlusion
from medcli.explain.geometry import enlarged
from medcli.explain.layers import MapLayer, activation_and_gradient, default_layer
from medcli.explain.methods import choose_method
from medcli.explain.questions import Question, ask, parse_targets, predicted
from medcli.models.classifier import Classifier

SPOT = Question(Target("binary", ("clear", "spot")), 1)


def vit(**more):
    model = build("timm/test_vit", num_classes=3, image_size=32, seed=0, **more).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in model.parameters():
            # As drawn, the tiny network attends to everything alike.
            parameter.data += 0.05 * torch.randn_like(parameter)
    return model


@pytest.fixture
def picture():
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def test_gradcam_is_what_it_is_by_hand(learned):
    """With mean pooling and one linear layer, the gradient of a cell is w_k / (h w): no autograd is needed."""
    image = learned.images[:1]
    activation, gradient = activation_and_gradient(learned.classifier, image, SPOT, MapLayer("second", (8, 8)))
    weight = learned.classifier.medcli_head.linear.weight
    margin = weight[1] - weight[0]
    assert torch.allclose(gradient[0, :, 0, 0], margin / 64, atol=1e-7)
    feature_map = learned.classifier.feature_map(image)
    assert torch.equal(activation, feature_map)
    expected = torch.relu((margin[:, None, None] * feature_map[0]).sum(0) / 64)
    assert torch.allclose(gradcam(activation, gradient)[0], expected, atol=1e-6)
    assert torch.allclose(hirescam(activation, gradient)[0], expected, atol=1e-6)


def test_gradcam_and_layercam_by_hand_on_four_cells():
    activation = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[2.0, 0.0], [1.0, 1.0]]]])
    gradient = torch.tensor([[[[1.0, 0.0], [1.0, 2.0]], [[-1.0, -1.0], [-1.0, 1.0]]]])
    # Weights 1 and -0.5: [[1 - 1, 2 - 0], [0 - .5, 1 - .5]].
    assert torch.equal(gradcam(activation, gradient)[0], torch.tensor([[0.0, 2.0], [0.0, 0.5]]))
    assert torch.equal(hirescam(activation, gradient)[0], torch.tensor([[0.0, 0.0], [0.0, 3.0]]))
    assert torch.equal(layercam(activation, gradient)[0], torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    # Grad-CAM++, written out: alpha = g^2 / (2 g^2 + g^3 sum(A)), weight = sum(alpha relu(g)).
    a, g = activation[0].numpy(), gradient[0].numpy()
    sums = a.sum((1, 2), keepdims=True)
    bottom = 2 * g**2 + sums * g**3
    alpha = np.divide(g**2, bottom, out=np.zeros_like(g), where=bottom != 0)
    weights = (alpha * np.maximum(g, 0)).sum((1, 2))
    expected = np.maximum((weights[:, None, None] * a).sum(0), 0)
    assert np.allclose(gradcam_plus_plus(activation, gradient)[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("name", "size"), [("resnet18", 128), ("mobilenetv3_small_100", 128)])
def test_gradcam_is_captums(name, size):
    from captum.attr import LayerGradCam

    model = build(name, num_classes=4, image_size=size, seed=0).eval()
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(4))
    question = Question(model.target, 2)
    explainer = choose_method(model, image, question)
    assert explainer.method == "gradcam"
    module = model.backbone.get_submodule(f"net.{explainer.layer}")
    theirs = LayerGradCam(model, module).attribute(image.clone().requires_grad_(), target=2, relu_attributions=True)
    assert explainer(model, image, question).shape == (4, 4)
    assert torch.allclose(explainer(model, image, question), theirs[0, 0].detach(), atol=1e-6)


def test_gradcam_lights_up_where_the_square_is(learned):
    explainer = choose_method(learned.classifier, learned.images[:1], SPOT)
    assert (explainer.method, explainer.layer) == ("gradcam", "second")
    for image, (row, column) in zip(learned.images, learned.corners.tolist(), strict=True):
        map_ = enlarged(explainer(learned.classifier, image[None], SPOT), 32)
        inside = torch.zeros(32, 32, dtype=torch.bool)
        inside[row : row + 8, column : column + 8] = True
        assert map_[inside].mean() > 3 * map_[~inside].mean()
        top, left = divmod(int(map_.argmax()), 32)
        assert row - 3 <= top < row + 11
        assert column - 3 <= left < column + 11


def test_occlusion_finds_the_square(learned):
    image, (row, column) = learned.images[2:3], learned.corners[2].tolist()
    map_ = occlusion(learned.classifier, image, SPOT)[0]
    assert map_.shape == (32, 32)
    top, left = divmod(int(map_.argmax()), 32)
    assert row - 2 <= top < row + 10
    assert column - 2 <= left < column + 10
    # By hand: the score falls by as much when that square of 4 px is hidden behind the mean.
    hidden = image.clone()
    hidden[..., 0:4, 0:4] = image.mean()
    fallen = SPOT.score(learned.classifier(image)) - SPOT.score(learned.classifier(hidden))
    corner = occlusion(learned.classifier, image, SPOT)[0, 0, 0]
    assert float(corner) == pytest.approx(max(0.0, float(fallen)), abs=1e-4)


def test_integrated_gradients_add_up_to_the_score(learned):
    image, (row, column) = learned.images[:1], learned.corners[0].tolist()
    map_, error = integrated_gradients(learned.classifier, image, SPOT)
    assert error < 0.05
    inside = map_[0, row : row + 8, column : column + 8]
    assert inside.mean() > 5 * (map_.sum() - inside.sum()) / (32 * 32 - 64)


def test_rollout_rows_sum_to_one_and_are_by_hand(picture):
    model = vit()
    carried = rollout_map(model, picture)
    assert torch.allclose(carried.sum(-1), torch.ones(carried.shape[:2]), atol=1e-5)
    expected = torch.eye(carried.shape[-1])[None]
    for block in range(6):
        step = (model.attention_maps(picture, layer=block).mean(1) + torch.eye(carried.shape[-1])) / 2
        expected = step @ expected
    assert torch.allclose(carried, expected, atol=1e-5)
    with pytest.raises(ValueError, match="no attention"):
        rollout([])


def test_rollout_of_a_backbone_that_shows_one_block_at_a_time(picture):
    model = vit()

    class Plain(nn.Module):
        """A plugin's backbone without `watch_attention`."""

        def __init__(self, inner):
            super().__init__()
            self.inner, self.feature_dim = inner, inner.feature_dim
            self.layer_groups, self.attention_maps = inner.layer_groups, inner.attention_maps

        def forward(self, images):
            return self.inner(images)

    plain = Classifier(Plain(model.backbone), model.target).eval()
    question = Question(model.target, 0)
    assert torch.allclose(rollout_map(plain, picture), rollout_map(model, picture), atol=1e-6)
    explainer = choose_method(plain, picture, question)
    assert explainer.method == "rollout"
    # No feature map tells its grid: 5 tokens are one and a square of four.
    assert torch.allclose(
        explainer(plain, picture, question), choose_method(model, picture, question)(model, picture, question)
    )
    with pytest.raises(UsageProblem, match="with gradients"):
        choose_method(plain, picture, question, method="gradient-rollout")


def test_attention_of_a_block_without_the_class_token(picture):
    model = vit()
    question = Question(model.target, 0)
    explainer = choose_method(model, picture, question, method="attention", layer="0")
    whole = model.attention_maps(picture, layer=0).mean(1)
    assert explainer(model, picture, question).shape == (2, 2)
    assert torch.allclose(explainer(model, picture, question).flatten(), whole[0, 0, 1:])
    assert not explainer.by_class
    assert torch.equal(attention_map(model, picture, 0), whole)


def test_patches_are_read_together_where_the_network_pools_them(picture):
    model = build("vit_tiny_patch16_224", num_classes=3, image_size=64, seed=0, pool="mean").eval()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    question = Question(model.target, 1)
    found = choose_method(model, image, question, method="attention")(model, image, question)
    whole = model.attention_maps(image).mean(1)[0]
    assert torch.allclose(found.flatten(), whole[1:, 1:].mean(0), atol=1e-6)
    assert choose_method(model, image, question, method="gradcam").layer == "norm"


def test_gradcam_of_a_class_token_goes_below_the_last_attention():
    model = build("vit_tiny_patch16_224", num_classes=3, image_size=64, seed=0).eval()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    explainer = choose_method(model, image, Question(model.target, 1), method="gradcam")
    assert explainer.layer == "blocks.11.norm1"
    assert "token beside it" in explainer.why


def test_gradient_rollout_is_by_class_and_leaves_no_trace(picture):
    model = vit()
    one, other = (gradient_rollout(model, picture, Question(model.target, chosen)) for chosen in (0, 1))
    assert (one >= 0).all()
    assert not torch.allclose(one, other)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_windows_have_no_rollout():
    from medcli.models.timm_backbone import TimmBackbone

    backbone = TimmBackbone("swin_tiny_patch4_window7_224", image_size=224, depths=(1, 1, 1, 1))
    model = Classifier(backbone, Target("binary", ("a", "b"))).eval()
    image, question = torch.randn(1, 3, 224, 224), Question(model.target, 1)
    with pytest.raises(UsageProblem, match="within windows") as caught:
        choose_method(model, image, question, method="attention", layer="0")
    assert caught.value.hint
    with pytest.raises(UsageProblem, match="within windows"):
        choose_method(model, image, question, method="rollout")(model, image, question)
    explainer = choose_method(model, image, question)
    assert (explainer.method, explainer.layer) == ("gradcam", "norm")
    assert explainer(model, image, question).shape == (7, 7)


def test_a_map_of_one_cell_gives_way_to_an_earlier_one():
    model = build("custom1", num_classes=2, in_channels=1, image_size=32, seed=0).eval()
    image, question = torch.randn(1, 1, 32, 32), Question(model.target, 1)
    explainer = choose_method(model, image, question)
    assert explainer(model, image, question).shape == (4, 4)
    assert "1 × 1 cells" in explainer.why


def test_what_shows_nothing_is_occluded(blind):
    image = torch.randn(1, 1, 32, 32)
    explainer = choose_method(blind, image, SPOT)
    assert explainer.method == "occlusion"
    assert explainer(blind, image, SPOT).shape == (32, 32)
    for method, words in (("gradcam", "no map of features"), ("rollout", "no attention maps")):
        with pytest.raises(UsageProblem, match=words) as caught:
            choose_method(blind, image, SPOT, method=method)
        assert "occlusion" in (caught.value.hint or "")


def test_neighbours_that_vote_have_no_gradient(blind):
    head = Classifier(blind.backbone, SPOT.target, head_kind="knn").eval()
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    head.medcli_head.remember(features, torch.arange(6) % 2, 3)
    image = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    assert choose_method(head, image, SPOT).method == "occlusion"
    with pytest.raises(UsageProblem, match="votes of neighbours"):
        choose_method(head, image, SPOT, method="gradcam")


def test_layers_by_name(learned):
    image = learned.images[:1]
    named = choose_method(learned.classifier, image, SPOT, layer="first")
    assert (named.method, named.layer) == ("gradcam", "first")
    assert named(learned.classifier, image, SPOT).shape == (16, 16)
    with pytest.raises(UsageProblem, match="no layer `thrid`") as caught:
        choose_method(learned.classifier, image, SPOT, method="gradcam", layer="thrid")
    assert "`second`" in (caught.value.hint or "")
    with pytest.raises(UsageProblem, match="not at a layer"):
        choose_method(learned.classifier, image, SPOT, method="occlusion", layer="first")
    with pytest.raises(UsageProblem, match="no number of a block"):
        choose_method(learned.classifier, image, SPOT, method="attention", layer="first")
    layer = default_layer(learned.classifier, image, SPOT)
    assert layer is not None
    assert layer.grid == (8, 8)


def test_questions_of_every_target():
    logits = torch.tensor([[2.0, 0.5, 1.0]])
    assert float(Question(Target("multiclass", ("a", "b", "c")), 2).score(logits)) == 1.0
    assert float(Question(Target("binary", ("a", "b")), 0).score(torch.tensor([[2.0, 0.5]]))) == 1.5
    labels = Target("multilabel", ("a", "b", "c"))
    one = Question(labels, 1)
    assert one.probability(np.array([2.0, 0.0, 1.0])) == 0.5
    assert [one.label_of(np.array([0.0, value, 1.0])) for value in (0, 1, np.nan)] == ["no", "yes", ""]
    several = Target("multioutput", outputs=(Output("grade", ("0", "1", "2"), True), Output("side", ("l", "r"))))
    rows = np.array([[0.0, 3.0, 1.0], [2.0, 1.0, -np.inf]])
    assert [question.name for question in predicted(several, rows)] == ["grade/1", "side/l"]
    asked = parse_targets(several, ["side", "grade/2"])
    assert [question.name for question in ask(several, asked, rows)] == ["side/l", "grade/2"]
    assert ask(several, asked, rows)[0].label_of(np.array([1, -1])) == ""
    with pytest.raises(UsageProblem, match="no output or class `Side`") as caught:
        parse_targets(several, ["Side"])
    assert "`side`" in (caught.value.hint or "")


@pytest.mark.parametrize("head_kind", ["corn", "coral"])
def test_ordinal_heads_are_explained_by_the_grade(learned, head_kind):
    target = Target("ordinal", ("0", "1", "2"))
    model = Classifier(learned.classifier.backbone, target, head_kind=head_kind).eval()
    image = learned.images[:1]
    for grade in range(3):
        question = Question(target, grade)
        found = choose_method(model, image, question)(model, image, question)
        assert found.shape == (8, 8)
        assert torch.isfinite(found).all()
