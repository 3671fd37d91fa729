"""From an exit code and the last lines of a log to a cause and a next step."""

from __future__ import annotations

import json

import pytest

from aiplayground.errors import FailureClass
from aiplayground.failures import LAST_LINES, classify, describe_exit
from aiplayground.serving.protocol import ERROR_PREFIX

CASES = [
    (1, "ggml_backend_cuda_buffer_type_alloc_buffer: failed to allocate 123 MiB", "out-of-memory"),
    (1, "RuntimeError: [enforce fail] DefaultCPUAllocator: can't: out of memory", "out-of-memory"),
    (-6, "terminate called after throwing an instance of 'std::bad_alloc'", "out-of-memory"),
    (1, "MemoryError", "out-of-memory"),
    (1, "OSError: [Errno 98] Address already in use", "port-taken"),
    (1, "Error: listen EADDRINUSE: address in use 127.0.0.1:8080", "port-taken"),
    (1, "couldn't bind HTTP server socket", "port-taken"),
    (127, "x: error while loading shared libraries: libcuda.so.1: cannot open", "missing-library"),
    (1, "ImportError: libfoo.so: cannot open shared object file: No such", "missing-library"),
    (1, "ImportError: DLL load failed while importing _core", "missing-library"),
    (1, "ModuleNotFoundError: No module named 'torch'", "missing-library"),
    (1, "gguf_init_from_file_impl: invalid magic characters: 'HTML'", "bad-model"),
    (1, "llama_model_load: error loading model: unknown model architecture: 'x'", "bad-model"),
    (1, "python: can't open file 'x.py': [Errno 2] No such file or directory", "missing-file"),
    (1, "FileNotFoundError: [WinError 3] The system cannot find the path", "missing-file"),
    (-11, "all was well", "crash"),
    (-6, "", "crash"),
    (-9, "", "crash"),
    (126, "", "missing-file"),
    (127, "", "missing-file"),
    (0, "bye", "exit"),
    (1, "something else", "exit"),
    (3221225477, "", "exit"),
]


@pytest.mark.parametrize(("code", "line", "failure"), CASES)
def test_each_cause_is_told_from_the_log_or_the_exit(code: int, line: str, failure: str) -> None:
    error = classify("svc", "main", code, ["first line", line, ""])
    assert error.failure.value == failure
    assert error.message.startswith("svc: main ")
    assert describe_exit(code) in error.message
    assert "." in error.message, "a next step follows"
    if error.failure.value not in ("crash", "exit") and line:
        assert error.message.endswith(f" It said: {line}")
    assert error.details["exitCode"] == code
    assert error.details["service"] == "svc"
    assert error.details["worker"] == "main"


def test_every_message_says_more_than_what_happened() -> None:
    messages = {classify("svc", "main", code, [line]).message for code, line, _ in CASES}
    advice = (
        "Use ",
        "Stop ",
        "Install ",
        "Set ",
        "Download ",
        "Check ",
        "Free ",
        "another",
        "says",
    )
    assert all(any(word in message for word in advice) for message in messages), messages


def told(body: object) -> str:
    return ERROR_PREFIX + json.dumps(body)


def test_what_the_worker_says_itself_counts_most() -> None:
    body = {
        "code": -3,
        "message": "It is damaged.",
        "details": {"failure": "bad-model", "path": "x"},
    }
    error = classify("svc", "main", 1, ["out of memory", told(body), "Traceback"])
    assert error.failure is FailureClass.BAD_MODEL
    assert error.message == "svc: It is damaged."
    assert error.details["path"] == "x"
    assert error.details["exitCode"] == 1


def test_the_last_thing_it_says_counts() -> None:
    lines = [told({"code": -1, "message": text}) for text in ("first", "second")]
    assert classify("svc", "main", 1, lines).message == "svc: second"


@pytest.mark.parametrize("rest", ["{", "[]", "7", "null", '"text"', ""])
def test_a_garbled_report_is_shown_as_it_is(rest: str) -> None:
    error = classify("svc", "main", 1, [ERROR_PREFIX + rest])
    assert error.failure is FailureClass.EXIT
    assert error.message == f"svc: {ERROR_PREFIX}{rest}"


def test_an_error_carries_the_last_lines_that_say_something() -> None:
    lines = [f"line {number}\n" for number in range(100)] + ["", "   "]
    log = classify("svc", "main", 1, lines).details["log"]
    assert len(log) == LAST_LINES
    assert log[-1] == "line 99\n"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-9, "was ended by SIGKILL"),
        (-11, "was ended by SIGSEGV"),
        (-250, "was ended by signal 250"),
    ],
)
def test_how_it_ended_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words


def test_an_older_line_does_not_explain_a_kill() -> None:
    killed = classify("s", "main", -9, ["open: No such file or directory", "serving"])
    assert killed.failure is FailureClass.CRASH
    starved = classify("s", "main", -9, ["ggml: failed to allocate buffer"])
    assert starved.failure is FailureClass.OUT_OF_MEMORY
