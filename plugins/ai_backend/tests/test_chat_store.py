"""The store `openAiCompatibleChat` over the wire: two user interfaces on one kernel."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import PATIENCE, eventually, kernel
from tests.integration.test_chat_store import SEES, Scripted
from tests.unit.test_files import PNG, TEXT

from aiplayground.client import AsyncClient, Client
from aiplayground.errors import InvalidParameters
from aiplayground.stores.chat import ChatState
from aiplayground.types import ChatChunk

from .serving import gateway
from .test_session import Client as Wire

NAME = "openAiCompatibleChat"


async def test_two_user_interfaces_see_the_same_changes_in_the_same_order(tmp_path: Path) -> None:
    backend = Scripted(*["word "] * 500)
    async with (
        gateway(tmp_path, backend) as (kernel, _),
        AsyncClient(home=tmp_path) as one,
        AsyncClient(home=tmp_path) as two,
    ):
        stores = [await each.store(NAME) for each in (one, two)]
        seen: list[list[tuple[int, ChatState]]] = [[], []]
        last = (await kernel.store(NAME)).version

        async def follow(number: int, until: asyncio.Event) -> None:
            async with stores[number].subscribe() as changes:
                async for change in changes:
                    seen[number].append((change.version, change.state))
                    if until.is_set() and change.version >= last:
                        return

        done = asyncio.Event()
        followers = [asyncio.create_task(follow(n, done)) for n in (0, 1)]
        await stores[0].send_message("from one")
        await asyncio.gather(
            stores[0].rename_conversation(stores[0].state.conversation.id, "Ours"),
            stores[1].send_message("from two"),
        )
        await asyncio.gather(
            stores[0].new_conversation(), stores[1].list_again(), return_exceptions=True
        )
        await stores[1].send_message("last")
        done.set()
        await stores[0].configure(system_prompt="x")
        last = (await kernel.store(NAME)).version
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*followers)
        assert seen[0] == seen[1]
        versions = [version for version, _ in seen[0]]
        assert versions == list(range(versions[0], versions[0] + len(versions)))
        final = seen[0][-1][1]
        assert [each.content for each in final.messages] == ["last", "word " * 500]
        assert final.conversations[1].title == "Ours"


async def test_one_stops_what_the_other_began(tmp_path: Path) -> None:
    backend = Scripted("so ", "far")
    backend.held = asyncio.Event()
    async with (
        gateway(tmp_path, backend),
        AsyncClient(home=tmp_path) as one,
        AsyncClient(home=tmp_path) as two,
    ):
        first, second = await one.store(NAME), await two.store(NAME)
        sending = asyncio.create_task(first.send_message("Hello"))
        async with second.subscribe("is_generating") as changes, asyncio.timeout(PATIENCE):
            async for change in changes:
                if change.state.is_generating:
                    break
        with pytest.raises(InvalidParameters, match="being answered") as refused:
            await second.send_message("And me?")
        assert refused.value.details["reason"] == "busy"
        await second.stop()
        await sending
        assert first.state.messages[-1].status == "stopped"


async def test_an_answer_goes_on_when_the_page_is_closed(tmp_path: Path) -> None:
    backend = Scripted("so ", "far")
    backend.held = asyncio.Event()
    async with gateway(tmp_path, backend) as (kernel, _):
        chat = await kernel.store(NAME)
        async with AsyncClient(home=tmp_path) as page:
            mirror = await page.store(NAME)
            sending = asyncio.create_task(mirror.send_message("Hello"))
            async with chat.subscribe("messages") as changes, asyncio.timeout(PATIENCE):
                async for change in changes:
                    if change.state.messages and change.state.messages[-1].content == "so far":
                        break
            sending.cancel()
            await asyncio.wait({sending})
        assert chat.state.is_generating
        backend.held.set()
        async with chat.subscribe("is_generating") as changes, asyncio.timeout(PATIENCE):
            async for change in changes:
                if not change.state.is_generating:
                    break
        assert chat.state.messages[-1].status == "complete"


async def test_conversations_need_the_token(tmp_path: Path) -> None:
    async with gateway(tmp_path, Scripted("a")) as (kernel, _):
        url = kernel.service("ai-backend").base_url
        async with AsyncClient(url, "wrong") as stranger:
            calls: list[tuple[str, list[Any]]] = [
                ("stores:get", [NAME]),
                ("stores:call", [NAME, "listConversations", []]),
                ("stores:call", [NAME, "searchConversations", ["x"]]),
                ("stores:call", [NAME, "sendMessage", ["x"]]),
            ]
            for method, params in calls:
                with pytest.raises(InvalidParameters) as refused:
                    await stranger.call(method, *params)
                assert refused.value.details["reason"] == "unauthorized"


async def test_the_example_without_async_and_with_an_image(tmp_path: Path) -> None:
    async with gateway(tmp_path, Scripted("a dot", **SEES)):

        def work() -> ChatState:
            with Client(home=tmp_path) as client:
                chat: Any = client.store(NAME)
                chat.set_model("m", "ai-backend")
                chat.send_message("What is it?", [TEXT])
                state: ChatState = chat.state
                return state

        state = await asyncio.to_thread(work)
        assert state.messages[0].images == (f"data:image/png;base64,{TEXT}",)
        assert state.messages[1].content == "a dot"


async def test_an_answer_costs_what_it_is_long_however_large_the_conversation(
    tmp_path: Path,
) -> None:
    backend = Scripted("a dot", **SEES)
    large = base64.b64encode(PNG + bytes(500_000)).decode()
    async with kernel(tmp_path, backend) as one:
        chat = await one.store(NAME)
        await chat.send_message("What is it?", [large])
        wire = Wire(one)
        await wire.ask("stores:subscribe", [NAME])
        wire.sent.clear()
        backend.chunks = [ChatChunk(text="word ")] * 100
        await chat.send_message("And this?")
        await eventually(lambda: len(wire.sent) and not chat.state.generating)
        last = chat.version
        await eventually(lambda: wire.sent[-1]["params"]["version"] == last)
        assert len(json.dumps(wire.sent)) < 8000
        await wire.session.close()


ACTIONS: dict[str, Callable[[random.Random, Any], tuple[Any, ...]]] = {
    "send_message": lambda chance, _: ("hello", None if chance.random() < 0.8 else [TEXT]),
    "stop": lambda _, __: (),
    "regenerate": lambda chance, chat: (some_message(chance, chat),),
    "edit_message": lambda chance, chat: (some_message(chance, chat), "edited"),
    "show_branch": lambda chance, chat: (some_message(chance, chat, siblings=True),),
    "new_conversation": lambda chance, _: ("", chance.choice([None, "Chat", "Precise answers"])),
    "open_conversation": lambda chance, chat: (chance.choice(chat.state.conversations).id,),
    "delete_conversation": lambda chance, chat: (chance.choice(chat.state.conversations).id,),
    "rename_conversation": lambda chance, chat: (chance.choice(chat.state.conversations).id, "T"),
    "configure": lambda chance, _: ("Be brief.", {"temperature": chance.random()}),
    "list_more": lambda _, __: (),
    "list_again": lambda _, __: (),
}
OFTEN = ("send_message", "stop", "regenerate", "edit_message", "show_branch")


def some_message(chance: random.Random, chat: Any, *, siblings: bool = False) -> str:
    messages = chat.state.messages
    one = chance.choice(messages)
    return chance.choice(one.siblings or (one.id,)) if siblings else str(one.id)


async def act(chance: random.Random, chat: Any) -> None:
    """Do something that a person may do, at a moment at which a person may do it."""
    name = chance.choice([*ACTIONS, *OFTEN, *OFTEN])
    try:
        given = ACTIONS[name](chance, chat)
    except IndexError:
        return  # there is nothing yet to do it with
    with suppress(InvalidParameters):  # the other one was faster
        await getattr(chat, name)(*given)


async def test_two_at_once_in_any_order(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    takes = frozenset({"temperature", "max_tokens", "seed", "top_p"})
    backend = Scripted(*["word "] * 20, pause=0.002, parameters=takes, **SEES)
    async with (
        gateway(tmp_path, backend) as (kernel, _),
        AsyncClient(home=tmp_path) as one,
        AsyncClient(home=tmp_path) as two,
    ):
        mirrors = [await each.store(NAME) for each in (one, two)]
        chat = await kernel.store(NAME)
        going: set[asyncio.Task[None]] = set()
        for _ in range(150):
            going.add(asyncio.create_task(act(chance, chance.choice([*mirrors, chat]))))
            await asyncio.sleep(chance.random() * 0.01)
            going = {each for each in going if not each.done() or each.result()}
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*going)
            await eventually(lambda: not chat.state.generating)
            last = chat.version
            await eventually(lambda: all(each.version == last for each in mirrors))
        assert [each.state for each in mirrors] == [chat.state] * 2, seed
        for each in chat.state.conversations:
            kept = await chat.get_conversation(each.id)
            assert {it.status for it in kept.messages} <= {"complete", "stopped"}, seed
            roles = [it.role for it in kept.messages]
            assert roles == ["user", "assistant"] * (len(roles) // 2), seed
        if chat.state.conversation is not None:
            kept = await chat.get_conversation(chat.state.conversation.id)
            assert kept.messages == chat.state.messages, seed
