"""Spaces: the defaults as documented, files with every way to get them wrong, and back to a file again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medcli.errors import Problems, UsageProblem
from medcli.search.space import Choices, Dimension, Range, default_space, read_space, render_space, searchable

Write = Callable[[str], str]


@pytest.mark.parametrize("strategy", ["scratch", "frozen", "layerwise", "gradual", "full", "lp-ft"])
def test_the_default_space_is_the_documented_one(strategy: str) -> None:
    assert default_space(strategy) == (
        Range("lr", 1e-5, 1e-3, log=True),
        Choices("batch_size", (16, 32, 64)),
        Choices("dropout", (0.0, 0.1, 0.3, 0.5)),
        Choices("weight_decay", (0.0, 0.01, 0.05)),
    )


@pytest.mark.parametrize("command", ["train", "finetune"])
def test_only_settings_of_the_recipe_can_be_searched(command: str) -> None:
    names = set(searchable(command))
    assert {"lr", "batch_size", "optimizer", "dropout", "warmup_epochs", "augment", "head_norm", "image_size"} <= names
    assert not names & {"data", "seed", "monitor", "resume", "out", "device", "workers", "limit", "strategy", "epochs_"}
    assert ("layer_decay" in names) == (command == "finetune")


def read(text: str, write: Write, command: str = "train") -> tuple[Dimension, ...]:
    return read_space(Path(write(text)), command)


def test_a_file_gives_lists_ranges_steps_and_whole_numbers(write_space: Write) -> None:
    space = read(
        """
        [space]
        lr = { low = 1e-5, high = 1e-2, log = true }
        batch-size = [8, 16]
        optimizer = { choices = ["adamw", "sgd"] }
        head_norm = [true, false]
        accumulate = { low = 1, high = 4 }
        dropout = { low = 0, high = 0.5, step = 0.1 }
        [space.clip_grad]
        low = 0.5
        high = 2.0
        """,
        write_space,
    )
    assert space == (
        Range("lr", 1e-5, 1e-2, log=True),
        Choices("batch_size", (8, 16)),
        Choices("optimizer", ("adamw", "sgd")),
        Choices("head_norm", (True, False)),
        Range("accumulate", 1, 4, whole=True),
        Range("dropout", 0.0, 0.5, step=0.1),
        Range("clip_grad", 0.5, 2.0),
    )


def test_a_space_survives_its_file(write_space: Write) -> None:
    space = (
        *default_space("scratch"),
        Choices("optimizer", ("adamw", "sgd")),
        Choices("head_norm", (True, False)),
        Range("accumulate", 1, 4, step=1, whole=True),
    )
    assert read(render_space(space), write_space) == space


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("lrr = [1e-4]", "unknown setting `lrr`", "did you mean `lr`"),
        ("lr = [1e-4, -1.0]", "`lr` must be a number above 0, not `-1.0`", None),
        ('lr = ["fast"]', "`lr` must be a number above 0, not `fast`", None),
        ("lr = []", "`lr` lists no values", None),
        ("lr = [1e-4, 1e-4]", "`lr` lists `0.0001` twice", None),
        ("lr = 1e-4", "`lr` has one value, so there is nothing to search", "--lr"),
        ("lr = { low = 1e-5 }", "`lr` needs `high`", "low ="),
        ("lr = { low = 1e-3, high = 1e-5 }", "`low` of `lr` (0.001) must be below its `high` (1e-05)", None),
        ("lr = { low = 0.0, high = 1e-3 }", "`lr` must be a number above 0, not `0.0`", None),
        ("lr = { low = 1e-5, high = nan }", "`lr` must be a number above 0, not `nan`", None),
        ("lr = { low = 1e-5, high = 1e-3, logg = true }", "unknown key `logg` of `lr`", "did you mean `log`"),
        ('lr = { low = 1e-5, high = 1e-3, log = "yes" }', "`log` of `lr` must be `true` or `false`", None),
        ("lr = { low = 1e-5, high = 1e-3, step = 0 }", "`step` of `lr` must be a number above 0, not `0`", None),
        (
            "dropout = { low = 0.0, high = 0.5, step = 0.2 }",
            "`step` of `dropout` (0.2) does not lead from 0 to 0.5",
            None,
        ),
        ("dropout = { low = 0.0, high = 0.5, log = true }", "is logarithmic, so its `low` must be above 0", None),
        ("lr = { low = 1e-5, high = 1e-3, log = true, step = 1e-5 }", "is logarithmic, so it takes no `step`", None),
        ("lr = { choices = [1e-4], low = 1e-5 }", "`lr` has `choices`, so it takes nothing else", None),
        ("dropout = { low = 0.0, high = 2.0 }", "`dropout` must be a number of at least 0 and at most 0.95", None),
        ("batch_size = [16, 0]", "`batch_size` must be a whole number of at least 1, not `0`", None),
        ("batch_size = { low = 8.5, high = 16 }", "`batch_size` must be a whole number", None),
        ("batch_size = { low = 8, high = 16, step = 0.5 }", "`step` of `batch_size` must be a whole number", None),
        ('optimizer = ["adamw", "adamm"]', "`optimizer` must be one of `adam`, `adamw`, `sgd`, not `adamm`", None),
        ("optimizer = { low = 1, high = 2 }", "`optimizer` is not a number, so it has no range", "adam"),
        ('data = ["a.npz"]', "`data` is no part of the recipe, so it cannot be searched", "--data"),
        ("seed = [1, 2]", "`seed` is no part of the recipe, so it cannot be searched", "--seed"),
        ('monitor = ["auc"]', "`monitor` is no part of the recipe, so it cannot be searched", "--monitor"),
        ("layer_decay = [0.5, 0.9]", "`layer_decay` is no setting of `medcli train`, which these trials run", None),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(
    line: str, message: str, hint: str | None, write_space: Write
) -> None:
    with pytest.raises(UsageProblem) as caught:
        read(f"# a comment\n[space]\n{line}\n", write_space)
    assert message in caught.value.message
    assert caught.value.where == "space.toml:3"
    assert hint is None or hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file holds no `[space]` with settings to search"),
        ("[space]\n", "the file holds no `[space]` with settings to search"),
        ("space = 3\n", "`space` must be a table of settings"),
        ("lr = [1e-4]\n", "unknown key `lr`; a space is one table `[space]`"),
        ("[space]\nlr = [1e-4\n", "the file is not valid TOML"),
        ("[space]\nbatch-size = [8]\nbatch_size = [16]\n", "`batch_size` is set twice"),
    ],
)
def test_a_file_that_is_no_space_is_refused(text: str, message: str, write_space: Write) -> None:
    with pytest.raises(UsageProblem, match=message.replace("[", r"\[").replace("]", r"\]")):
        read(text, write_space)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UsageProblem, match=r"there is no file `nowhere\.toml`"):
        read_space(Path("nowhere.toml"), "train")


def test_everything_wrong_is_said_at_once(write_space: Write) -> None:
    with pytest.raises(Problems) as caught:
        read("[space]\nlrr = [1]\nbatch_size = [0]\ndropout = { low = 0.1 }\n", write_space)
    assert [problem.where for problem in caught.value.problems] == ["space.toml:2", "space.toml:3", "space.toml:4"]
