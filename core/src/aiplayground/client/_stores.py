"""Stores of a kernel elsewhere: mirrors of their state, kept up to date over one connection."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, create_model
from pydantic.alias_generators import to_snake

from aiplayground.errors import AIPlaygroundError, ServiceNotAvailable, suggest
from aiplayground.stores import Observable, Store, StoreState
from aiplayground.stores._observe import S
from aiplayground.stores._patch import Unfit, parts_of, patched
from aiplayground.stores._state import read_changes, read_state
from aiplayground.validation import camel

from ._events import ANSWER_PATIENCE, connected
from ._place import Address, is_too_big, lost, unpack

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

CATCH_UP = 10.0
"""Seconds for which an action that is done waits for the mirror to show it."""

Call = Callable[..., Awaitable[Any]]

_PLAIN: TypeAdapter[Any] = TypeAdapter(Any, config={"ser_json_inf_nan": "constants"})


class RemoteStore(Observable[S]):
    """A store of a kernel elsewhere: `state`, `version`, `subscribe`, and its actions as methods.

    An action returns once the mirror shows what it changed. `kind` is the class of the store, where
    it can be imported here; else the state has its fields in snake_case, as plain data.
    """

    def __init__(self, name: str, kind: type[Store[S]] | None, ask: Call) -> None:
        state: Any = kind.state_type()() if kind else StoreState()
        super().__init__(name, state)
        self.name = name
        self._kind = kind
        self._ask = ask
        self._shown = asyncio.Event()
        self._document: dict[str, Any] = {}
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def call(self, action: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """Call an action by its outside name; plain data in and out."""
        given = dict(params) if isinstance(params, Mapping) else list(params)
        answer = await self._ask("stores:call", self.name, action, given)
        with suppress(TimeoutError):  # it is done all the same; the mirror follows when it can
            async with asyncio.timeout(CATCH_UP):
                await self._reach(answer["version"])
        return answer.get("result")

    def __getattr__(self, name: str) -> Call:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._kind and camel(name) not in self._kind.actions():
            known = [to_snake(each) for each in self._kind.actions()]
            raise AttributeError(
                f"The store '{self.name}' has no action '{name}'.{suggest(name, known)}"
            )
        return partial(self._act, camel(name))

    async def _act(self, action: str, *positional: Any, **named: Any) -> Any:
        given: Any = [_plain(each) for each in positional]
        if named:
            given = self._named(action, given) | {camel(n): _plain(v) for n, v in named.items()}
        result = await self.call(action, given)
        if self._kind is None:
            return result
        return self._kind.actions()[action].result.validate_python(result)

    def _named(self, action: str, given: Sequence[Any]) -> dict[str, Any]:
        if given and self._kind is None:
            raise TypeError("Actions take positional or named parameters, not both.")
        names = self._kind.actions()[action].outside_names if self._kind else []
        return dict(zip(names, given, strict=False))

    async def _reach(self, version: int) -> None:
        while self._version < version and self.failure is None:
            self._shown.clear()
            await self._shown.wait()

    # What the connection brings -----------------------------------------------------------

    def take(self, told: Mapping[str, Any]) -> bool:
        """Show an update; returns False for one that does not follow on what was there."""
        if "state" in told:
            kind = type(self._state) if self._kind else _state_of(told["state"])
            state: Any = read_state(kind, told["state"])
            self._document = dict(told["state"])
            self._advance(state, told["version"], None)
            if not self.ready.done():
                self.ready.set_result(None)
        elif told["version"] != self._version + 1 or not self._change(told):
            return False
        self._shown.set()
        return True

    def _change(self, told: Mapping[str, Any]) -> bool:
        """Show a change; returns False if it is not one of what was there."""
        operations = told.get("patches", ())
        try:
            document = patched({**self._document, **told["changes"]}, operations)
        except Unfit:
            return False
        names = {*told["changes"], *(parts_of(each["path"])[0] for each in operations)}
        changes, state = read_changes(self._state, {name: document[name] for name in names})
        self._document = document
        self._advance(state, told["version"], changes)
        return True

    def lose(self, error: AIPlaygroundError | None) -> None:
        """End it: the kernel stays away, or the client is closed."""
        if not self.ready.done():
            self.ready.set_exception(error or ServiceNotAvailable("The client was closed."))
        self._end(error)
        self._shown.set()


class Mirrors:
    """The mirrors of one client. `patience` is in seconds: for how long a kernel may be away."""

    def __init__(self, address: Address, ask: Call, patience: float) -> None:
        self._address = address
        self._ask = ask
        self._patience = patience
        self._ids = count(1)
        self._mirrors: dict[str, RemoteStore[Any]] = {}
        self._asked: dict[int, list[str]] = {}
        self._connection: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    async def open(self, name: str, kind: type[Store[Any]] | None) -> RemoteStore[Any]:
        """Return the mirror of a store, once it shows something; the same one for each call."""
        mirror = self._mirrors.get(name)
        if mirror is None or mirror.failure is not None:
            mirror = self._mirrors[name] = RemoteStore(name, kind, self._ask)
            mirror.ready.add_done_callback(_seen)
            if self._reader is None or self._reader.done():
                self._reader = asyncio.create_task(self._read(), name="store mirrors")
            elif self._connection is not None:
                await self._follow_now(name)
        try:
            async with asyncio.timeout(ANSWER_PATIENCE):
                await asyncio.shield(mirror.ready)
        except TimeoutError:
            raise ServiceNotAvailable(f"The kernel did not show the store '{name}'.") from None
        return mirror

    async def aclose(self) -> None:
        """End every mirror."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.wait({reader})
        self._lose(list(self._mirrors), None)

    async def _read(self) -> None:
        """Follow the stores for as long as there is a kernel, or will be one soon."""
        since: float | None = None
        while True:
            try:
                connection = await connected(self._address, since, self._patience)
            except AIPlaygroundError as error:
                self._lose(list(self._mirrors), error)
                return
            try:
                await self._read_one(connection)
            except AIPlaygroundError as error:
                self._lose(list(self._mirrors), error)
                return
            finally:
                self._connection = None
                await connection.close()
            since = time.monotonic()

    async def _read_one(self, connection: ClientConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        self._connection = connection
        self._asked.clear()
        try:
            await self._follow(list(self._mirrors))
            async for text in connection:
                behind = self._received(json.loads(text))
                if behind is not None:
                    await self._follow([behind])
        except ConnectionClosed as error:
            if is_too_big(error):
                raise lost(error) from error  # to connect again would bring the same

    async def _follow_now(self, name: str) -> None:
        from websockets.exceptions import ConnectionClosed

        with suppress(ConnectionClosed):  # the next connection follows every mirror
            await self._follow([name])

    async def _follow(self, names: list[str]) -> None:
        """Ask for stores one by one: one that there is not does not keep the others out."""
        connection = self._connection
        assert connection is not None
        for name in names:
            id_ = next(self._ids)
            self._asked[id_] = [name]
            call = {"jsonrpc": "2.0", "id": id_, "method": "stores:subscribe", "params": [[name]]}
            await connection.send(json.dumps(call))

    def _received(self, told: dict[str, Any]) -> str | None:
        """Show what came; returns the store that must be followed anew."""
        if "method" not in told:
            self._answered(told)
            return None
        mirror = self._mirrors.get(told["params"]["store"])
        pending = any(mirror.name in names for names in self._asked.values()) if mirror else True
        if mirror is None or pending or mirror.take(told["params"]):
            return None
        return mirror.name

    def _answered(self, told: dict[str, Any]) -> None:
        names = self._asked.pop(told["id"], [])
        if "error" in told:
            self._lose(names, unpack(told["error"]))
            return
        for each in told["result"]["stores"]:
            if each["store"] in self._mirrors:
                self._mirrors[each["store"]].take(each)

    def _lose(self, names: Sequence[str], error: AIPlaygroundError | None) -> None:
        for name in names:
            mirror = self._mirrors.pop(name, None)
            if mirror is not None:
                mirror.lose(error)


def _seen(ready: asyncio.Future[None]) -> None:
    """Mark a failure as seen: whoever waited for the mirror has it."""
    if not ready.cancelled():
        ready.exception()


def _plain(value: Any) -> Any:
    return _PLAIN.dump_python(value, mode="json", by_alias=True, exclude_none=True)


def _state_of(plain: Mapping[str, Any]) -> type[StoreState]:
    """Return a class for a state of which there is none here."""
    fields: dict[str, Any] = {to_snake(name): (Any, None) for name in plain}
    return create_model("RemoteState", __base__=StoreState, **fields)
