"""Starting, stopping, setting up: one writer, one start, and the order of what is heard of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import Fake, ask, eventually, everything, kernel, statuses

from aiplayground.context import ServiceContext
from aiplayground.errors import PluginError, ServiceFailed, ServiceNotAvailable
from aiplayground.events import (
    ModelLoaded,
    ModelUnloaded,
    ServiceInfoUpdate,
    ServiceSetUpProgress,
)
from aiplayground.hookspecs import hookimpl
from aiplayground.specs import SetupProgress


async def test_many_starts_are_one(tmp_path: Path) -> None:
    fake = Fake()
    async with kernel(tmp_path, fake) as k:
        events = k.subscribe(ServiceInfoUpdate)
        await asyncio.gather(*(k.start("fake") for _ in range(100)))
        await asyncio.gather(*(k.stop("fake") for _ in range(100)))
        assert fake.calls == ["start", "stop"]
    seen = statuses(await everything(events), "fake")
    assert seen == ["Installed", "Starting", "Running", "Stopping", "Stopped"]


async def test_a_hundred_first_requests_are_one_start_and_one_load(tmp_path: Path) -> None:
    fake = Fake()
    async with kernel(tmp_path, fake) as k:
        assert await asyncio.gather(*(ask(k) for _ in range(100))) == ["abc"] * 100
    assert fake.calls.count("start") == fake.calls.count("load m") == 1


async def test_a_stop_pre_empts_a_start_and_all_who_wait_for_it_hear_so(tmp_path: Path) -> None:
    fake = Fake()
    fake.starting = asyncio.Event()
    async with kernel(tmp_path, fake) as k:
        events = k.subscribe(ServiceInfoUpdate)
        starting = [asyncio.ensure_future(k.start("fake")) for _ in range(3)]
        asking = asyncio.ensure_future(ask(k))
        # A request looks at the memory first: it waits for the start later than the others.
        await eventually(lambda: len(k._find("fake").supervisor._starting) == 4 and fake.calls)
        assert (await k.stop("fake")).status == "Stopped"
        assert not fake.starting.is_set(), "the start never ended by itself"
        for each in (*starting, asking):
            with pytest.raises(ServiceNotAvailable, match="fake was stopped"):
                await each
        fake.starting.set()
        assert (await k.start("fake")).status == "Running"
    seen = statuses(await everything(events), "fake")
    assert seen[:5] == ["Installed", "Starting", "Stopping", "Stopped", "Starting"]


async def test_a_start_during_a_stop_follows_it(tmp_path: Path) -> None:
    class SlowStop(Fake):
        stopping = asyncio.Event()

        @hookimpl
        async def stop(self) -> None:
            self.calls.append("stop")
            await self.stopping.wait()

    fake = SlowStop()
    fake.stopping = asyncio.Event()
    async with kernel(tmp_path, fake) as k:
        await k.start("fake")
        stopping = asyncio.ensure_future(k.stop("fake"))
        await eventually(lambda: "stop" in fake.calls)
        starting = [asyncio.ensure_future(k.start("fake")) for _ in range(3)]
        await asyncio.sleep(0)
        assert fake.calls == ["start", "stop"]
        fake.stopping.set()
        await asyncio.gather(stopping, *starting)
        assert fake.calls == ["start", "stop", "start"]
        assert k.service("fake").status == "Running"


async def test_the_last_wish_counts(tmp_path: Path) -> None:
    fake = Fake()
    async with kernel(tmp_path, fake) as k:
        wishes = [k.start("fake"), k.stop("fake"), k.start("fake"), k.stop("fake"), k.start("fake")]
        await asyncio.gather(*wishes, return_exceptions=True)
        assert k.service("fake").status == "Running"
        await k.restart("fake")
        assert k.service("fake").status == "Running"


async def test_who_asked_for_a_start_may_go_away(tmp_path: Path) -> None:
    fake = Fake()
    fake.starting = asyncio.Event()
    async with kernel(tmp_path, fake) as k:
        asking = asyncio.ensure_future(k.start("fake"))
        await eventually(lambda: "start" in fake.calls)
        asking.cancel()
        await asyncio.wait({asking})
        fake.starting.set()
        await eventually(lambda: k.service("fake").status == "Running")


async def test_a_failed_start_is_told_shown_and_tried_again(tmp_path: Path) -> None:
    class Fails(Fake):
        broken = True

        @hookimpl
        async def start(self, ctx: ServiceContext) -> None:
            self.calls.append("start")
            if self.broken:
                raise OSError("the cable is loose")

    fake = Fails()
    async with kernel(tmp_path, fake) as k:
        results = await asyncio.gather(*(k.start("fake") for _ in range(5)), return_exceptions=True)
        assert {type(each) for each in results} == {PluginError}
        assert fake.calls == ["start"]
        info = k.service("fake")
        assert (info.status, info.runtime, info.set_up) == ("Stopped", "failed", True)
        assert "the cable is loose" in info.as_api()["error"]["message"]
        fake.broken = False
        assert (await k.start("fake")).error is None
        fake.broken = True
        with pytest.raises(PluginError):
            await k.restart("fake")
        stopped = await k.stop("fake")
        assert (stopped.runtime, stopped.error) == ("stopped", None)


async def test_a_start_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    fake = Fake()
    fake.starting = asyncio.Event()
    settings = {"services": {"fake": {"start_timeout": 0.01}}}
    async with kernel(tmp_path, fake, settings=settings) as k:
        with pytest.raises(ServiceFailed, match="its hook 'start' did not end within"):
            await k.start("fake")


async def test_stopping_ends_a_load_with_an_error_and_forgets_the_models(tmp_path: Path) -> None:
    fake = Fake(models=["m", "n"])
    async with kernel(tmp_path, fake) as k:
        events = k.subscribe(ModelLoaded, ModelUnloaded, snapshot=False)
        await ask(k, "m")
        fake.loading = asyncio.Event()
        asking = asyncio.ensure_future(ask(k, "n"))
        await eventually(lambda: "load n" in fake.calls)
        await k.stop("fake")
        with pytest.raises(ServiceNotAvailable, match="stopped while it loaded n"):
            await asking
        assert k.service("fake").models == ()
        fake.loading.set()
        await ask(k, "n")
        assert fake.calls.count("load n") == 2
    heard = [
        (type(each).__name__, getattr(each, "reason", None)) for each in await everything(events)
    ]
    assert heard == [
        ("ModelLoaded", None),
        ("ModelUnloaded", "stopped"),
        ("ModelLoaded", None),
        ("ModelUnloaded", "stopped"),
    ]


async def test_a_stop_ends_answers_with_an_error(tmp_path: Path) -> None:
    fake = Fake()
    fake.answering = asyncio.Event()
    async with kernel(tmp_path, fake) as k:
        asking = [asyncio.ensure_future(ask(k)) for _ in range(3)]
        await eventually(lambda: fake.calls.count("chat m") == 3)
        await k.stop("fake")
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert {str(each) for each in results} == {"fake was stopped while it answered."}
        assert fake.closed == 3
        fake.answering = None
        assert await ask(k) == "abc"


async def test_an_unload_is_refused_while_the_model_answers(tmp_path: Path) -> None:
    fake = Fake()
    fake.answering = asyncio.Event()
    async with kernel(tmp_path, fake) as k:
        asking = asyncio.ensure_future(ask(k))
        await eventually(lambda: "chat m" in fake.calls)
        with pytest.raises(ServiceNotAvailable, match="m is in use by 1"):
            await k.unload("fake", "m")
        fake.answering.set()
        await asking
        await k.unload("fake", "m")
        assert fake.calls[-1] == "unload m"


class Installs(Fake):
    """A backend that must be set up first; `gate` holds the set-up in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.version: str | None = None
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None

    @hookimpl
    async def installed_version(self) -> str | None:
        return self.version

    @hookimpl
    async def setup(self) -> AsyncIterator[SetupProgress]:
        self.calls.append("setup")
        yield SetupProgress(stage="download", progress=0)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        yield SetupProgress(stage="verify", progress=100, message="done")
        self.version = "1.2"

    @hookimpl
    async def uninstall(self) -> None:
        self.calls.append("uninstall")
        if self.gate is not None:
            await self.gate.wait()
        self.version = None


async def test_what_is_not_installed_is_not_started_and_says_how(tmp_path: Path) -> None:
    fake = Installs()
    async with kernel(tmp_path, fake) as k:
        info = k.service("fake")
        assert (info.status, info.set_up, info.version) == ("NotInstalled", False, None)
        with pytest.raises(ServiceNotAvailable, match=r"fake is not set up. Run: aipg setup fake"):
            await k.start("fake")
        assert fake.calls == []
        assert await k.models() == []


async def test_a_set_up_is_heard_step_by_step(tmp_path: Path) -> None:
    fake = Installs()
    async with kernel(tmp_path, fake) as k:
        progress = k.subscribe(ServiceSetUpProgress, snapshot=False)
        states = k.subscribe(ServiceInfoUpdate)
        results = await asyncio.gather(*(k.set_up("fake") for _ in range(5)))
        assert fake.calls == ["setup"]
        assert {(info.status, info.version) for info in results} == {("Installed", "1.2")}
        assert await ask(k) == "abc"
        await k.set_up("fake")
        assert k.service("fake").status == "Running", "an upgrade leaves what runs alone"
    steps = [(each.stage, each.progress) for each in await everything(progress)]  # type: ignore[attr-defined]  # of that kind
    assert steps == [("download", 0), ("verify", 100)] * 2
    seen = statuses(await everything(states), "fake")
    assert seen[:5] == ["NotInstalled", "Installing", "Installed", "Starting", "Running"]


async def test_a_set_up_that_fails_is_broken_with_the_cause(tmp_path: Path) -> None:
    fake = Installs()
    fake.error = OSError("disk full")
    async with kernel(tmp_path, fake) as k:
        with pytest.raises(PluginError, match="disk full"):
            await k.set_up("fake")
        info = k.service("fake")
        assert (info.installation, info.status) == ("broken", "NotInstalled")
        assert "disk full" in info.as_api()["error"]["message"]
        with pytest.raises(ServiceNotAvailable, match=r"not set up.*disk full"):
            await k.start("fake")
        fake.error = None
        assert (await k.set_up("fake")).as_api().get("error") is None
        fake.error = OSError("again")
        with pytest.raises(PluginError):
            await k.set_up("fake")
        assert k.service("fake").installation == "installed", "a failed upgrade leaves the old one"


async def test_a_cancelled_set_up_is_absent_and_no_error(tmp_path: Path) -> None:
    fake = Installs()
    fake.gate = asyncio.Event()
    async with kernel(tmp_path, fake) as k:
        setting_up = asyncio.ensure_future(k.set_up("fake"))
        starting = asyncio.ensure_future(k.start("fake"))
        await eventually(lambda: k.service("fake").status == "Installing")
        starting = asyncio.ensure_future(k.start("fake"))
        info = await k.cancel_set_up("fake")
        assert (info.installation, info.error) == ("absent", None)
        with pytest.raises(ServiceNotAvailable, match="cancelled"):
            await setting_up
        with pytest.raises(ServiceNotAvailable, match="not set up"):
            await starting
        await k.cancel_set_up("fake")


async def test_a_start_during_a_set_up_follows_it(tmp_path: Path) -> None:
    fake = Installs()
    fake.gate = asyncio.Event()
    async with kernel(tmp_path, fake) as k:
        setting_up = asyncio.ensure_future(k.set_up("fake"))
        await eventually(lambda: "setup" in fake.calls)
        starting = asyncio.ensure_future(k.start("fake"))
        await asyncio.sleep(0)
        assert fake.calls == ["setup"]
        fake.gate.set()
        await setting_up
        assert (await starting).status == "Running"


async def test_closing_ends_a_set_up(tmp_path: Path) -> None:
    fake = Installs()
    fake.gate = asyncio.Event()
    async with kernel(tmp_path, fake) as k:
        setting_up = asyncio.ensure_future(k.set_up("fake"))
        await eventually(lambda: "setup" in fake.calls)
    with pytest.raises(ServiceNotAvailable):
        await setting_up


async def test_an_uninstall_stops_and_removes(tmp_path: Path) -> None:
    fake = Installs()
    fake.version = "1.0"
    async with kernel(tmp_path, fake) as k:
        await k.start("fake")
        info = await k.uninstall("fake")
        assert fake.calls == ["start", "stop", "uninstall"]
        assert (info.status, info.version) == ("NotInstalled", None)
        assert (await k.set_up("fake")).status == "Stopped"


async def test_installing_and_removing_do_not_mix(tmp_path: Path) -> None:
    fake = Installs()
    fake.version = "1.0"
    fake.gate = asyncio.Event()
    async with kernel(tmp_path, fake) as k:
        removing = asyncio.ensure_future(k.uninstall("fake"))
        await eventually(lambda: "uninstall" in fake.calls)
        with pytest.raises(ServiceNotAvailable, match="is being removed"):
            await k.set_up("fake")
        starting = asyncio.ensure_future(k.start("fake"))
        await asyncio.sleep(0)
        fake.gate.set()
        await removing
        with pytest.raises(ServiceNotAvailable, match="not set up"):
            await starting
        fake.gate = asyncio.Event()
        setting_up = asyncio.ensure_future(k.set_up("fake"))
        await eventually(lambda: "setup" in fake.calls)
        with pytest.raises(ServiceNotAvailable, match="is being set up"):
            await k.uninstall("fake")
        fake.gate.set()
        assert (await setting_up).set_up


async def test_what_only_its_package_brings_is_not_uninstalled(tmp_path: Path) -> None:
    async with kernel(tmp_path, Fake()) as k:
        with pytest.raises(ServiceNotAvailable, match="nothing to remove but its package"):
            await k.uninstall("fake")
        assert k.service("fake").set_up


async def test_idle_models_are_unloaded_and_pinned_ones_are_not(tmp_path: Path) -> None:
    fake = Fake(models=["m", "n"])
    async with kernel(tmp_path, fake, settings={"residency": {"idle_timeout": 0.02}}) as k:
        k.pin("fake", "n")
        await asyncio.gather(ask(k, "m"), ask(k, "n"))
        await eventually(lambda: k.service("fake").models == ("n",))
        k.pin("fake", "n", False)
        await eventually(lambda: k.service("fake").models == ())


async def test_the_state_never_goes_where_the_table_has_no_edge(tmp_path: Path) -> None:
    fake = Fake()
    async with kernel(tmp_path, fake) as k:
        wishes: list[Any] = []
        for number in range(60):
            act = (k.start, k.stop, k.restart, k.set_up)[number % 7 % 4]
            wishes.append(asyncio.ensure_future(act("fake")))
            await asyncio.sleep(0)
        results = await asyncio.gather(*wishes, return_exceptions=True)
        errors = {type(each) for each in results if isinstance(each, BaseException)}
        assert errors <= {ServiceNotAvailable}
        assert not any("could not handle" in line.text for line in k.log("fake").tail())
