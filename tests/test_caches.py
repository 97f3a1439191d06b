"""What is kept between runs: counted, and thrown away unless it may be in use."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from medcli.caches import KINDS, cache_root, clear, contents
from medcli.data.cache import cache_directory
from medcli.prediction.feature_cache import feature_directory
from medcli.testing.command import RunCli

OLD = time.time() - 7200


def keep(kind: str, name: str, size: int, used: float = OLD) -> Path:
    path = cache_root() / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (used, used))
    return path


def test_the_root_follows_the_variable_and_ignores_a_relative_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "medcli"
    assert cache_directory() == tmp_path / "medcli" / "images"
    assert feature_directory() == tmp_path / "medcli" / "features"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "medcli"


def test_contents_count_files_and_bytes() -> None:
    keep("images", "a.images", 10)
    keep("images", "a.json", 5)
    found = {kept.kind.name: kept for kept in contents()}
    assert (found["images"].files, found["images"].size) == (2, 15)
    assert found["features"].last_used is None
    assert set(found) == {kind.name for kind in KINDS}


def test_clear_leaves_what_was_used_lately() -> None:
    old, new = keep("images", "old", 3), keep("images", "new", 4, time.time())
    assert clear(("images",)) == (1, 3, 1)
    assert not old.exists()
    assert new.exists()


def test_the_command_keeps_weights_unless_told(run_cli: RunCli) -> None:
    images, weights = keep("images", "a", 2048), keep("weights", "w", 100)
    listed = run_cli("data", "cache", in_process=True)
    assert "2.0 KiB" in listed.stdout
    refused = run_cli("data", "cache", "clear", in_process=True)
    assert refused.code == 2
    assert "`--yes`" in refused.stderr
    done = run_cli("data", "cache", "clear", "--yes", "--json", in_process=True).json()["result"]
    assert (done["deleted"], done["bytes"]) == (1, 2048)
    assert not images.exists()
    assert weights.exists()
    run_cli("data", "cache", "clear", "--yes", "--with-weights", in_process=True)
    assert not weights.exists()


def test_another_word_is_refused_with_the_nearest(run_cli: RunCli) -> None:
    outcome = run_cli("data", "cache", "claer", in_process=True)
    assert outcome.code == 2
    assert "`medcli data cache clear`" in outcome.stderr
