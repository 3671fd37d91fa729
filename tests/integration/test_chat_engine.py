"""Conversations with the guide, on the real engine: the examples of the reference, and kills."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import tests
from plugins.ai_backend.tests.serving import gateway
from tests.fakes import QUICK, eventually, nothing_leaks

import aiplayground_guide.plugin as guide
import aiplayground_llamacpp.plugin as llamacpp
from aiplayground import Kernel
from aiplayground.client import AsyncClient
from aiplayground.errors import ModelNotFound, ServiceNotAvailable
from aiplayground.stores.chat import OpenAiCompatibleChatStore

pytestmark = pytest.mark.engine

NAME = "openAiCompatibleChat"
QUESTION = "What is AI Playground?"
SAYS = "runs AI models on your own computer"
PLUGINS = {"llamacpp-backend": llamacpp, "guide": guide}
LONG = {"ignore_eos": True, "max_tokens": 900}
CHILD = Path(__file__).parents[1] / "faults" / "children" / "chat_host.py"


@pytest.fixture
async def chat(tmp_path: Path) -> AsyncIterator[OpenAiCompatibleChatStore]:
    async with Kernel(home=tmp_path, plugins=PLUGINS, discover=False, settings=QUICK) as kernel:
        store: OpenAiCompatibleChatStore = await kernel.store(NAME)
        yield store


async def begun(chat: OpenAiCompatibleChatStore) -> str:
    """Wait for the first words of an answer, and return them."""
    await eventually(lambda: chat.state.is_generating and chat.state.messages[-1].content)
    return chat.state.messages[-1].content


async def test_a_conversation_with_the_guide(chat: OpenAiCompatibleChatStore) -> None:
    with pytest.raises(ModelNotFound, match="Did you mean 'guide'"):
        await chat.set_model("gide", "ai-backend")
    # Set model
    await chat.set_model("guide", "ai-backend")
    # Send message
    await chat.send_message(QUESTION)
    # Access response
    question, answer = chat.state.messages
    assert SAYS in answer.content
    assert (answer.model, answer.backend) == ("guide", "llamacpp-backend")
    assert (answer.finish_reason, answer.status) == ("stop", "complete")
    assert answer.completion_tokens

    await chat.configure(settings={"temperature": 0})
    await chat.regenerate()
    again = chat.state.messages[-1]
    assert again.siblings == (answer.id, again.id)
    await chat.edit_message(question.id, "How do I add a model?")
    assert "GGUF" in chat.state.messages[-1].content
    assert len(chat.state.messages) == 2
    await chat.show_branch(answer.id)
    assert chat.state.messages[-1].content == answer.content
    found = {each.message_id for each in (await chat.search_conversations("own computer")).items}
    assert {answer.id, again.id} <= found

    await chat.configure(settings=LONG)
    sending = asyncio.create_task(chat.send_message(QUESTION))
    first = await begun(chat)
    await chat.stop()
    await sending
    stopped = chat.state.messages[-1]
    assert stopped.status == "stopped"
    assert stopped.content.startswith(first)
    assert stopped.completion_tokens is None


async def test_the_engine_is_killed_in_mid_answer(chat: OpenAiCompatibleChatStore) -> None:
    await chat.set_model("guide", "llamacpp-backend")
    await chat.new_conversation()
    await chat.configure(settings=LONG)
    sending = asyncio.create_task(chat.send_message(QUESTION))
    first = await begun(chat)
    for each in psutil.Process().children(recursive=True):
        each.send_signal(signal.SIGKILL)
    with pytest.raises(ServiceNotAvailable):
        await sending
    answer = chat.state.messages[-1]
    assert answer.status == "failed"
    assert answer.content.startswith(first)
    assert answer.error is not None
    assert answer.error.code == -3
    assert "`regenerate` asks again" in answer.error.message
    await chat.configure(settings={"temperature": 0})
    await chat.regenerate()
    assert SAYS in chat.state.messages[-1].content
    assert chat.state.messages[-1].siblings[0] == answer.id


async def test_the_whole_program_is_killed_in_mid_answer(tmp_path: Path) -> None:
    root = Path(tests.__file__).parents[1]
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        conversation = (await asyncio.to_thread(child.stdout.readline)).strip()
        child.kill()
    assert conversation
    async with Kernel(home=tmp_path, plugins=PLUGINS, discover=False, settings=QUICK) as kernel:
        chat: OpenAiCompatibleChatStore = await kernel.store(NAME)
        assert chat.state.problem is None
        await chat.open_conversation(conversation)
        question, answer = chat.state.messages
        assert (question.content, answer.status) == (QUESTION, "interrupted")
        assert answer.content
        await chat.configure(settings={"temperature": 0})
        await chat.regenerate()
        assert SAYS in chat.state.messages[-1].content


async def test_the_example_over_a_client_and_what_a_second_one_sees(tmp_path: Path) -> None:
    with nothing_leaks():
        async with (
            gateway(tmp_path, more=PLUGINS),
            AsyncClient(home=tmp_path) as client,
            AsyncClient(home=tmp_path) as second,
        ):
            other = await second.store(NAME)
            chat = await client.store(NAME)
            await chat.set_model("guide", "ai-backend")
            await chat.send_message(QUESTION)
            assert SAYS in chat.state.messages[-1].content
            async with asyncio.timeout(20):
                while other.version < chat.version:
                    await asyncio.sleep(0.01)
            assert other.state == chat.state
