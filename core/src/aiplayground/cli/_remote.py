"""The running kernel (`aipg serve`), as the other commands reach it.

Over the standard library's HTTP client: these commands take a moment and should begin at once.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from .exits import NotRunning

if TYPE_CHECKING:
    from aiplayground.paths import Paths

    from ._app import App

RUNTIME_FILE = "serve.json"

PATIENCE = 900.0
"""Seconds for an answer: a start may load a large model."""

SILENCE = 90.0
"""Seconds without a line or a heartbeat after which a stream counts as broken."""

HINT = "No kernel is running here. Start one with: aipg serve"


def running(paths: Paths) -> Remote | None:
    """Return the kernel that runs with this home, if one does."""
    try:
        told = json.loads((paths.runtime / RUNTIME_FILE).read_text(encoding="utf-8"))
        token = Path(told["token_file"]).read_text(encoding="utf-8").strip()
        os.kill(int(told["pid"]), 0)
        return Remote(str(told["url"]), token, told)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or what one that was killed left


def loaded_models(paths: Paths) -> set[tuple[str, str]]:
    """Return what the running kernel has in memory, as service and model; empty without one."""
    remote = running(paths)
    try:
        services = remote.services() if remote is not None else []
    except NotRunning:
        return set()  # it went away a moment ago, and its models with it
    return {(each["name"], model) for each in services for model in each["models"]}


def the_running(app: App) -> Remote:
    """Return the kernel that runs with this home; raises `NotRunning`."""
    found = running(app.paths)
    if found is None:
        raise NotRunning(HINT)
    return found


class Remote:
    """Requests to a running kernel; `told` is what its runtime file says."""

    def __init__(self, url: str, token: str, told: dict[str, Any]) -> None:
        self.url = url
        self.told = told
        self.token = token

    def services(self) -> list[dict[str, Any]]:
        """Return every service."""
        found: list[dict[str, Any]] = self.ask("GET", "/api/kernel/services")
        return found

    def act(self, service: str, operation: str, model: str | None = None) -> dict[str, Any]:
        """Start, stop or restart a service; raises what that fails with."""
        path = f"/api/kernel/services/{quote(service, safe='')}/{operation}"
        info: dict[str, Any] = self.ask("POST", path, {"model": model} if model else {})
        return info

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the answer to a request; raises the error that it is, or `NotRunning`."""
        with closing(self._connection(PATIENCE)) as connection:
            return json.loads(self._send(connection, method, path, body).read())

    def stream(self, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name and data of each event; raises `NotRunning` when the kernel goes."""
        name = ""
        with closing(self._connection(SILENCE)) as connection:
            answer = self._send(connection, "GET", path, None)
            while line := self._line(answer):
                if line.startswith(b"event: "):
                    name = line[7:].decode()
                elif line.startswith(b"data: "):
                    yield name, json.loads(line[6:])

    @staticmethod
    def _line(answer: http.client.HTTPResponse) -> bytes:
        try:
            line = answer.readline()
        except (OSError, http.client.HTTPException) as error:
            raise NotRunning(f"The running kernel went away ({error}).") from error
        return line.rstrip(b"\n") or (b":" if line else b"")

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        place = urlsplit(self.url)
        return http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: dict[str, Any] | None,
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, json.dumps(body or {}), headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise NotRunning(f"The running kernel does not answer ({error}). {HINT}") from error
        if answer.status >= http.client.BAD_REQUEST:
            from aiplayground.errors import from_dict

            raise from_dict(_object(answer.read()))
        return answer


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except ValueError:
        body = {"message": data.decode("utf-8", "replace")}
    return body if isinstance(body, dict) else {}
