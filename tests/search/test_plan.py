"""What a search is, before its first trial: what is fixed, what is searched, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcli.errors import UsageProblem
from medcli.search.plan import SearchPlan, plan_search, sample

Make = Callable[..., SearchPlan]


def test_flags_are_fixed_and_leave_the_default_space(make_search: Make) -> None:
    plan = make_search(lr=2e-4, optimizer="sgd")
    assert [one.name for one in plan.space] == ["batch_size", "dropout", "weight_decay"]
    assert plan.fixed == ("lr",)
    assert plan.start.plan.training.lr == 2e-4
    assert plan.start.plan.training.optimizer == "sgd"
    assert plan.identity.settings["optimizer"] == "sgd"


def test_trials_see_no_test_images(make_search: Make) -> None:
    plan = make_search()
    assert set(plan.start.plan.data.splits) == {"train", "val"}
    assert set(plan.identity.data["splits"]) == {"train", "val"}
    assert plan.kept == 12


def test_settings_come_from_files_as_for_the_command_itself(make_search: Make, tmp_path: Path) -> None:
    (tmp_path / "medcli.toml").write_text("[train]\nclip_grad = 2.5\n[search]\ntrials = 7\ndropout = 0.2\n")
    plan = make_search()
    assert plan.start.plan.training.clip_grad == 2.5
    assert plan.start.plan.model.dropout == 0.2
    assert "dropout" not in {one.name for one in plan.space}


def test_a_strategy_runs_finetune(make_search: Make) -> None:
    plan = make_search(strategy="full", weights=tiny_weights())
    assert plan.identity.command == "finetune"
    assert plan.start.plan.strategy is not None
    assert plan.start.plan.strategy.strategy == "full"


def tiny_weights() -> str:
    """Made-up weights of the tiny network, since nothing may be downloaded."""
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), "tiny.safetensors")
    return "tiny.safetensors"


def test_the_study_has_a_name_of_its_own_unless_one_is_given(make_search: Make) -> None:
    assert make_search().study_name == "timm/test_resnet-scratch"
    assert make_search(study="mine").study_name == "mine"


def test_a_sampled_trial_lies_in_the_space_and_depends_on_the_seed(make_search: Make) -> None:
    plans = [make_search(seed=seed) for seed in (0, 0, 1)]
    drawn = [sample(plan.space, plan.settings, plan.identity, plan.seed) for plan in plans]
    assert drawn[0] == drawn[1] != drawn[2]
    assert 1e-5 <= drawn[0]["lr"] <= 1e-3
    assert drawn[0]["batch_size"] in (16, 32, 64)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ({"lr": 1e-4, "batch_size": 8, "dropout": 0.1, "weight_decay": 0.0}, "nothing-to-search", "nothing is left"),
        ({"search_sampler": "grid"}, "sampler-does-not-fit", "a grid needs a list for every setting"),
        ({"search_sampler": "cmaes"}, "sampler-does-not-fit", "needs two of them; this space has 1"),
        ({"layer_decay": 0.5}, "contradiction", "--layer-decay` acts only with `--strategy layerwise"),
        ({"strategy": "knn"}, "bad-value", "`strategy` must be one of `scratch`, `frozen`"),
        ({"strategy": "full", "freeze_backbone": True}, "does-not-act", "`--freeze-backbone` does nothing with"),
        ({"monitor": "qwk"}, "monitor-does-not-fit", "needs ordered grades"),
        ({"data": ("nowhere.npz",)}, None, "nowhere.npz"),
        ({"trials": 0}, "bad-value", "`trials` must be a whole number of at least 1"),
        ({"timeout": -1.0}, "bad-value", "`timeout` must be a number above 0"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    flags: dict[str, Any], code: str | None, words: str, make_search: Make
) -> None:
    with pytest.raises(UsageProblem) as caught:
        make_search(**flags)
    assert words in str(caught.value)
    assert code is None or caught.value.code == code


def test_a_setting_cannot_be_both_searched_and_fixed(make_search: Make, write_space: Callable[[str], str]) -> None:
    with pytest.raises(UsageProblem, match=r"`lr` is searched by `space\.toml` and fixed at `0\.0001`"):
        make_search(space=write_space("[space]\nlr = [1e-4, 1e-3]\n"), lr=1e-4)


def test_an_architecture_is_needed(archive: Path) -> None:
    with pytest.raises(UsageProblem, match="no architecture was named"):
        plan_search(None, {"data": (str(archive),)})


def test_a_launcher_of_several_processes_is_refused(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UsageProblem, match="a launcher has started several"):
        make_search()


def test_a_missing_library_names_the_extra(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from medcli.search import library

    monkeypatch.setattr(library, "find_spec", lambda name: None if name == "cmaes" else object())
    with pytest.raises(UsageProblem) as caught:
        make_search(search_sampler="cmaes")
    assert caught.value.hint == "pip install 'medcli[search]'"
