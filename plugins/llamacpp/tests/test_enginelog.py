"""The engine's log to causes."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiplayground_llamacpp.enginelog import (
    CONTINUE,
    ERROR,
    INFO,
    WARN,
    LogBuffer,
    LogLine,
    bad_model,
    diagnose,
    out_of_memory,
)

PATH = Path("model.gguf")


@pytest.mark.parametrize(
    ("line", "failure", "words"),
    [
        (
            "llama_model_load: error loading model: tensor 'blk.1.ffn_up.weight' data is not "
            "within the file bounds, model is corrupted or incomplete",
            "bad-model",
            "damaged or incomplete",
        ),
        (
            "llama_model_load: error loading model: unknown model architecture: 'xlama'",
            "bad-model",
            "Update llama-cpp-python",
        ),
        (
            "gguf_init_from_file_impl: invalid magic characters: 'hell', expected 'GGUF'",
            "bad-model",
            "Download it again",
        ),
        (
            "gguf_init_from_file: failed to open GGUF file 'x' (No such file or directory)",
            "missing-file",
            "Check the path",
        ),
        (
            "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 99",
            "out-of-memory",
            "smaller context_size",
        ),
        ("llama_init_from_model: failed: std::bad_alloc", "out-of-memory", "not enough memory"),
        ("cudaMalloc failed: out of memory", "out-of-memory", "smaller quantization"),
        ("something new", "bad-model", "something new"),
    ],
)
def test_causes(line: str, failure: str, words: str) -> None:
    error = diagnose([LogLine(INFO, "loading"), LogLine(ERROR, line)], PATH)
    assert error.details["failure"] == failure
    assert words in error.message
    assert "model.gguf" in error.message
    assert error.details["log"] == [line]


def test_without_a_word_from_the_engine_there_is_still_a_message() -> None:
    error = diagnose([LogLine(INFO, "failed to open")], PATH)
    assert "could not load model.gguf" in error.message


def test_pieces_become_lines() -> None:
    buffer = LogBuffer()
    assert buffer.feed(WARN, "one ") == []
    assert buffer.feed(CONTINUE, "line\nnext") == [LogLine(WARN, "one line")]
    assert buffer.feed(CONTINUE, " one\n") == [LogLine(WARN, "next one")]
    assert buffer.feed(INFO, "....") == []
    assert buffer.feed(CONTINUE, "..\n") == []
    assert [line.text for line in buffer.lines()] == ["one line", "next one"]
    buffer.clear()
    assert buffer.lines() == ()


def test_memory_that_is_missing_is_told_in_numbers() -> None:
    error = out_of_memory(PATH, 3 * 2**30, 2**29)
    assert "3.0 GiB" in error.message
    assert "0.5 GiB" in error.message
    assert error.details["failure"] == "out-of-memory"


def test_a_model_of_the_wrong_kind() -> None:
    assert bad_model(PATH, "is a poem.").to_dict() == {
        "code": -5,
        "message": "model.gguf is a poem.",
        "details": {"path": "model.gguf", "failure": "bad-model"},
    }
