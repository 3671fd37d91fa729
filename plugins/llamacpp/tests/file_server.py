"""A file server on this machine that misbehaves as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Files:
    """What the server has, and how it behaves.

    `drop_after`: bytes of an answer's body after which the connection ends, for each request in
    turn. `stall`: sends so much and then nothing, until `release` is set.
    """

    contents: dict[str, bytes] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    drop_after: list[int] = field(default_factory=list)
    stall: int | None = None
    ignore_range: bool = False
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    url: str = ""


@contextmanager
def serving(files: Files) -> Iterator[Files]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # the name is http.server's
            _answer(self, files)

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    files.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield files
    finally:
        files.release.set()
        server.shutdown()
        thread.join(10)
        server.server_close()


def _answer(request: BaseHTTPRequestHandler, files: Files) -> None:
    asked = request.headers.get("Range")
    files.requests.append((request.path, asked))
    status = files.status.get(request.path, 200 if request.path in files.contents else 404)
    body = files.contents.get(request.path, b"nothing here") if status == 200 else b"no"
    start = 0
    if status == 200 and asked and not files.ignore_range:
        start = int(asked.removeprefix("bytes=").split("-")[0])
        status = 206 if start < len(body) else 416
    request.send_response(status)
    if status == 206:
        request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    body = b"" if status == 416 else body[start:]
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if files.stall is not None:
        request.wfile.write(body[: files.stall])
        request.wfile.flush()
        files.release.wait(30)
    elif files.drop_after and status in (200, 206):
        request.wfile.write(body[: files.drop_after.pop(0)])
        request.close_connection = True
    else:
        request.wfile.write(body)
