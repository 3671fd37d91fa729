"""Stores over the wire: sessions, mirrors of the Python client, pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import PATIENCE, Fake, eventually, kernel
from tests.unit.test_stores import Note, Notes, Plugin

from aiplayground.client import AsyncClient, Client
from aiplayground.errors import InvalidParameters, ServiceNotAvailable
from aiplayground.kernel import Kernel
from aiplayground.states import BackendStatus
from aiplayground.stores import StoreView
from aiplayground.stores._state import plain_fields
from aiplayground_ai_backend.ipc import stores as feeds
from aiplayground_ai_backend.ipc.session import Own

from .browser import browser, needs_browser
from .serving import gateway
from .test_session import Client as Wire


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Kernel]:
    async with kernel(tmp_path, Fake(), Plugin()) as one:
        yield one


@pytest.fixture
async def wire(running: Kernel) -> AsyncIterator[Wire]:
    client = Wire(running)
    yield client
    await client.session.close()


def updates(client: Wire) -> list[dict[str, Any]]:
    return [each["params"] for each in client.sent if each.get("method") == "storeUpdate"]


# Sessions --------------------------------------------------------------------------------------


async def test_a_snapshot_and_then_each_change(running: Kernel, wire: Wire) -> None:
    told = await wire.ask("stores:subscribe", ["notes"])
    assert told["kernel"] == running.id
    assert told["stores"] == [
        {
            "store": "notes",
            "version": 0,
            "state": {"allNotes": [], "count": 0, "chosen": None},
            "getters": {"newest": None},
        }
    ]
    notes: Notes = await running.store("notes")
    await notes.add_note("one")
    await eventually(lambda: len(updates(wire)) == 1)
    assert updates(wire) == [
        {
            "store": "notes",
            "version": 1,
            "changes": {"allNotes": [{"text": "one"}], "count": 1},
            "getters": {"newest": {"text": "one"}},
        }
    ]
    await wire.ask("stores:unsubscribe", ["notes"])
    await notes.add_note("two")
    assert (await wire.ask("stores:get", "notes"))["version"] == 2
    assert len(updates(wire)) == 1


async def test_of_a_long_field_what_became_another(running: Kernel, wire: Wire) -> None:
    await wire.ask("stores:subscribe", ["notes"])
    notes: Notes = await running.store("notes")
    await notes.add_note("long " * 200)
    await notes.add_note("two")
    await eventually(lambda: len(updates(wire)) == 2)
    assert updates(wire)[-1] == {
        "store": "notes",
        "version": 2,
        "changes": {"count": 2},
        "patches": [{"op": "add", "path": "/allNotes/1", "value": {"text": "two"}}],
        "getters": {"newest": {"text": "two"}},
    }


async def test_a_client_that_lags_gets_the_whole_state(
    running: Kernel, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "QUEUE", 3)
    await wire.ask("stores:subscribe", ["notes"])
    notes: Notes = await running.store("notes")
    wire.reading.clear()
    for each in range(10):
        await notes.add_note(str(each))
        await asyncio.sleep(0)
    wire.reading.set()
    await eventually(lambda: updates(wire) and updates(wire)[-1]["version"] == 10)
    whole = updates(wire)[-1]
    assert whole["state"]["count"] == 10
    assert whole["lost"] >= 6


async def test_private_stores_need_the_token(running: Kernel) -> None:
    stranger = Wire(running, trusted=False)
    for method, given in (
        ("stores:get", ["private"]),
        ("stores:call", ["private", "findNotes", ["x"]]),
        ("stores:call", ["notes", "addNote", ["x"]]),
        ("stores:subscribe", [["private"]]),
    ):
        assert (await stranger.ask(method, *given))["data"]["reason"] == "unauthorized", method
    assert (await stranger.ask("stores:call", "notes", "findNotes", ["x"]))["result"] == []
    everything = await stranger.ask("stores:call", "notes", "findNote", ["x"])
    assert "Did you mean 'findNotes'" in everything["message"]
    await stranger.session.close()


async def test_all_stores_that_may_be_read_are_meant_where_none_is_named(tmp_path: Path) -> None:
    async with kernel(tmp_path, Fake()) as one:
        stranger = Wire(one, trusted=False)
        told = await stranger.ask("stores:subscribe")
        names = [each["name"] for each in await stranger.ask("stores:list") if not each["private"]]
        assert [each["store"] for each in told["stores"]] == names
        await stranger.session.close()


async def test_the_service_of_the_connection_answers_before_it_ends(running: Kernel) -> None:
    stopped: list[str] = []
    client = Wire(running, own=Own(service="fake", later=stopped.append))
    answer = await client.ask("stores:call", "backendServices", "stopService", ["fake"])
    assert (answer, stopped) == ({"version": 0, "result": "Stopping"}, ["stop"])
    named = {"serviceName": "fake"}
    await client.ask("stores:call", "backendServices", "stopService", named)
    assert stopped == ["stop", "stop"]
    await client.session.close()


# The Python client -----------------------------------------------------------------------------


async def use(notes: StoreView[Any], add_note: Any) -> None:
    """What a user interface does, wherever the kernel is."""
    async with notes.subscribe("newest") as changes:
        assert (await anext(changes)).snapshot
        count = await add_note("one")
        assert notes.state.count == count
        async with asyncio.timeout(PATIENCE):
            change = await anext(changes)
    assert change.state.newest == Note(text="one")


async def test_the_same_in_process_and_from_elsewhere(tmp_path: Path) -> None:
    async with gateway(tmp_path, Plugin()) as (kernel, _), AsyncClient(home=tmp_path) as client:
        inside: Notes = await kernel.store("notes")
        mirror = await client.store("notes", Notes)
        assert len({id(each) for each in (mirror, await client.store("notes", Notes))}) == 1
        await use(inside, inside.add_note)
        await use(mirror, mirror.add_note)
        assert mirror.state == inside.state
        assert await mirror.find_notes(text="one") == [Note(text="one")] * 2
        with pytest.raises(InvalidParameters, match="at least 1 character"):
            await mirror.add_note("")
        with pytest.raises(AttributeError, match="Did you mean 'add_note'"):
            _ = mirror.add_notes
        assert mirror.version == 2


async def test_a_store_whose_class_is_not_here(tmp_path: Path) -> None:
    async with gateway(tmp_path, Plugin()), AsyncClient(home=tmp_path) as client:
        mirror = await client.store("notes")
        assert await mirror.add_note(text="one") == 1
        assert mirror.state.all_notes == [{"text": "one"}]
        async with mirror.subscribe("count") as changes:
            assert (await anext(changes)).state.count == 1
        with pytest.raises(InvalidParameters, match="Did you mean 'notes'"):
            await client.store("note")
        with pytest.raises(InvalidParameters, match="NaN"):
            await mirror.add_note(float("nan"))
        assert (await client.stores_get("notes")).state["count"] == 1


async def test_two_clients_see_the_same_changes_in_the_same_order(tmp_path: Path) -> None:
    async with gateway(tmp_path, Plugin()) as (kernel, _), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(home=tmp_path)) for _ in range(2)]
        mirrors = [await each.store("notes", Notes) for each in clients]
        inside: Notes = await kernel.store("notes")
        everyone: list[Any] = [*mirrors, inside]
        seen = [each.subscribe() for each in everyone]
        writes = [each.add_note(f"{n}") for n in range(40) for each in everyone]
        await asyncio.gather(*writes)
        async with asyncio.timeout(PATIENCE):
            states = [[(await anext(each)).state for _ in range(121)] for each in seen]
        assert states[0] == states[1] == states[2]
        assert [each.count for each in states[0]] == [*range(121)]


async def test_a_mirror_finds_back_and_ends_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiplayground.client import _async

    monkeypatch.setattr(_async, "RECONNECT_PATIENCE", 1.0)
    async with AsyncClient(home=tmp_path) as client:
        async with gateway(tmp_path, Plugin()) as (kernel, _):
            inside: Notes = await kernel.store("notes")
            mirror = await client.store("notes", Notes)
            changes = mirror.subscribe()
            await kernel.stop("ai-backend")
            await inside.add_note("unseen")
            await kernel.start("ai-backend")
            async with asyncio.timeout(PATIENCE):
                assert [(await anext(changes)).version for _ in range(2)] == [0, 1]
            assert mirror.state == inside.state
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(ServiceNotAvailable, match="aipg serve"):
                await anext(changes)
        with pytest.raises(ServiceNotAvailable, match="aipg serve"):
            await client.store("notes", Notes)


async def test_a_gap_is_noticed(tmp_path: Path) -> None:
    async with gateway(tmp_path, Plugin()) as (kernel, _), AsyncClient(home=tmp_path) as client:
        inside: Notes = await kernel.store("notes")
        mirror = await client.store("notes", Notes)
        mirror._version = 5  # as if it had missed some
        await inside.add_note("one")
        await eventually(lambda: mirror.version == 1)
        assert mirror.state == inside.state


async def test_a_change_of_something_else_is_a_gap(tmp_path: Path) -> None:
    async with gateway(tmp_path, Plugin()) as (kernel, _), AsyncClient(home=tmp_path) as client:
        inside: Notes = await kernel.store("notes")
        mirror = await client.store("notes")
        await mirror.add_note("long " * 200)
        mirror._document["allNotes"] = []  # as if it had gone wrong
        await inside.add_note("two")
        await eventually(lambda: mirror.state.count == 2)
        assert [each["text"] for each in mirror.state.all_notes] == ["long " * 200, "two"]


async def test_what_is_too_large_is_said_and_not_tried_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiplayground.client import _place

    async with gateway(tmp_path, Plugin(), own={"max_body": 1}) as (kernel, _):
        inside: Notes = await kernel.store("notes")
        async with AsyncClient(home=tmp_path) as client:
            mirror = await client.store("notes", Notes)
            with pytest.raises(InvalidParameters, match="'max_body' of ai-backend"):
                await mirror.add_note("x" * 2**21)
            assert await mirror.add_note("one") == 1
        monkeypatch.setattr(_place, "MAX_MESSAGE", 2**20)
        await inside.add_note("x" * 2**21)
        async with AsyncClient(home=tmp_path) as client:
            with pytest.raises(ServiceNotAvailable, match="larger than 1 MiB"):
                await client.store("notes", Notes)


async def test_services_of_a_kernel_elsewhere(tmp_path: Path) -> None:
    async with gateway(tmp_path, Fake()), AsyncClient(home=tmp_path) as client:
        services = await client.store("backendServices")
        assert await services.start_service("fake") is BackendStatus.RUNNING
        [fake, _] = services.state.current_service_info
        assert fake.current_status is BackendStatus.RUNNING


async def test_without_async(tmp_path: Path) -> None:
    def work() -> list[int]:
        with Client(home=tmp_path) as client:
            notes = client.store("notes", Notes)
            assert notes.add_note("one") == 1
            assert notes.state.newest == Note(text="one")
            assert notes.call("findNotes", ["o"]) == [{"text": "one"}]
            seen = []
            for change in notes.subscribe("count"):
                seen.append(change.version)
                if change.version == 3:
                    break
                notes.add_note(text="more")
            assert client.stores_call("notes", "addNote", ["x"]).result == 4
            return seen

    async with gateway(tmp_path, Plugin()):
        assert await asyncio.to_thread(work) == [1, 2, 3]


# Pages -----------------------------------------------------------------------------------------


@needs_browser
async def test_a_page_follows_a_store(tmp_path: Path) -> None:
    async with (
        gateway(tmp_path, Plugin()) as (kernel, _),
        browser(tmp_path / "profile") as new,
        new() as page,
    ):
        await page.open(json.loads((kernel.paths.runtime / "serve.json").read_text())["link"])
        notes: Notes = await kernel.store("notes")
        await page.run(
            "window.seen = []; window.end = electronAPI.onStoreUpdate((u) => seen.push(u), 'notes')"
        )
        first = await page.until("seen.length === 1 && seen")
        assert first[0]["state"] == {"allNotes": [], "count": 0, "chosen": None}
        call = "return await electronAPI['stores:call']('notes', 'addNote', ['one'])"
        assert await page.run(call) == {"version": 1, "result": 1}
        [_, change] = await page.until("seen.length === 2 && seen")
        assert change["getters"] == {"newest": {"text": "one"}}
        await notes.add_note("long " * 200)
        await notes.add_note("two")  # of a field this long only what became another is sent
        last = (await page.until("seen.length === 4 && seen"))[-1]
        assert last["changes"] == plain_fields(notes.state, ("all_notes", "count"))
        assert set(last) == {"store", "version", "changes", "getters"}
        await kernel.stop("ai-backend")
        await notes.add_note("unseen")
        await kernel.start("ai-backend")
        assert (await page.until("seen.length === 5 && seen"))[-1]["state"]["count"] == 4
        page.problems.clear()  # the browser notes each attempt to connect that failed
