"""One client of the IPC API, whatever carries its messages.

A call runs in a task of its own. What is sent waits for the client alone: the kernel's events wait
in a bounded queue meanwhile, and one that overflows is replaced by a snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aiplayground import Overflow
from aiplayground.errors import (
    AIPlaygroundError,
    InvalidParameters,
    ServiceNotAvailable,
    from_dict,
    suggest,
)
from aiplayground.events import Event, Snapshot
from aiplayground.notices import NOTICES, services_in
from aiplayground.shell import ACTIONS
from aiplayground.validation import camel
from aiplayground_ai_backend.errors import TooManyRequests, internal

from . import rpc
from .rpc import Fault, Item, Request, Response
from .stores import StoreEncoder, StoreFeed, stopped_by

if TYPE_CHECKING:
    from aiplayground._bus import Subscription
    from aiplayground._method import Method
    from aiplayground.kernel import Kernel

MAX_CALLS = 256
"""Calls in progress on one connection; further ones are refused."""

QUEUE = 256
"""Events that wait for one client; one more, and a snapshot takes their place."""

KEPT = 64
"""Events whose text is kept: clients that keep up share it."""

SNAPSHOT = "snapshot"
"""The notification that replaces events which were lost."""

STOP = "sendStopSignal"
_ENDING = {STOP: ("stop", "Stopping"), "restartService": ("restart", "Starting")}
"""Methods that end a service: what they do, and what they answer where it is their own way out."""

Sender = Callable[[str], Awaitable[None]]
Afterwards = list[Callable[[], None]]
"""What is done once the response is out."""
SessionMethod = Callable[[Any, Afterwards], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """The service that the connection itself goes through; `later` ends it after the answer."""

    service: str
    later: Callable[[str], None]


class Gone(ServiceNotAvailable):
    """The client does not take messages any more: raised by what sends them."""


class Session:
    """A client. `send` delivers a message and waits while the client takes none.

    `trusted`: the client has shown the kernel's token. `own` is set where the kernel's own service
    carries the connection. Close it with `close`.
    """

    def __init__(
        self,
        kernel: Kernel,
        send: Sender,
        *,
        trusted: bool,
        own: Own | None = None,
        encoder: Encoder | None = None,
        on_defect: Callable[[Exception], None],
    ) -> None:
        self._kernel = kernel
        self._send = send
        self._trusted = trusted
        self._own = own
        self._encoder = encoder or Encoder()
        self._on_defect = on_defect
        self._stores = StoreFeed(kernel, send, self._encoder.stores, private=trusted, gone=Gone)
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscription: Subscription | None = None
        self._pump: asyncio.Task[None] | None = None
        self._detach: Callable[[], None] | None = None
        self._asked: dict[str, asyncio.Future[Any]] = {}
        self._numbers = count(1)

    # What comes in ------------------------------------------------------------------------

    def receive(self, text: str) -> None:
        """Take a message; what it asks for goes on by itself."""
        found = rpc.read(text)
        items = found if isinstance(found, list) else [found]
        for each in items:
            if isinstance(each, Response):
                self._answered(each)
        calls = [each for each in items if not isinstance(each, Response)]
        if calls:
            busy = len(self._tasks) >= MAX_CALLS
            self._begin(self._serve(calls, batch=isinstance(found, list), busy=busy))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="IPC call")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, items: Sequence[Item], *, batch: bool, busy: bool) -> None:
        after: Afterwards = []
        answers = await asyncio.gather(*(self._answer(each, after, busy) for each in items))
        told = [each for each in answers if each is not None]
        with suppress(Gone):
            if told:
                await self._send(rpc.write(told if batch else told[0]))
        for each in after:
            each()

    async def _answer(self, item: Item, after: Afterwards, busy: bool) -> dict[str, Any] | None:
        if isinstance(item, Fault):
            return rpc.fault(item)
        assert isinstance(item, Request)
        try:
            if busy:
                raise TooManyRequests(f"{MAX_CALLS} calls are in progress on this connection.", 1)
            answer = rpc.success(item.id, await self._call(item, after))
        except NoMethod as error:
            answer = rpc.fault(Fault(code=rpc.NO_METHOD, message=error.message, id=item.id))
        except AIPlaygroundError as error:
            answer = rpc.failure(item.id, error)
        except Exception as error:  # noqa: BLE001  # the door: whatever it is gets an answer
            self._on_defect(error)
            answer = rpc.failure(item.id, internal(error))
        return None if item.notification else answer

    async def _call(self, request: Request, after: Afterwards) -> Any:
        own = self._of_session(request.method)
        if own is not None:
            return await own(request.params, after)
        methods = self._kernel.methods()
        method = methods.get(request.method)
        if method is None:
            known = [*methods, *_SESSION_METHODS]
            raise NoMethod(
                f"There is no method '{request.method}'.{suggest(request.method, known)}"
            )
        if not self._trusted and not method.opens(self._kernel, request.params):
            self._need_trust()
        if self._own is not None and _ends(method, request.params) == self._own.service:
            # Answer first: the answer goes through what is about to end.
            operation, status = _ENDING.get(request.method, _ENDING[STOP])
            after.append(partial(self._own.later, operation))
            return status if request.method in _ENDING else {"version": 0, "result": status}
        return await method(self._kernel, request.params)

    def _need_trust(self) -> None:
        if not self._trusted:
            raise InvalidParameters(
                "This needs the kernel's token: open the link that `aipg serve` prints, or connect "
                "with the header Authorization: Bearer ….",
                details={"reason": "unauthorized"},
            )

    # Events -------------------------------------------------------------------------------

    def _of_session(self, name: str) -> SessionMethod | None:
        attribute = _SESSION_METHODS.get(name)
        return getattr(self, attribute) if attribute else None

    async def _subscribe(self, params: Any, after: Afterwards) -> dict[str, Any]:
        """Begin with events, or begin anew; returns where everything stands."""
        kinds = _kinds(_named(params, "events"))
        await self._end_events()
        subscription = self._kernel.subscribe(*kinds, overflow=Overflow.COALESCE, maxsize=QUEUE)
        snapshot = await anext(subscription)
        assert isinstance(snapshot, Snapshot)
        self._subscription = subscription
        # After the response: a snapshot comes before the events that follow it.
        after.append(partial(self._start_pump, subscription))
        return {"kernel": self._kernel.id, "seq": 0, "services": services_in(snapshot)}

    def _start_pump(self, subscription: Subscription) -> None:
        if self._subscription is subscription:
            self._pump = asyncio.create_task(self._deliver(subscription), name="IPC events")

    async def _deliver(self, subscription: Subscription) -> None:
        numbers = count(1)
        with suppress(Gone):
            async for event in subscription:
                if isinstance(event, Snapshot):
                    body = {"services": services_in(event), "lost": subscription.dropped}
                    told: tuple[str, str] | None = (SNAPSHOT, rpc.write(body)[1:-1])
                else:
                    told = self._encoder.encode(event)
                if told is not None:
                    await self._send(_notification(*told, next(numbers), event.time))

    async def _unsubscribe(self, _: Any, __: Afterwards) -> None:
        """End the events, if there are any."""
        await self._end_events()

    async def _end_events(self) -> None:
        pump, self._pump = self._pump, None
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()
        if pump is not None:
            pump.cancel()
            await asyncio.wait({pump})

    # Stores -------------------------------------------------------------------------------

    async def _subscribe_stores(self, params: Any, after: Afterwards) -> dict[str, Any]:
        """Follow stores, or follow them anew; returns where they stand."""
        told, go_on = await self._stores.follow(_texts(_named(params, "names"), "names"))
        after.append(go_on)
        return {"kernel": self._kernel.id, "stores": told}

    async def _unsubscribe_stores(self, params: Any, _: Afterwards) -> None:
        """Follow these stores no longer, or none of them."""
        await self._stores.end(_texts(_named(params, "names"), "names"))

    # The shell at the other end -----------------------------------------------------------

    async def _register_shell(self, params: Any, _: Afterwards) -> None:
        """Let this client be the window: its methods are asked of it from now on."""
        self._need_trust()
        names = {camel(action): action for action in ACTIONS}
        wanted = _names_in(_named(params, "methods"), "methods", list(names))
        self._leave_shell()
        methods = {names[each]: partial(self._ask, each) for each in wanted}
        self._detach = self._kernel.attach_shell(SimpleNamespace(**methods))

    async def _ask(self, method: str, *arguments: Any) -> Any:
        id_ = f"shell-{next(self._numbers)}"
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[id_] = answer
        try:
            await self._send(rpc.write(rpc.call(method, list(arguments), id_)))
            return await answer
        finally:
            del self._asked[id_]

    def _answered(self, response: Response) -> None:
        waiting = self._asked.get(str(response.id))
        if waiting is None or waiting.done():
            return  # too late, or never asked for
        if response.error is None:
            waiting.set_result(response.result)
        else:
            body = {**response.error, "details": response.error.get("data")}
            waiting.set_exception(from_dict(body))

    def _leave_shell(self) -> None:
        if self._detach is not None:
            self._detach()
            self._detach = None
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(ServiceNotAvailable("The window went away."))

    async def close(self) -> None:
        """End everything that the client asked for and that is still waited for."""
        self._leave_shell()
        await self._end_events()
        await self._stores.end()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class NoMethod(InvalidParameters):
    """There is no method of that name: a fault of the protocol."""


_SESSION_METHODS = {
    "subscribe": "_subscribe",
    "unsubscribe": "_unsubscribe",
    "registerShell": "_register_shell",
    "stores:subscribe": "_subscribe_stores",
    "stores:unsubscribe": "_unsubscribe_stores",
}
"""What belongs to a connection, and not to the kernel."""


class Encoder:
    """Writes events as text: each once, for however many clients."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[str, str] | None] = {}
        self.stores = StoreEncoder()

    def encode(self, event: Event) -> tuple[str, str] | None:
        """Return the outside name of an event and its data as a member; None if it has none."""
        if event.seq not in self._last:
            notice = NOTICES.get(type(event))
            told = (notice.name, rpc.write({"data": notice.data(event)})[1:-1]) if notice else None
            self._last[event.seq] = told
            if len(self._last) > KEPT:
                del self._last[next(iter(self._last))]
        return self._last[event.seq]


def _ends(method: Method, params: Any) -> str | None:
    """Return the service that a call would stop, for good or for a moment."""
    if method.name in _ENDING:
        service: str | None = getattr(method.parse(params), "service_name", None)
        return service
    return stopped_by(method.name, params)


def _notification(name: str, member: str, seq: int, time: float) -> str:
    params = f'{{"seq":{seq},"time":{time!r},{member}}}'
    return f'{{"jsonrpc":"2.0","method":"{name}","params":{params}}}'


def _kinds(names: Any) -> list[type[Event]]:
    known = {notice.name: kind for kind, notice in NOTICES.items()}
    return [known[name] for name in _names_in(names, "events", list(known))]


def _named(params: Any, name: str) -> Any:
    """Return the one parameter, by name or position; None if it is not given."""
    if isinstance(params, list):
        if len(params) > 1:
            raise InvalidParameters(f"There is one parameter, '{name}'.", details={"field": name})
        return params[0] if params else None
    for given in params:
        if given != name:
            raise InvalidParameters(f"'{given}' is not a parameter.", details={"field": given})
    return params.get(name)


def _texts(given: Any, field: str) -> list[str] | None:
    """Return a list of texts, or None if none is given."""
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise InvalidParameters(f"'{field}' must be a list of names.", details={"field": field})
    return given


def _names_in(given: Any, field: str, known: list[str]) -> list[str]:
    """Return a list of known names; all of them if none is given."""
    if given is None:
        return known
    if not isinstance(given, list):
        raise InvalidParameters(f"'{field}' must be a list.", details={"field": field})
    for each in given:
        if each not in known:
            raise InvalidParameters(
                f"'{field}': there is no {each!r:.80}.{suggest(str(each), known)}",
                details={"field": field, "known": known},
            )
    return given
