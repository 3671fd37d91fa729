"""Where a rule is checked: a kernel with the subject in it, and what rules have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from aiplayground.errors import AIPlaygroundError
from aiplayground.types import ChatChunk, ChatRequest

if TYPE_CHECKING:
    from aiplayground.status import ServiceInfo

    from .facts import Facts, Maker
    from .faults import Fault
    from .gate import Gate
    from .injection import FaultyKernel
    from .subject import Subject

T = TypeVar("T")

LONG = {"max_tokens": 48, "ignore_eos": True}
"""Parameters that make an answer long, where the backend takes them."""

_LOOK = 0.01


class Broken(AssertionError):
    """A rule is broken. `saw` says what was seen; `hook` is the one to look at, if it is known."""

    def __init__(self, saw: str, *, hook: str | None = None) -> None:
        super().__init__(saw)
        self.saw = saw
        self.hook = hook


class NotApplicable(Exception):
    """Only now it is seen that the rule cannot hold for this backend; the message says why."""


class Lab:
    """A kernel with one backend in it, in a folder of its own. `memo` outlives the lab."""

    def __init__(
        self,
        maker: Maker,
        folder: Path,
        *,
        settings: Mapping[str, Any] | None = None,
        gated: bool = True,
        memo: dict[str, Any] | None = None,
    ) -> None:
        self.maker = maker
        self.folder = folder
        self.memo = {} if memo is None else memo
        self._gate = _gate_before(maker.subject.attach) if gated else None
        url = f"http://127.0.0.1:{self._gate.port}" if self._gate is not None else None
        self.kernel: FaultyKernel = maker.kernel(
            folder / "home", gated=gated, settings=settings, attach=url
        )
        self._model: str | None = None
        self._others: list[Lab] = []

    @property
    def subject(self) -> Subject:
        """What is examined."""
        return self.maker.subject

    @property
    def facts(self) -> Facts:
        """Its declaration."""
        return self.maker.facts

    @property
    def service(self) -> str:
        """The service's name."""
        return self.facts.spec.name

    @property
    def info(self) -> ServiceInfo:
        """Where the service stands."""
        return self.kernel.service(self.service)

    async def open(self) -> None:
        """Bring the kernel up."""
        await self.kernel.open()
        if self._gate is not None:
            self.kernel.faults.add_gate(self.service, self._gate)

    async def close(self) -> None:
        """Take the kernel down, with those of other labs that were opened from here."""
        for other in self._others:
            await other.close()
        try:
            await self.kernel.close()
        finally:
            if self._gate is not None:
                await self._gate.close()

    async def other(self, settings: Mapping[str, Any] | None = None, **options: Any) -> Lab:
        """Open a second lab, which ends with this one."""
        folder = self.folder / f"other-{len(self._others)}"
        lab = Lab(self.maker, folder, settings=settings, memo=self.memo, **options)
        self._others.append(lab)
        await lab.open()
        return lab

    # Steps --------------------------------------------------------------------------------

    @asynccontextmanager
    async def within(self, doing: str, seconds: float | None = None) -> AsyncIterator[None]:
        """Give a step the subject's patience; when that ends, the rule is broken."""
        limit = seconds or self.subject.patience
        try:
            async with asyncio.timeout(limit):
                yield
        except TimeoutError as late:
            raise Broken(f"{doing} did not end within {limit:g} s") from late

    async def until(self, condition: Callable[[], object], doing: str) -> None:
        """Wait for what no event tells of."""
        async with self.within(doing):
            while not condition():  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(_LOOK)

    async def start(self) -> ServiceInfo:
        """Start the service, without naming a model."""
        async with self.within("starting the service"):
            return await self.kernel.start(self.service)

    async def stop(self) -> ServiceInfo:
        """Stop the service."""
        async with self.within("stopping the service"):
            return await self.kernel.stop(self.service)

    async def fails(self, doing: str, work: Awaitable[Any]) -> AIPlaygroundError:
        """Return the error that a step ends with; without one, the rule is broken."""
        try:
            async with self.within(doing):
                await work
        except AIPlaygroundError as error:
            return error
        raise Broken(f"{doing} raised nothing")

    async def model(self) -> str:
        """Return the model to ask; the service runs already."""
        if self._model is None:
            async with self.within("listing the models"):
                models = [each for each in await self.kernel.models() if each.type == "llm"]
            wanted = self.subject.model
            if wanted is None and not models:
                raise Broken("it lists no model that could be asked", hook="list_models")
            self._model = wanted or models[0].name
        return self._model

    # Asking -------------------------------------------------------------------------------

    async def question(self, *, long: bool = False, **parameters: Any) -> ChatRequest:
        """Return a request; `long`: with an answer as long as the backend can be asked for."""
        given = {**(LONG if long else {"max_tokens": 8}), **parameters}
        known = {key: value for key, value in given.items() if key in self.facts.spec.parameters}
        text = "Count from one to a hundred." if long else "Hello"
        messages = [{"role": "user", "content": text}]
        model = await self.model()
        return ChatRequest.model_validate({"model": model, "messages": messages, **known})

    async def answer(self, *, long: bool = False, **parameters: Any) -> list[ChatChunk]:
        """Return a whole answer."""
        request = await self.question(long=long, **parameters)
        async with self.within("answering"), aclosing(self.kernel.chat(request)) as chunks:
            return [chunk async for chunk in chunks]

    async def asking(self, *, long: bool = True) -> Asking:
        """Begin to read an answer in a task of its own."""
        return Asking(self, await self.question(long=long))

    async def measured(self) -> int:
        """Return the bytes of a long answer as they pass the gate.

        Raises `NotApplicable` for a backend whose answers do not.
        """
        before = self.requests
        await self.answer(long=True)
        if self.requests == before:
            raise NotApplicable(
                "its answers do not pass through a worker's base_url, so nothing can be put between"
            )
        return max(gate.answered for gate in self.gates)

    @property
    def gates(self) -> list[Gate]:
        """The gates in front of its workers."""
        return self.kernel.faults.gates(self.service)

    @property
    def requests(self) -> int:
        """How many requests have passed the gates."""
        return sum(gate.requests for gate in self.gates)

    def plan(self, *faults: Fault) -> None:
        """Let faults happen to the next answers, whichever worker gives them."""
        for gate in self.gates:
            gate.planned.extend(faults)

    def pids(self) -> list[int]:
        """Return the process ids of everything that its workers run."""
        found = []
        if self.kernel.faults.launches:
            for worker in self.kernel.workers(self.service).values():
                found += [each.pid for each in self.kernel.process(worker).tree()]
        return found

    def need_worker(self) -> None:
        """Raise `NotApplicable` for a backend without worker processes."""
        if not self.kernel.faults.launches:
            raise NotApplicable("the backend launches no worker process")


class Asking:
    """An answer that is read in a task of its own."""

    def __init__(self, lab: Lab, request: ChatRequest) -> None:
        self.chunks: list[ChatChunk] = []
        self._lab = lab
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._read(request), name="a caller of the kit")

    async def _read(self, request: ChatRequest) -> None:
        try:
            async with aclosing(self._lab.kernel.chat(request)) as chunks:
                async for chunk in chunks:
                    self.chunks.append(chunk)
                    self._news.set()
        finally:
            self._news.set()

    @property
    def text(self) -> str:
        """What has arrived."""
        return "".join(each.text + each.reasoning for each in self.chunks)

    @property
    def finished(self) -> bool:
        """Whether it was told that the answer is complete."""
        return any(each.finish_reason is not None for each in self.chunks)

    async def began(self) -> None:
        """Wait for the first text."""
        async with self._lab.within("the first chunk of an answer"):
            while not self.text and not self.task.done():
                self._news.clear()
                await self._news.wait()
        if self.task.done() and not self.task.cancelled() and (error := self.task.exception()):
            raise error

    async def error(self, after: str) -> AIPlaygroundError:
        """Return the error that the caller gets; without one, the rule is broken."""
        done, _ = await asyncio.wait({self.task}, timeout=self._lab.subject.patience)
        if not done:
            self.task.cancel()
            raise Broken(f"after {after}, the caller waits for ever", hook="chat")
        if self.task.cancelled():
            raise Broken(f"after {after}, the caller's task was cancelled", hook="chat")
        error = self.task.exception()
        if error is None:
            told = "said to be complete" if self.finished else "ended like a complete one"
            raise Broken(f"after {after}, the answer was cut short but {told}", hook="chat")
        if not isinstance(error, AIPlaygroundError):
            raise error
        return error


def _gate_before(url: str | None) -> Gate | None:
    """Return a gate in front of an attached endpoint, if something can be put there."""
    from urllib.parse import urlsplit

    from .gate import Gate

    parts = urlsplit(url or "")
    if parts.scheme != "http" or parts.path not in ("", "/"):
        return None
    gate = Gate(parts.hostname or "127.0.0.1")
    gate.target = parts.port or 80
    gate.listen()
    return gate


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def expect_code(error: AIPlaygroundError, code: int, after: str) -> None:
    """Break the rule unless the error is one that the backend chose, and has this code."""
    hook = error.details.get("hook")
    if error.code != code:
        raise Broken(
            f"after {after}, the caller gets code {int(error.code)} "
            f"({type(error).__name__}: {error.message}), where {code} is due",
            hook=hook,
        )
