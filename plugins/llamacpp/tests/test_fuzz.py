"""Whatever the body, the worker answers with a status that is the client's fault, or with 200."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plugins.llamacpp.tests.workers import Launch, Worker

from aiplayground_llamacpp.parameters import PARAMETERS

pytestmark = pytest.mark.engine

CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
ALLOWED = {200, 400, 404, 413}
MESSAGES = [{"role": "user", "content": "Hi"}]

NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([2**31, 2**32, 2**63, -(2**63), 2**64, 10**300, -1, 0, 1]),
    st.floats(),  # with NaN and the infinities, which Python's JSON can write
)
TEXTS = st.one_of(
    st.text(st.characters(), max_size=40),  # halves of surrogate pairs too
    st.sampled_from(["", "\0", "a" * 3000, "é" * 600, "<|user|></s>", "{{ 1/0 }}", "👍" * 50]),
)  # fmt: skip
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
KEYS = st.one_of(
    st.sampled_from(
        ["role", "content", "type", "text", "name", "function", "tool_calls", "arguments", "$ref",
         "properties", "items", "anyOf", "enum", "pattern", "minLength", "required", "schema",
         "json_schema", "parameters", "image_url", "url"]
    ),
    st.text(max_size=8),
)  # fmt: skip
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
FIELDS = sorted(
    {*PARAMETERS, "model", "messages", "prompt", "input", "stream", "stream_options", "nonsense",
     "encoding_format", "dimensions", "user", "max_completion_tokens", "logprobs", "kind"}
)  # fmt: skip
BODIES = st.dictionaries(st.sampled_from(FIELDS), JUNK, max_size=4)
SCHEMAS = st.recursive(
    st.sampled_from([{"type": kind} for kind in ("string", "number", "null", "boolean", "array")])
    | st.dictionaries(KEYS, LEAVES, max_size=2),
    lambda inner: st.fixed_dictionaries(
        {"type": st.sampled_from(["object", "array", "string"])},
        optional={
            "properties": st.dictionaries(st.text(max_size=5), inner, max_size=3),
            "items": inner,
            "anyOf": st.lists(inner, max_size=3),
            "minLength": NUMBERS,
            "maxItems": NUMBERS,
            "pattern": TEXTS,
            "$ref": st.sampled_from(["#", "#/properties/a", "#/nowhere", "file:///etc/passwd"]),
        },
    ),
    max_leaves=8,
)
PATHS = st.sampled_from([CHAT, TEXT, EMBED])
FUZZ = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def fuzzed(launch: Launch, model_path: Any) -> Iterator[Worker]:
    worker = launch("--model", str(model_path), "--name", "tiny")
    yield worker
    assert worker.process.poll() is None
    worker.wait_idle()
    assert worker.chat(max_tokens=2).is_success
    assert "Traceback" not in worker.stderr
    metrics = worker.client.get("/metrics").text
    assert 'status="5' not in metrics
    for path in (CHAT, TEXT):  # the fuzz is worth something only if it meets both
        assert f'requests_total{{path="{path}",status="200"}}' in metrics
        assert f'requests_total{{path="{path}",status="400"}}' in metrics


def base(path: str) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {
        CHAT: {"messages": MESSAGES, "max_tokens": 3},
        TEXT: {"prompt": "Hi", "max_tokens": 3},
        EMBED: {"input": "Hi"},
    }
    return {"model": "tiny", **kinds[path]}


def check(answer: httpx.Response, sent: object) -> None:
    assert answer.status_code in ALLOWED, (sent, answer.text)
    if answer.status_code == 200:
        # An error in the middle of a stream is told in an event: not one of ours, and not -1.
        assert '"code":-1' not in answer.text, sent
        return
    body = answer.json()
    assert body["code"] in (-4, -2), (sent, body)
    assert body["message"], sent
    assert body["error"]["message"] == body["message"]


@FUZZ
@given(path=PATHS, fields=BODIES)
def test_fields_of_every_kind(fuzzed: Worker, path: str, fields: dict[str, Any]) -> None:
    content = json.dumps({**base(path), **fields}).encode()
    check(fuzzed.client.post(path, content=content), content)


@FUZZ
@given(path=PATHS, content=st.binary(max_size=200), place=st.integers(0, 200), whole=st.booleans())
def test_bytes_of_every_kind(
    fuzzed: Worker, path: str, content: bytes, place: int, whole: bool
) -> None:
    sound = json.dumps(base(path)).encode()
    sent = content if whole else sound[:place] + content + sound[place + len(content) // 2 :]
    check(fuzzed.client.post(path, content=sent), sent)


@FUZZ
@given(schema=SCHEMAS, stream=st.booleans())
def test_schemas_of_every_kind(fuzzed: Worker, schema: dict[str, Any], stream: bool) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {**base(CHAT), "response_format": form, "stream": stream}
    check(fuzzed.client.post(CHAT, content=json.dumps(body)), schema)


@FUZZ
@given(grammar=st.text(st.sampled_from('root::= "a"[x-z]|()*+?{1,}\n\\#.^-9<>'), max_size=40))
def test_grammars_of_every_kind(fuzzed: Worker, grammar: str) -> None:
    body = {**base(TEXT), "grammar": f"root ::= {grammar}", "temperature": 2}
    check(fuzzed.client.post(TEXT, content=json.dumps(body)), grammar)


@FUZZ
@given(text=TEXTS, biases=st.dictionaries(TEXTS | st.integers(-5, 400).map(str), NUMBERS))
def test_texts_and_biases_of_every_kind(fuzzed: Worker, text: str, biases: dict[str, Any]) -> None:
    body = {**base(TEXT), "prompt": text, "logit_bias": biases, "stop": [text[:3] or "x"]}
    check(fuzzed.client.post(TEXT, content=json.dumps(body)), body)


@pytest.mark.parametrize(
    "content",
    [
        b'{"messages":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"messages":[{"role":"user","content":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}]}",
        b'{"model":"tiny","max_tokens":1e400,"prompt":"x"}',
        b'{"model":"tiny","prompt":"' + b"x" * (4 << 20) + b'"}',
        b'{"model":"' + b"m" * (1 << 20) + b'","prompt":"x"}',
        b'{"model":"tiny","prompt":"\xc3\x28"}',
        b'{"model":"tiny","model":5,"prompt":"x"}',
        json.dumps(base(TEXT)).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps(base(TEXT)).encode(),
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/xml", "x" * 300])
def test_bodies_that_are_huge_deep_or_odd(fuzzed: Worker, content: bytes, kind: str) -> None:
    for path in (CHAT, TEXT, EMBED):
        answer = fuzzed.client.post(path, content=content, headers={"Content-Type": kind})
        check(answer, content[:100])


@pytest.mark.parametrize("path", [CHAT, TEXT, EMBED])
def test_a_body_that_is_cut_off(fuzzed: Worker, path: str) -> None:
    """Neither the half of a body, nor garbage instead of HTTP, is anybody's trouble but its own."""
    content = json.dumps(base(path)).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    for sent in (head.encode() + content[:-5], head.encode(), b"\0\xff garbage\r\n\r\n", b"POST"):
        with socket.create_connection(("127.0.0.1", fuzzed.port), 10) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(20)
            assert b"HTTP/1.1 5" not in connection.recv(1 << 16)
    assert fuzzed.client.get("/health").is_success
