"""What a weight file is, without a network and without running anything in it."""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from medcli.errors import UsageProblem
from medcli.models.weight_facts import weight_facts

STATE = {
    "conv.weight": torch.zeros(4, 3, 3, 3),
    "bn.running_mean": torch.zeros(4),
    "bn.num_batches_tracked": torch.tensor(3),
    "fc.weight": torch.zeros(2, 4, dtype=torch.float16),
}
PARAMETERS = 4 * 3 * 9 + 8


def test_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(STATE, path)
    facts = weight_facts(path)
    assert (facts.kind, facts.tensors, facts.parameters) == ("safetensors", 4, PARAMETERS)
    assert facts.types == {"float32": 2, "int64": 1, "float16": 1}
    assert facts.size == path.stat().st_size
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (facts.wrappers, facts.prefix, facts.beside) == ((), "", ())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_checkpoint(tmp_path, zipped):
    path = tmp_path / "m.pth.tar"
    state = collections.OrderedDict((f"module.{name}", tensor) for name, tensor in STATE.items())
    optimizer = {"state": {n: {"exp_avg": torch.zeros(3)} for n in range(9)}, "param_groups": []}
    content = {"epoch": 3, "model": state, "optimizer": optimizer, "args": argparse.Namespace(lr=1)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    facts = weight_facts(path)
    assert facts.kind == ("PyTorch, zip" if zipped else "PyTorch before 1.6, pickle")
    assert (facts.tensors, facts.parameters, facts.wrappers, facts.prefix) == (4, PARAMETERS, ("model",), "module.")
    assert facts.beside == ("epoch", "optimizer", "args")


def test_wrappers_in_wrappers(tmp_path):
    torch.save({"teacher": {"backbone": STATE, "dino_head": {"w": torch.zeros(1)}}}, tmp_path / "d.pth")
    facts = weight_facts(tmp_path / "d.pth")
    assert (facts.wrappers, facts.beside) == (("teacher", "backbone"), ("dino_head",))


def test_a_folder_of_transformers(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    with pytest.raises(UsageProblem, match=r"needs `config\.json`"):
        weight_facts(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    facts = weight_facts(tmp_path)
    assert (facts.kind, facts.tensors) == ("folder of transformers (dinov2), 1 weight file", 4)


class _Runs:
    """Pickled as a call of `os.system`."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused_and_its_call_named(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": STATE, "x": _Runs()}, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageProblem) as caught:
        weight_facts(tmp_path / "bad.pth")
    assert caught.value.code == "unsafe-weights"
    assert "system`" in caught.value.message
    assert not (tmp_path / "pwned").exists()


def test_a_bare_pickle_is_no_weight_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.bin").write_bytes(pickle.dumps(_Runs()))
    with pytest.raises(UsageProblem):
        weight_facts(tmp_path / "bad.bin")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x1f\x8b\x08", "compressed with gzip"),
        (b"", "damaged"),
        (b"hello", "damaged"),
    ],
)
def test_what_a_failed_download_leaves(tmp_path, content, says):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UsageProblem) as caught:
        weight_facts(tmp_path / "w.pth")
    assert caught.value.code in {"bad-weights", "unsafe-weights"}
    assert says in caught.value.message or "more than tensors" in caught.value.message


def test_a_truncated_file(tmp_path):
    save_file(STATE, tmp_path / "a.safetensors")
    torch.save(STATE, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UsageProblem) as caught:
            weight_facts(tmp_path / name)
        assert caught.value.code == "bad-weights"


def test_a_safetensors_file_under_another_name(tmp_path):
    save_file(STATE, tmp_path / "blob")
    assert weight_facts(tmp_path / "blob").tensors == 4


def test_no_such_file(tmp_path):
    with pytest.raises(UsageProblem, match="there is no weight file"):
        weight_facts(tmp_path / "none.pth")
