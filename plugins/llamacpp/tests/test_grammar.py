"""Grammars and schemas before native code sees them."""

from __future__ import annotations

from typing import Any

import pytest

from aiplayground.errors import InvalidParameters
from aiplayground.types import Sampling
from aiplayground_llamacpp.bindings import load_bindings
from aiplayground_llamacpp.grammar import MAX_DEPTH, check_grammar, grammar_of, schema_grammar

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def _bindings() -> None:
    load_bindings()  # as in a worker: the converter comes with them


def test_a_grammar_is_taken_as_it_is() -> None:
    assert grammar_of(Sampling(grammar='root ::= "a"'), None) == 'root ::= "a"'
    assert grammar_of(Sampling(), None) is None


def test_a_grammar_that_is_nested_too_deeply_is_refused() -> None:
    deep = "root ::= " + "(" * 50_000 + '"a"' + ")" * 50_000
    with pytest.raises(InvalidParameters, match="deeper"):
        check_grammar(deep)
    check_grammar("root ::= " + "(" * MAX_DEPTH + '"a"' + ")" * MAX_DEPTH)


def test_parentheses_in_texts_classes_and_comments_are_no_nesting() -> None:
    check_grammar('root ::= "' + "(" * 500 + '\\"((" [' + "(" * 500 + "\\](] # " + "(" * 500)
    with pytest.raises(InvalidParameters, match="deeper"):
        check_grammar('root ::= "a" ' + "(" * 500 + ' "b"')


def test_a_zero_byte_does_not_hide_the_rest() -> None:
    with pytest.raises(InvalidParameters, match="zero"):
        check_grammar('root ::= "a"\0(')


def test_a_schema_becomes_a_grammar() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"]}
    grammar = grammar_of(Sampling(), schema)
    assert grammar is not None
    assert "root ::=" in grammar
    assert "additionalProperties" not in grammar


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "#/nowhere/at/all"},
        {"$ref": "https://example.invalid/schema"},
        {"type": "object", "properties": 5},
        {"type": "object", "properties": {"a": 5}},
        {"enum": 5},
        {"type": "string", "pattern": "(((("},
        {"type": "string", "pattern": "a"},
        {"type": "object", "properties": {f"p{n}": {} for n in range(3000)}},
    ],
)
def test_what_is_no_usable_schema_is_a_bad_request(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameters) as caught:
        schema_grammar(schema)
    assert caught.value.details["field"] in ("response_format", "grammar")


def test_a_schema_may_refer_to_itself() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}
    assert "next" in schema_grammar({"$defs": {"node": node}, "$ref": "#/$defs/node"})
