from __future__ import annotations

import io
import threading
from typing import Any

import click
import pytest
from pydantic import ValidationError

from aiplayground.cli import chat
from aiplayground.cli._answer import Answer, find_model
from aiplayground.cli._output import note
from aiplayground.cli._sampling import OPTIONS, chat_request, given
from aiplayground.cli._status import describe
from aiplayground.cli.chat import _message
from aiplayground.errors import InvalidParameters
from aiplayground.events import KernelStopping, ModelLoaded, ServiceInfoUpdate
from aiplayground.states import Desired, Installation, Runtime
from aiplayground.status import ServiceInfo
from aiplayground.types import ChatChunk, ModelInfo, Sampling, Usage

MODELS = [
    ModelInfo(name="Guide", service="a-backend", path="/m/guide.gguf"),
    ModelInfo(name="other", service="b-backend"),
]


def _accepts(check: Any, value: float) -> bool:
    try:
        check(value)
    except (click.BadParameter, ValidationError):
        return False
    return True


@pytest.mark.parametrize("name", OPTIONS)
def test_the_options_take_exactly_what_requests_take(name: str) -> None:
    option = OPTIONS[name][0]
    bounds = [getattr(option, "min", None), getattr(option, "max", None)]
    step = 1 if isinstance(option, click.IntRange) else 0.001
    for bound in (bound for bound in bounds if bound is not None):
        for value in (bound - step, bound, bound + step):
            by_option = _accepts(lambda v: option.convert(v, None, None), value)
            by_request = _accepts(lambda v: Sampling.model_validate({name: v}), value)
            assert by_option == by_request, (name, value)


def test_only_what_was_given_is_asked_for() -> None:
    nothing = dict.fromkeys(OPTIONS) | {"stop": ()}
    assert given(nothing) == {}
    assert given(nothing | {"seed": 0, "stop": ("x",)}) == {"seed": 0, "stop": ["x"]}


def test_what_options_cannot_check_is_explained() -> None:
    messages = [{"role": "user", "content": "hi"}]
    with pytest.raises(InvalidParameters, match=r"stop\[0\].: string should have at least 1"):
        chat_request("m", messages, {"stop": [""]})
    assert chat_request("m", messages, {"seed": 3}).seed == 3


@pytest.mark.parametrize(
    ("words", "piped", "message"),
    [
        (("a", "b"), "", "a b"),
        ((), "text\n", "text"),
        (("sum up",), "text\nmore\n", "sum up\n\ntext\nmore"),
    ],
)
def test_the_message_is_the_arguments_and_what_is_piped(
    words: tuple[str, ...], piped: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(piped))
    assert _message(words) == message


def test_bytes_that_are_no_text_do_not_spoil_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), "utf-8"))
    assert _message(()) == "caf\ufffd"
    request = chat_request("m", [{"role": "user", "content": "caf\udce9"}], {})
    assert request.messages[0].content == "caf\ufffd"


def test_whoever_pipes_nothing_in_is_told_what_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = threading.Event()

    class Endless(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            assert told.wait(20)
            return ""

    def tell(text: str) -> None:
        note(text)
        told.set()

    monkeypatch.setattr("sys.stdin", Endless())
    monkeypatch.setattr(chat, "PATIENCE", 0.01)
    monkeypatch.setattr(chat, "note", tell)
    assert _message(("hi",)) == "hi"
    assert "piped in" in capsys.readouterr().err


def test_an_empty_message_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    with pytest.raises(click.UsageError):
        _message(())


def test_an_answer_collects_its_pieces() -> None:
    answer = Answer()
    answer.add(ChatChunk(reasoning="hm"))
    answer.add(ChatChunk(text="a"))
    answer.add(ChatChunk(text="b", finish_reason="stop", usage=Usage(prompt_tokens=2)))
    assert answer.as_json("m", "s") == {
        "model": "m",
        "service": "s",
        "text": "ab",
        "reasoning": "hm",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 2, "completion_tokens": 0, "total_tokens": 2},
    }
    assert Answer().as_json("m", None)["usage"] is None


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Guide", "Guide"),
        ("guide.gguf", "Guide"),
        ("a-backend/Guide", "Guide"),
        ("/m/guide.gguf", "Guide"),
        ("b-backend/Guide", None),
        ("gui", None),
    ],
)
def test_a_model_is_found_as_the_kernel_finds_it(name: str, found: str | None) -> None:
    model = find_model(MODELS, name)
    assert (model.name if model else None) == found


@pytest.mark.parametrize(
    ("runtime", "models", "text"),
    [
        (Runtime.STARTING, (), "Starting Engine …"),
        (Runtime.RUNNING, (), "Loading m …"),
        (Runtime.RUNNING, ("m",), ""),
        (Runtime.BACKOFF, (), "Engine went away and is started again …"),
        (Runtime.STOPPED, (), ""),
    ],
)
def test_waiting_is_explained_by_events(
    runtime: Runtime, models: tuple[str, ...], text: str
) -> None:
    service = ServiceInfo(
        name="e",
        title="Engine",
        installation=Installation.INSTALLED,
        runtime=runtime,
        desired=Desired.UP,
        start_tried=True,
        base_url="",
        port=0,
        version=None,
        required=False,
        models=models,
    )
    assert describe(ServiceInfoUpdate(service="e", services=(service,)), "m") == text
    assert describe(ServiceInfoUpdate(service="gone", services=(service,)), "m") == ""


def test_other_events_say_little() -> None:
    assert describe(ModelLoaded(service="e", model="m"), "m") == "Thinking …"
    assert describe(KernelStopping(), "m") == ""
