"""JSON-RPC as text: what is read, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiplayground.errors import ModelNotFound
from aiplayground_ai_backend.ipc import rpc
from aiplayground_ai_backend.ipc.rpc import Fault, Request, Response, read


def test_requests_and_notifications() -> None:
    assert read('{"jsonrpc":"2.0","method":"m","params":[1],"id":"a"}') == Request(
        method="m", params=[1], id="a"
    )
    assert read('{"jsonrpc":"2.0","method":"m"}') == Request(method="m", notification=True)
    null = read('{"jsonrpc":"2.0","method":"m","id":null}')
    assert null == Request(method="m", id=None, notification=False)


def test_responses() -> None:
    assert read('{"jsonrpc":"2.0","id":1,"result":null}') == Response(id=1)
    refused = read('{"jsonrpc":"2.0","id":1,"error":{"code":-3}}')
    assert refused == Response(id=1, error={"code": -3})


@pytest.mark.parametrize(
    ("text", "code", "id_"),
    [
        ("", rpc.PARSE_ERROR, None),
        ("{", rpc.PARSE_ERROR, None),
        ("NaN", rpc.PARSE_ERROR, None),
        ("[" * 100_000, rpc.PARSE_ERROR, None),
        ("[]", rpc.INVALID_REQUEST, None),
        ("1", rpc.INVALID_REQUEST, None),
        ('{"method":"m","id":1}', rpc.INVALID_REQUEST, 1),
        ('{"jsonrpc":"2.0","method":1,"id":1}', rpc.INVALID_REQUEST, 1),
        ('{"jsonrpc":"2.0","id":1}', rpc.INVALID_REQUEST, 1),
        ('{"jsonrpc":"2.0","method":"m","id":true}', rpc.INVALID_REQUEST, None),
        ('{"jsonrpc":"2.0","method":"m","id":[]}', rpc.INVALID_REQUEST, None),
        ('{"jsonrpc":"2.0","method":"m","params":"p","id":2}', rpc.INVALID_REQUEST, 2),
        (json.dumps([1] * (rpc.MAX_BATCH + 1)), rpc.INVALID_REQUEST, None),
    ],
)
def test_what_breaks_the_protocol(text: str, code: int, id_: Any) -> None:
    found = read(text)
    assert isinstance(found, Fault)
    assert (found.code, found.id) == (code, id_)


def test_a_batch_is_read_item_by_item() -> None:
    found = read('[1, {"jsonrpc":"2.0","method":"m"}]')
    assert isinstance(found, list)
    assert [type(each) for each in found] == [Fault, Request]


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    read(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
KEYS = st.sampled_from(["jsonrpc", "method", "params", "id", "result", "error"])


@given(st.dictionaries(KEYS, JSON | st.just("2.0")))
def test_any_object_is_read_and_its_fault_can_be_told(told: dict[str, Any]) -> None:
    found = read(json.dumps(told))
    if isinstance(found, Fault):
        assert json.loads(rpc.write(rpc.fault(found)))["error"]["code"] == found.code


def test_errors_carry_our_code_and_their_details() -> None:
    error = ModelNotFound("no", details={"name": "m"})
    assert rpc.failure(1, error) == {
        "jsonrpc": "2.0",
        "id": 1,
        "error": {"code": -2, "message": "no", "data": {"name": "m"}},
    }
