"""What the command line means, from metadata and cards alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medcli.benchmark.items import choose_items, item_from_json, item_to_json
from medcli.errors import UsageProblem
from medcli.registry.discovery import DIFFERENCE_MODELS, discover
from medcli.testing.plugins import FakePlugin


def labels(*words: str, every: bool = False, patterns: tuple[str, ...] = ()) -> list[str]:
    return [item.label for item in choose_items(discover(), words, every=every, patterns=patterns)]


def test_all_means_every_named_entry_of_both_groups(isolated_plugins: FakePlugin) -> None:
    isolated_plugins("fake-net")
    isolated_plugins("fake-change", distribution="medcli-change", group="medcli.difference_models")
    registry = discover()
    found = choose_items(registry, (), every=True)
    expected = [entry.qualified for entry in (*registry.named(), *registry.named(DIFFERENCE_MODELS))]
    assert [item.name for item in found] == expected
    kinds = {item.label: item.kind for item in found}
    assert kinds["fake-net"] == "architecture"
    assert kinds["fake-change"] == "difference"
    assert kinds["resnet18"] == "architecture"
    # A namespace stands for a thousand networks.
    assert not any(item.label.startswith("timm/") for item in found)


def test_names_families_and_patterns() -> None:
    assert labels("custom1", "mobilenet", "custom1") == ["custom1", "mobilenetv3_large_100", "mobilenetv3_small_100"]
    assert labels("timm/resnet10t") == ["timm/resnet10t"]
    assert labels("siamese-unet") == ["siamese-unet"]
    assert labels(patterns=("resnet1*",)) == ["resnet18", "resnet101", "resnet152"]
    assert labels("custom1", patterns=("resnet3*",)) == ["custom1", "resnet34"]
    assert labels(every=True, patterns=("medcli/vit_h*",)) == ["vit_huge_patch14_224"]
    found = labels(patterns=("timm/test_resnet*",))
    assert "timm/test_resnet" in found
    assert all(name.startswith("timm/test_resnet") for name in found)


def test_two_distributions_with_one_name_are_two_items(isolated_plugins: FakePlugin) -> None:
    isolated_plugins("resnet18")
    assert labels(patterns=("*resnet18",)) == ["medcli/resnet18", "medcli-fake/resnet18"]
    with pytest.raises(UsageProblem) as problem:
        labels("resnet18")
    assert problem.value.code == "ambiguous-architecture"


def test_what_a_card_asks_for_and_is_not_installed_is_known_before(isolated_plugins: FakePlugin) -> None:
    isolated_plugins("fake-net", extra='requires = ["no-such-package>=9"]')
    (item,) = choose_items(discover(), ("fake-net",))
    assert "no-such-package>=9" in item.fault
    assert "pip install" in item.fault


@pytest.mark.parametrize(
    ("words", "patterns", "code", "hint"),
    [
        ((), (), "nothing-named", "--all"),
        (("resnet81",), (), "unknown-architecture", "resnet18"),
        (("timm/resnet*",), (), "pattern-as-name", "--filter 'timm/resnet*'"),
        ((), ("resnot*",), "nothing-matches", "resnet"),
        ((), ("timm/nothing_of_the_kind*",), "nothing-matches", "timm/resnet*"),
        (("empty",), (), "not-a-run", "runs list"),
    ],
)
def test_what_means_nothing_is_refused(
    words: tuple[str, ...], patterns: tuple[str, ...], code: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageProblem) as problem:
        labels(*words, patterns=patterns)
    assert problem.value.code == code
    assert hint in (problem.value.hint or "")


def test_a_folder_that_is_no_run_hides_no_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet18").mkdir()
    assert [item.kind for item in choose_items(discover(), ("resnet18",))] == ["architecture"]


def test_a_card_says_what_is_a_toy() -> None:
    assert [item.toy for item in choose_items(discover(), ("echo", "custom1"))] == [True, False]


def test_items_survive_json() -> None:
    for item in choose_items(discover(), ("custom1", "siamese-unet")):
        assert item_from_json(json.loads(json.dumps(item_to_json(item)))) == item
    with pytest.raises((TypeError, ValueError)):
        item_from_json({"kind": "horse", "name": "a", "label": "a"})
