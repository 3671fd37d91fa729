"""Tools, formats and other limits of requests: what is refused, and in which words."""

from __future__ import annotations

import json
import random
from typing import Any

import httpx
import pytest
from tests.scripted import PARAMETERS, ScriptedEngine, functions, says, served

from aiplayground.errors import InvalidParameters
from aiplayground.serving.describe import told
from aiplayground.serving.formats import MAX_DEPTH, schema_of
from aiplayground.serving.toolcalls import detect
from aiplayground.serving.tools import asked, call_schema
from aiplayground.serving.wire import MAX_NESTING, parse_chat, parse_completion, parse_embeddings

MESSAGES = [{"role": "user", "content": "Hi"}]
TOOLS = functions("weather", "time")


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"items": value}
    return value


def named(name: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def with_schema(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def chat(**fields: Any) -> Any:
    body = {"model": "m", "messages": MESSAGES, **fields}
    return parse_chat(json.dumps(body).encode(), PARAMETERS).request


BAD: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
    ({"tools": [named("")]}, "tools[0].function.name"),
    ({"tools": [named("a b")]}, "tools[0].function.name"),
    ({"tools": [named("a" * 65)]}, "tools[0].function.name"),
    ({"tools": [named("a"), named("a")]}, "tools[1].function.name"),
    ({"tools": [named(f"f{n}") for n in range(129)]}, "tools"),
    ({"tools": ["weather"]}, "tools[0]"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
        "tools[0].function.parameters",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": deep(65)}}]},
        "tools[0].function.parameters",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "description": 5}}]},
        "tools[0].function.description",
    ),
    ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": named("weathr")}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"function": {"name": "time"}}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": 5}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": TOOLS, "parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"tools": TOOLS, "response_format": {"type": "json_object"}}, "response_format"),
    ({"tools": TOOLS, "grammar": "root ::= [a]"}, "grammar"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": with_schema([])}, "response_format.json_schema.schema"),
    ({"response_format": with_schema(None)}, "response_format.json_schema.schema"),
    ({"response_format": with_schema(deep(MAX_DEPTH + 1))}, "response_format.json_schema.schema"),
    ({"response_format": with_schema({"enum": ["a"] * 10_001})}, "response_format.json_schema"),
    ({"response_format": with_schema({"$ref": "https://x.example/"})}, "response_format"),
    ({"response_format": with_schema({"maxLength": 10**9})}, "response_format"),
    ({"response_format": with_schema({"minItems": -1})}, "response_format"),
    ({"response_format": {"type": "json_object", "schema": 5}}, "response_format.schema"),
    ({"response_format": {"type": "json_object"}, "grammar": "root ::= [a]"}, "grammar"),
    ({"grammar": ""}, "grammar"),
    ({"grammar": "a" * (64 * 1024 + 1)}, "grammar"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"logprobs": 5}, "logprobs"),
    ({"top_logprobs": 5}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logit_bias": {"a": 1}}, "logit_bias"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5"),
    ({"logit_bias": {"-5": 1}}, "logit_bias"),
    ({"logit_bias": {str(n): 0.5 for n in range(1025)}}, "logit_bias"),
    ({"chat_template_kwargs": []}, "chat_template_kwargs"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]},
        "messages[0].tool_calls[0].function",
    ),
    (
        {
            "messages": [
                {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
            ]
        },
        "messages[0].tool_calls[0].function.arguments",
    ),
]


@pytest.mark.parametrize(("fields", "field"), BAD)
def test_what_is_wrong_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParameters) as caught:
        chat(**fields)
    assert str(caught.value.details["field"]).startswith(field)
    assert caught.value.message.endswith((".", "?"))


def test_what_has_no_effect_is_dropped() -> None:
    request = chat(n=1, logprobs=False, top_logprobs=0, logit_bias={}, tools=[],
                   response_format={"type": "text"}, tool_choice="auto")  # fmt: skip
    assert request.model_dump(exclude_unset=True).keys() == {"model", "messages", "tool_choice"}


def test_an_engine_without_formats_cannot_be_forced_to_call() -> None:
    body = json.dumps({"model": "m", "messages": MESSAGES, "tools": TOOLS}).encode()[:-1]
    assert parse_chat(body + b"}", {"tools"}).request.tools == TOOLS
    with pytest.raises(InvalidParameters, match="cannot force"):
        parse_chat(body + b', "tool_choice": "required"}', {"tools"})


def test_bodies_may_be_nested_but_not_without_end() -> None:
    value: Any = {}
    for _ in range(MAX_NESTING - 3):
        value = [value]
    assert chat(chat_template_kwargs={"x": value}).chat_template_kwargs == {"x": value}
    with pytest.raises(InvalidParameters, match="nested deeper"):
        chat(chat_template_kwargs={"x": [value]})


def test_the_older_api_counts_log_probabilities() -> None:
    def parse(**fields: Any) -> Any:
        body = {"model": "m", "prompt": "x", **fields}
        return parse_completion(json.dumps(body).encode(), PARAMETERS).request

    assert (parse(logprobs=3).logprobs, parse(logprobs=3).top_logprobs) == (True, 3)
    assert (parse(logprobs=0).logprobs, parse(logprobs=0).top_logprobs) == (True, None)
    assert parse(logprobs=None).logprobs is None
    assert parse(response_format={"type": "json_object"}).response_format is not None


def test_embeddings() -> None:
    def parse(**fields: Any) -> Any:
        return parse_embeddings(json.dumps({"model": "m", **fields}).encode(), PARAMETERS)

    assert parse(input="a", user="me").request.input == ["a"]
    assert parse(input=["a"], encoding_format="base64").base64
    bad: list[dict[str, Any]] = [
        {},
        {"input": []},
        {"input": 5},
        {"input": [1]},
        {"input": "a", "dimensions": 0},
        {"input": "a", "encoding_format": "hex"},
        {"input": "a", "nonsense": 1},
    ]
    for fields in bad:
        with pytest.raises(InvalidParameters):
            parse(**fields)
    with pytest.raises(InvalidParameters, match="dimensions"):
        parse_embeddings(b'{"model": "m", "input": "a", "dimensions": 5}', frozenset())


def test_the_schema_of_an_answer() -> None:
    assert schema_of(chat()) is None
    assert schema_of(chat(response_format={"type": "text"})) is None
    assert schema_of(chat(response_format={"type": "json_object"})) == {"type": "object"}
    assert schema_of(chat(response_format=with_schema({"type": "array"}))) == {"type": "array"}
    form = {"type": "json_object", "schema": {"type": "string"}}
    assert schema_of(chat(response_format=form)) == {"type": "string"}


def test_a_call_that_must_be_made_keeps_the_references_of_its_schema() -> None:
    parameters = {"$ref": "#/$defs/city", "$defs": {"city": {"type": "string"}}}
    schema = call_schema([{"name": "f", "parameters": parameters}])
    assert schema["properties"]["name"] == {"const": "f"}
    target: Any = schema
    for key in schema["$defs"]["arguments0"]["$ref"].split("/")[1:]:
        target = target[key]
    assert target == {"type": "string"}


def test_what_the_model_is_asked() -> None:
    assert asked(chat(tools=TOOLS)).tools == TOOLS
    assert asked(chat(tools=TOOLS, tool_choice="none")).tools is None
    forced = asked(chat(tools=TOOLS, tool_choice=named("time")))
    assert forced.tools == TOOLS
    schema = schema_of(forced)
    assert schema is not None
    assert schema["properties"]["name"] == {"const": "time"}


@pytest.mark.parametrize(("template", "mark"), [("", "<tools>"), ("<start_of_turn>", "parameters")])
def test_tools_are_told_where_the_template_has_no_place(template: str, mark: str) -> None:
    dialect = detect(template)
    call = {"function": {"name": "weather", "arguments": {"city": "Rome"}}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi {x}"},
        {"role": "assistant", "content": "I look.", "tool_calls": [call]},
        {"role": "tool", "content": "Sun"},
        {"role": "tool", "content": "22 °C"},
    ]
    system, user, assistant, results = told(messages, TOOLS, dialect)
    assert system["content"].startswith("Be kind.\n\n")
    assert mark in system["content"]
    assert '"weather"' in system["content"]
    assert user["content"] == "Hi {x}"
    assert results["role"] == "user"
    assert results["content"].count("<tool_response>") == 2
    reader = dialect.reader(TOOLS)
    said = assistant["content"].removeprefix("I look.\n")
    assert [part.name for part in reader.feed(said) + reader.finish()] == ["weather"]
    alone = told(messages[1:2], TOOLS, dialect)
    assert [each["role"] for each in alone] == (["user"] if template else ["system", "user"])
    assert alone[-1]["content"].endswith("Hi {x}")
    assert told(messages[1:2], [], dialect) == messages[1:2]


FUZZ = [
    "messages", "prompt", "max_tokens", "temperature", "stop", "seed", "stream", "n", "tools",
    "tool_choice", "response_format", "logit_bias", "logprobs", "top_logprobs", "grammar",
    "parallel_tool_calls", "chat_template_kwargs", "stream_options", "input", "encoding_format",
    "dimensions", "nonsense",
]  # fmt: skip
KEYS = [
    "type", "function", "name", "parameters", "role", "content", "tool_calls", "arguments", "5",
    "json_schema", "schema", "$ref", "maxLength", "text", "id", "include_usage", "properties",
]  # fmt: skip


def junk(source: random.Random, depth: int = 0) -> Any:
    simple: list[Any] = [
        None, True, False, 0, 1, 2, -1, 16, 2**63, 0.5, 1e308, "", "a", "auto", "required", "none",
        "function", "json_object", "json_schema", "object", "#/x", "user", "tool", "\0", "👍", "{}",
    ]  # fmt: skip
    if depth < 4 and source.random() < 0.4:
        if source.random() < 0.4:
            return [junk(source, depth + 1) for _ in range(source.randint(0, 3))]
        return {source.choice(KEYS): junk(source, depth + 1) for _ in range(source.randint(0, 4))}
    return source.choice(simple)


def nearly(source: random.Random, name: str) -> Any:
    good: dict[str, list[Any]] = {
        "tools": [TOOLS, functions("a")],
        "tool_choice": ["auto", "required", "none", named("weather")],
        "response_format": [{"type": "json_object"}, with_schema({"type": "string"})],
        "messages": [
            MESSAGES,
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}],
        ],
        "logprobs": [True, 2],
        "n": [2],
        "stream": [True],
        "input": ["a", ["a", "b"]],
    }
    if name in good and source.random() < 0.6:
        return source.choice(good[name])
    return junk(source)


async def test_no_body_whatever_makes_a_500() -> None:
    source = random.Random(3)
    base = {"model": "m", "messages": MESSAGES}
    bases: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": base,
        "/v1/completions": {"model": "m", "prompt": "x"},
        "/v1/embeddings": {"model": "m", "input": "x"},
    }
    seen: dict[str, set[int]] = {path: set() for path in bases}
    engine = ScriptedEngine(says('<tool_call>{"name": "a"}</tool_call>'), "<tool_call>")
    async with served(engine) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for number in range(900):
            path = source.choice(list(bases))
            picked = source.sample(FUZZ, source.randint(0, 4))
            body = {**bases[path], **{name: nearly(source, name) for name in picked}}
            answer = await client.post(path, json=body)
            seen[path].add(answer.status_code)
            assert answer.status_code in (200, 400), (number, body, answer.text)
    assert all(codes == {200, 400} for codes in seen.values())
