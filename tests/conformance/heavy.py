"""A plugin module that imports an HTTP client for everybody who asks which plugins there are."""

from __future__ import annotations

import httpx

from .plugin import backend, chat, list_models, start

CLIENT = httpx.AsyncClient

__all__ = ["CLIENT", "backend", "chat", "list_models", "start"]
