"""A forward proxy as companies have them: `CONNECT` for TLS, whole addresses for the rest.

Which requests it saw is in `seen`; with `user` it asks for a name and a password (RFC 9110, 11.7).
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import select
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

BLOCK = 2**16
HOP = frozenset({"connection", "keep-alive", "proxy-authorization", "proxy-connection"})


@dataclass(frozen=True, slots=True)
class Passed:
    """A request that came to the proxy; `target` is `host:port` or an address."""

    method: str
    target: str
    headers: dict[str, str]


class ProxyServer:
    """The proxy; use it as a context manager. `user` is `name:password`."""

    def __init__(self, user: str | None = None) -> None:
        self.seen: list[Passed] = []
        self.user = user
        proxy = self

        class Handler(_Handler):
            pass

        Handler.proxy = proxy
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """Its address, without a user."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ProxyServer:
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: ProxyServer

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # either end went away
            super().handle()

    def _admitted(self) -> bool:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.proxy.seen.append(Passed(self.command, self.path, headers))
        if self.proxy.user is None:
            return True
        wanted = "Basic " + base64.b64encode(self.proxy.user.encode()).decode()
        if headers.get("proxy-authorization") == wanted:
            return True
        self.send_response(407)
        self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def do_CONNECT(self) -> None:
        if not self._admitted():
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as there:
            self.send_response(200)
            self.end_headers()
            self._relay(there)

    def _relay(self, there: socket.socket) -> None:
        other = {self.connection: there, there: self.connection}
        while True:
            ready, _, _ = select.select(list(other), [], [], 30)
            for each in ready:
                data = each.recv(BLOCK)
                if not data:
                    return
                other[each].sendall(data)
            if not ready:
                return

    def do_HEAD(self) -> None:
        self._pass_on()

    def do_GET(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        if not self._admitted():
            return
        address = urlsplit(self.path)
        assert address.hostname is not None
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        there = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
        with contextlib.closing(there):
            target = f"{address.path}?{address.query}" if address.query else address.path
            there.request(self.command, target, headers=headers)
            answer = there.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP | {"date", "server"}:
                    self.send_header(name, value)
            self.end_headers()
            while block := answer.read(BLOCK):
                self.wfile.write(block)
