"""Names come from package metadata; whatever is broken in a plugin breaks that plugin only."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from medcli.errors import Problems, RunFailure, UsageProblem
from medcli.registry.discovery import CORE, DIFFERENCE_MODELS, architecture_names, discover, find, load_factory

BUILT_INS = {
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *(f"efficientnet_b{index}" for index in range(8)),
    *(f"efficientnet_lite{index}" for index in range(5)),
    *(f"densenet{depth}" for depth in (121, 169, 201, 264)),
    *(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large")),
    "vit_huge_patch14_224",
    *(f"deit_{size}_patch16_224" for size in ("tiny", "small", "base")),
    *(f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base")),
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "convnext_tiny",
    "regnetx_032",
    "custom1",
}
ONLY_CORE = {"MEDCLI_PLUGINS": "none"}


def test_every_built_in_is_found_like_a_plugin():
    registry = discover(ONLY_CORE)
    assert {entry.name for entry in registry.named()} == BUILT_INS
    assert {entry.distribution for entry in registry.entries} == {CORE}
    assert registry.problems == ()


def test_order_is_by_distribution_and_natural_name(fake_plugin):
    fake_plugin("zz-net", distribution="aa-first")
    registry = discover()
    assert registry.entries[0].qualified == "aa-first/zz-net"
    names = [entry.name for entry in registry.named() if entry.distribution == CORE]
    assert names.index("resnet18") < names.index("resnet50") < names.index("resnet101")
    assert discover().entries == registry.entries


def test_plugin_is_found_bare_and_qualified(fake_plugin):
    fake_plugin("fake-net", distribution="Medcli_Fake", version="2.1")
    registry = discover()
    entry = find(registry, "fake-net")
    assert (entry.distribution, entry.version, entry.qualified) == ("medcli-fake", "2.1", "medcli-fake/fake-net")
    assert find(registry, "medcli-fake/fake-net") == entry == find(registry, "Medcli.Fake/fake-net")
    assert entry.reference == "Medcli_Fake.net:build"


def test_discovery_executes_no_plugin(fake_plugin):
    fake_plugin("fake-net", broken="init")
    registry = discover()
    assert find(registry, "fake-net").name == "fake-net"


def test_two_distributions_with_one_name_are_ambiguous_and_nothing_else_is(fake_plugin):
    fake_plugin("resnet18", distribution="medcli-other", version="3.0")
    registry = discover()
    with pytest.raises(UsageProblem) as caught:
        find(registry, "resnet18")
    assert caught.value.code == "ambiguous-architecture"
    assert caught.value.exit_code == 2
    assert "`medcli/resnet18`, `medcli-other/resnet18`" in caught.value.hint
    assert "medcli-other 3.0" in caught.value.where
    assert find(registry, "medcli/resnet18").distribution == "medcli"
    assert find(registry, "medcli-other/resnet18").distribution == "medcli-other"
    assert find(registry, "resnet34").distribution == "medcli"
    assert registry.ambiguous() == {"resnet18"}


def test_unknown_name_offers_the_nearest():
    with pytest.raises(UsageProblem) as caught:
        find(discover(ONLY_CORE), "resnet5")
    assert caught.value.code == "unknown-architecture"
    assert "`resnet50`" in caught.value.hint


def test_a_name_of_timm_alone_points_to_its_namespace():
    with pytest.raises(UsageProblem, match="unknown architecture") as caught:
        find(discover(ONLY_CORE), "resnet26d")
    assert "`timm/resnet26d`" in caught.value.hint


@pytest.mark.parametrize("name", ["timm/resnet26d", "medcli/timm/resnet26d"])
def test_namespace_gives_one_entry_per_name(name):
    entry = find(discover(ONLY_CORE), name)
    assert (entry.name, entry.variant, entry.namespace) == ("timm/resnet26d", "resnet26d", "timm")
    assert entry.qualified == "medcli/timm/resnet26d"


def test_namespaced_name_may_carry_a_weight_tag():
    assert find(discover(ONLY_CORE), "timm/resnet50.tv_in1k").variant == "resnet50.tv_in1k"
    with pytest.raises(UsageProblem, match="no such name") as caught:
        find(discover(ONLY_CORE), "timm/resnet50.tv_in1")
    assert "`timm/resnet50.tv_in1k`" in caught.value.hint


def test_unknown_name_in_a_namespace_offers_the_nearest():
    with pytest.raises(UsageProblem, match=r"timm .* has no such name") as caught:
        find(discover(ONLY_CORE), "timm/resnet50dd")
    assert "`timm/resnet50d`" in caught.value.hint


def test_a_list_of_another_release_leaves_unknown_names_to_the_factory(monkeypatch):
    monkeypatch.setattr("medcli.registry.discovery.installed_version", lambda library: "99.0")
    assert find(discover(ONLY_CORE), "timm/network_of_tomorrow").variant == "network_of_tomorrow"


@pytest.mark.parametrize("name", ["timm/", "timm/*"])
def test_a_namespace_alone_is_no_architecture(name):
    with pytest.raises(UsageProblem, match="names no single architecture"):
        find(discover(ONLY_CORE), name)


def test_timm_is_reserved(fake_plugin):
    fake_plugin(entry_points={"timm/*": "medcli_fake.net:build", "timm": "medcli_fake.net:build"})
    registry = discover()
    assert [problem.stage for problem in registry.problems] == ["discover", "discover"]
    assert all("reserved" in problem.cause for problem in registry.problems)
    assert find(registry, "timm/resnet18").distribution == "medcli"


@pytest.mark.parametrize(
    ("names", "cause"),
    [
        ({"Fake-Net": "medcli_fake.net:build"}, "lower-case"),
        ({"fake net": "medcli_fake.net:build"}, "lower-case"),
        ({"fake-net": "medcli_fake.net"}, "no reference"),
        ({"fake-net": "medcli fake:build!"}, "no reference"),
    ],
)
def test_malformed_entry_is_a_problem_and_its_neighbours_work(fake_plugin, names, cause):
    fake_plugin(entry_points={**names, "good-net": "medcli_fake.net:build"})
    registry = discover()
    assert [cause in problem.cause for problem in registry.problems] == [True]
    assert find(registry, "good-net").name == "good-net"
    with pytest.raises(UsageProblem):
        find(registry, next(iter(names)))


def test_asking_for_a_malformed_entry_says_why(fake_plugin):
    fake_plugin("fake-net", broken="reference")
    with pytest.raises(UsageProblem, match="no reference of the form") as caught:
        find(discover(), "fake-net")
    assert caught.value.where == "medcli-fake 1.0"


def test_unreadable_metadata_breaks_only_that_plugin(fake_plugin):
    fake_plugin("fake-net", broken="metadata")
    fake_plugin("good-net", distribution="medcli-good")
    registry = discover()
    assert [problem.distribution for problem in registry.problems] == ["medcli-fake"]
    assert find(registry, "good-net").name == "good-net"
    with pytest.raises(UsageProblem) as caught:
        find(registry, "fake-net")
    assert "broken and left out: `medcli-fake`" in caught.value.hint


def test_unparsable_entry_points_break_only_that_plugin(fake_plugin):
    installed = fake_plugin("fake-net")
    (installed.metadata / "entry_points.txt").write_text("[medcli.architectures]\nno equals sign here\n")
    registry = discover()
    assert find(registry, "resnet18").name == "resnet18"
    with pytest.raises(UsageProblem):
        find(registry, "fake-net")


def test_second_copy_of_a_distribution_is_hidden_as_python_hides_it(fake_plugin, tmp_path, monkeypatch):
    from medcli.testing.plugins import FakePlugin

    fake_plugin("fake-net", version="2.0")
    FakePlugin(tmp_path / "behind")("fake-net", version="1.0")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "behind")])
    assert find(discover(), "fake-net").version == "2.0"


def test_plugins_variable_chooses(fake_plugin):
    fake_plugin("one-net", distribution="medcli-one")
    fake_plugin("two-net", distribution="medcli-two")
    names = {entry.name for entry in discover({"MEDCLI_PLUGINS": "medcli_one"}).entries}
    assert "one-net" in names
    assert "two-net" not in names
    assert "resnet18" in names
    assert {entry.distribution for entry in discover(ONLY_CORE).entries} == {"medcli"}


def test_plugins_variable_with_an_unknown_name_is_a_usage_problem(fake_plugin):
    fake_plugin("one-net", distribution="medcli-one")
    with pytest.raises(UsageProblem, match="`medcli-on`") as caught:
        discover({"MEDCLI_PLUGINS": "medcli-on"})
    assert caught.value.where == "MEDCLI_PLUGINS"
    assert "`medcli-one`" in caught.value.hint


@pytest.mark.parametrize("broken", ["reference", "metadata", "card", "syntax", "api"])
def test_strict_mode_refuses_a_broken_plugin(fake_plugin, broken):
    fake_plugin("fake-net", broken=broken)
    discover()
    with pytest.raises(Problems) as caught:
        discover({"MEDCLI_STRICT_PLUGINS": "1"})
    assert "medcli-fake" in str(caught.value)


def test_strict_mode_accepts_what_is_whole(fake_plugin):
    fake_plugin("fake-net")
    fake_plugin("bare-net", distribution="medcli-bare", card=False)
    discover({"MEDCLI_STRICT_PLUGINS": "1"})


def test_difference_models_are_a_group_of_their_own(fake_plugin):
    fake_plugin("fake-diff", group=DIFFERENCE_MODELS)
    registry = discover()
    assert find(registry, "fake-diff", DIFFERENCE_MODELS).group == DIFFERENCE_MODELS
    with pytest.raises(UsageProblem):
        find(registry, "fake-diff")


@pytest.mark.parametrize(
    ("broken", "cause"),
    [
        ("import", "ValueError: this plugin was built against another torch"),
        ("exit", "SystemExit: 7"),
        ("missing", "ModuleNotFoundError"),
        ("attribute", "AttributeError"),
        ("init", "RuntimeError"),
    ],
)
def test_factory_that_cannot_be_loaded_is_a_run_failure_of_its_own(fake_plugin, broken, cause):
    fake_plugin("fake-net", broken=broken)
    registry = discover()
    with pytest.raises(RunFailure) as caught:
        load_factory(find(registry, "fake-net"))
    assert cause in caught.value.message
    assert "medcli-fake 1.0" in caught.value.where
    assert caught.value.__cause__ is not None
    assert registry.problems == ()


def test_factory_that_is_no_function_is_a_run_failure(fake_plugin):
    fake_plugin("fake-net", module="build = 3\n")
    with pytest.raises(RunFailure, match="is no function"):
        load_factory(find(discover(), "fake-net"))


def test_keyboard_interrupt_of_a_plugin_is_not_swallowed(fake_plugin):
    fake_plugin("fake-net", module="raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_factory(find(discover(), "fake-net"))


def test_wrong_api_is_refused_before_the_plugin_is_imported(fake_plugin):
    fake_plugin("fake-net", broken="api", module="raise AssertionError\n")
    with pytest.raises(UsageProblem, match="needs medcli plugin API 99, this is 1") as caught:
        load_factory(find(discover(), "fake-net"))
    assert caught.value.exit_code == 2


def test_namespaced_factory_knows_its_name(fake_plugin):
    module = "def build(*, name, **rest):\n    return name, rest\n"
    fake_plugin(entry_points={"zoo/*": "medcli_fake.net:build"}, card=False, module=module)
    factory = load_factory(find(discover(), "zoo/ape"))
    assert factory(in_channels=1, image_size=8) == ("ape", {"in_channels": 1, "image_size": 8})


def test_completion_offers_names_by_prefix(fake_plugin):
    fake_plugin("resnet18", distribution="medcli-other")
    names = architecture_names("resnet")
    assert "resnet18" not in names
    assert {"resnet34", "resnet152"} <= set(names)
    assert {"medcli/resnet18", "medcli-other/resnet18"} <= set(architecture_names("medcli"))
    assert architecture_names("tim") == ["timm/"]
    assert "timm/resnet26d" in architecture_names("timm/resnet2")
    assert "medcli-other/resnet18" in architecture_names("medcli-other/")
    assert architecture_names("nothing-like-it") == []


def test_completion_never_fails(fake_plugin):
    fake_plugin("fake-net", broken="metadata")
    assert "custom1" in architecture_names("custom", {"MEDCLI_STRICT_PLUGINS": "1"})
    assert architecture_names("custom", {"MEDCLI_PLUGINS": "absent"}) == []


def test_completion_reads_no_card_and_imports_nothing_heavy(no_heavy_imports):
    from medcli.testing.imports import HEAVY_FOR_COMPLETION

    done = no_heavy_imports(
        "from medcli.registry.discovery import architecture_names\n"
        "print(len(architecture_names('timm/')) > 1000, architecture_names('resnet1'))\n"
        "print([name for name in ('tomli', 'medcli.registry.card_file') if name in sys.modules])",
        blocked=HEAVY_FOR_COMPLETION,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["True ['resnet18', 'resnet101', 'resnet152']", "[]"]


def test_registry_agrees_with_the_metadata_of_the_installation():
    points = importlib.metadata.distribution("medcli").entry_points
    own = {(entry.group, entry.name) for entry in discover(ONLY_CORE).entries}
    groups = ("medcli.architectures", "medcli.difference_models")
    assert {(point.group, point.name) for group in groups for point in points.select(group=group)} == own
