"""Services that are endpoints: used, watched, shown as what they are, and never ended by us."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.endpoints import Server, attach, free_port
from tests.fakes import (
    Fake,
    Served,
    ask,
    collect,
    eventually,
    everything,
    kernel,
    nothing_leaks,
    question,
    statuses,
)

from aiplayground._launch import _environment
from aiplayground.errors import (
    AIPlaygroundError,
    FailureClass,
    ServiceFailed,
    ServiceNotAvailable,
)
from aiplayground.events import ServiceInfoUpdate
from aiplayground.kernel import Kernel

KEY = "sk-a-key-that-nobody-else-may-see"


def runtime(k: Kernel, name: str = "far") -> str:
    return k.service(name).runtime.value


async def test_an_address_is_a_service_of_its_own(tmp_path: Path) -> None:
    with Server("models=big,small") as server, nothing_leaks():
        async with kernel(tmp_path, settings=attach(server.url, title="Far away")) as k:
            info = k.service("far")
            assert (info.title, info.status, info.attached) == ("Far away", "Installed", True)
            assert [model.name for model in await k.models()] == ["big", "small"]
            assert runtime(k) == "stopped", "listing starts nothing"
            assert await ask(k, "big") == "word word word "
            vectors = (await k.embed({"model": "small", "input": ["x"]})).vectors
            assert vectors == [[0.5, 0.25]]
            info = k.service("far")
            assert (info.status, info.base_url, info.port) == ("Running", server.url, server.port)
            (worker,) = info.workers
            assert (worker.attached, worker.pid, worker.base_url) == (True, None, server.url)
            assert info.as_api()["attached"] is True
            assert info.models == ("big", "small")
        assert server.alive, "the end of the kernel is not the end of what it did not start"


async def test_an_installed_backend_can_be_attached_without_knowing(tmp_path: Path) -> None:
    served = Served()
    with Server() as server:
        settings = {"services": {"served": {"attach": {"url": server.url + "/v1/"}}}}
        async with kernel(tmp_path, served, settings=settings) as k:
            assert await ask(k) == "word word word "
            info = k.service("served")
            assert (info.attached, info.base_url) == (True, server.url)
            stopped = await k.stop("served")
            assert (stopped.status, stopped.attached) == ("Stopped", True)
            assert server.alive
            assert await ask(k) == "word word word ", "and it is attached again"
            assert (await k.restart("served")).status == "Running"
    assert served.calls == [], "none of its own hooks is called"


async def test_both_forms_attach_an_installed_backend(tmp_path: Path) -> None:
    with Server() as server:
        async with kernel(tmp_path, Served(), settings=attach(server.url, "served")) as k:
            assert not k.plugins.failures
            assert (await k.start("served")).base_url == server.url
            assert [service.title for service in k.services()] == ["Served"]


async def test_it_goes_and_comes_back(tmp_path: Path) -> None:
    with Server() as server:
        async with kernel(tmp_path, settings=attach(server.url)) as k:
            events = k.subscribe(ServiceInfoUpdate)
            await k.ensure_ready("far", "m")
            server.end()
            await eventually(lambda: runtime(k) == "failed")
            info = k.service("far")
            assert info.error is not None
            assert "cannot be reached" in info.error["message"]
            assert info.error["details"]["failure"] == "unreachable"
            assert info.models == ()
            with pytest.raises(ServiceNotAvailable, match="cannot be reached"):
                await ask(k)
            server.start()
            await eventually(lambda: runtime(k) == "running")
            assert k.service("far").error is None
            assert await ask(k) == "word word word "
        seen = statuses(await everything(events), "far")
    assert seen[:6] == ["Installed", "Starting", "Running", "Stopped", "Starting", "Stopped"]
    assert "Running" in seen[6:]


async def test_one_that_is_not_there_yet_runs_as_soon_as_it_is(tmp_path: Path) -> None:
    server = Server()
    settings = {**attach(server.url), "services": {"far": {"autostart": True}}}
    async with kernel(tmp_path, settings=settings) as k:
        await eventually(lambda: runtime(k) == "failed")
        assert k.service("far").status == "Stopped"
        assert await k.models() == []
        with server:
            await eventually(lambda: runtime(k) == "running")
        await eventually(lambda: runtime(k) == "failed")
        assert (await k.stop("far")).runtime == "stopped"


async def test_a_stream_that_breaks_says_why(tmp_path: Path) -> None:
    with Server("chunks=100") as server:
        async with kernel(tmp_path, settings=attach(server.url)) as k:
            answer = k.chat(question())
            assert (await anext(answer)).text == "word "
            server.end()
            with pytest.raises(ServiceFailed, match="cannot be reached") as caught:
                await collect(answer)
            assert caught.value.failure is FailureClass.UNREACHABLE
            await eventually(lambda: runtime(k) == "failed")


async def test_one_that_hangs_counts_as_gone_after_the_limit(tmp_path: Path) -> None:
    settings = {**attach("x"), "timeouts": {"health": 0.1}}
    with Server() as server:
        settings["attach"]["far"]["url"] = server.url
        async with kernel(tmp_path, settings=settings) as k:
            await k.start("far")
            assert server.process is not None
            server.process.send_signal(19)
            await eventually(lambda: runtime(k) == "failed")
            server.process.send_signal(18)
            await eventually(lambda: runtime(k) == "running")


async def test_the_key_lets_us_in_and_is_never_seen(tmp_path: Path) -> None:
    told: list[str] = []
    with Server(f"key={KEY}", "prefix=/api") as server:
        settings = attach(server.url + "/api/v1", api_key=KEY)
        async with kernel(tmp_path, settings=settings) as k:
            events = k.subscribe()
            assert await ask(k) == "word word word "
            told += [repr(k.service("far")), json.dumps(k.service("far").as_api())]
            told += [repr(k.settings), repr(k.plugins)]
            k.log("far").logger.warning("the key is %s", KEY)
        told += map(repr, await everything(events))
    (tmp_path / "logs").mkdir(exist_ok=True)
    told += [path.read_text() for path in (tmp_path / "logs").iterdir()]
    assert any("the key is [hidden]" in text for text in told)
    assert not [text for text in told if KEY in text]


async def test_a_wrong_key_is_not_repeated_even_if_the_server_does(tmp_path: Path) -> None:
    with Server("key=another") as server:
        settings = attach(server.url, api_key=KEY, ready_path="/")
        async with kernel(tmp_path, settings=settings) as k:
            with pytest.raises(ServiceFailed, match="refuses the key") as refused:
                await k.start("far")
            health = await k.health("far")
            assert health is not None
            assert (health.ok, health.detail) == (
                False,
                "wrong key: Authorization: Bearer [hidden]",
            )
            with pytest.raises(AIPlaygroundError, match=r"Bearer \[hidden\]") as echoed:
                await k._services["far"].ops.list_models()
        for error in (refused.value, echoed.value):
            assert KEY not in f"{error!r} {error} {error.to_dict()}"
        logs = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
        assert KEY not in logs


async def test_without_a_key_the_error_says_so(tmp_path: Path) -> None:
    with Server("key=another") as server:
        async with kernel(tmp_path, settings=attach(server.url)) as k:
            with pytest.raises(ServiceFailed, match=r"asks for a key .*Set `api_key`"):
                await k.start("far")


async def test_a_wrong_path_says_so(tmp_path: Path) -> None:
    with Server("prefix=/api") as server:
        async with kernel(tmp_path, settings=attach(server.url)) as k:
            with pytest.raises(ServiceFailed, match=r"has no /v1/models .*Check the URL"):
                await k.start("far")


async def test_nothing_is_installed_or_removed(tmp_path: Path) -> None:
    settings = attach(f"http://127.0.0.1:{free_port()}")
    async with kernel(tmp_path, settings=settings) as k:
        assert (await k.set_up("far")).set_up
        with pytest.raises(ServiceNotAvailable, match=r"is attached to http.*nothing of it"):
            await k.uninstall("far")


async def test_a_name_that_is_none_is_a_failure_of_its_own(tmp_path: Path) -> None:
    settings = {"attach": {"Kernel!": {"url": "http://127.0.0.1:1"}}}
    async with kernel(tmp_path, settings=settings) as k:
        (failure,) = k.plugins.failures
        assert failure.message.startswith("kernel! (settings): 'kernel!' cannot be a service")


async def test_a_backend_of_another_kind_answers_itself_but_starts_nothing(tmp_path: Path) -> None:
    fake = Fake("fake")
    with Server() as server:
        settings = {"services": {"fake": {"attach": {"url": server.url}}}}
        async with kernel(tmp_path, fake, settings=settings) as k:
            assert await ask(k) == "abc"
            await k.stop("fake")
    assert fake.calls == ["chat m"], "neither start, load nor stop"


async def test_one_that_is_loading_is_waited_for(tmp_path: Path) -> None:
    with Server("loading=1") as server:
        async with kernel(tmp_path, settings=attach(server.url)) as k:
            assert (await k.start("far")).status == "Running"


def test_keys_are_not_handed_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIPG_ATTACH__FAR__API_KEY", KEY)
    monkeypatch.setenv("aipg_services__x__attach__api_key", KEY)
    assert KEY not in _environment({}, "token").values()
