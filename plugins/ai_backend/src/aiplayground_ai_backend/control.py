"""The kernel over HTTP, for the command line and for pages: `/api/kernel/*`, token-guarded."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aiplayground.errors import AIPlaygroundError, InvalidParameters
from aiplayground.serving.wire import parse_object

from .delivery import event

if TYPE_CHECKING:
    from aiplayground._bus import Subscription
    from aiplayground._logs import LogStream
    from aiplayground.events import Event
    from aiplayground.kernel import Kernel

    from .exchange import Exchange

MAX_TAIL = 1000
"""Lines of a log that are sent at most before those that come."""


class Control:
    """Starts, stops and shows what the kernel has. `own` is the service that this is part of."""

    def __init__(self, kernel: Kernel, own: str | None) -> None:
        self._kernel = kernel
        self._own = own
        self._background: set[asyncio.Task[None]] = set()
        self._endless: set[Subscription | LogStream] = set()

    async def services(self, exchange: Exchange) -> None:
        """`GET /api/kernel/services`: what `getServices` returns, and more of each."""
        services = [_described(each) for each in self._kernel.services()]
        await exchange.reply_json(200, services)

    async def act(self, exchange: Exchange, service: str, operation: str) -> None:
        """`POST /api/kernel/services/{service}/{operation}`: start, stop, restart or unload."""
        body = await exchange.body()
        model = parse_object(body).get("model") if body.strip() else None
        if model is not None and not isinstance(model, str):
            raise InvalidParameters("'model' must be a text.", details={"field": "model"})
        if operation == "unload":
            await self._unload(exchange, service, model)
            return
        if service == self._own and operation != "start":
            await self._act_on_self(exchange, operation)
            return
        if operation == "start":
            info = await self._kernel.start(service, model)
        else:
            info = await getattr(self._kernel, operation)(service)
        await exchange.reply_json(200, _described(info))

    async def _unload(self, exchange: Exchange, service: str, model: str | None) -> None:
        if model is None:
            raise InvalidParameters("'model' must name what to unload.", details={"field": "model"})
        await self._kernel.unload(service, model)
        await exchange.reply_json(200, _described(self._kernel.service(service)))

    async def _act_on_self(self, exchange: Exchange, operation: str) -> None:
        """Answer first, then do it: the answer goes through what is about to end."""
        info = self._kernel.service(self._own or "")
        status = "Stopping" if operation == "stop" else "Starting"
        await exchange.reply_json(200, _described(info) | {"currentStatus": status})
        self.later(operation)

    def later(self, operation: str) -> None:
        """Stop or restart the service that this is part of, in the background."""
        task = asyncio.create_task(self._later(operation))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _later(self, operation: str) -> None:
        work = self._kernel.stop if operation == "stop" else self._kernel.restart
        try:
            await work(self._own or "")
        except AIPlaygroundError as error:
            self._kernel.log(self._own or "").logger.error("%s: %s", operation, error.message)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """`GET /api/kernel/events`: a snapshot, then every event, as server-sent events."""
        async with self._kernel.subscribe() as events:
            with self._until_end(events):
                async for each in events:
                    yield event(_told(each), type(each).__name__)

    async def log(self, service: str, tail: int, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """`GET /api/kernel/services/{service}/log`: its last lines, then those that come."""
        log = self._kernel.log(service)
        if not follow:
            for line in log.tail(tail):
                yield event(dataclasses.asdict(line))
            return
        async with log.follow(tail) as lines:
            with self._until_end(lines):
                async for line in lines:
                    yield event(dataclasses.asdict(line))

    @contextmanager
    def _until_end(self, stream: Subscription | LogStream) -> Iterator[None]:
        self._endless.add(stream)
        try:
            yield
        finally:
            self._endless.discard(stream)

    def end(self) -> None:
        """End what would never end by itself: a shutdown need not wait for those who look on."""
        for stream in tuple(self._endless):
            stream.close()


def tail_of(exchange: Exchange) -> tuple[int, bool]:
    """Read `?tail=N&follow=1`."""
    from urllib.parse import parse_qs

    query = parse_qs(exchange.scope.get("query_string", b"").decode("latin-1"))
    given = query.get("tail", ["100"])[-1]
    if not given.isdecimal() or len(given) > 6:
        raise InvalidParameters("'tail' must be a number of lines.", details={"field": "tail"})
    return min(int(given), MAX_TAIL), query.get("follow", ["0"])[-1] not in ("0", "false", "")


def _described(info: Any) -> dict[str, Any]:
    return {
        **info.as_api(),
        "title": info.title,
        "models": list(info.models),
        "workers": [
            {"name": w.name, "state": w.state.value, "pid": w.pid, "restarts": w.restarts}
            for w in info.workers
        ],
    }


def _told(each: Event) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for field in dataclasses.fields(each):
        value = getattr(each, field.name)
        if field.name == "services":
            value = [info.as_api() for info in value]
        body[field.name] = value
    return body
