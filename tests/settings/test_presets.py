"""Presets are data that says where it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcli.errors import UsageProblem
from medcli.settings.fields import all_fields
from medcli.settings.groups import ComputeSettings, DataSettings, ModelSettings, TrainingSettings
from medcli.settings.presets import find_preset, preset_layer, presets
from medcli.settings.resolve import resolve
from medcli.settings.validation import check_layer


@pytest.mark.parametrize("name", presets())
def test_every_preset_resolves_and_names_its_source(name: str, tmp_path: Path) -> None:
    preset = find_preset(name)
    assert preset.summary
    assert preset.source
    assert set(preset.settings) <= set(all_fields())
    for command in preset.commands:
        assert not check_layer(preset_layer(name, command))
        resolved = resolve(command, {"preset": name}, environ={"HOME": "/nowhere"}, cwd=tmp_path)
        assert set(preset.settings) <= set(resolved.values), "a preset must not hold what its command would drop"
        assert {resolved.origins[key].layer for key in preset.settings} == {"preset"}


def test_a_preset_of_another_command_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="is not for `train`") as raised:
        resolve("train", {"preset": "medmnist-gradual"}, environ={"HOME": "/nowhere"}, cwd=tmp_path)
    assert raised.value.hint == "`medcli finetune … --preset medmnist-gradual`"


def test_the_ladder_of_the_four_strategies(tmp_path: Path) -> None:
    found = {
        name: resolve("finetune", {"preset": f"medmnist-{name}"}, environ={"HOME": "/nowhere"}, cwd=tmp_path).values
        for name in ("frozen", "layerwise", "gradual", "full")
    }
    assert (found["frozen"]["optimizer"], found["frozen"]["lr"]) == ("adam", 0.01)
    assert (found["layerwise"]["stage_lr"], found["layerwise"]["head_lr"]) == ((1e-4, 1e-5, 1e-6, 1e-6), 1e-3)
    assert (found["gradual"]["unfreeze_at"], found["gradual"]["unfreeze_groups"]) == ((1, 10, 20), 2)
    assert (found["full"]["optimizer"], found["full"]["lr"]) == ("adamw", 1e-4)
    assert all(values["strategy"] == name for name, values in found.items())


def test_the_two_stages_of_the_retina_project(tmp_path: Path) -> None:
    values = resolve("finetune", {"preset": "dr-two-stage"}, environ={"HOME": "/nowhere"}, cwd=tmp_path).values
    assert (values["strategy"], values["probe_epochs"], values["head_lr"]) == ("lp-ft", 5, 1e-3)
    assert (values["lr"], values["epochs"], values["dropout"]) == (1e-4, 25, 0.3)


def test_the_official_medmnist_recipe(tmp_path: Path) -> None:
    resolved = resolve("train", {"preset": "medmnist-official-28"}, environ={"HOME": "/nowhere"}, cwd=tmp_path)
    training, data = resolved.group(TrainingSettings), resolved.group(DataSettings)
    assert (training.optimizer, training.lr, training.weight_decay, training.epochs) == ("adam", 1e-3, 0.0, 100)
    assert (training.scheduler, training.step_at, training.step_gamma) == ("step", (0.5, 0.75), 0.1)
    assert (training.warmup_epochs, training.patience, training.clip_grad) == (0, 0, 0)
    assert (training.augment, training.flip, training.monitor) == ("none", "none", "auc")
    assert (data.image_size, data.mean, data.std) == (28, (0.5,), (0.5,))
    assert resolved.group(ComputeSettings).batch_size == 128
    assert resolved.group(ModelSettings).arch_opt == ("stem=small", "init=torch")


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UsageProblem) as caught:
        find_preset("medmnist-oficial-28")
    assert caught.value.hint == "did you mean `medmnist-official-28`?"
