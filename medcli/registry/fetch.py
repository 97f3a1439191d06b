"""The only place in medcli that downloads anything, and only because a person typed `medcli models fetch`."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit

from medcli import __version__
from medcli.errors import MedcliError, RunFailure, UsageProblem
from medcli.plugin import WeightCard
from medcli.registry.weight_cache import (
    HubSource,
    Source,
    WebSource,
    cached_file,
    file_digest,
    hub_cache,
    hub_endpoint,
    source_of,
    web_cache,
)

__all__ = ["Fetched", "Progress", "fetch"]

Progress = Callable[[int, int], None]
"""Called with the bytes that have arrived and the bytes there will be (0 where the server does not say)."""

_TIMEOUT = 30.0
_CHUNK = 1 << 18
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BY_HAND = "download it with a browser or on another machine and give it with `--weights FILE`"


@dataclass(frozen=True)
class Fetched:
    """A file of weights on this machine.

    Args:
        path: where it lies.
        source: address it was, or would be, downloaded from.
        size: in bytes.
        sha256: its checksum, computed here.
        confirmed_by: whose statement the checksum agrees with: the `card`'s, the `hub`'s, or nobody's.
        downloaded: False where it was there before.
    """

    path: Path
    source: str
    size: int
    sha256: str
    confirmed_by: Literal["card", "hub", ""]
    downloaded: bool


def fetch(name: str, weights: WeightCard, progress: Progress) -> Fetched:
    """Put a file of published weights into the cache, or check the one that is there.

    Args:
        name: of the architecture, for messages.
        weights: which.
        progress: told of every piece that arrives.

    Raises:
        UsageProblem: the card names no place to fetch it from, the address is neither https nor on this machine, or
            downloads are switched off.
        RunFailure: no connection, no access, no such file, no room, or a wrong checksum (the file is then removed).
    """
    source = source_of(weights)
    if source is None:
        raise UsageProblem(
            f"`{weights.tag}` of `{name}` is no file to fetch; its source is `{weights.source}`",
            where=f"--weights {weights.tag}",
            hint=f"`medcli train {name} --weights {weights.tag}` uses it as it is",
            code="nothing-to-fetch",
        )
    path = cached_file(source)
    downloaded = path is None
    if path is None:
        path = (
            _from_hub(weights, source, progress)
            if isinstance(source, HubSource)
            else _from_web(weights, source, progress)
        )
    digest = file_digest(path)
    stated, by = (weights.sha256.lower(), "card") if weights.sha256 else (_hub_digest(path), "hub")
    if stated and stated != digest:
        _remove(path)
        raise _wrong_checksum(path, stated, digest, by)
    confirmed: Literal["card", "hub", ""] = "" if not stated else "card" if weights.sha256 else "hub"
    if isinstance(source, HubSource):
        source = HubSource(source.repository, tuple(one for one in source.files if Path(one).name == path.name))
    return Fetched(path, str(source), path.stat().st_size, digest, confirmed, downloaded)


def _from_hub(weights: WeightCard, source: HubSource, progress: Progress) -> Path:
    """The file in the hub's own cache, downloaded with the hub's own library."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError

    endpoint = hub_endpoint()
    _refuse_plain(endpoint, "HF_ENDPOINT")
    if constants.HF_HUB_OFFLINE:
        raise UsageProblem(
            f"downloads from the hub are switched off, and {source} is not on this machine",
            where="HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE",
            hint=f"unset it, or {_BY_HAND}",
            code="offline",
        )
    # Every error of httpx, under whichever name this release of the hub's library uses it.
    failures: tuple[type[Exception], ...] = (HfHubHTTPError.__bases__[0], OSError, ValueError)
    library = {"library_name": "medcli", "library_version": __version__}
    for number, name in enumerate(source.files):
        try:
            with _quiet(logging.getLogger("huggingface_hub")):
                # Asked first on its own: the download below would try for half a minute to reach a hub that is away.
                url = hf_hub_url(source.repository, name, endpoint=endpoint)
                get_hf_file_metadata(url, endpoint=endpoint, **library)
                found = hf_hub_download(
                    source.repository,
                    name,
                    cache_dir=hub_cache(),
                    endpoint=endpoint,
                    tqdm_class=_bar(progress),
                    **library,
                )
            return Path(found)
        except RemoteEntryNotFoundError as error:
            if number + 1 == len(source.files):
                names = " or ".join(f"`{one}`" for one in source.files)
                raise RunFailure(
                    f"the repository {source.page} has no {names}",
                    hint="look at its files; the card, or this version of its plugin, may be out of date",
                    code="weights-not-found",
                ) from error
        except failures as error:
            raise _hub_failure(weights, source, error) from error
    raise AssertionError("a source without files")


def _hub_failure(weights: WeightCard, source: HubSource, error: Exception) -> MedcliError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(error, GatedRepoError):
        state = "you are not logged in" if status == 401 else "this account has no access yet"
        return RunFailure(
            f"the publisher gives `{weights.tag}` to registered users only, and {state}",
            where=source.page,
            hint="ask for access on that page, log in with `hf auth login` or `HF_TOKEN`, and fetch again; or "
            + _BY_HAND,
            code="gated-weights",
        )
    if isinstance(error, RepositoryNotFoundError):
        return RunFailure(
            f"the hub shows no repository `{source.repository}`",
            where=source.page,
            hint="it may be private, renamed or gone; with an account, log in with `hf auth login` or `HF_TOKEN`",
            code="weights-not-found",
        )
    if status == 401:
        return RunFailure(
            "the hub does not accept the token of this machine",
            where=source.page,
            hint="log in again with `hf auth login`, or unset `HF_TOKEN`",
            code="bad-token",
        )
    return _broken_off(source, error, status)


def _from_web(weights: WeightCard, source: WebSource, progress: Progress) -> Path:
    """The file in medcli's own cache; it gets its name only when it is whole and its checksum is not wrong."""
    import pooch
    import requests

    _refuse_plain(source.url, f"card, weights `{weights.tag}`")
    path = web_cache(source)
    download = _Download(progress)
    try:
        with _quiet(pooch.get_logger()):
            path.parent.mkdir(parents=True, exist_ok=True)
            known = f"sha256:{weights.sha256.lower()}" if weights.sha256 else None
            pooch.retrieve(source.url, known, fname=path.name, path=path.parent, downloader=download)
        path.chmod(0o644)  # the temporary file is its owner's alone, a cache may be everybody's
    except requests.exceptions.HTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in {401, 403} or weights.gated:
            raise RunFailure(
                f"the publisher gives `{weights.tag}` to registered users only (the server answers {status})",
                where=source.page,
                hint=f"ask for access there, {_BY_HAND}",
                code="gated-weights",
            ) from error
        if status in {404, 410}:
            raise RunFailure(
                "the file is not there any more",
                where=source.page,
                hint="the card, or this version of its plugin, may be out of date",
                code="weights-not-found",
            ) from error
        raise _broken_off(source, error, status) from error
    except requests.exceptions.RequestException as error:
        raise _broken_off(source, error, None) from error
    except OSError as error:
        raise _broken_off(source, error, None) from error
    except ValueError as error:
        if not download.sha256:
            raise _broken_off(source, error, None) from error
        raise _wrong_checksum(path, weights.sha256.lower(), download.sha256, "card") from error
    return path


class _Download:
    """pooch's download over HTTP, which also notes the checksum and follows no way that leaves https."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.sha256 = ""

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        from pooch import HTTPDownloader

        answers: list[Any] = []

        def note(response: Any, *_: Any, **__: Any) -> None:
            answers.append(response)
            if response.is_redirect:
                _refuse_plain(urljoin(response.url, response.headers["location"]), response.url)

        get = HTTPDownloader(
            progressbar=_WebBar(self.progress), chunk_size=_CHUNK, timeout=_TIMEOUT, hooks={"response": note}
        )
        try:
            get(url, output_file, pooch)
        finally:
            for answer in answers:
                answer.close()
        self.sha256 = file_digest(Path(output_file))


class _WebBar:
    """What pooch takes for a progress bar."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.total = 0
        self.done = 0

    def update(self, size: int) -> None:
        # pooch counts whole chunks, so the last one overshoots.
        self.done = min(self.done + size, self.total) if self.total else self.done + size
        self.progress(self.done, self.total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        """Nothing to close."""


def _bar(progress: Progress) -> Callable[..., Any]:
    """What the hub's library takes for a class of progress bars."""

    from tqdm import tqdm  # type: ignore[import-untyped]

    class HubBar(tqdm):  # type: ignore[misc]
        """A bar that is never drawn: it only counts."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self.n += int(n or 0)
            progress(self.n, self.total or 0)

        def update_transfer(self, n: float | None = 1) -> None:
            """Bytes on the wire are counted as bytes of the file already."""

    return HubBar


def _refuse_plain(url: str, where: str) -> None:
    """Weights decide what a model says, so nobody on the way may exchange them."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return
    raise UsageProblem(
        f"`{url}` is not https, and medcli downloads weights over nothing else",
        where=where,
        hint="give the file with `--weights FILE`",
        code="plain-http",
    )


def _broken_off(source: Source, error: Exception, status: int | None) -> RunFailure:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    reason = f"the server answers {status}" if status else text
    return RunFailure(
        f"{source} could not be downloaded: {reason}",
        hint=f"try again when this machine reaches it, or {_BY_HAND}",
        code="download-failed",
    )


def _wrong_checksum(path: Path, stated: str, found: str, by: str) -> RunFailure:
    return RunFailure(
        f"`{path.name}` is not what the {by} says: its sha256 is {found} instead of {stated}; the file was removed",
        where=str(path),
        hint="fetch again; if it stays so, the file at the source was exchanged: ask its publisher",
        code="wrong-checksum",
    )


def _hub_digest(path: Path) -> str:
    """The SHA-256 by which the hub calls a large file: its cache keeps the file under that name behind a link."""
    if not path.is_symlink():
        return ""
    name = path.readlink().name
    return name if _SHA256.fullmatch(name) else ""


def _remove(path: Path) -> None:
    """The file, and in the hub's cache what its link leads to."""
    chain = [path]
    while chain[-1].is_symlink():
        chain.append(chain[-1].parent / chain[-1].readlink())
    for link in chain:
        link.unlink(missing_ok=True)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Without the log lines of a library: what matters in them is said by our own errors."""
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
