"""JSON-RPC 2.0 as text: pure functions. Source: https://www.jsonrpc.org/specification."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from aiplayground.errors import AIPlaygroundError

PARSE_ERROR, INVALID_REQUEST, NO_METHOD = -32700, -32600, -32601

MAX_BATCH = 64
"""Requests in a batch at most."""

Id: TypeAlias = "str | int | float | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A call; a notification has no id and gets no response."""

    method: str
    params: list[Any] | dict[str, Any] = field(default_factory=list)
    id: Id = None
    notification: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The other end's answer to a call of ours; `error` is None for a success."""

    id: Id
    result: Any = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A message that breaks the protocol."""

    code: int
    message: str
    id: Id = None


Item: TypeAlias = "Request | Response | Fault"


def read(text: str) -> Item | list[Item]:
    """Return what a message holds: one item, or a batch of them."""
    try:
        told = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return Fault(code=PARSE_ERROR, message=f"This is not JSON: {error}")
    if not isinstance(told, list):
        return _item(told)
    if not told:
        return Fault(code=INVALID_REQUEST, message="A batch needs at least one request.")
    if len(told) > MAX_BATCH:
        return Fault(code=INVALID_REQUEST, message=f"A batch takes at most {MAX_BATCH} requests.")
    return [_item(each) for each in told]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _item(told: Any) -> Item:
    if not isinstance(told, dict):
        return Fault(code=INVALID_REQUEST, message="A request must be an object.")
    id_ = told.get("id")
    if isinstance(id_, bool) or not isinstance(id_, (str, int, float, type(None))):
        return Fault(code=INVALID_REQUEST, message="'id' must be a text, a number or null.")
    if told.get("jsonrpc") != "2.0":
        return Fault(code=INVALID_REQUEST, message="'jsonrpc' must be '2.0'.", id=id_)
    if "method" not in told and ("result" in told or "error" in told):
        error = told.get("error")
        return Response(
            id=id_,
            result=told.get("result"),
            error=error if isinstance(error, dict) else {} if "error" in told else None,
        )
    method, params = told.get("method"), told.get("params", [])
    if not isinstance(method, str):
        return Fault(code=INVALID_REQUEST, message="'method' must be a text.", id=id_)
    if not isinstance(params, (list, dict)):
        message = "'params' must be an array or an object."
        return Fault(code=INVALID_REQUEST, message=message, id=id_)
    return Request(method=method, params=params, id=id_, notification="id" not in told)


def success(id_: Id, result: Any) -> dict[str, Any]:
    """Return the response to a call that succeeded."""
    return {"jsonrpc": "2.0", "id": id_, "result": result}


def failure(id_: Id, error: AIPlaygroundError) -> dict[str, Any]:
    """Return the response to a call that failed: our code, and the details as data."""
    body = {"code": int(error.code), "message": error.message, "data": error.details}
    return {"jsonrpc": "2.0", "id": id_, "error": body}


def fault(found: Fault) -> dict[str, Any]:
    """Return the response to what breaks the protocol."""
    error = {"code": found.code, "message": found.message}
    return {"jsonrpc": "2.0", "id": found.id, "error": error}


def call(method: str, params: list[Any] | Mapping[str, Any], id_: Id = None) -> dict[str, Any]:
    """Return a call; without an id a notification."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    return message if id_ is None else message | {"id": id_}


def write(message: dict[str, Any] | list[dict[str, Any]]) -> str:
    """Return a message as text."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))
