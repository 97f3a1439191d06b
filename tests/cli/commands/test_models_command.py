"""`models list` and `models show` as a user meets them, with whole and broken plugins installed."""

from __future__ import annotations

import pytest

BROKEN = ["import", "exit", "missing", "init", "api", "card", "syntax", "metadata", "reference"]


def test_list_names_every_architecture_and_the_namespace(run_cli):
    done = run_cli("models", "list", in_process=True)
    assert (done.code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["name", "family", "M", "params", "features", "input", "weights", "summary"]
    assert any(line.split()[:5] == ["resnet50", "resnet", "23.5", "2048", "224"] for line in lines)
    assert "names behind `timm/`" in lines[-1]


def test_filters_change_the_list(run_cli):
    def names(*flags: str) -> list[str]:
        return run_cli("models", "list", "-q", *flags, in_process=True).stdout.split()

    everything = names()
    assert names("--family", "resnet") == ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    assert names("--max-params", "2") == [
        "custom1",
        "mobilenetv3_small_100",
        *(["echo"] if "echo" in everything else []),
    ]
    assert set(names("--modality", "chest")) < set(everything) or "echo" not in everything


def test_modality_leaves_out_what_was_made_for_another(run_cli, fake_plugin):
    fake_plugin("fundus-net", extra='modalities = ["fundus"]')
    both = run_cli("models", "list", "-q", in_process=True).stdout.split()
    chest = run_cli("models", "list", "-q", "--modality", "chest", in_process=True).stdout.split()
    fundus = run_cli("models", "list", "-q", "--modality", "Fundus", in_process=True).stdout.split()
    assert "fundus-net" in both
    assert "fundus-net" in fundus
    assert "fundus-net" not in chest
    assert "resnet18" in chest


def test_unknown_family_names_the_nearest(run_cli):
    done = run_cli("models", "list", "--family", "resnt", in_process=True)
    assert (done.code, done.stdout) == (2, "")
    assert "`resnet`" in done.stderr


def test_json_list_is_complete(run_cli):
    document = run_cli("models", "list", "--json", in_process=True).json()
    rows = {row["qualified"]: row for row in document["result"]["architectures"]}
    assert rows["medcli/vit_base_patch16_224"]["params_total"] == 86_567_656
    assert rows["medcli/custom1"]["default_weights"] == ""
    assert document["result"]["namespaces"]["timm"] > 1000


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_plugin_breaks_nothing_but_itself(run_cli, fake_plugin, broken):
    fake_plugin("fake-net", broken=broken)
    listed = run_cli("models", "list", in_process=True)
    assert listed.code == 0
    assert "resnet18" in listed.stdout
    if broken in {"api", "card", "syntax", "metadata", "reference"}:
        assert "medcli-fake" in listed.stderr
    shown = run_cli("models", "show", "resnet18", in_process=True)
    assert (shown.code, shown.stderr) == (0, "")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("api", "needs medcli plugin API 99, this is 1"),
        ("card", "medcli-card.toml:10"),
        ("syntax", "medcli-card.toml:3:"),
        ("reference", "is no reference of the form"),
        ("metadata", "unknown architecture `fake-net`"),
    ],
)
def test_asking_for_the_broken_one_says_what_is_wrong(run_cli, fake_plugin, broken, said):
    fake_plugin("fake-net", broken=broken)
    done = run_cli("models", "show", "fake-net", in_process=True)
    assert (done.code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_ambiguous_name_lists_the_qualified_ones(run_cli, fake_plugin):
    fake_plugin("resnet18", distribution="medcli-other")
    done = run_cli("models", "show", "resnet18", in_process=True)
    assert done.code == 2
    assert "`medcli/resnet18`, `medcli-other/resnet18`" in done.stderr
    assert run_cli("models", "show", "medcli/resnet18", in_process=True).code == 0
    listed = run_cli("models", "list", "-q", in_process=True).stdout.split()
    assert {"medcli/resnet18", "medcli-other/resnet18"} <= set(listed)
    assert "resnet18" not in listed


def test_show_counts_the_head(run_cli):
    done = run_cli("models", "show", "resnet50", "--classes", "5", in_process=True)
    assert "23,518,277 (10,245 in the head)" in done.stdout
    result = run_cli("models", "show", "resnet50", "--classes", "5", "--json", in_process=True).json()["result"]
    assert result["params_with_head"] == 23_508_032 + 2048 * 5 + 5


def test_show_says_unknown_where_a_card_is_silent(run_cli):
    done = run_cli("models", "show", "timm/resnet26d", in_process=True)
    assert done.code == 0
    assert "unknown" in next(line for line in done.stdout.splitlines() if line.startswith("parameters"))
    result = run_cli("models", "show", "timm/resnet26d", "--json", in_process=True).json()["result"]
    assert (result["params"], result["feature_dim"], result["input_size"]) == (None, None, 224)


def test_show_works_for_a_plugin_without_a_card(run_cli, fake_plugin):
    fake_plugin("fake-net", card=False)
    done = run_cli("models", "show", "fake-net", in_process=True)
    assert done.code == 0
    assert "there is no card" in done.stdout
    assert run_cli("models", "show", "fake-net", "--json", in_process=True).json()["result"]["card"] is False


def test_bibtex_is_all_that_is_printed(run_cli):
    done = run_cli("models", "show", "resnet50", "--bibtex", in_process=True)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.startswith("@inproceedings{he2016resnet,")
    assert done.stdout.endswith("}\n")


def test_layers_are_counted_without_memory_for_weights(run_cli):
    done = run_cli("models", "show", "custom1", "--layers", "--classes", "3", "--json", in_process=True)
    result = done.json()["result"]
    assert result["built"]["backbone"] == result["params"]
    assert result["built"]["head"] == (result["feature_dim"] + 1) * 3
    assert sum(row["parameters"] for row in result["layers"]) == result["built"]["parameters"]


def test_layers_follow_options_size_and_channels(run_cli):
    def built(*flags: str) -> dict:
        done = run_cli("models", "show", "resnet18", "--layers", "--json", *flags, in_process=True)
        return done.json()["result"]["built"]

    plain = built("--image-size", "32")
    assert built("--image-size", "64")["macs"] > 3 * plain["macs"]
    assert built("--image-size", "32", "--arch-opt", "stem=small")["macs"] > 3 * plain["macs"]
    assert built("--image-size", "32", "--in-channels", "1")["parameters"] == plain["parameters"] - 2 * 64 * 49


@pytest.mark.parametrize("flag", [("--image-size", "64"), ("--in-channels", "1"), ("--arch-opt", "stem=small")])
def test_flag_that_only_layers_uses_is_not_ignored_without_it(run_cli, flag):
    done = run_cli("models", "show", "resnet18", *flag, in_process=True)
    assert (done.code, done.stdout) == (2, "")
    assert "--layers" in done.stderr


def test_bad_option_is_refused_with_the_nearest(run_cli):
    done = run_cli("models", "show", "resnet18", "--layers", "--arch-opt", "stam=small", in_process=True)
    assert done.code == 2
    assert "`stem`" in done.stderr


def test_listing_and_showing_need_nothing_heavy(no_heavy_imports, tmp_path):
    for words in (["models", "list"], ["models", "show", "resnet50"], ["models", "show", "timm/resnet26d", "--json"]):
        done = no_heavy_imports.cli(*words, cwd=tmp_path, blocked=("torch", "timm", "numpy", "scipy", "pydantic"))
        assert (done.code, done.stderr) == (0, "")
