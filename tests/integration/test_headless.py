"""Services without a primary worker: those whose plugin ended it, and those that never had one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import Fake, Served, ask, eventually, kernel

from aiplayground.context import ServiceContext
from aiplayground.errors import ServiceFailed, ServiceNotAvailable
from aiplayground.hookspecs import hookimpl
from aiplayground.kernel import Kernel
from aiplayground.specs import Health
from aiplayground.types import EmbedRequest


class Ending(Served):
    """Ends its primary worker when it is asked for an embedding, and whenever a test says so."""

    ctx: ServiceContext
    heir = False
    replace = False

    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        self.ctx = ctx
        await ctx.spawn(self.spec_of("main", primary=True))
        if self.heir:
            await ctx.spawn(self.spec_of("second", primary=False, model="second"))

    @hookimpl
    async def embed(self, ctx: ServiceContext, request: EmbedRequest) -> None:
        await self.behead()

    async def behead(self) -> None:
        await self.ctx.end(self.ctx.workers["main"])
        if self.replace:
            await self.ctx.spawn(self.spec_of("other", primary=True))


def state(k: Kernel, name: str = "served") -> str:
    return k.service(name).runtime.value


async def test_a_plugin_that_ends_its_primary_worker_alone_fails(tmp_path: Path) -> None:
    backend = Ending()
    async with kernel(tmp_path, backend, settings={"timeouts": {"start": 0.3}}) as k:
        await k.start("served")
        await backend.behead()
        await eventually(lambda: state(k) == "backoff")
        assert k.service("served").status == "Starting"
        with pytest.raises(ServiceFailed, match="ended its primary worker and launched no other"):
            await k.start("served")
        assert state(k) == "failed"
        assert (await k.start("served")).status == "Running", "the next start is a new one"


async def test_a_plugin_may_replace_its_primary_worker(tmp_path: Path) -> None:
    backend = Ending()
    backend.replace = True
    async with kernel(tmp_path, backend, settings={"timeouts": {"start": 5}}) as k:
        before = await k.start("served")
        await backend.behead()
        await eventually(lambda: state(k) == "running")
        after = k.service("served")
        assert [worker.name for worker in after.workers] == ["other"]
        assert [worker.name for worker in before.workers] == ["main"]
        assert await ask(k) == "word word word "


@pytest.mark.parametrize("replace", [False, True])
async def test_another_worker_stands_in(tmp_path: Path, replace: bool) -> None:
    backend = Ending()
    backend.heir = True
    async with kernel(tmp_path, backend) as k:
        await k.start("served")
        await backend.behead()
        await eventually(lambda: any(w.primary for w in k.service("served").workers))
        (heir,) = k.service("served").workers
        assert (heir.name, heir.primary, state(k)) == ("second", True, "running")
        assert k.service("served").base_url == heir.base_url
        if replace:
            await backend.ctx.spawn(backend.spec_of("main", primary=True))
            await eventually(lambda: state(k) == "running")
            primaries = {w.name: w.primary for w in k.service("served").workers}
            assert primaries == {"second": False, "main": True}


class Moody(Fake):
    """A backend in the kernel's own process that says how it is."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(**spec)
        self.health_of: Health | Exception | None = Health(ok=True)
        self.asked = 0

    @hookimpl
    async def health(self, ctx: ServiceContext) -> Health:
        self.asked += 1
        if self.health_of is None:
            await asyncio.sleep(3600)
        if isinstance(self.health_of, Exception):
            raise self.health_of
        assert self.health_of is not None
        return self.health_of


async def test_a_backend_without_workers_is_asked_again_and_again(tmp_path: Path) -> None:
    moody = Moody()
    async with kernel(tmp_path, moody) as k:
        await k.start("fake")
        await eventually(lambda: moody.asked > 3)
        moody.health_of = Health(ok=False, detail="a cold")
        await eventually(lambda: state(k, "fake") == "failed")
        error = k.service("fake").error
        assert error is not None
        assert error["message"] == "fake is not healthy any more: a cold"
        moody.health_of = Health(ok=True)
        await eventually(lambda: state(k, "fake") == "running")
        assert k.service("fake").error is None
        assert moody.calls == ["start"], "it got well by itself"
        await k.stop("fake")
        asked = moody.asked
        await asyncio.sleep(0.3)
        assert moody.asked == asked, "nobody asks one that is stopped"


@pytest.mark.parametrize("mood", [None, ServiceNotAvailable("no line")])
async def test_one_that_does_not_answer_fails_after_the_limit(
    tmp_path: Path, mood: Exception | None
) -> None:
    moody = Moody()
    async with kernel(tmp_path, moody, settings={"timeouts": {"hook": 0.2}}) as k:
        await k.start("fake")
        moody.health_of = mood
        await eventually(lambda: state(k, "fake") == "failed")
        moody.health_of = Health(ok=True)
        assert (await k.start("fake")).status == "Running"
        assert moody.calls == ["start", "start"]
        assert await ask(k) == "abc"
