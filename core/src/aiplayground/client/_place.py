"""Where a kernel answers, and how to open a connection to it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiplayground.errors import (
    AIPlaygroundError,
    InvalidParameters,
    ServiceNotAvailable,
    from_dict,
)
from aiplayground.paths import Paths

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import ConnectionClosed

RUNTIME_FILE = "serve.json"

CONNECT_PATIENCE = 10.0
"""Seconds for opening a connection."""

PING_INTERVAL = 20.0
"""Seconds between pings; one that is not answered in as many breaks the connection."""

CLOSE_PATIENCE = 2.0
"""Seconds for closing a connection in order."""

MAX_MESSAGE = 512 * 2**20
"""Bytes of a message at most: the state of a store may hold many pictures."""

TOO_BIG = 1009
"""The close code for a message that was too big (RFC 6455, 7.4.1)."""


@dataclass(frozen=True, slots=True)
class Place:
    """The base URL of a gateway, and the token for what changes something."""

    url: str
    token: str | None

    @property
    def ipc(self) -> str:
        """The URL of its WebSocket."""
        scheme, _, rest = self.url.rstrip("/").partition("://")
        return f"{'wss' if scheme in ('https', 'wss') else 'ws'}://{rest}/ipc"


def find_running(home: Path | str | None = None) -> Place:
    """Return the kernel that runs with a home; raises `ServiceNotAvailable`. Blocks for a moment.

    It is whoever wrote the runtime file: connecting shows whether it still lives.
    """
    try:
        told = json.loads((Paths.resolve(home).runtime / RUNTIME_FILE).read_text(encoding="utf-8"))
        token = Path(told["token_file"]).read_text(encoding="utf-8").strip()
        return Place(str(told["url"]), token)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServiceNotAvailable(
            "No kernel is running here. Start one with: aipg serve", details={"reason": repr(error)}
        ) from error


class Address:
    """Where to connect: given, or looked up anew each time, since a restart may change it."""

    def __init__(self, url: str | None, token: str | None, home: Path | str | None) -> None:
        self._given = Place(url, token) if url is not None else None
        self._token = token
        self._home = home

    async def place(self) -> Place:
        """Return where the kernel answers now; raises `ServiceNotAvailable`."""
        if self._given is not None:
            return self._given
        found = await asyncio.to_thread(find_running, self._home)
        return Place(found.url, self._token or found.token)

    async def open(self) -> ClientConnection:
        """Connect; raises `ServiceNotAvailable`, or what the gateway refused with."""
        place = await self.place()
        try:
            from websockets.asyncio.client import connect
            from websockets.exceptions import InvalidStatus, WebSocketException
        except ImportError as error:
            raise ServiceNotAvailable(
                'This needs the package websockets. Run: pip install "aiplayground[client]"',
                details={"package": "websockets"},
            ) from error
        headers = {"Authorization": f"Bearer {place.token}"} if place.token else {}
        try:
            return await connect(
                place.ipc,
                additional_headers=headers,
                proxy=None,
                compression=None,
                max_size=MAX_MESSAGE,
                open_timeout=CONNECT_PATIENCE,
                ping_interval=PING_INTERVAL,
                ping_timeout=PING_INTERVAL,
                close_timeout=CLOSE_PATIENCE,
            )
        except InvalidStatus as error:
            raise _refusal(error.response.status_code, error.response.body) from error
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ServiceNotAvailable(
                f"The kernel at {place.url} does not answer ({error!r}). Start it with: aipg serve",
                details={"url": place.url},
            ) from error


def _refusal(status: int, body: bytes | bytearray | None) -> AIPlaygroundError:
    try:
        told: Any = json.loads(body or b"")
    except ValueError:
        told = None
    if not isinstance(told, dict) or "message" not in told:
        told = {"code": -3, "message": f"The gateway refused the connection (HTTP {status})."}
    return from_dict(told)


def lost(error: ConnectionClosed) -> AIPlaygroundError:
    """Return what the end of a connection means to those who waited for it."""
    if is_too_big(error):
        return ServiceNotAvailable(
            f"What the kernel sent is larger than {MAX_MESSAGE >> 20} MiB.",
            details={"reason": "too-large"},
        )
    if error.rcvd is not None and error.rcvd.code == TOO_BIG:
        return InvalidParameters(
            "A call is larger than the kernel takes. Send fewer or smaller pictures, or raise "
            "the setting 'max_body' of ai-backend.",
            details={"reason": "too-large"},
        )
    return ServiceNotAvailable(f"The connection to the kernel was lost ({error}).")


def is_too_big(error: ConnectionClosed) -> bool:
    """Say whether this end refused a message because of its size: it would come again."""
    return error.sent is not None and error.sent.code == TOO_BIG and not error.rcvd_then_sent


def unpack(error: dict[str, Any]) -> AIPlaygroundError:
    """Return the error that a JSON-RPC response holds."""
    return from_dict({**error, "details": error.get("data")})
