"""The store `openAiCompatibleChat` on backends in the test's own process."""

from __future__ import annotations

import asyncio
import inspect
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import Fake, eventually, kernel, nothing_leaks
from tests.unit.test_files import TEXT

from aiplayground.conversations import Archive, ChatMessage, MessageStatus
from aiplayground.errors import (
    AIPlaygroundError,
    FileOperationError,
    InvalidParameters,
    ModelNotFound,
    ServiceNotAvailable,
)
from aiplayground.hookspecs import hookimpl
from aiplayground.kernel import Kernel
from aiplayground.specs import Capability
from aiplayground.stores._store import ACTION_ATTRIBUTE
from aiplayground.stores.chat import ChatState, OpenAiCompatibleChatStore
from aiplayground.stores.views import OpenAiCompatibleChat
from aiplayground.types import ChatChunk, ChatRequest, Usage

NAME = "openAiCompatibleChat"
PARAMETERS = frozenset({"temperature", "max_tokens"})
SEES: dict[str, Any] = {"capabilities": frozenset({Capability.CHAT, Capability.VISION})}


class Scripted(Fake):
    """Answers with its chunks, one after another; `held` keeps it before the last of them."""

    def __init__(
        self, *chunks: ChatChunk | str, name: str = "fake", pause: float = 0, **more: Any
    ) -> None:
        super().__init__(name, **{"parameters": PARAMETERS, **more})
        self.pause = pause
        self.chunks = [ChatChunk(text=each) if isinstance(each, str) else each for each in chunks]
        self.held: asyncio.Event | None = None
        self.fails: AIPlaygroundError | None = None
        self.requests: list[ChatRequest] = []

    @hookimpl
    async def chat(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        self.requests.append(request)
        try:
            for chunk in self.chunks:
                if self.pause:
                    await asyncio.sleep(self.pause)
                yield chunk
            if self.held is not None:
                await self.held.wait()
            if self.fails is not None:
                raise self.fails
            yield ChatChunk(finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=2))
        finally:
            self.closed += 1

    @property
    def asked(self) -> list[tuple[str, Any]]:
        return [(each.role, each.content) for each in self.requests[-1].messages]


@pytest.fixture
def backend() -> Scripted:
    return Scripted("Hel", "lo")


@pytest.fixture
async def running(tmp_path: Path, backend: Scripted) -> AsyncIterator[Kernel]:
    async with kernel(tmp_path, backend, Scripted("other", name="other", models=("n",))) as one:
        yield one


@pytest.fixture
async def chat(running: Kernel) -> OpenAiCompatibleChatStore:
    store: OpenAiCompatibleChatStore = await running.store(NAME)
    return store


def texts(chat: OpenAiCompatibleChatStore) -> list[str]:
    return [each.content for each in chat.state.messages]


async def answering(chat: OpenAiCompatibleChatStore, text: str) -> None:
    """Wait until the answer that is shown has a text."""
    await eventually(lambda: chat.state.messages and chat.state.messages[-1].content == text)


# The reference ------------------------------------------------------------------------------


async def test_the_example_of_the_reference(chat: OpenAiCompatibleChatStore) -> None:
    await chat.set_model("m", "ai-backend")
    await chat.send_message("Explain quantum computing")
    [question, answer] = chat.state.messages
    assert (question.role, question.content) == ("user", "Explain quantum computing")
    assert (answer.role, answer.content, answer.status) == ("assistant", "Hello", "complete")
    assert question.timestamp > 1.7e12, "milliseconds, as JavaScript counts them"


async def test_messages_have_the_documented_schema(
    running: Kernel, chat: OpenAiCompatibleChatStore
) -> None:
    await running.call("stores:call", NAME, "sendMessage", ["Hello there"])
    told = await running.call("stores:get", NAME)
    [question, answer] = told["state"]["messages"]
    assert set(question) - set(answer) == set()
    documented = {"id", "role", "content", "timestamp"}
    assert documented <= set(question)
    assert answer == {
        "id": answer["id"],
        "role": "assistant",
        "content": "Hello",
        "timestamp": answer["timestamp"],
        "status": "complete",
        "parent": question["id"],
        "siblings": [],
        "finishReason": "stop",
        "model": "m",
        "backend": "fake",
        "promptTokens": 3,
        "completionTokens": 2,
    }
    assert told["state"]["conversation"]["title"] == "Hello there"
    assert told["getters"] == {"isGenerating": False}


# Models -------------------------------------------------------------------------------------


async def test_wrong_models_and_backends_are_answered_with_what_is_there(
    chat: OpenAiCompatibleChatStore,
) -> None:
    with pytest.raises(ModelNotFound, match=r"no model 'nn'.*Models here: m, n"):
        await chat.set_model("nn")
    with pytest.raises(ModelNotFound, match=r"fake has no model 'n'.*Models of fake: m"):
        await chat.set_model("n", "fake")
    with pytest.raises(ServiceNotAvailable, match="Did you mean 'fake'"):
        await chat.set_model("m", "fak")
    assert (chat.state.model, chat.state.backend, chat.version) == ("", "ai-backend", 0)


async def test_each_conversation_has_its_model(
    chat: OpenAiCompatibleChatStore, backend: Scripted
) -> None:
    await chat.set_model("n", "other")
    await chat.send_message("one")
    assert chat.state.conversation is not None
    first = chat.state.conversation.id
    await chat.new_conversation()
    await chat.set_model("m")
    await chat.send_message("two")
    assert texts(chat) == ["two", "Hello"]
    await chat.open_conversation(first)
    assert (chat.state.model, chat.state.backend) == ("n", "other")
    await chat.send_message("three")
    assert texts(chat) == ["one", "other", "three", "other"]
    assert chat.state.messages[-1].backend == "other"
    assert len(backend.requests) == 1


async def test_without_a_model_nothing_is_kept(tmp_path: Path) -> None:
    async with kernel(tmp_path, Scripted(models=())) as one:
        chat: OpenAiCompatibleChatStore = await one.store(NAME)
        with pytest.raises(ModelNotFound):
            await chat.send_message("Hello")
        assert chat.state.conversations == ()


async def test_instructions_and_settings_belong_to_the_conversation(
    chat: OpenAiCompatibleChatStore, backend: Scripted
) -> None:
    await chat.new_conversation("Be brief.", preset="Chat")
    await chat.configure(settings={"temperature": 0.5})
    await chat.send_message("one")
    assert backend.asked == [("system", "Be brief."), ("user", "one")]
    assert backend.requests[-1].temperature == 0.5
    await chat.configure(system_prompt="", settings={}, preset="")
    await chat.send_message("two")
    assert backend.asked == [("user", "one"), ("assistant", "Hello"), ("user", "two")]
    assert backend.requests[-1].temperature is None
    assert chat.state.conversation is not None
    assert chat.state.conversation.preset is None
    for wrong in ({"temperature": 9}, {"temperatur": 1}, {"n": 2}):
        with pytest.raises(InvalidParameters):
            await chat.configure(settings=wrong)


# Presets -----------------------------------------------------------------------------------


def preset(running: Kernel, name: str, backend: str = "ai-backend", **settings: Any) -> None:
    """Write a preset of the user's, with a text or number for each setting."""
    folder = running.paths.presets
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {
        key: {"name": key, "type": "text" if isinstance(value, str) else "number", "default": value}
        for key, value in settings.items()
    }
    variants = [{"name": "usual"}, {"name": "cold", "settings": {"temperature": 0}}]
    fields = {"type": "text", "backend": backend, "settings": shapes}
    some = variants if "temperature" in settings else []
    text = json.dumps({"name": name, **fields, "variants": some})
    (folder / f"{name}.json").write_text(text)


async def test_what_a_preset_says_holds_where_the_conversation_says_nothing(
    running: Kernel, chat: OpenAiCompatibleChatStore, backend: Scripted
) -> None:
    preset(running, "Loud", systemPrompt="Shout.", temperature=0.5, maxTokens=9)
    presets = await running.store("presets")
    await presets.load_presets()
    await chat.new_conversation(preset="loud")
    await chat.send_message("one")
    assert backend.asked == [("system", "Shout."), ("user", "one")]
    assert (backend.requests[-1].temperature, backend.requests[-1].max_tokens) == (0.5, 9)
    await chat.configure("Whisper.", {"temperature": 0.7})
    await chat.send_message("two")
    assert backend.asked[0] == ("system", "Whisper.")
    assert (backend.requests[-1].temperature, backend.requests[-1].max_tokens) == (0.7, 9)
    await chat.configure("", {}, preset="Loud/cold")
    await chat.send_message("three")
    assert backend.asked[0] == ("system", "Shout.")
    assert backend.requests[-1].temperature == 0
    await chat.configure(preset="")
    await chat.regenerate()
    assert backend.asked[0] == ("user", "one")
    assert backend.requests[-1].max_tokens is None


async def test_what_was_set_in_a_preset_holds_in_a_conversation(
    running: Kernel, chat: OpenAiCompatibleChatStore, backend: Scripted
) -> None:
    preset(running, "Loud", temperature=0.5, maxTokens=9)
    presets = await running.store("presets")
    await presets.load_presets()
    await chat.new_conversation(preset="Loud")
    names = [each.name for each in presets.state.presets]
    await presets.set_active_preset(names.index("Loud"))
    await presets.set_setting("maxTokens", 4)
    await presets.set_active_variant("cold")
    await chat.send_message("one")
    assert (backend.requests[-1].temperature, backend.requests[-1].max_tokens) == (0, 4)


async def test_a_preset_brings_its_model_and_a_later_choice_wins(
    running: Kernel, chat: OpenAiCompatibleChatStore, backend: Scripted
) -> None:
    preset(running, "Other", "other", temperature=0.5)
    preset(running, "Named", model="n")
    preset(running, "Missing", model="gone")
    await (await running.store("presets")).load_presets()
    await chat.new_conversation(preset="Other")
    assert (chat.state.model, chat.state.backend) == ("", "other")
    await chat.send_message("one")
    assert texts(chat)[-1] == "other"
    await chat.set_model("m", "fake")
    await chat.send_message("two")
    assert len(backend.requests) == 1
    await chat.configure(preset="Named")
    assert (chat.state.model, chat.state.backend) == ("n", "ai-backend")
    version = chat.version
    with pytest.raises(ModelNotFound, match="no model 'gone'"):
        await chat.configure(preset="Missing")
    assert (chat.version, chat.state.model) == (version, "n")


async def test_a_preset_that_is_none_is_refused_and_one_that_went_is_told_of(
    running: Kernel, chat: OpenAiCompatibleChatStore, backend: Scripted
) -> None:
    preset(running, "Loud", maxTokens=9)
    preset(running, "Hot", temperature=9)
    (running.paths.presets / "p.json").write_text(
        '{"name": "Picture", "type": "image", "backend": "comfyui-backend"}'
    )
    (running.paths.presets / "broken.json").write_text('{"name": "Broken",\n "type": 1}')
    await (await running.store("presets")).load_presets()
    for wrong, why in (
        ("Lod", "'Loud'"),
        ("Broken", r"broken\.json:2"),
        ("Picture", "of type 'image'"),
        ("Hot", "temperature"),
    ):
        with pytest.raises(InvalidParameters, match=why) as refused:
            await chat.new_conversation(preset=wrong)
        assert refused.value.details["reason"] == "no-preset"
    assert chat.state.conversations == ()
    await chat.new_conversation(preset="Loud")
    (running.paths.presets / "Loud.json").unlink()
    await (await running.store("presets")).load_presets()
    with pytest.raises(InvalidParameters, match=r"no preset 'Loud'.*configure\(preset=…\)"):
        await chat.send_message("one")
    assert (texts(chat), chat.state.generating) == ([], ())
    await chat.configure(preset="")
    await chat.send_message("one")
    assert texts(chat) == ["one", "Hello"]


# Answers ------------------------------------------------------------------------------------


async def test_an_answer_is_shown_as_it_grows_and_not_for_each_piece(tmp_path: Path) -> None:
    backend = Scripted(*["word "] * 2000)
    async with kernel(tmp_path, backend) as one:
        chat: OpenAiCompatibleChatStore = await one.store(NAME)
        backend.held = asyncio.Event()
        before = chat.version
        sending = asyncio.create_task(chat.send_message("Hello"))
        await answering(chat, "word " * 2000)
        assert chat.state.is_generating
        assert chat.state.messages[-1].status == "streaming"
        shown = await chat.get_conversation(chat.state.generating[0])
        assert shown.messages == chat.state.messages, "the newest text, not what the disk has"
        backend.held.set()
        await sending
        assert not chat.state.is_generating
        assert chat.version - before < 200


async def test_reasoning_and_tool_calls_are_data(tmp_path: Path) -> None:
    def call(index: int, **fields: Any) -> ChatChunk:
        return ChatChunk(tool_calls=[{"index": index, **fields}])

    backend = Scripted(
        ChatChunk(reasoning="Let me "),
        ChatChunk(reasoning="see."),
        call(0, id="c1", type="function", function={"name": "find", "arguments": '{"a'}),
        call(0, function={"arguments": '": 1}'}),
        call(1, id="c2", type="function", function={"name": "go", "arguments": "{}"}),
        "Done",
    )
    async with kernel(tmp_path, backend) as one:
        chat: OpenAiCompatibleChatStore = await one.store(NAME)
        await chat.send_message("Hello")
        answer = chat.state.messages[-1]
        assert (answer.content, answer.reasoning) == ("Done", "Let me see.")
        assert answer.tool_calls is not None
        functions = [each["function"] for each in answer.tool_calls]
        assert functions == [
            {"name": "find", "arguments": '{"a": 1}'},
            {"name": "go", "arguments": "{}"},
        ]
        await chat.open_conversation(chat.state.conversations[0].id)
        assert chat.state.messages[-1] == answer, "the disk has the same"
        await chat.send_message("Go on")
        assert backend.asked == [("user", "Hello"), ("assistant", "Done"), ("user", "Go on")]


async def test_one_answer_at_a_time_in_a_conversation_and_many_in_all(
    chat: OpenAiCompatibleChatStore, backend: Scripted
) -> None:
    backend.held = asyncio.Event()
    first = asyncio.create_task(chat.send_message("one"))
    await answering(chat, "Hello")
    refusals = [
        chat.send_message("two"),
        chat.regenerate(),
        chat.edit_message(chat.state.messages[0].id, "x"),
        chat.edit_message(chat.state.messages[1].id, "x"),
        chat.show_branch(chat.state.messages[0].id),
    ]
    for each in refusals:
        with pytest.raises(InvalidParameters, match="being answered") as refused:
            await each
        assert (refused.value.code, refused.value.details["reason"]) == (-4, "busy")
    await chat.new_conversation()
    second = asyncio.create_task(chat.send_message("two"))
    await answering(chat, "Hello")
    assert len(chat.state.generating) == 2
    backend.held.set()
    await asyncio.gather(first, second)
    assert not chat.state.generating
    assert texts(chat) == ["two", "Hello"]


async def test_two_first_messages_make_one_conversation(
    chat: OpenAiCompatibleChatStore,
) -> None:
    done = await asyncio.gather(
        chat.send_message("one"), chat.send_message("two"), return_exceptions=True
    )
    assert len(chat.state.conversations) == 1
    assert [each for each in done if each is not None] == [done[1]]
    assert isinstance(done[1], InvalidParameters)


async def test_stop_keeps_what_was_said(chat: OpenAiCompatibleChatStore, backend: Scripted) -> None:
    backend.held = asyncio.Event()
    sending = asyncio.create_task(chat.send_message("one"))
    await answering(chat, "Hello")
    await chat.stop()
    await sending
    assert backend.closed == 1, "the engine's stream is closed"
    answer = chat.state.messages[-1]
    assert (answer.content, answer.status, answer.error) == ("Hello", "stopped", None)
    await chat.stop()
    backend.held = None
    await chat.send_message("Go on")
    assert backend.asked == [("user", "one"), ("assistant", "Hello"), ("user", "Go on")]


async def test_stop_before_the_first_word(
    chat: OpenAiCompatibleChatStore, backend: Scripted
) -> None:
    backend.loading = asyncio.Event()
    sending = asyncio.create_task(chat.send_message("one"))
    await eventually(lambda: chat.state.generating)
    await chat.stop()
    await sending
    assert texts(chat) == ["one", ""]
    assert chat.state.messages[-1].status == "stopped"


async def test_an_answer_goes_on_when_its_caller_is_gone(
    chat: OpenAiCompatibleChatStore, backend: Scripted
) -> None:
    backend.held = asyncio.Event()
    sending = asyncio.create_task(chat.send_message("one"))
    await answering(chat, "Hello")
    sending.cancel()
    await asyncio.wait({sending})
    backend.held.set()
    await eventually(lambda: not chat.state.generating)
    assert chat.state.messages[-1].status == "complete"


async def test_a_failure_keeps_the_text_says_what_to_do_and_can_be_tried_again(
    chat: OpenAiCompatibleChatStore, backend: Scripted
) -> None:
    backend.fails = ServiceNotAvailable("The engine went away.", details={"service": "fake"})
    with pytest.raises(ServiceNotAvailable, match="went away"):
        await chat.send_message("one")
    answer = chat.state.messages[-1]
    assert (answer.content, answer.status) == ("Hello", "failed")
    assert answer.error is not None
    assert answer.error.code == -3
    assert answer.error.message.startswith("The engine went away. What was said until then is kept")
    assert answer.error.details["service"] == "fake"
    await chat.open_conversation(chat.state.conversations[0].id)
    assert chat.state.messages[-1] == answer
    backend.fails = None
    await chat.regenerate()
    assert chat.state.messages[-1].status == "complete"
    assert chat.state.messages[-1].siblings == (answer.id, chat.state.messages[-1].id)


async def test_a_question_whose_answer_has_no_text_is_asked_with_the_next(
    chat: OpenAiCompatibleChatStore, backend: Scripted
) -> None:
    backend.chunks, backend.fails = [], ServiceNotAvailable("Gone.")
    with pytest.raises(ServiceNotAvailable):
        await chat.send_message("one")
    backend.fails = None
    await chat.send_message("two")
    assert backend.asked == [("user", "one\n\ntwo")]


async def test_a_plugins_defect_is_a_failed_answer(
    chat: OpenAiCompatibleChatStore, backend: Scripted
) -> None:
    backend.fails = ValueError("oops")  # type: ignore[assignment]  # no error of ours
    with pytest.raises(AIPlaygroundError, match="oops"):
        await chat.send_message("one")
    assert chat.state.messages[-1].status == "failed"


async def test_the_kernel_goes_down_in_mid_answer(tmp_path: Path) -> None:
    with nothing_leaks():
        backend = Scripted("so ", "far")
        backend.held = asyncio.Event()
        async with kernel(tmp_path, backend) as one:
            chat: OpenAiCompatibleChatStore = await one.store(NAME)
            sending = asyncio.create_task(chat.send_message("one"))
            await answering(chat, "so far")
        with pytest.raises(AIPlaygroundError):
            await sending
        del chat, sending
    backend.held = None
    async with kernel(tmp_path, backend) as one:
        again: OpenAiCompatibleChatStore = await one.store(NAME)
        await again.open_conversation(again.state.conversations[0].id)
        answer = again.state.messages[-1]
        assert (answer.content, answer.status) == ("so far", "failed")
        await again.regenerate()
        assert again.state.messages[-1].status == "complete"


async def test_the_store_closes_in_mid_answer(
    chat: OpenAiCompatibleChatStore, backend: Scripted, running: Kernel
) -> None:
    backend.held = asyncio.Event()
    sending = asyncio.create_task(chat.send_message("one"))
    await answering(chat, "Hello")
    await chat.close()
    with pytest.raises(ServiceNotAvailable, match="ended in mid-answer"):
        await sending
    archive = Archive(running.paths.conversations)
    branch = await archive.branch(chat.state.conversations[0].id)
    await archive.close()
    assert [each.status for each in branch.messages] == ["complete", "interrupted"]


# Branches -----------------------------------------------------------------------------------


async def test_regenerate_edit_and_back(chat: OpenAiCompatibleChatStore, backend: Scripted) -> None:
    await chat.send_message("one")
    await chat.send_message("two")
    question, first, *_ = chat.state.messages
    backend.chunks = [ChatChunk(text="Again")]
    await chat.regenerate(first.id)
    assert texts(chat) == ["one", "Again"]
    assert backend.asked == [("user", "one")]
    await chat.edit_message(question.id, "ONE")
    assert texts(chat) == ["ONE", "Again"]
    assert chat.state.messages[0].siblings[0] == question.id
    await chat.edit_message(chat.state.messages[1].id, "My words")
    assert texts(chat) == ["ONE", "My words"]
    assert len(backend.requests) == 4, "an answer of one's own asks nobody"
    await chat.show_branch(first.id)
    assert texts(chat) == ["one", "Hello", "two", "Hello"]
    await chat.regenerate(chat.state.messages[2].id)
    assert texts(chat) == ["one", "Hello", "two", "Again"]
    for wrong in (chat.regenerate("x"), chat.edit_message("x", "y"), chat.show_branch("x")):
        with pytest.raises(InvalidParameters, match="no message 'x'"):
            await wrong


# Images -------------------------------------------------------------------------------------


async def test_images_go_to_the_model_and_stay_with_an_edited_question(tmp_path: Path) -> None:
    backend = Scripted("a dot", **SEES)
    url = f"data:image/png;base64,{TEXT}"
    async with kernel(tmp_path, backend) as one:
        chat: OpenAiCompatibleChatStore = await one.store(NAME)
        await chat.send_message("What is it?", [TEXT, url])
        assert chat.state.messages[0].images == (url, url)
        picture = {"type": "image_url", "image_url": {"url": url}}
        text = {"type": "text", "text": "What is it?"}
        assert backend.asked == [("user", [text, picture, picture])]
        await chat.edit_message(chat.state.messages[0].id, "And now?")
        assert chat.state.messages[0].images == (url, url)
        await chat.new_conversation()
        await chat.send_message("", [url])
        assert backend.asked == [("user", [picture])]
        assert chat.state.conversations[0].title == "Images"


async def test_an_image_that_is_none_is_refused_by_its_place(
    chat: OpenAiCompatibleChatStore,
) -> None:
    with pytest.raises(InvalidParameters, match=r"'images\[1\]' is no picture") as refused:
        await chat.send_message("Hello", [TEXT, "bm8gcGljdHVyZQ=="])
    assert refused.value.details["field"] == "images[1]"
    with pytest.raises(InvalidParameters, match="32 images at most"):
        await chat.send_message("Hello", [TEXT] * 33)
    assert chat.state.conversations == ()


async def test_a_model_that_cannot_see_says_so(chat: OpenAiCompatibleChatStore) -> None:
    with pytest.raises(InvalidParameters, match="reads text only"):
        await chat.send_message("What is it?", [TEXT])
    assert chat.state.messages[-1].status == "failed"


# Conversations ------------------------------------------------------------------------------


async def test_conversations_are_listed_renamed_and_deleted(
    chat: OpenAiCompatibleChatStore, backend: Scripted
) -> None:
    await chat.send_message("A question that is so long that it does not fit into any title at all")
    first = chat.state.conversations[0]
    assert first.title == "A question that is so long that it does not fit into any…"
    second = await chat.new_conversation()
    await chat.send_message("two")
    assert [each.title for each in chat.state.conversations] == ["two", first.title]
    await chat.rename_conversation(first.id, "  Mine ")
    assert [each.title for each in chat.state.conversations] == ["two", "Mine"]
    await chat.send_message("more", conversation_id=first.id)
    assert [each.title for each in chat.state.conversations] == ["Mine", "two"]
    assert texts(chat) == ["two", "Hello"], "another one than is open"
    backend.held = asyncio.Event()
    sending = asyncio.create_task(chat.send_message("three"))
    await eventually(lambda: chat.state.is_generating)
    await chat.delete_conversation(second)
    await sending
    assert (chat.state.conversation, chat.state.messages) == (None, ())
    assert [each.title for each in chat.state.conversations] == ["Mine"]
    with pytest.raises(InvalidParameters, match="There is no conversation"):
        await chat.open_conversation(second)
    with pytest.raises(InvalidParameters, match="No conversation is open"):
        await chat.regenerate()
    hits = await chat.search_conversations("question")
    assert [each.conversation_id for each in hits.items] == [first.id]


async def test_the_list_grows_by_pages(chat: OpenAiCompatibleChatStore, running: Kernel) -> None:
    archive = Archive(running.paths.conversations)
    for number in range(60):
        await archive.create(title=str(number))
    await archive.close()
    await chat.list_again()
    assert len(chat.state.conversations) == 50
    oldest = (await chat.list_conversations(50, chat.state.next_conversations)).items[-1]
    await chat.rename_conversation(oldest.id, "far down")
    assert len(chat.state.conversations) == 50
    await chat.send_message("Hello", conversation_id=oldest.id)
    assert chat.state.conversations[0].id == oldest.id
    await chat.list_more()
    assert len({each.id for each in chat.state.conversations}) == 60
    assert chat.state.next_conversations is None
    await chat.list_more()
    assert len(chat.state.conversations) == 60


# Bad input ----------------------------------------------------------------------------------

BAD: Sequence[tuple[str, list[Any], str]] = [
    ("sendMessage", [""], "empty"),
    ("sendMessage", [" \n"], "empty"),
    ("sendMessage", [5], "'text': input should be a valid string"),
    ("sendMessage", ["x" * 1_000_001], "at most 1000000"),
    ("sendMessage", ["x", "y"], "'images'"),
    ("sendMessage", ["x", None, "no such"], "no conversation 'no such'"),
    ("setModel", [""], "'modelName'"),
    ("editMessage", ["x", "y"], "No conversation is open"),
    ("openConversation", ["x"], "no conversation 'x'"),
    ("renameConversation", ["x", ""], "'title'"),
    ("deleteConversation", ["x"], "no conversation 'x'"),
    ("listConversations", [0], "'limit'"),
    ("searchConversations", ["  "], "'text'"),
    ("sendMessages", [], "Did you mean 'sendMessage'"),
]


@pytest.mark.parametrize(("action", "params", "message"), BAD)
async def test_bad_input_is_explained(
    running: Kernel, action: str, params: list[Any], message: str
) -> None:
    with pytest.raises(InvalidParameters, match=message):
        await running.call("stores:call", NAME, action, params)


async def test_text_that_is_no_unicode_is_kept_as_well_as_it_can_be(
    chat: OpenAiCompatibleChatStore, backend: Scripted
) -> None:
    backend.chunks = [ChatChunk(text="a\ud83d"), ChatChunk(text="\ude00b\ud800")]
    await chat.send_message("x\ud800\x00y")
    assert texts(chat) == ["x\ufffd\x00y", "a\U0001f600b\ufffd"]
    await chat.open_conversation(chat.state.conversations[0].id)
    assert texts(chat) == ["x\ufffd\x00y", "a\U0001f600b\ufffd"]


# The file -----------------------------------------------------------------------------------


async def test_a_damaged_file_is_told_of_in_the_state_and_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "conversations"
    folder.mkdir(parents=True)
    (folder / "conversations.db").write_bytes(b"no database" * 1000)
    async with kernel(tmp_path, Scripted("Hello")) as one:
        chat: OpenAiCompatibleChatStore = await one.store(NAME)
        assert "put aside" in (chat.state.problem or "")
        await chat.send_message("one")
    assert "put aside" in (tmp_path / "logs" / "kernel.log").read_text()


async def test_an_answer_that_the_disk_refuses_is_kept_with_what_follows(
    chat: OpenAiCompatibleChatStore, backend: Scripted
) -> None:
    backend.held = asyncio.Event()
    impatient = "PRAGMA busy_timeout = 10"
    await chat._archive._database.run(lambda it: it.connection.execute(impatient).fetchall())
    sending = asyncio.create_task(chat.send_message("one"))
    await answering(chat, "Hello")
    with closing(sqlite3.connect(chat._archive.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        backend.held.set()
        with pytest.raises(FileOperationError, match="Another program"):
            await sending
        other.execute("COMMIT")
    assert texts(chat) == ["one", "Hello"]
    assert chat.state.generating == ()
    await chat.send_message("two")
    assert texts(chat) == ["one", "Hello", "two", "Hello"]
    assert [each.status for each in chat.state.messages] == ["complete"] * 4


async def test_a_turn_that_comes_to_nothing_leaves_no_trace(
    chat: OpenAiCompatibleChatStore,
) -> None:
    await chat.send_message("one")
    await chat._archive.change(chat.state.conversations[0].id, model="gone")
    with pytest.raises(ModelNotFound, match="no model 'gone'"):
        await chat.send_message("two")
    assert texts(chat) == ["one", "Hello"]
    assert chat.state.generating == ()


def test_the_state_says_what_a_message_is() -> None:
    state = ChatState(messages=(ChatMessage(id="1", role="user", content="a", timestamp=1),))
    assert state.messages[0].status is MessageStatus.COMPLETE
    assert not state.is_generating


def test_the_view_has_every_action() -> None:
    named = {name for name in vars(OpenAiCompatibleChat) if not name.startswith("_")}
    own = vars(OpenAiCompatibleChatStore)
    actions = {name for name in own if hasattr(own[name], ACTION_ATTRIBUTE)}
    assert actions <= named
    for name in actions:
        view = inspect.signature(getattr(OpenAiCompatibleChat, name)).parameters
        assert list(view) == list(inspect.signature(own[name]).parameters), name
