"""Building by specification, the model file, and the two functions for scripts."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import medcli
from medcli.data.dataset import Preprocessing
from medcli.data.target import Output, Target
from medcli.errors import RunFailure, UsageProblem
from medcli.models.build import SCHEMA, ModelSpec, build_classifier, load_model, save_model

PREPROCESSING = Preprocessing(28, 1, (0.5,), (0.25,), "bicubic", "pad", "40,400")
TARGETS = [
    Target("binary", ("a", "b"), positive=0),
    Target("multiclass", ("ä", "b", "c d")),
    Target("ordinal", tuple("abcd")),
    Target("multilabel", tuple("abc")),
    Target("multioutput", outputs=(Output("left", ("a", "b", "c")), Output("right", ("x", "y"), ordinal=True))),
]


def spec_of(target, **changes):
    values = {
        "architecture": "medcli/resnet18",
        "in_channels": 1,
        "image_size": 28,
        "options": {"stem": "small"},
        "drop_path": 0.1,
        "dropout": 0.3,
        "head_norm": True,
        "head_kind": "corn" if target.task == "ordinal" else "linear",
        "target": target,
    }
    return ModelSpec(**{**values, **changes})


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.task)
def test_saved_model_comes_back_the_same(target, tmp_path):
    spec = spec_of(target)
    built = build_classifier(spec, seed=3)
    assert built.entry.qualified == "medcli/resnet18"
    assert built.load_report is None
    model = built.classifier.to(memory_format=torch.channels_last).eval()
    save_model(tmp_path / "model.safetensors", model, spec, PREPROCESSING, {"epoch": 4})
    loaded = load_model(tmp_path / "model.safetensors")
    assert (loaded.spec, loaded.preprocessing, loaded.extra) == (spec, PREPROCESSING, {"epoch": 4})
    images = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(loaded.classifier(images), model(images))
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded.classifier.state_dict().items())
    assert not loaded.classifier.training
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".model")] == []


def test_seed_alone_draws_the_weights():
    spec = spec_of(TARGETS[0])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build_classifier(spec, seed=5).classifier.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    second = build_classifier(spec, seed=5).classifier.state_dict()
    other = build_classifier(spec, seed=6).classifier.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["backbone.net.conv1.weight"], other["backbone.net.conv1.weight"])
    torch.manual_seed(5)
    third = build_classifier(spec).classifier.state_dict()
    assert all(torch.equal(first[key], third[key]) for key in first)


def test_loading_draws_nothing_from_the_global_generator(tmp_path):
    spec = spec_of(TARGETS[0])
    save_model(tmp_path / "m.safetensors", build_classifier(spec).classifier, spec, PREPROCESSING)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    load_model(tmp_path / "m.safetensors")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def saved(tmp_path):
    spec = spec_of(TARGETS[0])
    path = tmp_path / "model.safetensors"
    save_model(path, build_classifier(spec, seed=0).classifier, spec, PREPROCESSING)
    return path


def rewritten(path, change_document=None, change_tensors=None, key="medcli"):
    with safe_open(str(path), framework="pt") as handle:
        document = json.loads(handle.metadata()["medcli"])
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    if change_document:
        change_document(document)
    if change_tensors:
        change_tensors(tensors)
    save_file(tensors, str(path), metadata={key: json.dumps(document)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(schema="medcli-model/9"), f"reads '{SCHEMA}'"),
        (lambda d: d["spec"].update(head_kind="cubic"), "head_kind"),
        (lambda d: d["spec"].update(in_channels="one"), "in_channels"),
        (lambda d: d["spec"].update(surprise=1), "unknown fields: surprise"),
        (lambda d: d["spec"]["target"].update(task="regression"), "task"),
        (lambda d: d["spec"]["target"].update(class_names=[1, 2]), "class names"),
        (lambda d: d["preprocessing"].pop("std"), "std"),
        (lambda d: d["preprocessing"].update(mean=["x"]), "mean"),
        (lambda d: d.update(spec=None), "spec"),
        (lambda d: d["spec"].update(architecture="medcli/resnet81"), "unknown architecture"),
    ],
)
def test_a_changed_description_is_refused(change, words, saved):
    rewritten(saved, change)
    with pytest.raises(UsageProblem, match=words):
        load_model(saved)


def test_other_tensors_are_refused(saved):
    rewritten(saved, change_tensors=lambda tensors: tensors.pop("backbone.net.bn1.weight"))
    with pytest.raises(UsageProblem, match=r"1 of \d+ tensors differ \(backbone\.net\.bn1\.weight\)"):
        load_model(saved)


def test_foreign_and_damaged_files_are_refused(saved, tmp_path):
    content = saved.read_bytes()
    saved.write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageProblem, match="damaged"):
        load_model(saved)
    saved.write_bytes(b"")
    with pytest.raises(UsageProblem, match="damaged") as caught:
        load_model(saved)
    assert "medcli runs list" in (caught.value.hint or "")
    save_file({"fc.weight": torch.zeros(2)}, str(tmp_path / "foreign.safetensors"))
    with pytest.raises(UsageProblem, match="weights alone"):
        load_model(tmp_path / "foreign.safetensors")
    with pytest.raises(UsageProblem, match="there is no model file"):
        load_model(tmp_path / "absent.safetensors")


def test_a_model_that_cannot_be_written_leaves_the_old_one(saved, tmp_path):
    before = saved.read_bytes()
    spec = spec_of(TARGETS[0])
    with pytest.raises(RunFailure, match="cannot be written"):
        save_model(tmp_path / "absent" / "model.safetensors", build_classifier(spec).classifier, spec, PREPROCESSING)
    with pytest.raises(ValueError):
        save_model(saved, build_classifier(spec).classifier, spec, PREPROCESSING, {"value": float("nan")})
    assert saved.read_bytes() == before


def test_a_model_file_serves_as_weights(saved):
    source = load_model(saved).classifier
    spec = spec_of(Target("multiclass", tuple("abc")), head_norm=False, head_kind="linear")
    built = build_classifier(spec, weights=str(saved))
    assert built.load_report is not None
    assert built.load_report.matched == built.load_report.total
    expected = source.backbone.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in built.classifier.backbone.state_dict().items())


def test_unknown_options_are_refused_before_building():
    with pytest.raises(UsageProblem, match="no option `stm`") as caught:
        build_classifier(spec_of(TARGETS[0], options={"stm": "small"}))
    assert "stem" in str(caught.value.hint)


def test_build_and_load_are_the_door(tmp_path):
    model = medcli.build("resnet18", num_classes=5, dropout=0.3, image_size=32, in_channels=1, seed=0, stem="small")
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 5)
    assert model.target == Target("multiclass", tuple("01234"))
    assert model.medcli_head.dropout.p == 0.3
    assert medcli.build("custom1", class_names=("no", "yes")).target.task == "binary"
    target = Target("ordinal", tuple("abcd"))
    graded = medcli.build("custom1", target=target, head_kind="coral", head_norm=True)
    assert graded.decode(graded(torch.zeros(1, 3, 32, 32))).shape == (1, 4)
    spec = spec_of(TARGETS[0])
    save_model(tmp_path / "model.safetensors", build_classifier(spec).classifier, spec, PREPROCESSING)
    assert medcli.load(tmp_path).target == medcli.load(tmp_path / "model.safetensors").target == TARGETS[0]


def test_the_door_says_what_is_missing(tmp_path):
    for wrong in ({}, {"num_classes": 1}, {"num_classes": 3, "class_names": ("a", "b")}):
        with pytest.raises(UsageProblem):
            medcli.build("custom1", **wrong)
    with pytest.raises(UsageProblem, match=r"holds no `model\.safetensors`"):
        medcli.load(tmp_path)
    with pytest.raises(UsageProblem) as caught:
        medcli.build("resnet81", num_classes=2)
    assert "resnet18" in str(caught.value.hint)
