"""The check tells explanations of the model from pictures of the picture, and leaves the network as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medcli import build
from medcli.data.dataset import Picture
from medcli.data.target import Target
from medcli.errors import RunFailure
from medcli.explain.methods import choose_method
from medcli.explain.questions import Question
from medcli.explain.sanity import check_sanity, rank_correlation, similarity, stages_of
from medcli.explain.sheet import draw_sheet

SIDE = 32
SPOT = Question(Target("binary", ("clear", "spot")), 1)


def edges(classifier, images, question):
    plane = images[0, 0]
    return (plane[1:, :-1] - plane[:-1, :-1]).abs() + (plane[:-1, 1:] - plane[:-1, :-1]).abs()


def images_of(learned):
    return [image[None] for image in learned.images[:4]]


def test_gradcam_passes_and_an_edge_detector_fails(learned, tmp_path):
    images = images_of(learned)
    before = {name: value.clone() for name, value in learned.classifier.state_dict().items()}
    explainer = choose_method(learned.classifier, images[0], SPOT)
    check = check_sanity(learned.classifier, explainer, images, [SPOT] * 4, shuffles=12)
    assert check.outcome == "passed"
    assert [step.name for step in check.steps] == ["head", "second", "first"]
    failed = check_sanity(learned.classifier, edges, images, [SPOT] * 4)
    assert failed.outcome == "failed"
    assert all(step.rank == pytest.approx(1) and step.ssim == pytest.approx(1) for step in failed.steps)
    assert "FAILED" in failed.verdict
    after = learned.classifier.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    pictures = [Picture(np.zeros((SIDE, SIDE), np.uint8), 0, 255)] * 4
    draw_sheet(check, pictures, explainer.title, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 5000


def test_an_explanation_that_ignores_the_answer_is_doubtful(learned):
    """A map of the first layer alone changes only when that layer does."""
    images = images_of(learned)

    def first(classifier, image, question):
        return classifier.backbone.first(image)[0].max(0).values.detach()

    check = check_sanity(learned.classifier, first, images, [SPOT] * 4, seed=3)
    assert check.steps[1].rank == pytest.approx(1)
    assert check.outcome in {"doubtful", "failed"}


def test_the_same_seed_gives_the_same_figures(learned):
    images = images_of(learned)
    explainer = choose_method(learned.classifier, images[0], SPOT)
    one, two, other = (
        check_sanity(learned.classifier, explainer, images, [SPOT] * 4, seed=seed, shuffles=1).steps
        for seed in (0, 0, 1)
    )
    assert one == two
    assert one != other


def test_flat_maps_have_nothing_to_check(learned):
    with pytest.raises(RunFailure, match="the same everywhere"):
        check_sanity(learned.classifier, lambda *_: torch.ones(4, 4), images_of(learned), [SPOT] * 4)


@pytest.mark.parametrize(("name", "options"), [("resnet18", {}), ("timm/test_vit", {}), ("echo", {})])
def test_every_weight_is_destroyed_and_comes_back(name, options):
    model = build(name, num_classes=3, image_size=32, seed=0, **options).eval()
    covered = {parameter for stage in stages_of(model) for parameter in stage.parameters}
    assert covered == {parameter for parameter, _ in model.named_parameters()}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    seen = []

    def answers(classifier, images, question):
        seen.append(classifier(images).detach())
        return torch.arange(16.0).reshape(4, 4)

    check_sanity(model, answers, [image], [Question(model.target, 0)], shuffles=1)
    assert not torch.allclose(seen[0], seen[-1])
    assert all(torch.isfinite(one).all() for one in seen)
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_likeness_against_a_library():
    metrics = pytest.importorskip("skimage.metrics")
    generator = torch.Generator().manual_seed(0)
    one, other = torch.rand(64, 64, generator=generator), torch.rand(64, 64, generator=generator)
    mixed = 0.7 * one + 0.3 * other
    scaled = [((value - value.min()) / (value.max() - value.min())).double().numpy() for value in (one, mixed)]
    theirs = metrics.structural_similarity(
        *scaled, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
    )
    assert similarity(one, mixed) == pytest.approx(theirs, abs=1e-6)
    assert rank_correlation(one, one.exp()) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    assert rank_correlation(one, torch.ones(64, 64)) == 0
