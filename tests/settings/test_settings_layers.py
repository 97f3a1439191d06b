"""Variables and flags as layers."""

from __future__ import annotations

import pytest

from medcli.settings.commands import COMMANDS
from medcli.settings.layers import LAYERS, Origin, flag_layer, variable_layer

TRAIN = COMMANDS["train"]


def read(**environ: str) -> dict[str, object]:
    layer, problems = variable_layer(TRAIN, environ)
    assert not problems
    return dict(layer.values)


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("EPOCHS", "5", 5),
        ("LR", "1e-4", 1e-4),
        ("SPLIT", "0.8, 0.1,0.1", (0.8, 0.1, 0.1)),
        ("CLASS_NAMES", "a,b", ("a", "b")),
        ("DATA", "a,b.csv", ("a,b.csv",)),
        ("EMA", "yes", True),
        ("EMA", "0", False),
        ("LOSS", "focal", "focal"),
        ("EPOCHS", "five", "five"),
        ("EMA", "perhaps", "perhaps"),
    ],
)
def test_a_variable_is_read_as_its_type(variable: str, text: str, value: object) -> None:
    assert list(read(**{f"MEDCLI_{variable}": text}).values()) == [value]


def test_the_command_s_own_variable_wins() -> None:
    environ = {"MEDCLI_TRAIN_EPOCHS": "2", "MEDCLI_EPOCHS": "1"}
    layer, _ = variable_layer(TRAIN, environ)
    assert layer.values == {"epochs": 2}
    assert layer.origin("epochs") == Origin("variable", "MEDCLI_TRAIN_EPOCHS")
    assert variable_layer(COMMANDS["predict"], environ)[0].values == {}


def test_variables_of_commands_of_two_words() -> None:
    layer, problems = variable_layer(COMMANDS["data check"], {"MEDCLI_DATA_CHECK_NEAR_DUPLICATES": "1"})
    assert not problems
    assert layer.values == {"near_duplicates": True}


def test_an_empty_variable_is_not_set() -> None:
    assert read(MEDCLI_EPOCHS="", MEDCLI_LR=" ") == {}


def test_other_programs_variables_and_those_of_plugins_are_left_alone() -> None:
    assert read(HOME="/", MEDCLIX="1", MEDCLI_PLUGINS="none", MEDCLI_STRICT_PLUGINS="1") == {}


@pytest.mark.parametrize("text", ["1", "true", "anything"])
def test_switches_of_the_terminal_follow_no_color(text: str) -> None:
    assert read(MEDCLI_NO_COLOR=text, MEDCLI_DEBUG="0") == {"no_color": True, "debug": False}


def test_an_unknown_variable_is_named_with_the_nearest() -> None:
    _, (problem,) = variable_layer(TRAIN, {"MEDCLI_EPOCH": "3"})
    assert problem.message == "unknown variable `MEDCLI_EPOCH`"
    assert problem.hint == "did you mean `MEDCLI_EPOCHS`?"
    _, (problem,) = variable_layer(TRAIN, {"MEDCLI_PREDICT_EPOCHS": "3"})
    assert problem.code == "unknown-variable"


def test_a_flag_only_setting_is_no_variable() -> None:
    _, (problem,) = variable_layer(TRAIN, {"MEDCLI_RESUME": "runs/a"})
    assert problem.hint == "use the flag `--resume`"


def test_flags_know_their_spelling() -> None:
    assert str(flag_layer({"image_size": 3}).origin("image_size")) == "`--image-size`"


def test_origins_are_ordered_and_readable() -> None:
    assert [Origin(layer).rank for layer in LAYERS] == list(range(len(LAYERS)))
    assert str(Origin("default")) == "default"
    assert str(Origin("variable", "MEDCLI_LR")) == "variable `MEDCLI_LR`"
    assert str(Origin("preset", "x")) == "preset `x`"
    assert str(Origin("project file", "medcli.toml:3")) == "medcli.toml:3"
