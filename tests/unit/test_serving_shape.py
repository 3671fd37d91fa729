"""From what a model writes to the chunks of an answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from tests.scripted import functions

from aiplayground.serving.shape import Shaper, shaped
from aiplayground.serving.toolcalls import detect
from aiplayground.types import ChatChunk, ChatRequest, Message, Usage

HERMES = "<tool_call></think>{{ tools }}"
CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'


def shaper(template: str = HERMES, **fields: Any) -> Shaper:
    fields = {"tools": list(functions("f")), **fields}
    request = ChatRequest(model="m", messages=[Message(role="user", content="Hi")], **fields)
    return Shaper(detect(template), request)


def test_plain_text_passes_as_it_is() -> None:
    made = shaper(tools=None)
    chunk = ChatChunk(text="Hello ")
    assert made.take(chunk) is chunk
    end = ChatChunk(finish_reason="length", usage=Usage())
    assert made.take(end) is end
    assert made.take(ChatChunk()) is None


def test_log_probabilities_come_with_their_tokens_even_if_the_text_waits() -> None:
    made = shaper()
    out = made.take(ChatChunk(text="<tool", logprobs=[{"token": "<tool", "logprob": -1}]))
    assert out is not None
    assert (out.text, len(out.logprobs or ())) == ("", 1)
    assert made.take(ChatChunk(text="_call")) is None


def test_each_answer_is_read_for_itself() -> None:
    made = shaper()
    half = len(CALL) // 2
    for index in (0, 1):
        assert made.take(ChatChunk(index=index, text=CALL[:half])) is None
    for index in (1, 0):
        out = made.take(ChatChunk(index=index, text=CALL[half:]))
        assert out is not None
        assert out.index == index
        assert [call["index"] for call in out.tool_calls or ()] == [0]


def test_an_answer_that_was_cut_short_after_a_call_says_so() -> None:
    for reason, told in (("stop", "tool_calls"), ("length", "length")):
        made = shaper()
        made.take(ChatChunk(text=CALL))
        end = made.take(ChatChunk(text=" ", finish_reason=reason))
        assert end is not None
        assert (end.text, end.finish_reason) == ("", told)


def test_what_the_engine_separated_itself_is_kept() -> None:
    made = shaper()
    call = {"index": 0, "id": "x", "type": "function", "function": {"name": "f"}}
    for chunk in (
        ChatChunk(reasoning="Hm"),
        ChatChunk(tool_calls=[call]),
        ChatChunk(usage=Usage()),
    ):
        assert made.take(chunk) is chunk


def test_a_format_leaves_no_room_for_reasoning() -> None:
    made = shaper(tools=None, response_format={"type": "json_object"})
    made.begin("<assistant><think>\n")
    chunk = made.take(ChatChunk(text="{}", finish_reason="stop"))
    assert chunk is not None
    assert (chunk.text, chunk.reasoning) == ("{}", "")


async def test_closing_reaches_the_engine() -> None:
    closed: list[bool] = []

    async def endless() -> AsyncGenerator[ChatChunk, None]:
        try:
            while True:
                yield ChatChunk(text="a")
        finally:
            closed.append(True)

    async with aclosing(shaped(endless(), shaper(tools=None))) as chunks:
        assert (await anext(chunks)).text == "a"
    assert closed == [True]
