"""Contradictions, and settings that could not act."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medcli.errors import Problems, UsageProblem
from medcli.settings.resolve import resolve

NOBODY = {"HOME": "/nowhere"}


def complaint(given: dict[str, Any], command: str = "train") -> str:
    try:
        resolve(command, given, environ=NOBODY)
    except Problems as several:
        return " / ".join(problem.message for problem in several.problems)
    except UsageProblem as problem:
        return problem.message
    return ""


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"extend": 2}, "`--extend` needs `--resume`"),
        ({"accept_data_change": True}, "`--accept-data-change` needs `--resume`"),
        ({"overwrite": True}, "`--overwrite` needs `--out`"),
        ({"resume": "r", "out": "o"}, "stays in its own directory"),
        ({"resume": "r", "init_from": "o"}, "exclude each other"),
        ({"pretrained": True, "weights": "in1k"}, "exclude each other"),
        ({"pretrained": True, "init_from": "r"}, "exclude each other"),
        ({"freeze_backbone": True, "freeze_layers": 1}, "exclude each other"),
        ({"patient_column": ("p",), "patient_pattern": "(x)"}, "exclude each other"),
        ({"yes": True, "no_input": True}, "exclude each other"),
        ({"focal_gamma": 2.0}, "acts only with `--loss focal`"),
        ({"focal_gamma": 1.0, "loss": "ce"}, "acts only with `--loss focal`"),
        ({"ema_decay": 0.9}, "acts only with `--ema`"),
        ({"step_at": (0.5,)}, "acts only with `--scheduler step`"),
        ({"step_gamma": 0.5, "scheduler": "cosine"}, "`--scheduler step or --scheduler plateau`"),
        ({"min_lr": 1e-5, "scheduler": "constant"}, "acts only with"),
        ({"scheduler": "step", "step_at": (0.7, 0.5)}, "must rise"),
        ({"scheduler": "step", "step_at": (0.5, 0.5)}, "must rise"),
        ({"split": (0.5, 0.5)}, "three shares"),
        ({"split": (0.5, 0.2, 0.2)}, "sum to 0.9"),
        ({"split": (0.0, 0.5, 0.5)}, "no images to train on"),
        ({"split": (0.8, 0.1, 0.1), "split_column": "s"}, "exclude each other"),
        ({"in_channels": 2}, "must be 1 or 3"),
        ({"mean": (0.5,)}, "`--mean` needs `--std`"),
        ({"std": (0.5,)}, "`--std` needs `--mean`"),
        ({"mean": (0.5, 0.5), "std": (0.5, 0.5)}, "take one value or three, not 2"),
        ({"mean": (0.5,) * 3, "std": (0.5,) * 2}, "`--mean` has 3 values and `--std` 2"),
        ({"mean": (0.5,) * 3, "std": (0.5,), "in_channels": 1}, "`--mean` takes one value, not 3"),
        ({"window": "wide"}, "`--window` must be"),
        ({"window": "40,0"}, "`--window` must be"),
        ({"window": "nan,3"}, "`--window` must be"),
        ({"device": "gpu"}, "`--device` must be"),
        ({"patient_pattern": "("}, "no regular expression"),
        ({"patient_pattern": "p\\d+"}, "no group"),
        ({"ordinal_column": ("z",), "label_column": ("x", "y")}, "none of the label columns"),
        ({"class_names": ("a", "b", "a")}, "names `a` twice"),
        ({"class_names": ("a",)}, "at least two"),
        ({"class_names": ("a", "b"), "positive_class": "c"}, "none of the class names"),
        ({"arch_opt": ("stem",)}, "is not KEY=VALUE"),
        ({"arch_opt": ("=small",)}, "is not KEY=VALUE"),
        ({"arch_opt": ("a=1", "a=2")}, "sets `a` twice"),
        ({"class_weights": "balance"}, "`--class-weights` must be"),
        ({"class_weights": "1"}, "`--class-weights` must be"),
        ({"class_weights": "1,-1"}, "`--class-weights` must be"),
        ({"class_weights": "0,0"}, "`--class-weights` must be"),
        ({"warmup_epochs": 5.0, "epochs": 5}, "leaves no epoch"),
    ],
)
def test_contradictions_are_refused(given: dict[str, Any], part: str) -> None:
    found = complaint(given)
    assert part in found
    assert " / " not in found


@pytest.mark.parametrize(
    "given",
    [
        {"extend": 2, "resume": "r"},
        {"focal_gamma": 1.0, "loss": "focal"},
        {"ema": True, "ema_decay": 0.9},
        {"scheduler": "plateau", "step_gamma": 0.5, "min_lr": 1e-5},
        {"scheduler": "step", "step_at": (0.2, 0.4, 0.9)},
        {"split": (0.7, 0.1, 0.2)},
        {"split": (1.0, 0.0, 0.0)},
        {"mean": (0.5,), "std": (0.1, 0.2, 0.3)},
        {"mean": (0.5,), "std": (0.5,), "in_channels": 1},
        {"window": "-600,1500"},
        {"device": "cuda:1"},
        {"patient_pattern": r"(p\d+)_"},
        {"patient_column": ("a=p",), "patient_pattern": "(x)"},
        {"ordinal_column": ("x",), "label_column": ("x", "y")},
        {"ordinal_column": ("x",), "label_column": ("a=x", "a=y")},
        {"class_weights": "1,1,0.3"},
        {"arch_opt": ("stem=small", "pool=a=b")},
        {"epochs": 1},
        {"preset": "medmnist-official-28", "epochs": 1},
    ],
)
def test_what_goes_together_passes(given: dict[str, Any]) -> None:
    assert complaint(given) == ""


def test_a_file_may_hold_what_another_layer_makes_idle(tmp_path: Path) -> None:
    (tmp_path / "medcli.toml").write_text('loss = "focal"\nfocal_gamma = 3\n')
    assert resolve("train", {"loss": "ce"}, environ=NOBODY, cwd=tmp_path).values["focal_gamma"] == 3
    (tmp_path / "medcli.toml").write_text("focal_gamma = 3\n")
    with pytest.raises(UsageProblem, match="acts only with") as caught:
        resolve("train", {}, environ=NOBODY, cwd=tmp_path)
    assert caught.value.where == "medcli.toml:1"


def test_a_flag_beside_a_saved_run_is_judged(tmp_path: Path) -> None:
    (tmp_path / "saved.toml").write_text('focal_gamma = 3.0\nloss = "ce"\n[origins]\n')
    given: dict[str, Any] = {"config": "saved.toml"}
    assert resolve("train", given, environ=NOBODY, cwd=tmp_path).values["focal_gamma"] == 3
    with pytest.raises(UsageProblem, match="acts only with"):
        resolve("train", {**given, "focal_gamma": 1.0}, environ=NOBODY, cwd=tmp_path)


def test_a_rule_is_silent_where_one_of_its_values_is_wrong_already() -> None:
    assert complaint({"mean": ("x",), "std": (0.5,)}).startswith("`mean` must be a list")


def test_a_command_is_asked_only_about_its_own_settings() -> None:
    assert complaint({"window": "x"}, "predict").startswith("`--window` must be")
    assert complaint({"overwrite": True}, "predict") == "`--overwrite` needs `--out`"
