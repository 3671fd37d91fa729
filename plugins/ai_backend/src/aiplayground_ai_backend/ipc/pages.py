"""What pages need: `/electron-api.js`, and the status page that uses it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from aiplayground_ai_backend.table import Endpoint

if TYPE_CHECKING:
    from aiplayground._method import Method
    from aiplayground.kernel import Kernel
    from aiplayground_ai_backend.exchange import Exchange

SCRIPT, PAGE = "/electron-api.js", "/"

_TABLE = "/*TABLE*/ null"
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_NO_CACHE = (b"cache-control", b"no-cache")


def endpoints(kernel: Kernel) -> Iterator[Endpoint]:
    """Return the endpoints for pages."""
    yield Endpoint(
        method="GET",
        path=PAGE,
        handler=_show_page,
        summary="The status page.",
        answer="text/html",
    )
    yield Endpoint(
        method="GET",
        path=SCRIPT,
        handler=partial(_send_script, kernel),
        summary="The script that gives a page `window.electronAPI`.",
        answer="text/javascript",
    )


async def _show_page(exchange: Exchange) -> None:
    content, policy = status_page()
    headers = [_NO_CACHE, (b"content-security-policy", policy.encode())]
    await exchange.reply(200, content, headers, kind=b"text/html; charset=utf-8")


async def _send_script(kernel: Kernel, exchange: Exchange) -> None:
    text = script(kernel.methods())
    await exchange.reply(200, text.encode(), [_NO_CACHE], kind=b"text/javascript; charset=utf-8")


def script(methods: Mapping[str, Method]) -> str:
    """Return the script for these methods and all events."""
    from aiplayground.notices import (
        NOTICES,
    )  # pydantic models of the whole API, not needed to start
    from aiplayground.stores.wire import UPDATE

    from .session import SNAPSHOT

    listeners = {
        notice.name: {"listener": notice.listener, "positional": notice.positional}
        for notice in NOTICES.values()
    }
    table: dict[str, Any] = {
        "methods": list(methods),
        "events": listeners,
        "snapshot": SNAPSHOT,
        "stores": UPDATE,
    }
    # In a script of its own, not in HTML: only line separators could end a literal early.
    return _static("electron-api.js").replace(_TABLE, json.dumps(table), 1)


@cache
def status_page() -> tuple[bytes, str]:
    """Return the page, and the Content-Security-Policy under which it works and nothing else."""
    page = _static("index.html")
    allowed: dict[str, str] = {}
    for kind, text in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        allowed[kind] = f"'sha256-{digest}'"
    policy = (
        f"default-src 'none'; script-src 'self' {allowed['script']}; "
        f"style-src {allowed['style']}; connect-src 'self'; img-src data:; base-uri 'none'; "
        f"form-action 'none'; frame-ancestors 'none'"
    )
    return page.encode(), policy


@cache
def _static(name: str) -> str:
    return files(__package__).joinpath("static", name).read_text(encoding="utf-8")
