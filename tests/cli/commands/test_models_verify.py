"""`models verify` as a user meets it."""

from __future__ import annotations

import os

import pytest
import timm
import torch
from safetensors.torch import save, save_file


@pytest.fixture
def medcli(run_cli, fake_hub, monkeypatch, tmp_path):
    """Runs the command in this process; `here` is its working directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    return lambda *words: run_cli("models", *words, in_process=True)


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(0)
    return timm.create_model("resnet18").state_dict()


def test_a_file_alone_names_what_it_fits(medcli, tmp_path, resnet18):
    path = tmp_path / "weights.safetensors"
    save_file(resnet18, path)
    done = medcli("verify", path, "--json")
    assert (done.code, done.stderr) == (0, "")
    result = done.json()["result"]
    assert (result["file"]["kind"], result["file"]["tensors"]) == ("safetensors", 122)
    assert result["file"]["parameters"] == 11_689_512
    assert [one["architecture"] for one in result["fits"]] == ["resnet18"]
    report = result["fits"][0]["report"]
    assert (report["matched"], report["total"], len(report["head"])) == (120, 120, 2)


def test_a_checkpoint_of_a_training_script(medcli, tmp_path, resnet18):
    path = tmp_path / "model.pth.tar"
    torch.save({"epoch": 1, "state_dict": {f"module.{key}": value for key, value in resnet18.items()}}, path)
    done = medcli("verify", path)
    assert done.code == 0
    assert "wrapped in state_dict" in done.stdout
    assert "every name begins with `module.`" in done.stdout
    assert "fits resnet18: 120 of 120 backbone tensors from the file" in done.stdout


def test_a_file_that_fits_nothing(medcli, tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "odd.safetensors")
    done = medcli("verify", tmp_path / "odd.safetensors")
    assert done.code == 0
    assert "fits no installed architecture" in done.stdout


def test_an_architecture_and_a_file(medcli, tmp_path, resnet18):
    save_file(resnet18, tmp_path / "w.safetensors")
    good = medcli("verify", "resnet18", "--weights", tmp_path / "w.safetensors")
    assert good.code == 0
    assert "fits resnet18: 120 of 120 backbone tensors" in good.stdout
    assert "the head that came along has 1000 classes" in good.stdout
    bad = medcli("verify", "resnet34", "--weights", tmp_path / "w.safetensors", "--json")
    assert bad.code == 4
    document = bad.json()
    assert document["status"] == "limit"
    assert document["result"]["fits"] is False
    assert "`w.safetensors` does not fit `resnet34`: 120 of 216 tensors match" in document["result"]["problem"]


def test_options_and_size_change_what_is_compared(medcli, tmp_path, resnet18):
    save_file(resnet18, tmp_path / "w.safetensors")
    done = medcli("verify", "resnet18", "--weights", tmp_path / "w.safetensors", "--arch-opt", "stem=small")
    assert done.code == 4
    assert "conv1.weight [64, 3, 7, 7] instead of [64, 3, 3, 3]" in done.stdout
    grey = medcli("verify", "resnet18", "--weights", tmp_path / "w.safetensors", "--in-channels", "1")
    assert grey.code == 0
    assert "input layer adapted to the number of channels" in grey.stdout


def test_the_cached_weights_of_a_tag(medcli, fake_hub, resnet18):
    missing = medcli("verify", "resnet18")
    assert missing.code == 2
    assert "`medcli models fetch resnet18 --weights in1k`" in missing.stderr
    fake_hub.put("timm/resnet18.a1_in1k", "model.safetensors", save(resnet18))
    assert medcli("fetch", "resnet18").code == 0
    done = medcli("verify", "resnet18")
    assert done.code == 0
    assert "listed as  resnet18 in1k (its place in the cache)" in done.stdout


def test_a_tag_that_is_no_file(medcli):
    done = medcli("verify", "echo")
    assert done.code == 0
    assert "fits echo: it takes them" in done.stdout


def test_a_card_knows_a_file_by_its_checksum(medcli, fake_plugin, tmp_path):
    import hashlib

    content = save({"linear.weight": torch.zeros(8, 1), "linear.bias": torch.zeros(8)})
    (tmp_path / "other-name.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    fake_plugin(
        "eye",
        extra='weights = [{ tag = "cfp", source = "owner/eye", file = "eye.safetensors", '
        f'sha256 = "{digest}" }}, {{ tag = "oct", source = "owner/eye", file = "other-name.safetensors" }}]',
    )
    result = medcli("verify", tmp_path / "other-name.safetensors", "--json").json()["result"]
    assert result["listed"] == [
        {"architecture": "eye", "tag": "cfp", "by": "checksum"},
        {"architecture": "eye", "tag": "oct", "by": "name"},
    ]


def test_a_cached_file_that_is_not_what_the_card_says(medcli, fake_hub, fake_plugin, tmp_path):
    url = fake_hub.put_page("/eye.safetensors", save({"linear.bias": torch.zeros(8)}))
    line = 'weights = [{{ tag = "cfp", source = "{url}", file = "eye.safetensors"{more} }}]'
    installed = fake_plugin("eye", extra=line.format(url=url, more=""))
    assert medcli("fetch", "eye", "--weights", "cfp").code == 0
    text = installed.card.read_text().replace('"eye.safetensors"', f'"eye.safetensors", sha256 = "{"ab" * 32}"')
    installed.card.write_text(text)
    from medcli.registry import card_file

    for cached in vars(card_file).values():
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()
    done = medcli("verify", "eye", "--weights", "cfp")
    assert done.code == 4
    assert f"is not what the card says of `cfp`: its sha256 should be {'ab' * 32}" in done.stdout


class _Runs:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_a_file_that_would_run_code(medcli, tmp_path):
    torch.save({"model": _Runs()}, tmp_path / "bad.pth")
    for words in ([tmp_path / "bad.pth"], ["resnet18", "--weights", tmp_path / "bad.pth"]):
        done = medcli("verify", *words)
        assert done.code == 2
        assert "which medcli never does; it asks for `" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nothing.pth"], "there is no weight file `nothing.pth`"),
        (["resnet81"], "unknown architecture"),
        (["custom1"], "`custom1` has no published weights"),
        (["resnet18", "--weights", "nothing.pth"], "there is no weight file `nothing.pth`"),
    ],
)
def test_what_is_not_there(medcli, words, says):
    done = medcli("verify", *words)
    assert done.code == 2
    assert says in done.stderr


def test_a_flag_of_architectures_with_a_file(medcli, tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    done = medcli("verify", tmp_path / "a.safetensors", "--image-size", "32")
    assert done.code == 2
    assert "`--image-size` belongs to an architecture" in done.stderr
