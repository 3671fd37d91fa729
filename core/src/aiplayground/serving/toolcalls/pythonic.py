"""Calls written as Python: `get_weather(city="Paris")`. They are read, never run."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from typing import Any

from .parts import Part, object_text

MAX_SOURCE = 64 * 1024
"""Characters of source that are read; nobody writes longer calls by intention."""


def parse_calls(source: str, tools: Mapping[str, Mapping[str, Any]]) -> list[Part] | None:
    """Return the calls if the source holds nothing else, and only of `tools`; else None.

    Arguments must be literals; those without a name get the parameters' names in their order.
    `print(…)` around a call, an assignment, and the `.call` of Llama's built-in tools are left out.
    """
    try:
        statements = _statements(source)
        calls = [_call(_unwrap(statement), tools) for statement in statements]
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
    return calls or None


def _statements(source: str) -> list[ast.stmt]:
    if len(source) > MAX_SOURCE:
        raise ValueError("too long")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd escapes in a model's texts
        statements = ast.parse(source.strip()).body
    listed = statements[0] if len(statements) == 1 else None
    if isinstance(listed, ast.Expr) and isinstance(listed.value, ast.List):
        return [ast.Expr(each) for each in listed.value.elts]
    return statements


def _unwrap(statement: ast.stmt) -> ast.Call:
    value = statement.value if isinstance(statement, ast.Expr | ast.Assign) else None
    printed = isinstance(value, ast.Call) and _name(value.func) == "print"
    if isinstance(value, ast.Call) and printed and len(value.args) == 1:
        value = value.args[0]
    if not isinstance(value, ast.Call):
        raise TypeError("not a call")
    return value


def _call(call: ast.Call, tools: Mapping[str, Mapping[str, Any]]) -> Part:
    name = _name(call.func)
    if name not in tools:
        name = name.removesuffix(".call")
    if name not in tools:
        raise ValueError("not a tool")
    arguments = dict(zip(tools[name], map(ast.literal_eval, call.args), strict=False))
    if len(arguments) < len(call.args):
        raise ValueError("more arguments than parameters")
    for keyword in call.keywords:
        if keyword.arg is None:
            raise ValueError("not a name")
        arguments[keyword.arg] = ast.literal_eval(keyword.value)
    text = object_text(arguments)
    if text is None:
        raise ValueError("not JSON")
    return Part("call", text, name)


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return f"{_name(function.value)}.{function.attr}"
    if isinstance(function, ast.Name):
        return function.id
    raise TypeError("not a name")
