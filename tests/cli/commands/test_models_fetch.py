"""`models fetch` as a user meets it."""

from __future__ import annotations

import hashlib

import pytest

CONTENT = bytes(range(256)) * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def medcli(run_cli, fake_hub, monkeypatch, tmp_path):
    """Runs the command in this process, its caches empty and its hub on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    return lambda *words, **more: run_cli("models", *words, in_process=True, **more)


def test_a_tag_is_fetched_once(medcli, fake_hub):
    fake_hub.put("timm/resnet18.a1_in1k", "model.safetensors", CONTENT)
    first = medcli("fetch", "resnet18")
    assert (first.code, first.stderr) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in first.stdout.splitlines())
    assert rows["weights"] == "in1k of resnet18"
    assert rows["sha256"] == f"{DIGEST} (as the hub states)"
    assert rows["licence"] == "apache-2.0"
    assert rows["next"] == "medcli train resnet18 --weights in1k --data …"
    assert rows["file"].endswith("model.safetensors")
    again = medcli("fetch", "resnet18", "--weights", "in1k")
    assert again.code == 0
    assert again.stdout.startswith("weights   in1k of resnet18, were here already\n")
    assert medcli("fetch", "resnet18", "-q").stdout.strip() == rows["file"]


def test_json_says_all(medcli, fake_hub):
    fake_hub.put("timm/vit_base_patch16_224.dino", "model.safetensors", CONTENT)
    document = medcli("fetch", "vit_base_patch16_224", "--weights", "dino", "--json").json()
    assert (document["schema"], document["status"]) == ("medcli/models-fetch/1", "done")
    result = document["result"]
    assert (result["architecture"], result["tag"]) == ("medcli/vit_base_patch16_224", "dino")
    assert (result["size"], result["sha256"], result["confirmed_by"]) == (len(CONTENT), DIGEST, "hub")
    assert result["downloaded"]


@pytest.mark.parametrize("name", ["timm/resnet26d", "timm/resnet26d.bt_in1k"])
def test_names_of_timm_need_no_timm(medcli, fake_hub, name, no_heavy_imports, tmp_path):
    fake_hub.put("timm/resnet26d.bt_in1k", "model.safetensors", CONTENT)
    done = no_heavy_imports.cli("models", "fetch", name, "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert done.json()["result"]["sha256"] == DIGEST


def test_names_of_timm_whose_weights_lie_elsewhere(medcli, fake_hub):
    fake_hub.put("apple/mobileclip_s0_timm", "model.safetensors", CONTENT)
    assert medcli("fetch", "timm/fastvit_mci0").code == 0
    assert "GET /cdn/" in " ".join(fake_hub.asked)


def test_gated_weights_of_a_plugin(medcli, fake_hub, fake_plugin):
    fake_plugin(
        "eye",
        extra='default_weights = "cfp"\n'
        'weights = [{ tag = "cfp", source = "owner/eye", file = "eye.pth", gated = true, licence = "cc-by-nc-4.0" }]',
    )
    fake_hub.put("owner/eye", "eye.pth", CONTENT)
    fake_hub.gated.add("owner/eye")
    done = medcli("fetch", "eye")
    assert done.code == 1
    assert f"{fake_hub.url}/owner/eye" in done.stderr
    assert "ask for access" in done.stderr
    assert "`--weights FILE`" in done.stderr
    assert done.stdout == ""


def test_an_unverified_file_is_called_so(medcli, fake_hub, fake_plugin):
    url = fake_hub.put_page("/eye.pth", CONTENT)
    fake_plugin(
        "eye", extra=f'default_weights = "cfp"\nweights = [{{ tag = "cfp", source = "{url}", file = "eye.pth" }}]'
    )
    done = medcli("fetch", "eye")
    assert done.code == 0
    assert f"warning: nobody states a checksum of this file, so it is unverified; its sha256 is {DIGEST}" in done.stderr
    assert "(unverified: nobody states one)" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["echo"], "`half` of `echo` is no file to fetch"),
        (["custom1"], "no published weights are known for `custom1`"),
        (["resnet18", "--weights", "in2k"], "did you mean `in1k`?"),
        (["resnet18", "--weights", "here.pth"], "its tags: `in1k`"),
        (["resnet81"], "unknown architecture `resnet81`"),
    ],
)
def test_what_cannot_be_fetched(medcli, fake_hub, words, says):
    done = medcli("fetch", *words)
    assert done.code == 2
    assert says in done.stderr
    assert fake_hub.asked == []
