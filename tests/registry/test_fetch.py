"""The only code that downloads, against a hub and a web server on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from medcli.errors import MedcliError, RunFailure, UsageProblem
from medcli.plugin import WeightCard
from medcli.registry.fetch import fetch
from medcli.registry.weight_cache import cached_file, source_of

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
REPOSITORY = "owner/eye"


def card(source=REPOSITORY, **more):
    return WeightCard(tag="cfp", **{"source": source, "file": "eye.safetensors", **more})


def get(weights):
    seen = []
    return fetch("eye", weights, lambda done, total: seen.append((done, total))), seen


def refusal(weights) -> MedcliError:
    with pytest.raises(MedcliError) as caught:
        fetch("eye", weights, lambda done, total: None)
    return caught.value


def everything_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix in {".safetensors", ".incomplete"}]


def test_a_file_of_the_hub_lies_where_every_tool_of_the_hub_looks(fake_hub, tmp_path):
    from huggingface_hub import try_to_load_from_cache

    fake_hub.put(REPOSITORY, "eye.safetensors", CONTENT)
    fetched, seen = get(card())
    assert fetched.downloaded
    assert fetched.path.read_bytes() == CONTENT
    assert (fetched.sha256, fetched.size, fetched.confirmed_by) == (DIGEST, len(CONTENT), "hub")
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert try_to_load_from_cache(REPOSITORY, "eye.safetensors", cache_dir=tmp_path / "hub-home/hub") == str(
        fetched.path
    )


def test_what_is_there_is_checked_without_asking_anybody(fake_hub):
    fake_hub.put(REPOSITORY, "eye.safetensors", CONTENT)
    get(card())
    fake_hub.asked.clear()
    fetched, seen = get(card(sha256=DIGEST.upper()))
    assert (fetched.downloaded, fetched.confirmed_by, fake_hub.asked, seen) == (False, "card", [], [])


def test_a_damaged_file_in_the_cache_is_removed(fake_hub):
    fake_hub.put(REPOSITORY, "eye.safetensors", CONTENT)
    path = get(card())[0].path
    path.resolve().write_bytes(CONTENT[:-1] + b"?")
    error = refusal(card())
    assert (type(error), error.code) == (RunFailure, "wrong-checksum")
    assert DIGEST in error.message
    assert hashlib.sha256(CONTENT[:-1] + b"?").hexdigest() in error.message
    assert cached_file(source_of(card())) is None
    assert not path.is_symlink()
    assert get(card())[0].downloaded


@pytest.mark.parametrize("who", ["hub", "card"])
def test_a_wrong_checksum_is_never_kept(fake_hub, who):
    other = "ab" * 32
    file = fake_hub.put(REPOSITORY, "eye.safetensors", CONTENT)
    file.stated = other if who == "hub" else ""
    error = refusal(card(sha256=other if who == "card" else ""))
    assert (error.code, int(error.exit_code)) == ("wrong-checksum", 1)
    assert f"is not what the {who} says: its sha256 is {DIGEST} instead of {other}" in error.message
    assert cached_file(source_of(card())) is None


def test_a_broken_connection_goes_on_where_it_broke(fake_hub):
    file = fake_hub.put(REPOSITORY, "eye.safetensors", CONTENT)
    file.cuts, file.cut_after = 1, 300_000
    assert get(card())[0].sha256 == DIGEST


def test_a_second_name_is_tried_where_the_card_gives_none(fake_hub):
    fake_hub.put("timm/net.in1k", "pytorch_model.bin", CONTENT)
    fetched, _ = get(card("timm/net.in1k", file=""))
    assert fetched.path.name == "pytorch_model.bin"
    assert fetched.source.endswith("/timm/net.in1k/resolve/main/pytorch_model.bin")


@pytest.mark.parametrize(
    ("token", "code", "says"),
    [
        ("", "gated-weights", "you are not logged in"),
        ("hf_guest", "gated-weights", "this account has no access yet"),
        ("hf_wrong", "bad-token", "does not accept the token"),
    ],
)
def test_gated_weights_say_where_to_ask_and_where_to_put_the_file(fake_hub, monkeypatch, token, code, says):
    fake_hub.put(REPOSITORY, "eye.safetensors", CONTENT)
    fake_hub.gated.add(REPOSITORY)
    fake_hub.tokens.add("hf_guest")
    monkeypatch.setenv("HF_TOKEN", token)
    error = refusal(card(gated=True))
    assert (error.code, int(error.exit_code), error.where) == (code, 1, f"{fake_hub.url}/{REPOSITORY}")
    assert says in error.message
    assert "hf auth login" in error.hint
    if code == "gated-weights":
        assert "--weights FILE" in error.hint


def test_a_member_gets_gated_weights(fake_hub, monkeypatch):
    fake_hub.put(REPOSITORY, "eye.safetensors", CONTENT)
    fake_hub.gated.add(REPOSITORY)
    fake_hub.members.add("hf_member")
    monkeypatch.setenv("HF_TOKEN", "hf_member")
    assert get(card(gated=True))[0].sha256 == DIGEST


def test_what_the_hub_does_not_have_is_named(fake_hub):
    assert "shows no repository `owner/eye`" in refusal(card()).message
    fake_hub.put(REPOSITORY, "other.bin", CONTENT)
    error = refusal(card())
    assert (error.code, int(error.exit_code)) == ("weights-not-found", 1)
    assert f"{fake_hub.url}/{REPOSITORY} has no `eye.safetensors`" in error.message


def test_a_hub_that_is_down_or_away(fake_hub, monkeypatch, tmp_path):
    fake_hub.put(REPOSITORY, "eye.safetensors", CONTENT).status = 503
    assert "the server answers 503" in refusal(card()).message
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = refusal(card())
    assert (error.code, int(error.exit_code)) == ("download-failed", 1)
    assert error.message.startswith("http://127.0.0.1:9/owner/eye/resolve/main/eye.safetensors could not be downloaded")
    assert everything_below(tmp_path) == []


def test_switched_off_downloads_are_the_users_own_choice(fake_hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = refusal(card())
    assert (type(error), error.code, error.where) == (UsageProblem, "offline", "HF_HUB_OFFLINE")
    assert fake_hub.asked == []


def test_an_ordinary_address(fake_hub, tmp_path):
    url = fake_hub.put_page("/files/eye.safetensors", CONTENT)
    fetched, seen = get(card(url, sha256=DIGEST))
    assert fetched.path.parent == tmp_path / "cache-home/medcli/weights"
    assert fetched.path.name.endswith("-eye.safetensors")
    assert (fetched.confirmed_by, fetched.downloaded, fetched.source) == ("card", True, url)
    assert fetched.path.stat().st_mode & 0o777 == 0o644
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert not get(card(url, sha256=DIGEST))[0].downloaded


def test_an_address_without_a_known_checksum_is_unverified(fake_hub):
    fetched, _ = get(card(fake_hub.put_page("/eye.safetensors", CONTENT)))
    assert (fetched.confirmed_by, fetched.sha256) == ("", DIGEST)


def test_the_folder_of_an_address_and_its_file(fake_hub):
    fake_hub.put_page("/files/eye one.safetensors", CONTENT)
    fetched, _ = get(card(f"{fake_hub.url}/files/", file="eye one.safetensors"))
    assert fetched.sha256 == DIGEST


def test_files_of_one_name_at_two_addresses_are_two(fake_hub):
    first, _ = get(card(fake_hub.put_page("/a/eye.safetensors", b"1")))
    second, _ = get(card(fake_hub.put_page("/b/eye.safetensors", b"2")))
    assert (first.path.read_bytes(), second.path.read_bytes()) == (b"1", b"2")


@pytest.mark.parametrize("how", ["checksum", "cut", "gone", "refused"])
def test_an_address_that_fails_leaves_nothing(fake_hub, tmp_path, how):
    url = fake_hub.put_page("/eye.safetensors", CONTENT)
    page = fake_hub.pages["/eye.safetensors"]
    page.cuts, page.cut_after = (1, 1000) if how == "cut" else (0, 0)
    page.status = {"gone": 404, "refused": 403}.get(how, 0)
    error = refusal(card(url, sha256="ab" * 32 if how == "checksum" else ""))
    codes = {"checksum": "wrong-checksum", "cut": "download-failed", "gone": "weights-not-found"}
    assert (error.code, int(error.exit_code)) == (codes.get(how, "gated-weights"), 1)
    assert [path for path in (tmp_path / "cache-home").rglob("*") if path.is_file()] == []


def test_a_download_that_is_interrupted_leaves_nothing(fake_hub, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    fake_hub.put(REPOSITORY, "eye.safetensors", CONTENT)
    for source in (REPOSITORY, fake_hub.put_page("/eye.safetensors", CONTENT)):
        with pytest.raises(KeyboardInterrupt):
            fetch("eye", card(source), stop)
        assert cached_file(source_of(card(source))) is None
    assert everything_below(tmp_path) == []


def test_nothing_leaves_https(fake_hub, monkeypatch):
    error = refusal(card("http://example.org/eye.safetensors"))
    assert (type(error), error.code) == (UsageProblem, "plain-http")
    page = fake_hub.put_page("/eye.safetensors", CONTENT)
    fake_hub.pages["/eye.safetensors"].location = "http://example.org/eye.safetensors"
    assert refusal(card(page)).code == "plain-http"
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example.org")
    error = refusal(card())
    assert (error.code, error.where) == ("plain-http", "HF_ENDPOINT")


def test_a_source_that_is_no_place_is_said(fake_hub):
    error = refusal(card("the authors, on request"))
    assert (error.code, int(error.exit_code)) == ("nothing-to-fetch", 2)
