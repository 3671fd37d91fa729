"""The gateway's pure functions: queue policy, translations, encodings."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiplayground.errors import AIPlaygroundError, FileOperationError, InvalidParameters
from aiplayground.types import ChatChunk, Usage
from aiplayground_ai_backend import messages_request, policy, responses_request
from aiplayground_ai_backend.errors import TooManyRequests, body_of, from_upstream, status_of
from aiplayground_ai_backend.messages_events import MessageBuilder
from aiplayground_ai_backend.policy import Priority, Ticket
from aiplayground_ai_backend.queue import Queue
from aiplayground_ai_backend.requests import model_name, passed_headers, priority_of
from aiplayground_ai_backend.responses_events import ResponseBuilder

HIGH, NORMAL, LOW = Priority


def ticket(number: int, client: str = "a", priority: Priority = NORMAL) -> Ticket:
    return Ticket(number, client, priority, 0.0)


def test_urgent_requests_go_first_then_the_client_with_less_then_the_oldest() -> None:
    waiting = [ticket(1), ticket(2, "b"), ticket(3, "c", HIGH), ticket(4, "b", LOW)]
    active = {"a": 2, "b": 1}
    order = []
    while (found := policy.next_up(waiting, active, 0.0)) is not None:
        order.append(found.number)
        waiting.remove(found)
    assert order == [3, 2, 1, 4]


def test_waiting_makes_urgent() -> None:
    old, new = ticket(1, priority=LOW), Ticket(2, "a", HIGH, 59.0)
    assert policy.next_up([old, new], {}, 59.0) is new
    assert policy.next_up([old, new], {}, 2 * policy.AGEING) is old


def test_positions_and_when_to_come_back() -> None:
    waiting = [ticket(1), ticket(2), ticket(3, priority=HIGH)]
    assert [policy.position(each, waiting, {}) for each in waiting] == [2, 3, 1]
    assert policy.retry_after(0, 1, 0.1) == 1
    assert policy.retry_after(100, 10, 2.0) == 20
    assert policy.retry_after(10_000, 1, 9.0) == policy.MAX_RETRY_AFTER


async def test_a_queue_is_fair_and_loses_no_place() -> None:
    queue, order, go = Queue("s", active=2, waiting=10), list[str](), asyncio.Event()

    async def work(client: str) -> None:
        async with queue.place(client, NORMAL):
            order.append(client)
            await go.wait()

    greedy = [asyncio.create_task(work("greedy")) for _ in range(5)]
    await asyncio.sleep(0)
    modest = asyncio.create_task(work("modest"))
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*greedy, modest)
    assert order == ["greedy", "greedy", "modest", "greedy", "greedy", "greedy"]
    assert (queue.active, queue.waiting) == (0, 0)


async def test_a_place_is_not_lost_to_who_goes_in_the_moment_of_its_turn() -> None:
    queue = Queue("s", active=1, waiting=10)

    async def work() -> None:
        async with queue.place("c", NORMAL):
            pass

    for before in (True, False):
        first = queue.place("c", NORMAL)
        await first.__aenter__()
        waiters = [asyncio.create_task(work()) for _ in range(3)]
        await asyncio.sleep(0)
        if before:
            waiters[0].cancel()
        await first.__aexit__(None, None, None)
        if not before:
            waiters[0].cancel()  # its turn has come; it has not run yet
        done = await asyncio.gather(*waiters, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert done[1:] == [None, None]
        assert (queue.active, queue.waiting) == (0, 0)


async def test_a_full_queue_says_when_to_come_back() -> None:
    queue = Queue("s", active=1, waiting=0)
    async with queue.place("c", NORMAL):
        with pytest.raises(TooManyRequests) as error:
            async with queue.place("c", NORMAL):
                pass
    assert status_of(error.value) == 429
    assert error.value.details["retry_after"] == error.value.retry_after >= 1


def test_models_priorities_and_traces() -> None:
    assert model_name({"model": "ai-backend"}) is None
    assert model_name({"model": "ai-backend/x/y"}) == "x/y"
    for wrong in ({}, {"model": ""}, {"model": 3}):
        with pytest.raises(InvalidParameters):
            model_name(wrong)
    assert priority_of({"x-priority": "High"}) is HIGH
    with pytest.raises(InvalidParameters):
        priority_of({"x-priority": "highest"})
    assert passed_headers({"traceparent": "00-zz", "authorization": "Bearer x"}) == {}


def test_statuses_of_errors() -> None:
    table: list[tuple[AIPlaygroundError, int]] = [
        (FileOperationError("x", details={"reason": "disk-full"}), 507),
        (FileOperationError("x"), 500),
        (InvalidParameters("x", details={"reason": "disk-full"}), 400),
        (InvalidParameters("x", details={"reason": "slow"}), 408),
        (from_upstream(422, {}, "s"), 400),
        (from_upstream(404, None, "s"), 404),
        (from_upstream(502, {"error": {"message": "m"}}, "s"), 500),
    ]
    for error, status in table:
        assert status_of(error) == status
        assert set(body_of(error, "plain")) == {"code", "message", "details"}
    assert body_of(TooManyRequests("x", 3), "anthropic")["error"] == {
        "type": "rate_limit_error",
        "message": "x",
    }


def test_a_responses_request_as_a_chat() -> None:
    chat = responses_request.to_chat(
        {
            "model": "m",
            "instructions": "Be short.",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Look:"}]},
                {"type": "reasoning", "summary": []},
                {"role": "assistant", "content": [{"type": "output_text", "text": "Yes."}]},
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "one"},
                {
                    "role": "user",
                    "content": [{"type": "input_image", "image_url": "data:image/png;base64,x"}],
                },
            ],
            "max_output_tokens": 5,
            "store": True,
            "temperature": None,
        }
    )
    roles = [each["role"] for each in chat["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "user"]
    assert chat["messages"][1]["content"] == "Look:"
    assert [call["id"] for call in chat["messages"][2]["tool_calls"]] == ["1", "2"]
    assert chat["messages"][4]["content"][0]["type"] == "image_url"
    assert chat["max_tokens"] == 5
    assert "temperature" not in chat


@pytest.mark.parametrize(
    "fields",
    [
        {"background": True},
        {"previous_response_id": "r"},
        {"truncation": "auto"},
        {"reasoning": {"effort": "high"}},
        {"tools": [{"type": "web_search"}]},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
        {"unheard_of": 1},
        {"input": 3},
        {"text": "x"},
    ],
)
def test_what_a_responses_request_cannot_have(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameters) as error:
        responses_request.to_chat({"model": "m", "input": "x", **fields})
    assert error.value.details["field"] in fields


def test_a_messages_request_as_a_chat() -> None:
    chat = messages_request.to_chat(
        {
            "model": "m",
            "max_tokens": 5,
            "system": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "messages": [
                {"role": "user", "content": "Hi"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "…", "signature": ""},
                        {"type": "text", "text": "Calling."},
                        {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "1", "content": "one"},
                        {"type": "text", "text": "And?"},
                    ],
                },
            ],
            "stop_sequences": ["."],
            "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
            "thinking": {"type": "disabled"},
        },
        frozenset({"chat_template_kwargs"}),
    )
    assert [each["role"] for each in chat["messages"]] == [
        *("system", "user", "assistant", "tool", "user")
    ]
    assert chat["messages"][0]["content"] == "a\nb"
    assert chat["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"x": 1}'
    assert chat["stop"] == ["."]
    assert chat["tool_choice"]["function"]["name"] == "f"
    assert chat["parallel_tool_calls"] is False
    assert chat["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize(
    "fields",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"tools": [{"type": "web_search_20250305", "name": "w"}]},
        {"tool_choice": {"type": "x"}},
        {"output_config": {"effort": "high"}},
        {"messages": [{"role": "user", "content": [{"type": "document"}]}]},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"unheard_of": 1},
    ],
)
def test_what_a_messages_request_cannot_have(fields: dict[str, Any]) -> None:
    whole = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    with pytest.raises(InvalidParameters) as error:
        messages_request.to_chat({**whole, **fields}, frozenset())
    assert error.value.details["field"] in fields


CHUNKS = [
    ChatChunk(reasoning="Hm"),
    ChatChunk(reasoning="m."),
    ChatChunk(text="A"),
    ChatChunk(text="B"),
    ChatChunk(tool_calls=[{"index": 0, "id": "1", "function": {"name": "f", "arguments": '{"a'}}]),
    ChatChunk(tool_calls=[{"index": 0, "function": {"arguments": '": 1}'}}]),
    ChatChunk(tool_calls=[{"index": 1, "id": "2", "function": {"name": "g", "arguments": "{}"}}]),
    ChatChunk(
        finish_reason="tool_calls",
        usage=Usage(prompt_tokens=7, completion_tokens=4, cached_tokens=2),
    ),
]


def test_responses_events_in_order() -> None:
    builder = ResponseBuilder({}, "m")
    events = [*builder.begin(), *(e for c in CHUNKS for e in builder.add(c)), *builder.end()]
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    opened = [each["item"]["type"] for each in events if each["type"].endswith("item.added")]
    closed = [each["item"]["type"] for each in events if each["type"].endswith("item.done")]
    assert opened == closed == ["reasoning", "message", "function_call", "function_call"]
    response = events[-1]["response"]
    assert response["status"] == "completed"
    assert [each["status"] for each in response["output"]] == ["completed"] * 4
    assert response["output"][0]["content"][0]["text"] == "Hmm."
    assert response["output"][1]["content"][0]["text"] == "AB"
    assert response["output"][2]["arguments"] == '{"a": 1}'
    assert response["output"][3]["call_id"] == "2"
    assert response["usage"]["total_tokens"] == 11
    assert response["usage"]["input_tokens_details"] == {"cached_tokens": 2}


def test_messages_events_in_order() -> None:
    builder = MessageBuilder("m")
    events = [*builder.begin(), *(e for c in CHUNKS for e in builder.add(c)), *builder.end()]
    kinds = [each["content_block"]["type"] for each in events if "content_block" in each]
    assert kinds == ["thinking", "text", "tool_use", "tool_use"]
    stopped = [each["index"] for each in events if each["type"] == "content_block_stop"]
    assert stopped == [0, 1, 2, 3]
    message = builder.message()
    assert message["stop_reason"] == "tool_use"
    assert message["content"][2]["input"] == {"a": 1}
    assert message["usage"]["input_tokens"] == 5
    assert events[-1] == {"type": "message_stop"}


def test_an_answer_without_a_piece_is_one_still() -> None:
    end = ChatChunk(finish_reason="length")
    responses, messages = ResponseBuilder({}, "m"), MessageBuilder("m")
    for builder in (responses, messages):
        builder.begin()
        builder.add(end)
        builder.end()
    assert responses.response("incomplete")["incomplete_details"]["reason"] == "max_output_tokens"
    assert messages.message()["stop_reason"] == "max_tokens"
    assert messages.message()["content"] == []
