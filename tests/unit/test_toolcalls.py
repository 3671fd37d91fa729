"""Readers of each family, with texts as its models write them, however they are cut."""

from __future__ import annotations

import json
import random
import re
from typing import Any, NamedTuple

import pytest

from aiplayground.serving.toolcalls import Dialect, Part, detect

TEMPLATES = {
    "hermes": "{% if tools %}<tool_call>{% endif %}",
    "qwen3": "{% if tools %}<tool_call>{% endif %} <think></think>",
    "mistral": "[AVAILABLE_TOOLS]{{ tools }} [TOOL_CALLS]",
    "llama3": "<|start_header_id|>{{ tools }}<|python_tag|>",
    "gemma": "<start_of_turn>user",
    "harmony": "<|start|>assistant<|channel|>{{ tools }}",
    "gemma4": "{{ tools }}<|tool_call>call: <|channel>thought <channel|>",
    "marked": "{{ tools }}<|tool_call_start|>",
    "generic": "{{ messages }}",
    "deepseek": "<think>\n</think>",
    "deepseek3": "{{ tools }}<\uff5ctool\u2581calls\u2581begin\uff5c>",
    "seed": "{{ tools }}<seed:tool_call></seed:tool_call><seed:think></seed:think>",
    "kimi": "{{ tools }}<|tool_calls_section_begin|>",
    "functionary": "<|start_header_id|>{{ tools }}<function=name></function>",
    "recipients": "<|start_header_id|>{{ tools }}>>>all",
}


def deepseek(text: str) -> str:
    """Write DeepSeek's marks, whose bars and spaces are others than a keyboard's."""
    return re.sub(
        r"<\|([^|]*)\|>",
        lambda mark: f"<\uff5c{mark[1].replace(' ', chr(0x2581))}\uff5c>",
        text,
    )


def tool(name: str, *parameters: str, kind: str = "string") -> dict[str, Any]:
    properties = {each: {"type": kind} for each in parameters}
    schema = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TOOLS = [tool("weather", "city", "unit"), tool("add", "a", "b", kind="integer")]


class Seen(NamedTuple):
    """An answer, put together."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, Any], ...] = ()


def call(name: str, **arguments: Any) -> tuple[str, Any]:
    return name, arguments


PARIS = call("weather", city="Paris")
ROME = call("weather", city="Rome")
SUM = call("add", a=1, b=2)

CASES: list[tuple[str, str, Seen]] = [
    ("hermes", "Hello <b>there</b>, 1 < 2.\n", Seen("Hello <b>there</b>, 1 < 2.\n")),
    (
        "hermes",
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        Seen(calls=(PARIS,)),
    ),
    (
        "hermes",
        'I look.\n\n<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n'
        "</tool_call>\n"
        '<tool_call>\n{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}\n</tool_call>\n',
        Seen("I look.", calls=(PARIS, SUM)),
    ),
    # Cut short before the end mark, which some models leave out.
    (
        "hermes",
        '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}',
        Seen(calls=(ROME,)),
    ),
    ("hermes", "<tool_call>{bad}</tool_call> x", Seen("<tool_call>{bad}</tool_call> x")),
    ("hermes", '<tool_call>{"name": 5}</tool_call>', Seen('<tool_call>{"name": 5}</tool_call>')),
    ("hermes", '<tool_call>{"name": "wea', Seen('<tool_call>{"name": "wea')),
    (
        "hermes",
        '<tool_call>{"name": "weather", "arguments": {"city": "New\nYork"}}</tool_call>',
        Seen(calls=(call("weather", city="New\nYork"),)),
    ),
    # What cannot be written as JSON, or as text, is no call, or is escaped.
    (
        "hermes",
        '<tool_call>{"name": "add", "arguments": {"a": 1e999}}</tool_call>',
        Seen('<tool_call>{"name": "add", "arguments": {"a": 1e999}}</tool_call>'),
    ),
    (
        "hermes",
        '<tool_call>{"name": "weather", "arguments": {"city": "\\ud800"}}</tool_call>',
        Seen(calls=(call("weather", city="\ud800"),)),
    ),
    ("hermes", "a <tool_cal b <tool", Seen("a <tool_cal b <tool")),
    ("hermes", "<tool_call>" + "[" * 2000, Seen("<tool_call>" + "[" * 2000)),
    (
        "hermes",
        "<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n"
        "</tool_call>",
        Seen(calls=(PARIS,)),
    ),
    (
        "hermes",
        "<tool_call><function=add><parameter=a>1</parameter><parameter=b>2</parameter></function>"
        "</tool_call>",
        Seen(calls=(SUM,)),
    ),
    (
        "qwen3",
        "<think>\nHm, a < b.\n\nYes.\n</think>\n\nIt is.\n",
        Seen("It is.\n", "Hm, a < b.\n\nYes."),
    ),
    (
        "qwen3",
        "\n<think>\nPlan\n</think>\n\n<tool_call>\n"
        '{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        Seen("", "Plan", (PARIS,)),
    ),
    ("qwen3", "<think>\n\n</think>\n\nHi", Seen("Hi")),
    ("qwen3", "<think>never ended </thin", Seen("", "never ended </thin")),
    ("qwen3", " <thin air", Seen(" <thin air")),
    ("qwen3", "Late <think>is text</think>", Seen("Late <think>is text</think>")),
    (
        "mistral",
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris"}, "id": "abcdefghi"}, '
        '{"name": "add", "arguments": {"a": 1, "b": 2}}]',
        Seen(calls=(PARIS, SUM)),
    ),
    (
        "mistral",
        'Well. [TOOL_CALLS]weather[ARGS]{"city": "Paris"}[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}',
        Seen("Well.", calls=(PARIS, SUM)),
    ),
    (
        "mistral",
        '[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{"city": "Rome"}',
        Seen(calls=(ROME,)),
    ),
    ("mistral", "[TOOL_CALLS][{]", Seen("[TOOL_CALLS][{]")),
    ("mistral", "a [TOOL] b [1, 2] [", Seen("a [TOOL] b [1, 2] [")),
    (
        "llama3",
        '{"name": "weather", "parameters": {"city": "Paris"}}',
        Seen(calls=(PARIS,)),
    ),
    (
        "llama3",
        '<|python_tag|>{"type": "function", "name": "weather", "parameters": {"city": "Paris"}};'
        ' {"name": "add", "parameters": {"a": 1, "b": 2}}\n',
        Seen(calls=(PARIS, SUM)),
    ),
    (
        "llama3",
        '{"name": "weather", "parameters": {"city": "Paris"}}; '
        '{"name": "weather", "parameters": {"city": "Rome"}}',
        Seen(calls=(PARIS, ROME)),
    ),
    ("llama3", '<|python_tag|>weather.call(city="Paris")', Seen(calls=(PARIS,))),
    ("llama3", '{"name": "Bob", "age": 5}', Seen('{"name": "Bob", "age": 5}')),
    ("llama3", '{"a": 1} and more', Seen('{"a": 1} and more')),
    ("llama3", "{ not JSON", Seen("{ not JSON")),
    ("llama3", "<|python_tag|>import os", Seen("<|python_tag|>import os")),
    ("llama3", 'Use {"name": "weather"} so.', Seen('Use {"name": "weather"} so.')),
    (
        "gemma",
        '```tool_code\nprint(weather(city="Paris"))\nadd(1, b=2)\n```',
        Seen(calls=(PARIS, SUM)),
    ),
    (
        "gemma",
        'Sure.\n```json\n{"name": "weather", "parameters": {"city": "Paris"}}\n```\n',
        Seen("Sure.", calls=(PARIS,)),
    ),
    ("gemma", '[{"name": "weather", "parameters": {"city": "Rome"}}]', Seen(calls=(ROME,))),
    ("gemma", '{"name": "weather", "parameters": {"city": "Rome"}}', Seen(calls=(ROME,))),
    ("gemma", '```json\n{"a": 1}\n``` ok', Seen('```json\n{"a": 1}\n``` ok')),
    ("gemma", "```python\nimport os\n```", Seen("```python\nimport os\n```")),
    ("gemma", "```tool_code\nexec('x')\n```", Seen("```tool_code\nexec('x')\n```")),
    (
        "harmony",
        "<|channel|>analysis<|message|>Think < hard.<|end|><|start|>assistant<|channel|>final"
        "<|message|>Answer.<|return|>",
        Seen("Answer.", "Think < hard."),
    ),
    (
        "harmony",
        "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>commentary "
        'to=functions.weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>',
        Seen("", "Hm", (PARIS,)),
    ),
    (
        "harmony",
        ' to=functions.add<|channel|>commentary json<|message|>{"a": 1, "b": 2}',
        Seen(calls=(SUM,)),
    ),
    (
        "harmony",
        "<|channel|>commentary<|message|>First I look.<|end|><|start|>assistant<|channel|>final"
        "<|message|>Done <|not a mark",
        Seen("First I look.Done <|not a mark"),
    ),
    ("harmony", '{"forced": true}', Seen('{"forced": true}')),
    (
        "harmony",
        "<|channel|>commentary to=functions.add<|message|>{bad<|call|>",
        Seen("{bad"),
    ),
    (
        "hermes",
        "\n<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key>\n"
        "<arg_value>2</arg_value>\n</tool_call>",
        Seen(calls=(SUM,)),
    ),
    (
        "seed",
        "<seed:think>Hm</seed:think><seed:tool_call>\n<function=add>\n<parameter=a>1</parameter>\n"
        "<parameter=b>2</parameter>\n</function>\n</seed:tool_call>",
        Seen("", "Hm", (SUM,)),
    ),
    ("hermes", "<tool_call>add</tool_call>", Seen(calls=(call("add"),))),
    ("hermes", "<tool_call>other</tool_call>", Seen("<tool_call>other</tool_call>")),
    (
        "gemma4",
        '<|channel>thought\nHm<channel|>I look.<|tool_call>call:weather{city:<|"|>Paris<|"|>}'
        "<tool_call|><|tool_call>call:add{a:1,b:2}<tool_call|>",
        Seen("I look.", "Hm", (PARIS, SUM)),
    ),
    (
        "gemma4",
        '<|tool_call>call:weather{city:<|"|>{a:1} "x"<|"|>,at:{<|"|>b c<|"|>:[true,{d:-5}]}}'
        "<tool_call|>",
        Seen(calls=(call("weather", city='{a:1} "x"', at={"b c": [True, {"d": -5}]}),)),
    ),
    (
        "gemma4",
        "<|tool_call>call:weather{<tool_call|>",
        Seen("<|tool_call>call:weather{<tool_call|>"),
    ),
    (
        "marked",
        '<|tool_call_start|>[weather(city="Paris"), add(a=1, b=2)]<|tool_call_end|>Now.',
        Seen("Now.", calls=(PARIS, SUM)),
    ),
    (
        "marked",
        '<|tool_call|>[{"name": "weather", "arguments": {"city": "Paris"}}]',
        Seen(calls=(PARIS,)),
    ),
    (
        "marked",
        '<|START_ACTION|>[\n{"tool_call_id": "0", "tool_name": "add", "parameters": '
        '{"a": 1, "b": 2}}\n]<|END_ACTION|>',
        Seen(calls=(SUM,)),
    ),
    (
        "deepseek3",
        deepseek(
            "I look.<|tool calls begin|><|tool call begin|>function<|tool sep|>weather\n```json\n"
            '{"city": "Paris"}\n```<|tool call end|>\n<|tool call begin|>function<|tool sep|>add\n'
            '```json\n{"a": 1, "b": 2}\n```<|tool call end|><|tool calls end|>'
        ),
        Seen("I look.", calls=(PARIS, SUM)),
    ),
    (
        "deepseek3",
        deepseek(
            '<|tool calls begin|><|tool call begin|>weather<|tool sep|>{"city": "Paris"}'
            '<|tool call end|><|tool call begin|>add<|tool sep|>{"a": 1, "b": 2}'
            "<|tool call end|><|tool calls end|> "
        ),
        Seen(calls=(PARIS, SUM)),
    ),
    # Distilled models: no opening mark, or underscores in it; a form that a message described.
    (
        "deepseek3",
        deepseek(
            '<|tool call begin|>weather<|tool sep|>{"city": "Paris"}<|tool call end|>\n'
            '<|tool call begin|>add<|tool sep|>{"a": 1, "b": 2}<|tool call end|><|tool calls end|>'
        ),
        Seen(calls=(PARIS, SUM)),
    ),
    (
        "deepseek3",
        deepseek(
            "<|tool_calls_begin|><|tool_call_begin|>function<|tool_sep|>weather\n```json\n"
            '{"city": "Rome"}\n```<|tool_call_end|>'
        ),
        Seen(calls=(ROME,)),
    ),
    (
        "deepseek3",
        '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>',
        Seen(calls=(ROME,)),
    ),
    (
        "deepseek3",
        deepseek("<|tool calls begin|>nothing<|tool calls end|> <|tool calls end|>"),
        Seen(deepseek("<|tool calls begin|>nothing<|tool calls end|> <|tool calls end|>")),
    ),
    (
        "kimi",
        "Well.<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0"
        '<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|><|tool_call_begin|>'
        'functions.add:1<|tool_call_argument_begin|>{"a": 1, "b": 2}<|tool_call_end|>'
        "<|tool_calls_section_end|>",
        Seen("Well.", calls=(PARIS, SUM)),
    ),
    (
        "kimi",
        "<|tool_calls_section_begin|><|tool_call_begin|>weather<|tool_call_argument_begin|>"
        '{"city": "Rome"}',
        Seen(calls=(ROME,)),
    ),
    (
        "kimi",
        "<|tool_calls_section_begin|><|tool_call_begin|>:0<|tool_call_argument_begin|>{bad}",
        Seen("<|tool_calls_section_begin|><|tool_call_begin|>:0<|tool_call_argument_begin|>{bad}"),
    ),
    (
        "functionary",
        'Hm. <function=weather>{"city": "Paris"}</function>\n'
        "<function=add><parameter=a>1</parameter><parameter=b>2</parameter></function>",
        Seen("Hm.", calls=(PARIS, SUM)),
    ),
    ("functionary", "<function=add></function>", Seen(calls=(call("add"),))),
    ("functionary", "<function=add>x</function>", Seen("<function=add>x</function>")),
    ("functionary", "<function=other>{}</function>", Seen("<function=other>{}</function>")),
    (
        "recipients",
        'all\nI look.\n>>>weather\n{"city": "Paris"}\n>>>add\n{"a": 1, "b": 2}',
        Seen("I look.\n", calls=(PARIS, SUM)),
    ),
    ("recipients", 'weather\n{"city": "Paris"} and so', Seen("and so", calls=(PARIS,))),
    ("recipients", "all\n1 >> 2 >>> 3", Seen("1 >> 2 >>> 3")),
    ("recipients", "all", Seen("all")),
    ("recipients", '{"a": 1}', Seen('{"a": 1}')),
    ("recipients", "weather\nis fine", Seen("weather\nis fine")),
    ("recipients", 'all\nA>>>weather\n{"city"', Seen('A>>>weather\n{"city"')),
    ("marked", "<TOOLCALL>nothing</TOOLCALL>", Seen("<TOOLCALL>nothing</TOOLCALL>")),
    (
        "generic",
        '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>',
        Seen(calls=(ROME,)),
    ),
]


def joined(parts: list[Part]) -> Seen:
    return Seen(
        "".join(part.text for part in parts if part.kind == "text"),
        "".join(part.text for part in parts if part.kind == "reasoning"),
        tuple((part.name, json.loads(part.text)) for part in parts if part.kind == "call"),
    )


def read(dialect: Dialect, pieces: list[str], **options: Any) -> Seen:
    reader = dialect.reader(options.pop("tools", TOOLS), **options)
    parts = [part for piece in pieces for part in reader.feed(piece)]
    assert all(part.text.encode() for part in parts)
    return joined(parts + reader.finish())


@pytest.mark.parametrize(("family", "text", "expected"), CASES)
def test_what_a_text_means(family: str, text: str, expected: Seen) -> None:
    assert read(detect(TEMPLATES[family]), [text]) == expected


@pytest.mark.parametrize(("family", "text", "expected"), CASES)
def test_it_means_the_same_however_it_is_cut(family: str, text: str, expected: Seen) -> None:
    dialect = detect(TEMPLATES[family])
    for place in range(0, len(text), 1 if len(text) < 500 else 97):
        assert read(dialect, [text[:place], text[place:]]) == expected, place
    assert read(dialect, list(text)) == expected


@pytest.mark.parametrize("family", TEMPLATES)
def test_no_text_whatever_is_lost_or_raises(family: str) -> None:
    source = random.Random(7)
    dialect = detect(TEMPLATES[family])
    shards = [
        *dialect.markers, "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<think>", "</think>",
        "```json", "```", '{"name": "weather"', ', "arguments": {"city": "x"}}', "{", "}", "[", "]",
        '"', "a", " ", "\n", "<|", "<", "|>", "weather(", ")", "😀", ";", "\\", "to=functions.add",
        ">>>", "all\n", "weather\n", "<function=add>", "</function>", "functions.add:0",
    ]  # fmt: skip
    for _ in range(400):
        pieces = [source.choice(shards) for _ in range(source.randint(0, 12))]
        text = "".join(pieces)
        whole = read(dialect, [text])
        assert read(dialect, pieces) == whole, text
        assert read(dialect, list(text)) == whole, text
        if family in ("generic", "mistral") and not whole.calls:
            assert whole.text == text


def test_markers_never_leak_in_part() -> None:
    reader = detect(TEMPLATES["hermes"]).reader(TOOLS)
    text = 'Yes. <tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
    shown = "".join(part.text for piece in text for part in reader.feed(piece) if not part.name)
    assert shown == "Yes."


def test_without_tools_calls_are_text() -> None:
    text = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'
    assert read(detect(TEMPLATES["hermes"]), [text], tools=[]) == Seen(text)


def test_reasoning_that_the_prompt_opened() -> None:
    dialect = detect(TEMPLATES["deepseek"])
    assert dialect.opened("<assistant><think>\n")
    assert not dialect.opened("<think>\n\n</think>\n\n")
    for cut in range(12):
        text = "Hm.\n</think>\n\nYes."
        assert read(dialect, [text[:cut], text[cut:]], opened=True) == Seen("Yes.", "Hm.")
    assert read(dialect, ["Hm. "], opened=True) == Seen("", "Hm.")


def test_a_forced_call_is_read_in_every_family() -> None:
    text = '{"name": "weather", "arguments": {"city": "Paris"}}'
    for template in TEMPLATES.values():
        assert read(detect(template), list(text), forced=True) == Seen(calls=(PARIS,))
        assert read(detect(template), [text[:20]], forced=True) == Seen(text[:20])


@pytest.mark.parametrize("family", TEMPLATES)
def test_families_are_found(family: str) -> None:
    dialect = detect(TEMPLATES[family])
    known = {"qwen3": "hermes", "deepseek": "generic", "deepseek3": "deepseek", "seed": "hermes"}
    assert dialect.family == known.get(family, family)
    assert dialect.tools_in_template == ("tools" in TEMPLATES[family])
    assert (dialect.think is not None) == (family in ("qwen3", "deepseek", "gemma4", "seed"))


def test_the_ids_of_calls() -> None:
    key = "0123456789abcdef" * 2
    assert detect(TEMPLATES["mistral"]).call_id(key) == "012345678"
    assert detect(TEMPLATES["hermes"]).call_id(key) == "call_0123456789abcdef01234567"
