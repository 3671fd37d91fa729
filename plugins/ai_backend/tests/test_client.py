"""`aiplayground.client` against a gateway: typed calls, events that survive, deadlines."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import PATIENCE, Fake, descriptors, eventually, nothing_leaks
from tests.unit.test_files import PNG, TEXT
from websockets.asyncio.server import ServerConnection, serve

from aiplayground.api import OpenDialogOptions
from aiplayground.client import AsyncClient, Client, RemoteEvent
from aiplayground.errors import (
    FileOperationError,
    InvalidParameters,
    ModelNotFound,
    ServiceNotAvailable,
)
from aiplayground.events import ModelDownloadProgress, WebServiceExit
from aiplayground.methods import METHODS
from aiplayground.states import BackendStatus

from .serving import free_port, gateway


def snake(name: str) -> str:
    plain = name.replace(":", "_").replace("LLM", "Llm")
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", plain).lower()


@pytest.mark.parametrize("kind", [AsyncClient, Client])
def test_each_method_of_the_table_is_there(kind: type) -> None:
    for name, method in METHODS.items():
        found = getattr(kind, snake(name))
        given = [each for each in inspect.signature(found).parameters if each != "self"]
        assert given == [snake(each) for each in method.outside_names], name


async def test_typed_calls(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (kernel, _), AsyncClient(home=tmp_path) as client:
        [fake, own] = await client.get_services()
        assert (fake.name, fake.is_set_up, fake.current_status) == ("fake", True, "Installed")
        assert await client.base_url() == own.base_url
        assert await client.send_start_signal("fake") is BackendStatus.RUNNING
        await client.ensure_backend_readiness("fake", "m")
        assert await client.send_stop_signal("fake") is BackendStatus.STOPPED
        [*_, cpu] = await client.detect_devices()
        assert cpu.type == "CPU"
        assert Path(await client.save_image(TEXT, "a.png")).read_bytes() == PNG
        assert kernel.service("fake").status == "Stopped"


async def test_errors_are_those_of_the_kernel(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (kernel, _), AsyncClient(home=tmp_path) as client:
        with pytest.raises(ServiceNotAvailable, match="Did you mean 'fake'") as refused:
            await client.send_start_signal("fak")
        assert refused.value.details["services"] == ["fake", "ai-backend"]
        with pytest.raises(ModelNotFound):
            await client.ensure_backend_readiness("fake", "nothing")
        with pytest.raises(FileOperationError):
            await client.open_image_with_system("/etc/passwd")
        with pytest.raises(ServiceNotAvailable):
            await client.show_open_dialog(OpenDialogOptions(default_path="/"))
        url = kernel.service("ai-backend").base_url
        async with AsyncClient(url, "wrong") as stranger:
            assert len(await stranger.get_services()) == 2
            with pytest.raises(InvalidParameters) as unauthorized:
                await stranger.send_start_signal("fake")
            assert unauthorized.value.details == {"reason": "unauthorized"}


async def test_no_kernel_says_how_to_start_one(tmp_path: Path) -> None:
    async with AsyncClient(home=tmp_path) as client:
        with pytest.raises(ServiceNotAvailable, match="aipg serve"):
            await client.get_services()
    async with AsyncClient(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(ServiceNotAvailable, match="does not answer"):
            await client.get_services()
        with pytest.raises(ServiceNotAvailable):
            await anext(client.events())


async def test_a_refused_connection_says_why(tmp_path: Path) -> None:
    async with gateway(tmp_path, own={"max_ipc": 1}) as (_, __), AsyncClient(home=tmp_path) as one:
        await one.get_services()
        async with AsyncClient(home=tmp_path) as two:
            with pytest.raises(ServiceNotAvailable, match="max_ipc"):
                await two.get_services()


async def test_a_call_after_a_restart_connects_again(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (kernel, _), AsyncClient(home=tmp_path) as client:
        await client.get_services()
        await kernel.restart("ai-backend")
        assert await client.send_start_signal("fake") == "Running"


async def test_events_begin_with_a_snapshot_and_are_typed(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()) as (kernel, _), AsyncClient(home=tmp_path) as client:
        async with asyncio.timeout(PATIENCE), aclosing(client.events()) as events:
            first = await anext(events)
            assert (first.name, first.seq) == ("snapshot", 0)
            assert [each.name for each in first.data] == ["fake", "ai-backend"]
            await kernel.start("fake")
            update = await anext(events)
            assert update.name == "serviceInfoUpdate"
            assert update.data[0].current_status == "Starting"
        async with asyncio.timeout(PATIENCE), aclosing(client.events("webServiceExit")) as events:
            await anext(events)
            kernel._bus.publish(ModelDownloadProgress(filename="m", progress=1))
            kernel._bus.publish(WebServiceExit(service="fake", worker="w", exit_code=-9))
            found = await anext(events)
            assert (found.data.service_name, found.data.code) == ("fake", -9)
        with pytest.raises(InvalidParameters, match="Did you mean"):
            await anext(client.events("webServiceExits"))


async def test_events_go_on_after_a_restart(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path, Fake()) as (kernel, _),
        AsyncClient(home=tmp_path) as client,
        asyncio.timeout(PATIENCE),
        aclosing(client.events()) as events,
    ):
        await anext(events)
        await kernel.stop("ai-backend")
        await kernel.start("fake")  # what nobody outside can see
        await kernel.start("ai-backend")
        async for event in events:
            if event.name == "snapshot":
                break
        states = {each.name: each.current_status for each in event.data}
        assert states["fake"] == "Running"


async def test_a_slow_reader_gets_a_snapshot_in_place_of_what_it_missed(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path, Fake()) as (kernel, _),
        AsyncClient(home=tmp_path) as client,
        asyncio.timeout(PATIENCE),
        aclosing(client.events()) as events,
    ):
        await anext(events)
        text = "x" * 2**15
        for code in range(2000):
            kernel._bus.publish(
                WebServiceExit(service="fake", worker="w", exit_code=code, message=text)
            )
            if code % 100 == 0:
                await asyncio.sleep(0)
        seen: list[RemoteEvent] = []
        async for event in events:
            seen.append(event)
            if event.name == "snapshot":
                break
        assert [each.seq for each in seen] == list(range(1, len(seen) + 1))


# Against a server that misbehaves ----------------------------------------------------------------


@asynccontextmanager
async def server(answer: Callable[[ServerConnection, Any], Any]) -> AsyncIterator[str]:
    async def handle(connection: ServerConnection) -> None:
        async for text in connection:
            await answer(connection, json.loads(text))

    async with serve(handle, "127.0.0.1", 0) as one:
        yield f"http://127.0.0.1:{one.sockets[0].getsockname()[1]}"


async def test_a_call_has_a_deadline() -> None:
    async def never(connection: ServerConnection, told: Any) -> None:
        pass

    async with server(never) as url, AsyncClient(url, timeout=0.05) as client:
        with pytest.raises(ServiceNotAvailable, match=r"not answered within 0\.05 s"):
            await client.get_services()


async def test_a_connection_that_breaks_ends_its_calls() -> None:
    async def hang_up(connection: ServerConnection, told: Any) -> None:
        await connection.close()

    async with server(hang_up) as url, AsyncClient(url) as client:
        for _ in range(2):
            with pytest.raises(ServiceNotAvailable, match="was lost"):
                await client.get_services()


async def test_a_gap_makes_the_client_begin_anew() -> None:
    subscriptions = 0

    async def skip(connection: ServerConnection, told: Any) -> None:
        nonlocal subscriptions
        subscriptions += 1
        result = {"kernel": "k", "seq": 0, "services": []}
        await connection.send(json.dumps({"jsonrpc": "2.0", "id": told["id"], "result": result}))
        for seq in (1, 3) if subscriptions == 1 else (1,):
            params = {"seq": seq, "time": 0, "data": {"n": seq}}
            message = {"jsonrpc": "2.0", "method": "ofTomorrow", "params": params}
            await connection.send(json.dumps(message))

    async with (
        server(skip) as url,
        AsyncClient(url) as client,
        asyncio.timeout(PATIENCE),
        aclosing(client.events()) as events,
    ):
        seen = [await anext(events) for _ in range(4)]
    assert [(each.name, each.seq) for each in seen] == [("snapshot", 0), ("ofTomorrow", 1)] * 2


# Without async -----------------------------------------------------------------------------------


async def test_the_blocking_client(tmp_path: Path) -> None:
    def work() -> list[str]:
        with Client(home=tmp_path) as client:
            assert client.send_start_signal("fake") is BackendStatus.RUNNING
            with pytest.raises(ServiceNotAvailable):
                client.mini_window()
            for event in client.events():
                assert event.name == "snapshot"
                return [each.name for each in event.data]
        raise AssertionError

    async with gateway(tmp_path, Fake()):
        assert await asyncio.to_thread(work) == ["fake", "ai-backend"]
    with pytest.raises(RuntimeError, match="context manager"):
        Client(home=tmp_path).get_services()


async def test_nothing_is_left_of_a_client(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (kernel, http):
        await http.get("/healthy")
        before = len(asyncio.all_tasks())
        async with AsyncClient(home=tmp_path) as client:
            await client.get_services()
        await _settled(before)
        with nothing_leaks():
            held = descriptors()
            async with AsyncClient(home=tmp_path) as client, aclosing(client.events()) as events:
                await client.get_services()
                await anext(events)
            await _settled(before)
            # The watch of the model folders, which its events began, ends in its own time.
            await eventually(lambda: descriptors() == held)
        assert kernel._bus._subscribers == []


async def _settled(tasks: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(asyncio.all_tasks()) > tasks:
            await asyncio.sleep(0.005)
