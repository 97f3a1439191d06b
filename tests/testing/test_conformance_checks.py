"""Each check passes on a network that keeps all promises, and is skipped with a reason where it does not apply."""

from __future__ import annotations

import pytest

from medcli.registry.discovery import discover
from medcli.testing.checks.subject import Plan, subjects_of
from medcli.testing.checks.table import ARCHITECTURE, PACKAGE, cases_of
from medcli.testing.plugins import FakePlugin


@pytest.mark.parametrize("check", [check.name for check in (*PACKAGE, *ARCHITECTURE)])
def test_a_plugin_that_keeps_its_promises_passes(verdict, check: str) -> None:
    found = verdict(check)
    if check == "onnx" and found.outcome == "skipped":
        assert "pip install" in found.reason
        return
    assert found.outcome == "passed", found.reason


FORWARD = "        features = self.out((hidden + branch).mean((2, 3)))\n"
INIT = "        self.out = nn.Linear(4, width)\n"
BUILD = "    return Net(in_channels, width, drop_path)\n"


@pytest.mark.parametrize(
    ("plan", "words", "change"),
    [
        (Plan(seconds=0.3), "s of processor time", "    sum(range(40_000_000))\n"),
        (Plan(megabytes=50), "MiB, more than the 50 MiB", "    global kept\n    kept = torch.ones(80 * 2**18)\n"),
    ],
)
def test_what_takes_too_long_or_too_much_is_found(verdict, plan: Plan, words: str, change: str) -> None:
    found = verdict("limits", (BUILD, change + BUILD), plan=plan)
    assert found.outcome == "failed"
    assert words in found.reason


def test_names_that_others_offer_or_nobody_may_use_are_found(fake_plugin: FakePlugin) -> None:
    fake_plugin("resnet18", distribution="medcli-twin")
    fake_plugin("Fake Net", distribution="medcli-loud", card=False)
    registry = discover()
    for target, words in (
        ("medcli-twin", "also offered by medcli "),
        ("medcli-loud", "lower-case"),
        ("absent", "install it first"),
    ):
        found = cases_of(subjects_of(target, registry))[0].verdict()
        assert (found.outcome, words in found.reason) == ("failed", True), found


@pytest.mark.parametrize("line", ["import medcli_fake", "import torch"])
def test_an_installation_that_imports_something_at_start_is_found(verdict, fake_plugin: FakePlugin, line: str) -> None:
    (fake_plugin.root / "sitecustomize.py").write_text(f"{line}\n", encoding="utf-8")
    found = verdict("listing-is-light")
    assert found.outcome == "failed"
    assert f"listing imported `{line.split()[1]}`" in found.reason


def test_what_does_not_apply_is_skipped_with_a_reason(verdict) -> None:
    for check, change, words in (
        ("drop-path", ("drop_path = true\n", ""), "does not say"),
        ("attention", ("attention_maps = true\n", ""), "does not say"),
        ("lora", ('lora_targets = { mlp = ["out"], conv = ["*"] }\n', ""), "names no LoRA targets"),
        ("gradients", ("drop_path = true\n", "trainable = false\n"), "trainable = false"),
    ):
        found = verdict(check, change)
        assert found.outcome == "skipped"
        assert words in found.reason


def test_position_tables_may_be_read_early_and_weights_used_by_hand_are_watched(verdict) -> None:
    stem = "hidden = torch.sigmoid(self.norm(self.stem(images)))"
    early = (
        ("self.block = nn", "self.pos_embed = nn.Parameter(torch.randn(4, 1, 1))\n        self.block = nn"),
        (stem, f"place = self.pos_embed * 2\n        {stem} + place"),
        ('("block.weight", "block.bias")', '("pos_embed", "block.weight", "block.bias")'),
    )
    assert verdict("group-order", *early).reason == "3 groups in 2 stages"
    by_hand = "functional.conv2d(hidden, self.block.weight, self.block.bias, padding=1)"
    assert verdict("group-order", ("self.block(hidden)", by_hand)).reason == "3 groups in 2 stages"


def test_a_zero_at_the_start_hides_no_gradient(verdict) -> None:
    gate = (
        (INIT, INIT + "        self.gate = nn.Parameter(torch.zeros(1))\n"),
        ("branch = self.block(hidden)", "branch = self.gate * self.block(hidden)"),
    )
    assert verdict("gradients", *gate).outcome == "passed"


def test_a_large_network_is_checked_small_where_it_computes_and_whole_where_it_counts(verdict) -> None:
    small = Plan({"width": 3}, 16)
    assert verdict("output", plan=small).reason == "[3, 3] from [3, 1, 16, 16]"
    assert verdict("facts", plan=small).outcome == "passed"


def test_a_crash_says_where_in_the_plugin_it_happened(verdict) -> None:
    found = verdict("finite", (FORWARD, "        raise KeyError('gone')\n"))
    assert "KeyError: 'gone'" in found.reason
    assert "net.py:" in found.reason
