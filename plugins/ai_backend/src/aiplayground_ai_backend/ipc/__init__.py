"""The IPC API for other programs: JSON-RPC over a WebSocket, and what pages need to use it."""

from __future__ import annotations

from .door import PATH, Door
from .pages import endpoints

__all__ = ["PATH", "Door", "endpoints"]
