"""Bodies of OpenAI requests to requests of ours, and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aiplayground.errors import (
    AIPlaygroundError,
    FailureClass,
    FileOperationError,
    InvalidParameters,
    ModelNotFound,
    ServiceFailed,
    ServiceNotAvailable,
)
from aiplayground.serving.access import check_origin, check_token, host_of
from aiplayground.serving.replies import Answers, Envelope, error_body, model_list, status_of
from aiplayground.serving.wire import parse_chat, parse_completion, parse_object
from aiplayground.types import ChatChunk, Usage

PARAMETERS = frozenset({"temperature", "max_tokens", "stop"})
MESSAGES = [{"role": "user", "content": "Hi"}]


def chat(parameters: frozenset[str] = PARAMETERS, **fields: Any) -> Any:
    body = json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode()
    return parse_chat(body, parameters)


def refusal(**fields: Any) -> InvalidParameters:
    with pytest.raises(InvalidParameters) as caught:
        chat(**fields)
    return caught.value


def test_a_request_and_its_delivery() -> None:
    call = chat(temperature=1, stream=True, stream_options={"include_usage": True}, stop="x")
    assert (call.stream, call.include_usage) == (True, True)
    assert (call.request.model, call.request.temperature, call.request.stop) == ("m", 1, ["x"])
    assert chat()[1:] == (False, False)


def test_the_engine_says_which_parameters_it_honours() -> None:
    assert chat(PARAMETERS | {"seed"}, seed=5).request.seed == 5
    error = refusal(seed=5)
    assert error.details == {"field": "seed"}
    assert "not supported by this engine yet" in error.message
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert chat(PARAMETERS | {"tools"}, tools=tools).request.tools == tools
    assert refusal(tools=tools).details == {"field": "tools"}


def test_an_unknown_parameter_is_named_with_what_comes_close() -> None:
    assert refusal(temprature=1).message == (
        "'temprature' is not a parameter of this request. Did you mean 'temperature'?"
    )


def test_the_wrong_place_is_named() -> None:
    error = refusal(messages=[*MESSAGES, {"role": "king", "content": "x"}])
    assert error.details == {"field": "messages[1].role"}
    assert error.message.startswith("'messages[1].role': input should be 'system'")


def test_types_are_not_bent() -> None:
    for fields in ({"temperature": "1"}, {"max_tokens": True}, {"max_tokens": 2.5}):
        assert refusal(**fields).details["field"] in fields


def test_completions() -> None:
    def parse(**fields: Any) -> Any:
        return parse_completion(json.dumps({"model": "m", **fields}).encode(), PARAMETERS)

    assert parse(prompt="a").request.prompt == "a"
    assert parse(prompt=["a"], best_of=1, echo=False, suffix="").request.prompt == "a"
    for prompt in (["a", "b"], [1], [[1]], [], 5):
        with pytest.raises(InvalidParameters, match="prompt"):
            parse(prompt=prompt)


@pytest.mark.parametrize("body", [b"", b"[1]", b"NaN", b'{"a": Infinity}', b'{"a": "\\ud800"}'])
def test_what_is_no_json_object(body: bytes) -> None:
    with pytest.raises(InvalidParameters, match="JSON"):
        parse_object(body)


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert parse_object(b'{"a": "\\ud83d\\ude00"}') == {"a": "😀"}


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("localhost", "localhost"),
        ("LocalHost:80", "localhost"),
        ("127.0.0.1:8080", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[::1]:80", "::1"),
        ("[::1", ""),
        ("[::1]evil", ""),
        ("localhost:80evil", ""),
        ("user@localhost", "user@localhost"),
        ("::1", ""),
        ("", ""),
    ],
)
def test_hosts(authority: str, host: str) -> None:
    assert host_of(authority) == host


def test_who_may_ask() -> None:
    check_origin({"host": "localhost:1"})
    check_origin({"host": "127.0.0.1", "origin": "http://localhost:3000"})
    for headers in (
        {},
        {"host": "evil.example"},
        {"host": "localhost", "origin": "null"},
        {"host": "localhost", "origin": "https://evil.example"},
        {"host": "localhost", "origin": "https://localhost@evil.example"},
    ):
        with pytest.raises(InvalidParameters) as caught:
            check_origin(headers)
        assert status_of(caught.value) == 403


def test_the_token() -> None:
    check_token({"authorization": "Bearer abc"}, "abc")
    check_token({"authorization": "bearer  abc"}, "abc")
    for value, token in (("Bearer x", "abc"), ("abc", "abc"), ("Bearer ", None), ("Bearer ", "")):
        with pytest.raises(InvalidParameters) as caught:
            check_token({"authorization": value}, token)
        assert status_of(caught.value) == 401


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidParameters("x"), 400),
        (InvalidParameters("x", details={"reason": "too-large"}), 413),
        (InvalidParameters("x", details={"reason": ["unhashable"]}), 400),
        (ModelNotFound("x"), 404),
        (ServiceNotAvailable("x"), 503),
        (ServiceFailed("x", failure=FailureClass.CRASH), 503),
        (FileOperationError("x"), 500),
        (AIPlaygroundError("x"), 500),
    ],
)
def test_each_error_has_a_status(error: AIPlaygroundError, status: int) -> None:
    assert status_of(error) == status
    body = error_body(error, openai=True)
    assert body["code"] == error.code
    assert body["error"]["message"] == "x"
    assert "error" not in error_body(error, openai=False)


def test_answers_are_put_together() -> None:
    answer = Answers()
    usage = Usage(prompt_tokens=2, completion_tokens=3)
    for chunk in (
        ChatChunk(reasoning="hm"),
        ChatChunk(text="a"),
        ChatChunk(text="b", finish_reason="stop", usage=usage),
    ):
        answer.add(chunk)
    whole = Envelope("chat", "m").whole(answer)
    assert whole["choices"][0]["message"] == {
        "role": "assistant", "content": "ab", "reasoning_content": "hm",
    }  # fmt: skip
    assert whole["usage"]["total_tokens"] == 5
    assert Envelope("completion", "m").whole(answer)["choices"][0]["text"] == "ab"


def test_the_list_of_models() -> None:
    assert model_list({"m": 5})["data"][0]["id"] == "m"
