"""Every strategy is searched through the command it belongs to, and its best settings are settings of that command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from medcli.search.plan import SearchPlan
from medcli.search.session import SearchResult
from medcli.search.space import Choices, Range, default_space
from medcli.search.trial import plan_whole
from medcli.settings.commands import COMMANDS
from medcli.training.progress import NoProgress
from medcli.training.session import Watch, conduct

Do = Callable[..., SearchResult]


@pytest.fixture
def weights() -> str:
    """Made-up weights of the tiny network with every branch awake, since nothing may be downloaded."""
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", zero_init_last=False).state_dict(), "tiny.safetensors")
    return "tiny.safetensors"


def test_the_default_space_of_adapters_is_the_documented_one() -> None:
    assert default_space("lora") == (
        Choices("rank", (4, 8, 16, 32)),
        Choices("lora_alpha", (16.0, 32.0, 64.0)),
        Range("lr", 1e-5, 1e-3, log=True),
        Choices("batch_size", (8, 16, 32, 48)),
        Range("dropout", 0.1, 0.5),
    )


def test_every_strategy_offered_has_its_command() -> None:
    offered = COMMANDS["search"].fields["strategy"].choices
    assert offered == ("scratch", "frozen", "layerwise", "gradual", "full", "lp-ft", "lora")
    assert {"train", "finetune", "lora"} <= set(COMMANDS)


@pytest.mark.parametrize("strategy", ["frozen", "layerwise", "gradual", "full", "lp-ft", "lora"])
def test_a_strategy_is_searched_and_its_best_settings_are_taken(strategy: str, do_search: Do, weights: str) -> None:
    result = do_search(strategy=strategy, weights=weights, trials=2, epochs=2, batch_size=8, pruner="none")
    command = "lora" if strategy == "lora" else "finetune"
    assert [row.state for row in result.rows] == ["completed", "completed"], [row.reason for row in result.rows]
    assert len({tuple(row.settings.items()) for row in result.rows}) == 2
    again = plan_whole(command, None, {"config": str(result.settings_file)})
    assert again.resolved.values.get("strategy", "lora") == strategy
    assert all(again.resolved.values[name] == value for name, value in result.best.settings.items())
    silent = Watch(NoProgress(), lambda text: None, lambda split, done, total: None, lambda question: True)
    outcome = conduct(again, silent, command=command, out="again", overwrite=False)
    assert outcome.best.value == result.best.value
    kept = {file.parent.parent.name for file in Path("found/trials").rglob("*.safetensors")}
    kept |= {file.parent.name for file in Path("found/trials").rglob("model.safetensors")}
    assert kept - {"trials"} == {f"{result.best.trial:04d}"}


def test_a_space_may_name_settings_of_the_strategy(
    do_search: Do, weights: str, write_space: Callable[[str], str]
) -> None:
    space = write_space("[space]\nlayer_decay = { low = 0.5, high = 0.9 }\n")
    result = do_search(strategy="layerwise", weights=weights, trials=2, epochs=1, space=space)
    assert all(0.5 <= row.settings["layer_decay"] <= 0.9 for row in result.rows)


def test_a_run_is_adapted_like_an_architecture(do_search: Do, make_search: Callable[..., SearchPlan]) -> None:
    from medcli.search.plan import plan_search

    do_search(trials=1, out="source")
    given = {"data": ("tiny.npz",), "epochs": 1, "workers": 0, "device": "cpu", "strategy": "full", "batch_size": 8}
    plan = plan_search("source/trials/0001", given)
    assert plan.identity.command == "finetune"
    assert plan.start.plan.preprocessing.image_size == 16
    assert Path(str(plan.source)).is_absolute()
