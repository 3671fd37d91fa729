"""A vocabulary that has not all letters, and no bytes to write the others with."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from plugins.llamacpp.tests.tiny_model import (
    INT32,
    SPECIALS,
    STRING,
    TEMPLATE,
    _array,
    _metadata,
    _tensors,
    _text,
    byte_letters,
)
from plugins.llamacpp.tests.tiny_parts import Tensor, noise, text_pair, write_gguf

from aiplayground.errors import InvalidParameters
from aiplayground.types import ChatRequest, CompletionRequest, Message
from aiplayground_llamacpp.engine import LlamaEngine
from aiplayground_llamacpp.settings import Settings

pytestmark = pytest.mark.engine


def write_letters(path: Path, *, with_bytes: bool) -> Path:
    """Write the tiny model with a vocabulary of SentencePiece's kind."""
    letters = byte_letters()
    letters[ord(" ")] = "\u2581"
    tokens = [f"<0x{byte:02X}>" for byte in range(256)] if with_bytes else letters
    kinds = [6 if with_bytes else 1] * 256 + [3] * len(SPECIALS)
    changed = {
        "tokenizer.ggml.model": text_pair("tokenizer.ggml.model", "llama"),
        "tokenizer.ggml.tokens": _array(
            "tokenizer.ggml.tokens", STRING, [_text(token) for token in tokens + SPECIALS]
        ),
        "tokenizer.ggml.token_type": _array(
            "tokenizer.ggml.token_type", INT32, [struct.pack("<i", kind) for kind in kinds]
        ),
    }
    pairs = {
        pair[8 : 8 + struct.unpack("<Q", pair[:8])[0]].decode(): pair
        for pair in _metadata(TEMPLATE, None, None)
    }
    source = random.Random(3)
    tensors = {
        name: noise(source, *shape) if len(shape) > 1 else Tensor(shape, [1.0] * shape[0])
        for name, shape in _tensors().items()
    }
    return write_gguf(path, list((pairs | changed).values()), tensors)


async def count(engine: LlamaEngine, request: CompletionRequest | ChatRequest) -> int:
    answer = engine.chat(request) if isinstance(request, ChatRequest) else engine.complete(request)
    return len([chunk async for chunk in answer])


@pytest.mark.parametrize("with_bytes", [False, True])
async def test_letters_that_the_vocabulary_lacks(tmp_path: Path, with_bytes: bool) -> None:
    engine = LlamaEngine(Settings(context_size=64), lambda line: None)
    await engine.open()
    path = write_letters(tmp_path / "letters.gguf", with_bytes=with_bytes)
    await engine.load(path, "m", lambda fraction: None)
    try:
        hello = CompletionRequest(model="m", prompt="Hello there", max_tokens=1)
        assert await count(engine, hello)
        strange = hello.model_copy(update={"prompt": "\u65e5"})
        message = Message(role="user", content="\U0001f44d </s>")
        chat = ChatRequest(model="m", messages=[message], max_tokens=1)
        if with_bytes:
            assert await count(engine, strange)
            assert await count(engine, chat)
        else:
            with pytest.raises(InvalidParameters, match="no token for '\u65e5'"):
                await count(engine, strange)
            with pytest.raises(InvalidParameters, match="no token for"):
                await count(engine, chat)
        assert await count(engine, hello)
    finally:
        await engine.close()
