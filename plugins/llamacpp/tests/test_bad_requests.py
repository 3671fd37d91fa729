"""What a client can get wrong, and that the worker is none the worse for it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from plugins.llamacpp.tests.tiny_model import CONTEXT
from plugins.llamacpp.tests.workers import ENGINES as BOTH
from plugins.llamacpp.tests.workers import Worker

pytestmark = pytest.mark.engine

ENGINES = BOTH
SLOW_TWICE = {"test_no_body_whatever_makes_a_500_or_ends_the_worker"}

MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"

TOOLS = [{"type": "function", "function": {"name": "f"}}]


def schema(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}


BAD: list[tuple[str, dict[str, Any], int, str]] = [
    (CHAT, {"model": "other"}, -2, "other"),
    (CHAT, {"model": ""}, -4, "model"),
    (CHAT, {"model": 5}, -4, "model"),
    (CHAT, {"model": None}, -4, "model"),
    (CHAT, {"messages": []}, -4, "messages"),
    (CHAT, {"messages": None}, -4, "messages"),
    (CHAT, {"messages": "Hi"}, -4, "messages"),
    (CHAT, {"messages": ["Hi"]}, -4, "messages[0]"),
    (CHAT, {"messages": [{"role": "king", "content": "x"}]}, -4, "messages[0].role"),
    (CHAT, {"messages": [{"role": "user"}]}, -4, "messages[0].content"),
    (CHAT, {"messages": [{"role": "user", "content": 5}]}, -4, "messages[0].content"),
    (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, -4, "not known here"),
    (CHAT, {"messages": [{"role": "user", "content": "x", "age": 5}]}, -4, "age"),
    (CHAT, {"messages": [{"role": "user", "content": "a" * 2 * CONTEXT}]}, -4, str(CONTEXT)),
    (CHAT, {"messages": [{"role": "user", "content": "a" * 10**6}]}, -4, str(CONTEXT)),
    (CHAT, {"messages": [{"role": "user", "content": "\ud83d"}]}, -4, "JSON"),
    (CHAT, {"temperature": -1}, -4, "temperature"),
    (CHAT, {"temperature": "warm"}, -4, "temperature"),
    (CHAT, {"temperature": 10**400}, -4, "temperature"),
    (CHAT, {"temperature": float("nan")}, -4, "JSON"),
    (CHAT, {"temperature": float("inf")}, -4, "JSON"),
    (CHAT, {"top_p": 1.5}, -4, "top_p"),
    (CHAT, {"top_k": -1}, -4, "top_k"),
    (CHAT, {"top_k": 1.5}, -4, "top_k"),
    (CHAT, {"min_p": -0.1}, -4, "min_p"),
    (CHAT, {"typical_p": 0}, -4, "typical_p"),
    (CHAT, {"repeat_penalty": 0}, -4, "repeat_penalty"),
    (CHAT, {"frequency_penalty": 3}, -4, "frequency_penalty"),
    (CHAT, {"max_tokens": 0}, -4, "max_tokens"),
    (CHAT, {"max_tokens": -5}, -4, "max_tokens"),
    (CHAT, {"max_tokens": True}, -4, "max_tokens"),
    (CHAT, {"max_completion_tokens": -5}, -4, "max_tokens"),
    (CHAT, {"max_completion_tokens": 5, "max_tokens": 6}, -4, "max_completion_tokens"),
    (CHAT, {"seed": -1}, -4, "seed"),
    (CHAT, {"seed": 2**32}, -4, "seed"),
    (CHAT, {"stop": 5}, -4, "stop"),
    (CHAT, {"stop": [""]}, -4, "stop"),
    (CHAT, {"stop": ["x"] * 17}, -4, "stop"),
    (CHAT, {"stream": "yes"}, -4, "stream"),
    (CHAT, {"stream_options": 5}, -4, "stream_options"),
    (CHAT, {"stream_options": {"include_usage": 5}}, -4, "include_usage"),
    (CHAT, {"tools": [{"type": "function"}]}, -4, "tools"),
    (CHAT, {"tool_choice": "required"}, -4, "tool_choice"),
    (CHAT, {"tools": TOOLS, "tool_choice": "always"}, -4, "tool_choice"),
    (CHAT, {"tools": TOOLS, "response_format": {"type": "json_object"}}, -4, "response_format"),
    (CHAT, {"response_format": {"type": "xml"}}, -4, "response_format"),
    (CHAT, {"response_format": schema({"$ref": "#/nowhere"})}, -4, "schema"),
    (CHAT, {"response_format": schema({"$ref": "http://x.example"})}, -4, "schema"),
    (CHAT, {"response_format": schema({"type": "string", "pattern": "(" * 40})}, -4, "schema"),
    (CHAT, {"grammar": "no grammar"}, -4, "grammar"),
    (CHAT, {"grammar": "branch ::= [a]"}, -4, "grammar"),
    (CHAT, {"chat_template_kwargs": {"messages": []}}, -4, "chat_template_kwargs"),
    (CHAT, {"logprobs": 5}, -4, "logprobs"),
    (CHAT, {"top_logprobs": 5}, -4, "logprobs"),
    (CHAT, {"logprobs": True, "top_logprobs": 21}, -4, "top_logprobs"),
    (CHAT, {"logit_bias": {"x": 1}}, -4, "logit_bias"),
    (CHAT, {"logit_bias": {"9999999": 1}}, -4, "logit_bias"),
    (CHAT, {"n": 17}, -4, "n"),
    (CHAT, {"n": 0}, -4, "n"),
    (CHAT, {"n": True}, -4, "n"),
    (CHAT, {"temprature": 1}, -4, "temperature"),
    (TEXT, {"prompt": ""}, -4, "prompt"),
    (TEXT, {"prompt": None}, -4, "prompt"),
    (TEXT, {"prompt": 5}, -4, "prompt"),
    (TEXT, {"prompt": ["a", "b"]}, -4, "prompt"),
    (TEXT, {"prompt": [1, 2]}, -4, "prompt"),
    (TEXT, {"prompt": "a" * CONTEXT}, -4, str(CONTEXT)),
    (TEXT, {"prompt": "a", "echo": True}, -4, "echo"),
    (TEXT, {"prompt": "a", "messages": MESSAGES}, -4, "messages"),
]


def body_of(path: str, fields: dict[str, Any]) -> bytes:
    base = {"model": "tiny", "max_tokens": 2}
    base |= {"messages": MESSAGES} if path == CHAT else {"prompt": "Hi"}
    return json.dumps({**base, **fields}).encode()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "fields", "code", "words"), BAD)
def test_bad_requests(
    worker: Worker, path: str, fields: dict[str, Any], code: int, words: str, stream: bool
) -> None:
    content = body_of(path, {"stream": stream, **fields})
    answer = worker.client.post(path, content=content)
    body = answer.json()
    assert answer.status_code == {-4: 400, -2: 404}[code], body
    assert body["code"] == code
    assert words in body["message"]
    assert body["error"]["message"] == body["message"]
    assert body["error"]["type"] == "invalid_request_error"
    assert isinstance(body["details"], dict)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"5", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000,
     b'{"model": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_bodies_that_are_no_object(worker: Worker, content: bytes) -> None:
    answer = worker.client.post(CHAT, content=content)
    assert (answer.status_code, answer.json()["code"]) == (400, -4)


GOOD: list[dict[str, Any]] = [
    {"user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"},
    {"n": 1, "logprobs": False, "top_logprobs": None, "logit_bias": {}, "tools": []},
    {"tool_choice": "none", "response_format": {"type": "text"}, "parallel_tool_calls": True},
    {"stop": None, "seed": None, "temperature": None},
    {"stop": "x"},
    {"seed": 2**32 - 1},
    {"max_completion_tokens": 2},
    {"top_k": 10**15},
    {"repeat_penalty": 1e-300},
    {"temperature": 1e-300},
    {"temperature": 5},
    {"top_p": 0, "min_p": 1},
    {"typical_p": 1e-300},
    {"n": 16},
    {"logprobs": True, "top_logprobs": 20},
    {"logit_bias": {str(token): -100 for token in range(261)}},
    {"logit_bias": {"5": 100}, "temperature": 0},
    {"grammar": "root ::= [a-z]*", "ignore_eos": True, "repeat_penalty": 2},
    {"response_format": {"type": "json_object"}},
]


@pytest.mark.parametrize("fields", GOOD)
def test_what_has_no_effect_and_what_is_extreme_is_accepted(
    worker: Worker, fields: dict[str, Any]
) -> None:
    answer = worker.client.post(CHAT, content=body_of(CHAT, fields))
    assert answer.status_code == 200, answer.text


def test_clients_may_send_back_what_they_got(worker: Worker) -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": "x", "refusal": None}, *MESSAGES]
    assert worker.client.post(CHAT, content=body_of(CHAT, {"messages": messages})).is_success


def test_a_body_that_is_too_large(worker: Worker) -> None:
    answer = worker.client.post(CHAT, content=b" " * (33 * 2**20))
    assert (answer.status_code, answer.json()["code"]) == (413, -4)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
@pytest.mark.parametrize("path", ["/health", "/v1/models", "/models/unload"])
def test_requests_for_another_host_are_refused(worker: Worker, host: str, path: str) -> None:
    answer = worker.client.get(path, headers={"Host": host})
    assert answer.status_code == 403
    assert answer.json()["code"] == -4


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]:9", "[::1]"])
def test_every_name_of_this_host_will_do(worker: Worker, host: str) -> None:
    assert worker.client.get("/health", headers={"Host": host}).is_success


def test_pages_of_other_sites_are_refused(worker: Worker) -> None:
    for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
        assert worker.client.get("/v1/models", headers={"Origin": origin}).status_code == 403
    near = {"Origin": "http://localhost:3000"}
    assert worker.client.get("/v1/models", headers=near).is_success


@pytest.mark.parametrize("path", ["/models/load", "/models/unload"])
@pytest.mark.parametrize("value", [None, "Bearer", "Bearer wrong", "Basic abc", "Bearer \xe9"])
def test_control_needs_the_token(worker: Worker, path: str, value: str | None) -> None:
    headers = {} if value is None else {"Authorization": value.encode("latin-1")}
    answer = worker.client.post(path, headers=headers, json={})  # type: ignore[arg-type]  # bytes
    assert (answer.status_code, answer.json()["code"]) == (401, -4)
    assert worker.client.get("/health").json()["model"] == "tiny"


def test_there_is_nothing_else(worker: Worker) -> None:
    assert worker.client.get("/nowhere").status_code == 404
    assert worker.client.get(CHAT).status_code == 405


FUZZ_FIELDS = [
    "model", "messages", "prompt", "max_tokens", "temperature", "top_k", "top_p", "min_p", "stop",
    "typical_p", "seed", "stream", "repeat_penalty", "frequency_penalty", "presence_penalty", "n",
    "ignore_eos", "stream_options", "tools", "response_format", "logit_bias", "nonsense", "kind",
    "logprobs", "top_logprobs", "grammar", "tool_choice", "chat_template_kwargs",
]  # fmt: skip


def junk(source: random.Random, depth: int = 0) -> Any:
    simple: list[Any] = [
        None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 0.5, -0.0, 1e308, 1e-320, "", "tiny",
        "a" * 700, "\0", "<|user|></s>", "👍" * 9, "user", "[INST]", "text", "{{ 1/0 }}",
    ]  # fmt: skip
    if depth < 3 and source.random() < 0.35:
        if source.random() < 0.5:
            return [junk(source, depth + 1) for _ in range(source.randint(0, 4))]
        keys = ["role", "content", "type", "text", "name", "tool_calls", "include_usage"]
        return {source.choice(keys): junk(source, depth + 1) for _ in range(source.randint(0, 4))}
    return source.choice(simple)


def test_no_body_whatever_makes_a_500_or_ends_the_worker(worker: Worker) -> None:
    source = random.Random(20)
    seen: set[int] = set()
    for number in range(400):
        path = source.choice([CHAT, TEXT])
        picked = source.sample(FUZZ_FIELDS, source.randint(0, 4))
        content = body_of(path, {"max_tokens": 3, **{name: junk(source) for name in picked}})
        if source.random() < 0.15:
            place = source.randrange(len(content))
            content = content[:place] + source.randbytes(3) + content[place + 2 :]
        answer = worker.client.post(path, content=content)
        seen.add(answer.status_code)
        assert answer.status_code in (200, 400, 404), (number, content, answer.text)
        assert b'"code"' not in answer.content or b'"code":-' in answer.content
    assert seen >= {200, 400}
    assert worker.process.poll() is None
    assert worker.client.get("/health").json()["active"] == 0
