"""The table of settings: every fact once, readable without anything heavy."""

from __future__ import annotations

import re

import pytest

from medcli.settings.commands import COMMANDS
from medcli.settings.fields import Field, all_fields, fields_of
from medcli.settings.groups import ComputeSettings, DataSettings, TrainingSettings
from medcli.testing.imports import HEAVY_FOR_COMPLETION, NoHeavyImports


@pytest.mark.parametrize("field", all_fields().values(), ids=lambda field: field.name)
def test_every_setting_is_described(field: Field) -> None:
    text = field.option.help
    assert text
    assert not text.endswith(".")
    assert text[0] == text[0].lower() or text.startswith(("DICOM", "ECE"))
    assert field.option.panel
    assert re.fullmatch(r"[a-z][a-z0-9_]*", field.name)


@pytest.mark.parametrize("field", all_fields().values(), ids=lambda field: field.name)
def test_every_default_is_a_value_of_its_type(field: Field) -> None:
    if field.default is None:
        assert field.optional
        return
    values = field.default if field.many else (field.default,)
    for value in values:
        assert type(value) is field.base
        assert not field.choices or value in field.choices
        if field.option.minimum is not None:
            assert value > field.option.minimum if field.option.exclusive else value >= field.option.minimum
        if field.option.maximum is not None:
            assert value <= field.option.maximum


def test_annotations_are_taken_apart() -> None:
    table = all_fields()
    split, loss, seed, data, classes = (table[name] for name in ("split", "loss", "seed", "data", "class_names"))
    assert (split.base, split.many, split.optional, split.comma_split) == (float, True, False, True)
    assert (loss.base, loss.choices[0], loss.optional) == (str, "ce", True)
    assert (seed.base, seed.many, seed.optional, seed.flag) == (int, False, False, "--seed")
    assert (data.many, data.comma_split) == (True, False)
    assert classes.comma_split


def test_the_order_is_that_of_the_source() -> None:
    assert [field.name for field in fields_of(ComputeSettings)][:2] == ["device", "precision"]


def test_train_takes_whole_groups() -> None:
    names = COMMANDS["train"].fields
    for group in (DataSettings, TrainingSettings, ComputeSettings):
        assert {field.name for field in fields_of(group)} <= set(names)


def test_what_a_run_fixes_is_for_architectures_alone() -> None:
    fixed = {"image_size", "mean", "std", "fit", "in_channels"}
    assert fixed <= set(COMMANDS["evaluate"].fields)
    assert fixed <= set(COMMANDS["predict"].fields)
    assert not fixed & set(COMMANDS["data check"].fields)
    assert "window" in COMMANDS["predict"].fields
    assert "data" not in COMMANDS["predict"].fields


def test_every_command_answers_in_json() -> None:
    assert all("json" in command.fields for command in COMMANDS.values())


def test_the_table_is_light(no_heavy_imports: NoHeavyImports) -> None:
    outcome = no_heavy_imports(
        "import medcli.settings.commands, medcli.settings.resolve, medcli.settings.presets",
        blocked=(*HEAVY_FOR_COMPLETION, "pydantic"),
    )
    assert outcome.code == 0, outcome.stderr
