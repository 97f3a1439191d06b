"""Order of the layers, origins, and every problem at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from medcli.errors import MedcliError, Problems, UsageProblem
from medcli.settings.fields import all_fields
from medcli.settings.groups import ComputeSettings, DataSettings, TrainingSettings
from medcli.settings.layers import Layer, Origin
from medcli.settings.resolve import Resolved, resolve, survey


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / ".config" / "medcli"
    folder.mkdir(parents=True)
    return folder


def train(
    tmp_path: Path,
    given: Mapping[str, Any] | None = None,
    *,
    project: str | None = None,
    user: str | None = None,
    config: str | None = None,
    command: str = "train",
    architecture: str | None = None,
    recipe: Layer | None = None,
    **environ: str,
) -> Resolved:
    flags = dict(given or {})
    for text, path in (
        (project, tmp_path / "medcli.toml"),
        (user, tmp_path / "home/.config/medcli/config.toml"),
        (config, tmp_path / "given.toml"),
    ):
        if text is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if config is not None:
        flags["config"] = "given.toml"
    return resolve(
        command,
        flags,
        architecture=architecture,
        recipe_for=lambda name: recipe,
        environ={"HOME": str(tmp_path / "home"), **environ},
        cwd=tmp_path,
    )


def problems_of(tmp_path: Path, *args: Any, **kwargs: Any) -> list[MedcliError]:
    with pytest.raises(UsageProblem) as caught:
        train(tmp_path, *args, **kwargs)
    return list(caught.value.problems) if isinstance(caught.value, Problems) else [caught.value]


def test_without_anything_every_value_is_the_default(tmp_path: Path) -> None:
    resolved = train(tmp_path)
    assert resolved.group(TrainingSettings) == TrainingSettings()
    assert resolved.group(DataSettings) == DataSettings()
    assert {origin.layer for origin in resolved.origins.values()} == {"default"}


def test_each_layer_wins_over_those_below(tmp_path: Path) -> None:
    recipe = Layer("recipe", {"batch_size": 1, "lr": 0.1}, {"batch_size": "card of x, recipe train"})
    layers: list[tuple[dict[str, Any], Origin, int]] = []
    keywords: dict[str, Any] = {"architecture": "x", "recipe": recipe}
    layers.append((dict(keywords), Origin("recipe", "card of x, recipe train"), 1))
    keywords["user"] = "batch_size = 2\n"
    user = str(tmp_path / "home/.config/medcli/config.toml")
    layers.append((dict(keywords), Origin("user file", "home/.config/medcli/config.toml:1"), 2))
    keywords["project"] = "\nbatch-size = 3\n"
    layers.append((dict(keywords), Origin("project file", "medcli.toml:2"), 3))
    keywords["given"] = {"preset": "medmnist-official-28"}
    layers.append((dict(keywords), Origin("preset", "medmnist-official-28"), 128))
    keywords["config"] = "[train]\nbatch_size = 5\n"
    layers.append((dict(keywords), Origin("config file", "given.toml:2"), 5))
    keywords["MEDCLI_BATCH_SIZE"] = "6"
    layers.append((dict(keywords), Origin("variable", "MEDCLI_BATCH_SIZE"), 6))
    keywords["given"] = {"preset": "medmnist-official-28", "batch_size": 7}
    layers.append((dict(keywords), Origin("flag", "--batch-size"), 7))
    assert user
    for keyword, origin, value in layers:
        resolved = train(tmp_path, keyword.pop("given", None), **keyword)
        assert resolved.values["batch_size"] == value
        assert resolved.origin("batch_size") == origin
        assert resolved.group(ComputeSettings).batch_size == value


def test_a_command_s_table_wins_over_the_top(tmp_path: Path) -> None:
    project = "[predict]\nbatch_size = 8\n[train]\nbatch_size = 4\n"
    top = "batch_size = 2\n" + project
    assert train(tmp_path, project=top).values["batch_size"] == 4
    assert train(tmp_path, project=top, command="predict").values["batch_size"] == 8
    assert train(tmp_path, project=top, command="evaluate").values["batch_size"] == 2


def test_a_key_at_the_top_that_the_command_lacks_is_no_error(tmp_path: Path) -> None:
    assert "epochs" not in train(tmp_path, project="epochs = 3\n", command="predict").values


@pytest.mark.parametrize("table", ["data-check", "data_check", '"data check"'])
def test_tables_of_commands_of_two_words(tmp_path: Path, table: str) -> None:
    resolved = train(tmp_path, project=f"[{table}]\nnear-duplicates = true\n", command="data check")
    assert resolved.values["near_duplicates"] is True


def test_pyproject_is_a_project_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n\n[tool.medcli.train]\nepochs = 3\n")
    resolved = train(tmp_path)
    assert (resolved.values["epochs"], resolved.origin("epochs").where) == (3, "pyproject.toml:5")
    (problem,) = problems_of(tmp_path, project="epochs = 4\n")
    assert problem.code == "two-project-files"


def test_a_pyproject_of_others_is_not_our_business(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project\n")
    assert train(tmp_path, project="epochs = 3\n").values["epochs"] == 3
    for text in ("[project]\ndependencies = ['medcli']\n", "tool = 3  # medcli\n"):
        (tmp_path / "pyproject.toml").write_text(text)
        assert train(tmp_path, project="epochs = 3\n").values["epochs"] == 3


def test_the_tool_table_of_a_pyproject_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool]\nmedcli = 1\n")
    (problem,) = problems_of(tmp_path)
    assert (problem.message, problem.where) == ("`tool.medcli` must be a table of settings", "pyproject.toml:2")


def test_a_list_may_be_written_without_brackets(tmp_path: Path) -> None:
    resolved = train(tmp_path, project='data = "a.npz"\nmean = 0.5\nstd = 0.5\n')
    assert (resolved.values["data"], resolved.values["mean"]) == (("a.npz",), (0.5,))


def test_unset_takes_a_lower_layer_back(tmp_path: Path) -> None:
    resolved = train(tmp_path, project="image_size = 64\n", config='unset = ["image-size"]\n')
    assert resolved.values["image_size"] is None
    assert resolved.origin("image_size").where == "given.toml:1"
    (problem,) = problems_of(tmp_path, config='unset = ["epochs"]\n')
    assert "always has a value" in problem.message


def test_the_architecture_may_stand_in_a_file(tmp_path: Path) -> None:
    seen: list[str] = []

    def recipe_for(name: str) -> Layer:
        seen.append(name)
        return Layer("recipe", {"epochs": 7}, {"epochs": "card"})

    (tmp_path / "medcli.toml").write_text('architecture = "resnet18"\n[train]\narchitecture = "vit_tiny"\n')
    resolved = resolve("train", {}, recipe_for=recipe_for, environ={"HOME": "/nowhere"}, cwd=tmp_path)
    assert (resolved.architecture, seen, resolved.values["epochs"]) == ("vit_tiny", ["vit_tiny"], 7)
    assert resolved.architecture_origin == Origin("project file", "medcli.toml:3")
    typed = resolve("train", {}, architecture="x", recipe_for=recipe_for, environ={"HOME": "/nowhere"}, cwd=tmp_path)
    assert typed.architecture == "x"
    predict = resolve("predict", {}, recipe_for=recipe_for, environ={"HOME": "/nowhere"}, cwd=tmp_path)
    assert predict.architecture is None


def test_an_unknown_architecture_of_a_file_is_placed(tmp_path: Path) -> None:
    def unknown(name: str) -> Layer:
        raise UsageProblem(f"unknown architecture `{name}`")

    (tmp_path / "medcli.toml").write_text('architecture = "resnt"\n')
    with pytest.raises(UsageProblem) as caught:
        resolve("train", {}, recipe_for=unknown, environ={"HOME": "/nowhere"}, cwd=tmp_path)
    assert caught.value.where == "medcli.toml:1"


def test_a_recipe_sets_only_what_a_recipe_may(tmp_path: Path) -> None:
    recipe = Layer("recipe", {"seed": 3, "nonsense": 1}, {"seed": "card.toml:3"})
    problems = problems_of(tmp_path, architecture="x", recipe=recipe)
    assert [problem.message for problem in problems] == ["a recipe cannot set `nonsense`", "a recipe cannot set `seed`"]


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    project = """epoch = 3
[train]
lr = "fast"
top_k = 3
resume = "x"
batch-size = 8
batch_size = 0
[evaluat]
[data_check]
near_duplicates = 1
"""
    problems = problems_of(
        tmp_path, {"extend": 3, "preset": "medmnist"}, project=project, MEDCLI_SPLIT="a", MEDCLI_X="1"
    )
    told = {(problem.message, problem.where, problem.hint) for problem in problems}
    assert {
        ("unknown setting `epoch`", "medcli.toml:1", "did you mean `epochs`?"),
        ("`lr` must be a number above 0, not `fast`", "medcli.toml:3", None),
        ("`[train]` has no setting `top_k`", "medcli.toml:4", "it is a setting of `evaluate`, `report`"),
        ("`resume` cannot be set in a file", "medcli.toml:5", "use the flag `--resume`"),
        ("`batch_size` is set twice, with `-` and with `_`", "medcli.toml:7", None),
        ("unknown table `[evaluat]`", "medcli.toml:8", "did you mean `evaluate`?"),
        ("`near_duplicates` must be `true` or `false`, not `1`", "medcli.toml:10", None),
        ("`split` must be a list, each a number of at least 0, not `a`", "variable `MEDCLI_SPLIT`", None),
        ("`--extend` needs `--resume`", "`--extend`", "name the run to go on with: `--resume RUN`"),
    } <= told
    assert {"unknown-variable", "unknown-preset"} <= {problem.code for problem in problems}


def test_of_a_list_of_words_the_wrong_one_is_shown(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, {"format": ("onnx", "tflite")})
    assert problem.message.endswith(", not `tflite`")


def test_a_hidden_wrong_value_is_told_too(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, {"epochs": 3}, user="epochs = -1\n")
    assert problem.where == "home/.config/medcli/config.toml:1"


def test_broken_files_and_other_problems_come_together(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, {"lr": -1.0}, project="a = \n", user="[train\n")
    assert [problem.where for problem in problems] == [
        "home/.config/medcli/config.toml:1:7",
        "medcli.toml:1:5",
        "`--lr`",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[origin]\n", "unknown table `[origin]`"),
        ('command = "trane"\n', "`command` names no command: `trane`"),
        ('command = ["train"]\n', "`command` names no command: `['train']`"),
        ("architecture = 3\n", "`architecture` must be a text"),
        ("[train.epochs]\nx = 1\n", "`epochs` is a setting, not a table"),
        ("unset = 3\n", '`unset` must be a list of settings, such as `["image_size"]`'),
        ('unset = ["image_sise"]\n', "`unset` names the unknown setting `image_sise`"),
        ("no_color = true\n", "`no_color` cannot be set in a file"),
        ("[data.a]\n", "`[data.a]` needs a `path`"),
        ("[data.a]\npath = 3\n", "`path` must be a text"),
        ('[data.a]\npath = "x"\nimage_dirr = "y"\n', "unknown key `image_dirr` in `[data.a]`"),
        ('[data.a]\npath = "x"\nsplit_seed = "y"\n', "`split_seed` must be a whole number of at least 0, not `y`"),
        ("[data]\na = 3\n", "`data.a` must be a table that describes the data set `a`"),
    ],
)
def test_files_that_make_no_sense(tmp_path: Path, text: str, message: str) -> None:
    (problem,) = problems_of(tmp_path, project=text)
    assert problem.message == message
    assert (problem.where or "").startswith("medcli.toml")


def test_data_tables_are_typed_like_the_settings(tmp_path: Path) -> None:
    project = '[data.aptos]\npath = "a.csv"\nimage-dir = "images"\nlabel_column = ["x", "y"]\ntask = "ordinal"\n'
    resolved = train(tmp_path, project=project, config='[data.idrid]\npath = "b.csv"\n')
    assert resolved.data_tables == {
        "aptos": {"path": "a.csv", "image_dir": ("images",), "label_column": ("x", "y"), "task": "ordinal"},
        "idrid": {"path": "b.csv"},
    }


def test_a_config_that_is_not_there(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, {"config": "no.toml"})
    assert problem.code == "missing-file"


def test_commands_without_layers_take_flags_alone(tmp_path: Path) -> None:
    resolved = train(tmp_path, {"metric": "ece"}, project="nonsense = 1\n", command="runs compare", MEDCLI_X="1")
    assert resolved.values["metric"] == "ece"


def test_a_survey_falls_back_to_the_next_lower_value(tmp_path: Path) -> None:
    (tmp_path / "medcli.toml").write_text("epochs = 4\n")
    resolved, problems = survey("train", {"epochs": 0}, environ={"HOME": "/nowhere"}, cwd=tmp_path)
    assert resolved.values["epochs"] == 4
    assert len(problems) == 1


def test_true_is_no_number_and_numbers_are_finite(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, project="epochs = true\nlr = inf\nmean = [nan]\nstd = 1\nseed = 1.0\n")
    assert {problem.where for problem in problems} == {f"medcli.toml:{line}" for line in (1, 2, 3, 5)}


def test_every_setting_of_a_file_can_be_a_variable(tmp_path: Path) -> None:
    taken = {name for name, field in all_fields().items() if not field.option.flag_only}
    resolved = train(tmp_path, MEDCLI_WINDOW="40,400", MEDCLI_TRAIN_SEED="4")
    assert resolved.values["window"] == "40,400"
    assert resolved.values["seed"] == 4
    assert taken
