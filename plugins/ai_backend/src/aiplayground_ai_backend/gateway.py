"""The gateway as an ASGI application: checks, routes, errors, access log."""

from __future__ import annotations

import json
import secrets
import time
from itertools import count
from typing import TYPE_CHECKING, Self

from aiplayground.errors import AIPlaygroundError, InvalidParameters
from aiplayground.serving.asgi import ClientGone, Receive, Scope, Send
from aiplayground.tracing import traced

from . import access, documented
from .access import Access, Rules
from .control import Control
from .dispatch import Dispatch
from .endpoints import endpoints
from .errors import body_of, headers_of, internal, status_of
from .exchange import Exchange, Limits
from .ipc import PATH, Door
from .metrics import Metrics
from .mounts import Mounts
from .queue import Queues
from .relay import Relay
from .sessions import Sessions, new_secret
from .spans import spans_for
from .table import Table
from .upstream import Upstream

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from aiplayground.kernel import Kernel

    from .settings import Settings

CANCELLED = 499
"""The status under which a request counts whose client went away (nginx's)."""

_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)

_JSON = json.JSONEncoder(ensure_ascii=False)


class Gateway:
    """Every route of one kernel.

    `service` is the kernel's name for what serves this, None where an embedder does; `port` makes
    the name of its cookie, `api_key` is set where it can be reached from beyond this computer.
    """

    def __init__(
        self,
        kernel: Kernel,
        settings: Settings,
        *,
        token: str | None = None,
        api_key: str | None = None,
        service: str | None = None,
        port: int = 0,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self.kernel = kernel
        self.settings = settings
        self.token = token or new_secret()
        self.sessions = Sessions()
        self.metrics = Metrics()
        self.queues = Queues(active=settings.active, waiting=settings.waiting)
        self.rules = Rules(
            token=self.token,
            hosts=frozenset({*settings.allowed_hosts, settings.host}),
            origins=frozenset(settings.allowed_origins),
            api_key=api_key,
            cookie=f"aipg-session-{port}" if port else "aipg-session",
        )
        self.control = Control(kernel, service)
        self.upstream = Upstream(kernel.settings.timeouts.answer)
        self.dispatch = Dispatch(
            kernel,
            settings,
            self.queues,
            Relay(kernel, self.upstream),
            self.metrics,
            self._on_defect,
        )
        self.log = kernel.log(service) if service else kernel.log()
        self.table = Table(endpoints(self))
        self.mounts = Mounts(kernel)
        self.ipc = Door(self, service, self._on_defect)
        self.spans = spans_for(tracer_provider, self.log.logger, self._hide)
        # Cheaper than a random one for each request, and as easy to find in a log.
        self._id, self._numbers = secrets.token_hex(6), count(1)
        self._limits = Limits(settings.max_body * 2**20, settings.body_timeout)

    async def aclose(self) -> None:
        """Close the connections to workers and send the last spans; answers should have ended."""
        if self.spans is not None:
            await self.spans.aclose()
        await self.upstream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    # One request --------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket" and _path_in(scope) == PATH:
            await self.ipc.serve(scope, receive, send)
        elif scope["type"] == "websocket":
            await self.mounts.websocket(scope, receive, send, self._refuse_websocket)
        else:
            path = _path_in(scope)
            fresh_id = f"{self._id}-{next(self._numbers):x}"
            exchange = Exchange(scope, receive, send, path, self._limits, fresh_id)
            if self.spans is None and "traceparent" not in exchange.headers:
                await self._respond(exchange)
                return
            with self.spans.span(exchange) if self.spans else traced(exchange.headers):
                await self._respond(exchange)

    async def _live(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _respond(self, exchange: Exchange) -> None:
        """Answer, whatever happens, and take note of it."""
        began = time.monotonic()
        try:
            await self._route(exchange)
        except ClientGone:
            exchange.status = CANCELLED
        except AIPlaygroundError as error:
            await self._refuse(exchange, error)
        except Exception as error:  # noqa: BLE001  # the door: whatever it is gets an answer
            self._on_defect(error)
            await self._refuse(exchange, internal(error))
        finally:
            self._note(exchange, time.monotonic() - began)

    async def _route(self, exchange: Exchange) -> None:
        exchange.extra.extend(_SAFE)
        access.check_host(exchange.headers, self.rules)
        origin = access.check_origin(exchange.headers, exchange.method, self.rules)
        if origin is not None:
            exchange.extra.extend(access.cors_headers(origin))
            if exchange.method == "OPTIONS":
                await exchange.reply(204, b"", access.preflight_headers(exchange.headers))
                return
        if not self.table.knows(exchange.path):
            await self._contributed(exchange)
            return
        endpoint, parameters = self.table.find(exchange.method, exchange.path)
        exchange.route = endpoint.template
        self._check_access(endpoint.access, exchange)
        await endpoint.handler(exchange, **parameters)

    def _check_access(self, wanted: Access, exchange: Exchange) -> None:
        headers = exchange.headers
        exchange.trusted = access.check_access(wanted, headers, self.rules, self.sessions)

    async def _contributed(self, exchange: Exchange) -> None:
        """Let a plugin's route answer, if one does."""
        found = self.mounts.find(exchange)
        if found is not None:
            exchange.route = found.template
            self._check_access(found.access, exchange)
            await found.handle(exchange)
            return
        self._check_access(Access.OPEN, exchange)
        if exchange.path in documented.ABSENT:
            raise documented.absent(exchange.path)
        self.table.find(exchange.method, exchange.path)  # raises: there is nothing

    async def _refuse(self, exchange: Exchange, error: AIPlaygroundError) -> None:
        exchange.facts["error"] = error.message
        if exchange.started:
            # The answer is out in part: only a connection that breaks says that it is not whole.
            raise error
        body = body_of(error, self.table.dialect(exchange.path))
        await exchange.reply_json(status_of(error), body, headers_of(error))

    def _refuse_websocket(self, scope: Scope) -> None:
        """Raise unless a WebSocket may be opened: browsers ask no CORS for one."""
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        access.check_host(headers, self.rules)
        access.check_origin(headers, "GET", self.rules)
        access.check_access(Access.CONTROL, headers, self.rules, self.sessions)

    # What is told of it -------------------------------------------------------------------

    def _note(self, exchange: Exchange, seconds: float) -> None:
        status = exchange.status or CANCELLED
        self.metrics.count_request(exchange.route, status)
        if self.settings.access_log:
            line = {
                "request": exchange.id,
                "client": exchange.client,
                "method": exchange.method,
                "path": exchange.path,  # without the query: it may hold a secret
                "status": status,
                "ms": round(seconds * 1000, 1),
                "bytes": exchange.sent,
                **exchange.facts,
            }
            self.log.line("access", self._hide(_JSON.encode(line)))

    def _hide(self, text: str) -> str:
        """Take our own secrets out, wherever a client put them."""
        for secret in filter(None, (self.rules.token, self.rules.api_key)):
            text = text.replace(secret, "[hidden]")
        return text

    def _on_defect(self, error: Exception) -> None:
        self.log.logger.error("A request failed: %r", error, exc_info=error)

    # What serves more than one endpoint ---------------------------------------------------

    async def log_in(self, exchange: Exchange) -> None:
        """`GET /login?code=…`: the one-time link. The only thing that sets the cookie."""
        from urllib.parse import parse_qs

        query = parse_qs(exchange.scope.get("query_string", b"").decode("latin-1"))
        session = self.sessions.log_in(query.get("code", [""])[-1])
        if session is None:
            raise InvalidParameters(
                "This link was used already, or is too old. `aipg serve` prints one at its start.",
                details={"reason": "forbidden"},
            )
        cookie = f"{self.rules.cookie}={session}; HttpOnly; SameSite=Strict; Path=/"
        headers = [(b"location", b"/"), (b"set-cookie", cookie.encode())]
        await exchange.reply(303, b"", [*headers, (b"cache-control", b"no-store")])

    async def new_link(self, exchange: Exchange) -> None:
        """`POST /api/kernel/link`: a link that logs a browser in, once."""
        host = exchange.headers.get("host", "")
        url = f"http://{host}/login?code={self.sessions.new_code()}"
        await exchange.reply_json(200, {"url": url}, [(b"cache-control", b"no-store")])

    async def show_metrics(self, exchange: Exchange) -> None:
        """`GET /metrics`."""
        from .metrics import CONTENT_TYPE

        text = self.metrics.render(self.kernel.services(), self.queues.by_service)
        await exchange.reply(200, text.encode(), kind=CONTENT_TYPE)


def _path_in(scope: Scope) -> str:
    """Return the path below where the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return (path[len(root) :] or "/") if root and path.startswith(f"{root}/") else path
