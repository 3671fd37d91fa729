"""From a request to the grammar that its answer must follow: checks before native code sees it.

Source of the format: `grammars/README.md` of llama.cpp.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiplayground.errors import InvalidParameters

from .deadline import Deadline, DeadlineExceeded

if TYPE_CHECKING:
    from aiplayground.types import Sampling

MAX_DEPTH = 100
"""Nested parentheses of a grammar; llama.cpp reads each level on its stack, which is limited."""

MAX_SIZE = 512 * 1024
"""Characters of a grammar that a schema turns into."""

TIMEOUT = 2.0
"""Seconds that turning a schema into a grammar may take."""

STRICT_LETTERS = (r'char ::= [^"\\] |', r'char ::= [^"\\\x7F\x00-\x1F] |')
"""What the converter writes for a letter of a string, and what JSON allows."""

_TEXTS = re.compile(r'"(?:[^"\\\n]|\\.)*"|\[(?:[^\]\\\n]|\\.)*\]|#[^\n]*')
"""Literals, classes of characters and comments, in which parentheses mean nothing."""


def grammar_of(request: Sampling, schema: Mapping[str, Any] | None) -> str | None:
    """Return the grammar of a request, given as itself or as a schema, or None.

    Blocks for `TIMEOUT` at most. Raises `InvalidParameters`.
    """
    if request.grammar is not None:
        check_grammar(request.grammar)
        return request.grammar
    return None if schema is None else schema_grammar(schema)


def check_grammar(source: str) -> None:
    """Refuse a grammar that llama.cpp would not survive."""
    depth = deepest = 0
    if "\0" in source:
        raise _refused("it contains a zero byte")
    for letter in _TEXTS.sub("", source):
        depth += (letter == "(") - (letter == ")")
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise _refused(f"it is nested deeper than {MAX_DEPTH} levels")


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """Turn a JSON schema into a grammar."""
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    text = json.dumps(_descend(schema))
    try:
        with Deadline(TIMEOUT):
            source = str(json_schema_to_gbnf(text))
    except DeadlineExceeded as error:
        raise _unusable("it takes too long to read") from error
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise _unusable(str(error) or type(error).__name__) from error
    except (RecursionError, MemoryError, re.error) as error:
        raise _unusable(type(error).__name__) from error
    source = source.replace(*STRICT_LETTERS)
    if len(source) > MAX_SIZE:
        raise _unusable("it is too large")
    check_grammar(source)
    return source


def _descend(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    # The converter does not look at what stands beside a reference, such as the definitions.
    if "$ref" not in schema:
        return schema
    others = {name: value for name, value in schema.items() if name != "$ref"}
    return {**others, "anyOf": [{"$ref": schema["$ref"]}]}


def _refused(why: str) -> InvalidParameters:
    return InvalidParameters(f"The grammar cannot be used: {why}.", details={"field": "grammar"})


def _unusable(why: str) -> InvalidParameters:
    return InvalidParameters(
        f"The JSON schema cannot be used: {why[:300]}. Leave out what is unusual in it.",
        details={"field": "response_format"},
    )
