"""The error hierarchy: codes, bodies, and the way back from a body."""

from __future__ import annotations

import json

import pytest

from aiplayground import errors
from aiplayground.errors import (
    AIPlaygroundError,
    ErrorCode,
    FailureClass,
    FileOperationError,
    InvalidModelFile,
    InvalidParameters,
    InvalidSettings,
    InvalidTransition,
    ModelNotFound,
    NotEnoughMemory,
    PluginError,
    ServiceFailed,
    ServiceNotAvailable,
    from_dict,
    suggest,
)

CODES = {
    AIPlaygroundError: -1,
    InvalidTransition: -1,
    NotEnoughMemory: -1,
    PluginError: -1,
    ModelNotFound: -2,
    ServiceNotAvailable: -3,
    ServiceFailed: -3,
    InvalidParameters: -4,
    InvalidSettings: -4,
    FileOperationError: -5,
    InvalidModelFile: -5,
}


def make(kind: type[AIPlaygroundError]) -> AIPlaygroundError:
    if issubclass(kind, ServiceFailed):
        return kind("what happened", failure=FailureClass.CRASH, details={"a": 1})
    return kind("what happened", details={"a": 1})


def test_every_error_class_has_a_documented_code() -> None:
    ours = {
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, AIPlaygroundError)
    }
    assert ours == set(CODES)
    assert {kind: int(kind.code) for kind in ours} == CODES
    assert [int(code) for code in ErrorCode] == [0, -1, -2, -3, -4, -5]


@pytest.mark.parametrize("kind", CODES)
def test_the_body_is_json_with_code_message_and_details(kind: type[AIPlaygroundError]) -> None:
    body = json.loads(json.dumps(make(kind).to_dict()))
    assert set(body) == {"code", "message", "details"}
    assert (body["code"], body["message"]) == (CODES[kind], "what happened")
    assert body["details"]["a"] == 1
    assert str(make(kind)) == "what happened"


@pytest.mark.parametrize("kind", CODES)
def test_an_error_comes_back_from_its_body_with_its_code(kind: type[AIPlaygroundError]) -> None:
    sent = make(kind)
    back = from_dict(json.loads(json.dumps(sent.to_dict())))
    assert back.to_dict() == sent.to_dict()
    assert isinstance(back, AIPlaygroundError)


def test_the_failure_class_travels_in_the_details() -> None:
    sent = ServiceFailed("no memory", failure=FailureClass.OUT_OF_MEMORY, details={"x": 2})
    assert sent.details == {"x": 2, "failure": "out-of-memory"}
    back = from_dict(sent.to_dict())
    assert isinstance(back, ServiceFailed)
    assert back.failure is FailureClass.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"code": 12345, "message": None, "details": None},
        {"code": "x", "message": "", "details": [1]},
        {"details": {"failure": "unheard-of"}},
        {"code": None, "details": "text"},
    ],
)
def test_a_body_that_makes_no_sense_is_a_generic_error(body: dict[str, object]) -> None:
    back = from_dict(body)
    assert type(back) is AIPlaygroundError
    assert back.message == "The backend reported an error without a message."


def test_details_are_not_shared_between_errors() -> None:
    first, second = AIPlaygroundError("a"), AIPlaygroundError("b")
    first.details["x"] = 1
    assert second.details == {}


@pytest.mark.parametrize(
    ("word", "known", "answer"),
    [
        ("llamacp-backend", ["llamacpp-backend", "fake"], " Did you mean 'llamacpp-backend'?"),
        ("zzz", ["llamacpp-backend"], ""),
        ("x", [], ""),
        ("llamacpp", ["ai-backend", "llamacpp-backend"], " Did you mean 'llamacpp-backend'?"),
        ("a.idel", ["a.pinned", "a.idle_timeout"], " Did you mean 'a.idle_timeout'?"),
        ("QWEN3", ["gemma-3", "Qwen3-0.6B-Q8_0"], " Did you mean 'Qwen3-0.6B-Q8_0'?"),
        ("ab", ["abcdefghijkl"], ""),
    ],
)
def test_suggestions(word: str, known: list[str], answer: str) -> None:
    assert suggest(word, iter(known)) == answer
