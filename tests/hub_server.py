"""A server that speaks the protocol of the Hugging Face Hub, and misbehaves on demand.

What is served are models: `api/models`, `resolve` with HEAD, GET and Range, `api/whoami-v2`. The
headers are the Hub's (`X-Repo-Commit`, `X-Linked-Etag`, `X-Linked-Size`, `X-Error-Code`). A second
port is the other host that large files are redirected to.

    python -m tests.hub_server FOLDER      serves each FOLDER/owner/repository, and prints the URL
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40
TOKEN = "hf_rightRightRightRightRight"
LARGE = (".gguf", ".safetensors", ".bin")
"""What is stored as a large file, with a SHA-256."""

Content = bytes | Path


@dataclass(slots=True)
class Repository:
    """A repository: its files, and who may have them."""

    files: dict[str, Content]
    gated: bool = False
    private: bool = False
    pipeline_tag: str | None = "text-generation"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that came in; `cdn`: at the other host."""

    method: str
    path: str
    headers: dict[str, str]
    cdn: bool


@dataclass(slots=True)
class Faults:
    """What goes wrong. Lists are used up from the front, one for each answer."""

    answers: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)
    """Status and headers in place of the next answers, whatever is asked."""
    body_answers: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)
    """The same in place of the next bytes of files."""
    drop_at: deque[int] = field(default_factory=deque)
    """Bytes after which the next bodies break off."""
    stall_at: deque[int] = field(default_factory=deque)
    """Bytes after which the next bodies stand still, until `release`."""
    wrong_bytes: int = 0
    """How many bodies have other bytes of the right size."""
    too_long: int = 0
    """How many bodies have more bytes than they should."""
    ignore_range: bool = False
    other_range: bool = False
    """Answer a Range with another part than was asked for."""
    no_length: bool = False
    no_checksums: bool = False
    """The list of files has neither sizes nor checksums, as that of some mirrors."""
    redirect: bool = False
    """Send large files from the other host."""
    slow: float = 0.0
    """Seconds before each block of a body."""


class HubServer:
    """The server; use it as a context manager."""

    def __init__(
        self,
        repositories: dict[str, Repository],
        token: str = TOKEN,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self.repositories = repositories
        self.token = token
        self.faults = Faults()
        self.seen: list[Seen] = []
        self.release = threading.Event()
        self._checksums: dict[Content, tuple[str, str]] = {}
        self._main = self._server(cdn=False)
        self._cdn = self._server(cdn=True)

    @property
    def url(self) -> str:
        """The endpoint."""
        return self._url(self._main)

    @property
    def cdn_url(self) -> str:
        """The other host."""
        return self._url(self._cdn)

    def _url(self, server: ThreadingHTTPServer) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{server.server_address[1]}"

    def bodies(self) -> list[Seen]:
        """Return the requests for the bytes of files."""
        return [each for each in self.seen if each.method == "GET" and "/resolve/" in each.path]

    def checksums(self, content: Content) -> tuple[str, str]:
        """Return SHA-256, and the SHA-1 of Git's blob."""
        if content not in self._checksums:
            data = content.read_bytes() if isinstance(content, Path) else content
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            self._checksums[content] = hashlib.sha256(data).hexdigest(), blob
        return self._checksums[content]

    def __enter__(self) -> HubServer:
        for server in (self._main, self._cdn):
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release.set()
        for server in (self._main, self._cdn):
            server.shutdown()
            server.server_close()

    def _server(self, *, cdn: bool) -> ThreadingHTTPServer:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub, Handler.cdn = hub, cdn
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if self._tls is not None:
            # The handshake is for the thread of the connection, not for the one that accepts.
            server.socket = self._tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        return server


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    cdn: bool
    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError, ssl.SSLError):
            self.close_connection = True  # the client went away, as in many of the tests

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.hub
        headers = {name.lower(): value for name, value in self.headers.items()}
        hub.seen.append(Seen(self.command, self.path, headers, self.cdn))
        path = unquote(urlsplit(self.path).path).strip("/")
        if hub.faults.answers:
            status, more = hub.faults.answers.popleft()
            return self._plain(status, {}, more)
        if path == "api/whoami-v2":
            return self._whoami()
        if path.startswith("api/models/"):
            return self._listing(path.removeprefix("api/models/"))
        if "/resolve/" in path:
            repo, _, rest = path.partition("/resolve/")
            return self._resolve(repo, rest.partition("/")[2])
        return self._plain(404, {"error": "nothing here"})

    def _whoami(self) -> None:
        if not self._authorized():
            return self._plain(401, {"error": "Invalid user token."})
        return self._plain(200, {"name": "tester", "type": "user", "auth": {}})

    def _authorized(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {self.hub.token}"

    def _listing(self, path: str) -> None:
        repo, _, revision = path.partition("/revision/")
        found = self.hub.repositories.get(repo)
        if found is None or (found.private and not self._authorized()):
            return self._plain(401, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})
        if revision not in ("", "main", COMMIT):
            return self._plain(404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"})
        return self._plain(
            200,
            {
                "id": repo,
                "modelId": repo,
                "sha": COMMIT,
                "private": found.private,
                "gated": "manual" if found.gated else False,
                "pipeline_tag": found.pipeline_tag,
                "tags": [],
                "siblings": [self._sibling(name, each) for name, each in found.files.items()],
            },
        )

    def _sibling(self, name: str, content: Content) -> dict[str, Any]:
        sibling: dict[str, Any] = {"rfilename": name}
        if self.hub.faults.no_checksums:
            return sibling
        sha256, sha1 = self.hub.checksums(content)
        sibling |= {"size": _size(content), "blobId": sha1}
        if name.endswith(LARGE):
            sibling["lfs"] = {"sha256": sha256, "size": _size(content), "pointerSize": 134}
        return sibling

    def _resolve(self, repo: str, name: str) -> None:
        found = self.hub.repositories.get(repo)
        if found is None or (found.private and not self._authorized() and not self.cdn):
            return self._plain(401, {}, {"X-Error-Code": "RepoNotFound"})
        if found.gated and not self._authorized() and not self.cdn:
            said = f"Access to model {repo} is restricted."
            status = 403 if self.headers.get("authorization") else 401
            return self._plain(status, {}, {"X-Error-Code": "GatedRepo", "X-Error-Message": said})
        if name not in found.files:
            return self._plain(404, {}, {"X-Error-Code": "EntryNotFound"})
        content = found.files[name]
        if self.hub.faults.redirect and not self.cdn and name.endswith(LARGE):
            where = {"Location": self.hub.cdn_url + self.path, **self._linked(name, content)}
            return self._plain(302, {}, where)
        if self.command == "HEAD":
            length = {} if self.hub.faults.no_length else {"Content-Length": str(_size(content))}
            return self._head(200, {**self._linked(name, content), **length})
        return self._body(name, content)

    def _linked(self, name: str, content: Content) -> dict[str, str]:
        sha256, sha1 = self.hub.checksums(content)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{sha1}"', "Accept-Ranges": "bytes"}
        if name.endswith(LARGE):
            headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(_size(content))}
        return headers

    def _body(self, name: str, content: Content) -> None:
        faults = self.hub.faults
        if faults.body_answers:
            status, more = faults.body_answers.popleft()
            return self._plain(status, {}, more)
        size, start = _size(content), self._range()
        if start > size:
            return self._plain(416, {}, {"Content-Range": f"bytes */{size}"})
        if faults.other_range and start:
            start += 1
        headers = self._linked(name, content)
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        if faults.no_length:
            self.close_connection = True
            headers["Connection"] = "close"
        else:
            extra = 10 if faults.too_long else 0
            headers["Content-Length"] = str(size - start + extra)
        self._head(206 if start else 200, headers)
        return self._send(content, start)

    def _range(self) -> int:
        value = self.headers.get("range", "")
        if self.hub.faults.ignore_range or not value.startswith("bytes="):
            return 0
        return int(value.removeprefix("bytes=").partition("-")[0])

    def _send(self, content: Content, start: int) -> None:
        faults = self.hub.faults
        drop = faults.drop_at.popleft() if faults.drop_at else None
        stall = faults.stall_at.popleft() if faults.stall_at else None
        if isinstance(content, Path) and drop is None and stall is None and not faults.slow:
            with content.open("rb") as file:
                self.connection.sendfile(file, start)
            return
        data = content.read_bytes()[start:] if isinstance(content, Path) else content[start:]
        if faults.wrong_bytes:
            faults.wrong_bytes -= 1
            data = bytes(byte ^ 1 for byte in data)
        if faults.too_long:
            faults.too_long -= 1
            data += b"0123456789"
        if stall is not None:
            self._write(data[:stall])
            self.hub.release.wait(60)
            data = data[stall:]
        self._write(data[:drop])
        if drop is not None:
            self.close_connection = True
            self.connection.shutdown(2)

    def _write(self, data: bytes) -> None:
        for place in range(0, len(data), 2**16):
            if self.hub.faults.slow:
                time.sleep(self.hub.faults.slow)
            self.wfile.write(data[place : place + 2**16])
        self.wfile.flush()

    def _plain(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self._head(
            status,
            {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **(headers or {}),
            },
        )
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _size(content: Content) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def from_folder(folder: Path) -> dict[str, Repository]:
    """Return the repositories of a folder: `owner/repository/...`."""
    found = {}
    for repo in sorted(folder.glob("*/*")):
        files: dict[str, Content] = {
            str(path.relative_to(repo)): path for path in sorted(repo.rglob("*")) if path.is_file()
        }
        found[f"{repo.parent.name}/{repo.name}"] = Repository(files)
    return found


def main() -> None:
    """Serve a folder until the standard input ends."""
    with HubServer(from_folder(Path(sys.argv[1]))) as hub:
        print(hub.url, flush=True)
        sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
