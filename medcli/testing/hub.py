"""A double of the Hugging Face hub on this machine, so that downloads are tested without ever leaving it.

It answers what `huggingface_hub` asks when it downloads a file: where the file is, its checksum and commit, a redirect
to the place that serves it, parts of it, and the refusals of gated, unknown and incomplete repositories. Other
addresses serve plain files, as any web server would.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

__all__ = ["FakeHub", "HubFile"]

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubFile:
    """One file of the double.

    Args:
        content: what it holds.
        stated: the SHA-256 the hub states, if not the true one.
        cut_after: the connection breaks after so many bytes of an answer.
        cuts: so many times; then the file comes whole.
        status: answer with this status and nothing else, if not 0.
        location: answer with a redirect to this address, if not empty.
    """

    content: bytes
    stated: str = ""
    cut_after: int = 0
    cuts: int = 0
    status: int = 0
    location: str = ""

    @property
    def sha256(self) -> str:
        """What the hub states."""
        return self.stated or hashlib.sha256(self.content).hexdigest()


@dataclass
class FakeHub:
    """What the double holds and what it was asked; use it as `with hub.running():`.

    Args:
        repositories: `owner/name` to file name to file.
        pages: path of a plain address to its file.
        gated: repositories that only the tokens of `members` open.
        tokens: tokens of accounts that exist.
        members: tokens of accounts that gated repositories were opened for.
        asked: `METHOD path` of every request.
    """

    repositories: dict[str, dict[str, HubFile]] = field(default_factory=dict)
    pages: dict[str, HubFile] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """Its address, for `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def elsewhere(self) -> str:
        """The same server under another host name: the hub's library trusts only the hub's own with its headers."""
        return f"http://localhost:{self.port}"

    def put(self, repository: str, name: str, content: bytes) -> HubFile:
        """Add a file to a repository."""
        file = HubFile(content)
        self.repositories.setdefault(repository, {})[name] = file
        return file

    def put_page(self, path: str, content: bytes) -> str:
        """Add a plain file; returns its address."""
        self.pages[path] = HubFile(content)
        return self.url + path

    @contextmanager
    def running(self) -> Iterator[FakeHub]:
        """Serve until the end of the block."""
        server = _Server(("127.0.0.1", self.port), type("Handler", (_Handler,), {"hub": self}))
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up in the middle is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002 (the standard library names it so)
        """Nothing is printed."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        repository, found, name = path.lstrip("/").partition("/resolve/main/")
        if path.startswith("/cdn/"):
            blobs = {file.sha256: file for files in self.hub.repositories.values() for file in files.values()}
            self._send(blobs[path.removeprefix("/cdn/")], body)
        elif found:
            self._resolve(repository, name)
        elif path in self.hub.pages:
            self._send(self.hub.pages[path], body)
        else:
            self._refuse(404)

    def _resolve(self, repository: str, name: str) -> None:
        """Where the file is, or why not; a large file always lies elsewhere."""
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        files = self.hub.repositories.get(repository)
        if token and token not in self.hub.tokens | self.hub.members:
            self._refuse(401, message="Invalid credentials in Authorization header")
        elif files is None:
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif repository in self.hub.gated and token not in self.hub.members:
            self._refuse(403 if token else 401, "GatedRepo", f"Access to model {repository} is restricted")
        elif name not in files:
            self._refuse(404, "EntryNotFound", "Entry not found")
        elif files[name].status:
            self._refuse(files[name].status)
        else:
            file = files[name]
            self.send_response(302)
            self.send_header("Location", file.location or f"{self.hub.elsewhere}/cdn/{file.sha256}")
            self.send_header("X-Repo-Commit", _COMMIT)
            self.send_header("X-Linked-Etag", f'"{file.sha256}"')
            self.send_header("X-Linked-Size", str(len(file.content)))
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _refuse(self, status: int, code: str = "", message: str = "") -> None:
        self.send_response(status)
        for header, value in (("X-Error-Code", code), ("X-Error-Message", message)):
            if value:
                self.send_header(header, value)
        if code == "EntryNotFound":
            self.send_header("X-Repo-Commit", _COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, file: HubFile, body: bool) -> None:
        if file.status:
            self._refuse(file.status)
            return
        if file.location:
            self.send_response(302)
            self.send_header("Location", file.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int((self.headers.get("range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        rest = file.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{file.sha256}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(rest)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(file.content) - 1}/{len(file.content)}")
        self.end_headers()
        if not body:
            return
        if file.cuts > 0 and file.cut_after < len(rest):
            file.cuts -= 1
            self.wfile.write(rest[: file.cut_after])
            self.close_connection = True
            return
        self.wfile.write(rest)
