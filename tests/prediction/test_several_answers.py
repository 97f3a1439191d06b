"""Models asked several times: dropout sampled, looks at a picture, several together; against torch done by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medcli.data.augment.modalities import MODALITIES
from medcli.data.dataset import Preprocessing
from medcli.data.target import Output, Target
from medcli.errors import UsageProblem
from medcli.evaluation.predictions import load_predictions
from medcli.evaluation.scores import softmax
from medcli.models.build import LoadedModel, build_classifier, save_model
from medcli.models.spec import ModelSpec
from medcli.prediction.asking import Asking
from medcli.prediction.mc_dropout import McDropout, dropout_layers, with_mc_dropout
from medcli.prediction.members import Jury, Together, predict_files_by
from medcli.prediction.tta import looks_for, with_tta
from medcli.settings.groups import ComputeSettings
from medcli.testing.command import RunCli

from .conftest import SmallRun

COMPUTE = ComputeSettings(device="cpu", batch_size=2, workers=0)
TARGETS = {
    "binary": Target("binary", ("a", "b")),
    "multilabel": Target("multilabel", ("a", "b", "c")),
    "ordinal": Target("ordinal", ("a", "b", "c")),
    "multioutput": Target("multioutput", outputs=(Output("x", ("0", "1")), Output("y", ("0", "1", "2")))),
}


def loaded(
    task: str = "binary", *, architecture: str = "custom1", size: int = 16, dropout: float = 0.5, seed: int = 1
) -> LoadedModel:
    target = TARGETS[task]
    kind = "corn" if task == "ordinal" else "linear"
    spec = ModelSpec(
        architecture=architecture, in_channels=1, image_size=size, target=target, head_kind=kind, dropout=dropout
    )
    classifier = build_classifier(spec, seed=seed).classifier.eval()
    with torch.no_grad():
        classifier.medcli_head.linear.weight.mul_(300)
    return LoadedModel(classifier, spec, Preprocessing(size, 1, (0.5,), (0.5,)), {})


def images(count: int = 4, size: int = 16) -> torch.Tensor:
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(0))


def answers(model: LoadedModel, batch: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.predictor(batch)
    return found


@pytest.mark.parametrize("task", TARGETS)
def test_passes_are_thinned_heads_on_one_pass_of_the_backbone(task: str) -> None:
    model = loaded(task)
    calls = []
    hook = model.classifier.backbone.register_forward_hook(lambda *_: calls.append(1))
    asked = with_mc_dropout(model, 6, seed=3)
    found = answers(asked, images())
    hook.remove()
    assert len(calls) == 1
    assert found.shape == (4, 6, *TARGETS[task].logits_shape)
    assert not torch.equal(found[:, 0], found[:, 1])
    with torch.inference_mode():
        features = model.classifier.backbone(images())
        mask = asked.predictor._masks[
            ("medcli_head.dropout", 0, 2, (features.shape[1],), features.dtype, features.device)
        ]
        assert set(mask.tolist()) == {0.0, 2.0}
        by_hand = model.classifier.decode(model.classifier.medcli_head(features * mask))
    assert torch.allclose(found[:, 2], by_hand, atol=1e-5)


def test_answers_depend_on_seed_and_picture_alone() -> None:
    model = loaded()
    whole = answers(with_mc_dropout(model, 5, seed=7), images())
    alone = torch.cat([answers(with_mc_dropout(model, 5, seed=7), one[None]) for one in images()])
    assert torch.allclose(whole, alone, atol=1e-5)
    assert torch.equal(whole, answers(with_mc_dropout(model, 5, seed=7), images()))
    assert not torch.equal(whole, answers(with_mc_dropout(model, 5, seed=8), images()))
    # More passes leave the earlier ones as they were.
    assert torch.equal(whole, answers(with_mc_dropout(model, 9, seed=7), images())[:, :5])


def test_masks_have_the_mean_and_variance_of_dropout() -> None:
    model = loaded(dropout=0.3)
    asked = McDropout(model.classifier, 400)
    masks = torch.stack(
        [asked._mask("medcli_head.dropout", 0, number, (64,), 0.3, torch.zeros(1)) for number in range(400)]
    )
    assert float(masks.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(masks.var()) == pytest.approx(0.3 / 0.7, abs=0.02)
    between = torch.corrcoef(masks[:20])
    assert float((between - torch.eye(20)).abs().max()) < 0.6


class Inner(nn.Module):
    """A backbone with dropout of its own, by value and by channel, called twice."""

    feature_dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.channels = nn.Dropout2d(0.5)
        self.values = nn.Dropout(0.2)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        maps = self.channels(self.norm(self.conv(batch)))
        return self.values(self.values(maps).mean((2, 3)))

    def layer_groups(self) -> tuple[()]:
        return ()


def test_inner_dropout_is_sampled_and_batch_statistics_stay() -> None:
    model = loaded(dropout=0.0)
    model.classifier.backbone = Inner()
    model.classifier.medcli_head.linear = nn.Linear(8, 2)
    model.classifier.eval()
    assert dropout_layers(model.classifier).inner == ("backbone.channels", "backbone.values")
    asked = with_mc_dropout(model, 4)
    before = {name: value.clone() for name, value in model.classifier.state_dict().items()}
    found = answers(asked, images())
    assert not any(module.training for module in model.classifier.modules())
    assert all(torch.equal(before[name], value) for name, value in model.classifier.state_dict().items())
    assert len({tuple(found[0, number].tolist()) for number in range(4)}) == 4
    alone = torch.cat([answers(with_mc_dropout(model, 4), one[None]) for one in images()])
    assert torch.allclose(found, alone, atol=1e-5)
    assert "whole network, for 2 dropout layers" in dropout_layers(model.classifier).sentence(4)


def test_a_model_without_dropout_is_refused_with_a_way_to_get_some() -> None:
    with pytest.raises(UsageProblem, match="no dropout") as refused:
        with_mc_dropout(loaded(dropout=0.0), 5)
    assert "`--dropout 0.2`" in str(refused.value.hint)


def test_dropout_that_does_not_reach_the_answer_is_noticed() -> None:
    model = loaded()
    with torch.no_grad():
        model.classifier.medcli_head.linear.weight.zero_()
    with pytest.raises(UsageProblem, match="agree exactly"):
        answers(with_mc_dropout(model, 3), images())


def test_looks_are_what_the_kind_of_picture_bears() -> None:
    names = {kind: [look.name for look in looks_for(kind, TARGETS["binary"])] for kind in MODALITIES}
    for kind in ("chest-xray", "mammography", "ct", "mri"):
        assert not any("mirrored" in name or "turned" in name for name in names[kind]), kind
        assert len(names[kind]) == 5
    for kind in ("histology", "dermoscopy", "fundus", "blood", "tissue"):
        assert len(names[kind]) == 8, kind
    assert "mirrored left-right" in names["ultrasound"]
    assert not any("top-bottom" in name for name in names["ultrasound"] + names["oct"])


def test_labels_with_a_side_are_never_mirrored() -> None:
    sided = Target("multilabel", ("left_lung", "right_lung"))
    for kind in MODALITIES:
        for look in looks_for(kind, sided):
            assert "mirrored" not in look.name
            assert "turned" not in look.name


def test_exact_looks_are_the_eight_of_a_square() -> None:
    picture = torch.arange(16.0).reshape(1, 1, 4, 4)
    found = {tuple(look.change(picture).flatten().tolist()) for look in looks_for("histology", TARGETS["binary"])}
    expected = {
        tuple(turned.rot90(quarter, (-2, -1)).flatten().tolist())
        for turned in (picture, picture.flip(-1))
        for quarter in range(4)
    }
    assert found == expected


def test_moved_looks_stay_in_place_and_undo_each_other() -> None:
    smooth = torch.nn.functional.interpolate(torch.randn(1, 1, 4, 4), size=32, mode="bicubic")
    looks = {look.name: look.change for look in looks_for("chest-xray", TARGETS["binary"])}
    there, back = looks["rotated +5°"], looks["rotated -5°"]
    inner = (..., slice(6, 26), slice(6, 26))
    assert (there(smooth) - smooth)[inner].abs().mean() > 5 * (back(there(smooth)) - smooth)[inner].abs().mean()
    larger = looks["larger by 5%"](smooth)
    assert larger.shape == smooth.shape
    assert torch.equal(looks["as it is"](smooth), smooth)


def test_looks_are_answers_of_the_plain_network() -> None:
    model = loaded("multilabel")
    found = answers(with_tta(model, "ultrasound"), images())
    with torch.inference_mode():
        plain = model.classifier(images())
        mirrored = model.classifier(images().flip(-1))
    assert torch.equal(found[:, 0], plain)
    assert torch.allclose(found[:, 1], mirrored, atol=1e-6)


def test_looks_need_a_kind_of_picture() -> None:
    with pytest.raises(UsageProblem, match="depends on the kind") as refused:
        with_tta(loaded(), None)
    assert "chest-xray" in str(refused.value.hint)
    with pytest.raises(UsageProblem, match="no kind of picture"):
        with_tta(loaded(), "chestxray")


def test_ways_of_asking_exclude_each_other() -> None:
    with pytest.raises(UsageProblem, match="one way at a time"):
        with_mc_dropout(with_tta(loaded(), "ct"), 3)
    with pytest.raises(UsageProblem, match="one way at a time"):
        with_tta(with_mc_dropout(loaded(), 3), "ct")


def test_models_together_run_a_shared_backbone_once() -> None:
    one = loaded()
    other = loaded(seed=2)
    twin = replace(one, classifier=one.classifier.__class__.__new__(one.classifier.__class__))
    twin.classifier.__dict__.update(one.classifier.__dict__)
    twin.classifier._modules = {**one.classifier._modules, "medcli_head": other.classifier.medcli_head}
    calls = []
    hook = one.classifier.backbone.register_forward_hook(lambda *_: calls.append(1))
    together = Together((one, twin)).eval()
    with torch.inference_mode():
        found = together(images())
    assert len(calls) == 1
    dropped = Together(tuple(with_mc_dropout(model, 3, seed) for seed, model in enumerate((one, twin)))).eval()
    with torch.inference_mode():
        passes = dropped(images())
    assert len(calls) == 2
    hook.remove()
    assert found.shape == (4, 2, 2)
    assert passes.shape == (4, 6, 2)
    with torch.inference_mode():
        assert torch.allclose(found[:, 0], one.classifier(images()), atol=1e-6)
        assert torch.allclose(found[:, 1], twin.classifier(images()), atol=1e-6)


def test_members_apply_their_own_size_and_normalisation(small_run: SmallRun) -> None:
    """Three members, two of which see the same tensors; weighted."""
    from medcli.prediction.files import list_inputs, predict_files

    first, second, third = loaded(), loaded(size=24, seed=2), loaded(seed=3)
    second = replace(second, preprocessing=replace(second.preprocessing, mean=(0.1,), std=(0.3,)))
    jury = Jury((first, second, third), (0.5, 0.3, 0.2), joined=True)
    entries = list_inputs([str(small_run.data / "test")], "auto")
    found = predict_files_by(jury, lambda how: entries, COMPUTE)
    alone = [predict_files(model, entries, COMPUTE) for model in (first, second, third)]
    assert found.member_logits is not None
    for member, one in zip(found.member_logits, alone, strict=True):
        assert np.allclose(member, one.logits, atol=1e-5)
    mean = sum(weight * softmax(one.logits) for weight, one in zip((0.5, 0.3, 0.2), alone, strict=True))
    assert np.allclose(softmax(found.logits), mean, atol=1e-6)
    passes = predict_files_by(jury.asked(Asking(mc_dropout=4)), lambda how: entries, COMPUTE)
    assert passes.member_logits is not None
    assert passes.member_weights is not None
    assert passes.member_logits.shape[0] == 12
    assert passes.member_weights.tolist() == pytest.approx([0.125] * 4 + [0.075] * 4 + [0.05] * 4)


@pytest.fixture
def dropping(small_run: SmallRun, tmp_path: Path) -> Callable[..., Path]:
    """A run like the small one, whose head has dropout."""
    from medcli.runs.directory import RunDirectory, claim_run

    run = RunDirectory(tmp_path / "dropping")
    claim_run(run, command="train")
    model = loaded()
    spec = replace(model.spec, target=Target("binary", ("clear", "opaque")), architecture="medcli/custom1")
    save_model(run.model_file, model.classifier, spec, model.preprocessing)
    return lambda: run.path


def test_evaluate_keeps_the_passes_and_tells_what_they_cost(
    run_cli: RunCli, small_run: SmallRun, dropping: Callable[..., Path], tmp_path: Path
) -> None:
    run = dropping()
    words = ("evaluate", run, "--data", small_run.data, "--mc-dropout", "7", "--bootstrap", "0", "--workers", "0")
    done = run_cli(*words, "--save-predictions", tmp_path / "mc.npz", in_process=True)
    assert done.code == 0, done.stderr
    assert "7 passes through the head (p 0.5), one through the backbone" in done.stderr
    assert "uncertainty by 7 members, passes or views" in done.stdout
    kept = load_predictions(tmp_path / "mc.npz")
    assert kept.member_logits is not None
    assert kept.member_logits.shape == (7, 12, 2)
    assert np.allclose(softmax(kept.logits), softmax(kept.member_logits).mean(axis=0), atol=1e-6)
    # The file alone says the same, without a network.
    again = run_cli("evaluate", tmp_path / "mc.npz", "--bootstrap", "0", "--json", in_process=True)
    (evaluation,) = again.json()["result"]["evaluations"]
    assert evaluation["sections"]["uncertainty"]["members"] == 7
    val = run_cli(*words, "--on", "val", "--json", in_process=True)
    assert val.json()["result"]["evaluations"][0]["split"] == "val"


def test_predict_has_columns_for_doubt(
    run_cli: RunCli, small_run: SmallRun, dropping: Callable[..., Path], tmp_path: Path
) -> None:
    run = dropping()
    picture = next((small_run.data / "test" / "clear").iterdir())
    words = ("predict", run, "--workers", "0")
    alone = run_cli(*words, picture, "--mc-dropout", "5", "--json", in_process=True).json()["result"]
    folder = run_cli(*words, small_run.data / "test", "--mc-dropout", "5", "--json", in_process=True).json()["result"]
    (row,) = alone["predictions"]
    assert row["uncertainty_total"] == pytest.approx(row["uncertainty_aleatoric"] + row["uncertainty_epistemic"])
    assert row["uncertainty_epistemic"] > 0
    assert alone["answers_per_image"] == 5
    beside = next(one for one in folder["predictions"] if one["image"] == row["image"])
    assert beside["uncertainty_epistemic"] == pytest.approx(row["uncertainty_epistemic"], abs=1e-6)
    looks = run_cli(*words, picture, "--tta", "--modality", "ultrasound", in_process=True)
    assert "uncertainty_epistemic" in looks.stdout.partition("\n")[0]
    assert "mirrored left-right" in looks.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mc-dropout", "5"), "no dropout"),
        (("--tta",), "depends on the kind of picture"),
        (("--tta", "--modality", "xray", "--mc-dropout", "5"), "exclude each other"),
        (("--tta", "--ten-crop"), "exclude each other"),
        (("--modality", "xray"), "`--tta` is not asked for"),
        (("--mc-dropout", "1"), "at least 2"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    run_cli: RunCli, small_run: SmallRun, words: tuple[str, ...], said: str
) -> None:
    picture = next((small_run.data / "test" / "clear").iterdir())
    done = run_cli("predict", small_run.run.path, picture, *words, in_process=True)
    assert done.code == 2
    assert said in " ".join(done.stderr.split())
