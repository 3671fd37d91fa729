"""Telling systemd how a service of type `notify` is. Source: sd_notify(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

VARIABLE = "NOTIFY_SOCKET"

READY = "READY=1"
STOPPING = "STOPPING=1"


class Notifier:
    """Says so where systemd asked for it, else nothing.

    The variable is taken out of the environment: what this program starts is not the service.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._address = environ.pop(VARIABLE, "")

    def tell(self, state: str) -> None:
        """Send a state, such as `READY`. Where nobody listens, systemd's own limit says so."""
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        # An abstract socket begins with `@`, which stands for a null byte.
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(5)
            channel.sendto(state.encode(), address)
