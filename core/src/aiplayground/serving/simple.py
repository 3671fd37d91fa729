"""A whole worker from one function: for small engines, and for trying things out.

    async def answer(request):
        yield "Hello"

    serve(answer, model="hello")

`python -m aiplayground.serving.simple --port N` is such a worker: it serves the model `echo` (or
`--name NAME`), which repeats what it is told.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import NoReturn, TypeAlias

from aiplayground.errors import InvalidParameters, ServiceNotAvailable
from aiplayground.types import ChatChunk, ChatRequest, CompletionRequest, FinishReason, Usage

from .engine import LoadedModel, Progress
from .worker import run

Answer: TypeAlias = Callable[[ChatRequest], AsyncGenerator[str, None]]
"""Yields the pieces of an answer (an async generator). Each piece counts as one token."""

CONTEXT_LENGTH = 4096
PAUSE = 0.02
"""Seconds between the words of an echo, so that it streams as a model does."""


def serve(answer: Answer, *, model: str, parameters: Iterable[str] = ()) -> NoReturn:
    """Serve one model until the kernel ends this process: the main program of a worker.

    `parameters` names the request fields that `answer` itself honours; `max_tokens` is always
    honoured. A completion arrives as a conversation of one message.
    """
    run(lambda settings: FunctionEngine(answer, model=model, parameters=parameters))


class FunctionEngine:
    """The engine behind `serve`: implements `aiplayground.serving.engine.Engine`.

    It counts words of the prompt and pieces of the answer as tokens.
    """

    def __init__(self, answer: Answer, *, model: str, parameters: Iterable[str] = ()) -> None:
        self._answer = answer
        self._model = LoadedModel(name=model, path=Path(), context_length=CONTEXT_LENGTH)
        self._closed = False
        self.parameters = frozenset({"max_tokens", *parameters})
        self.active = 0

    @property
    def loaded(self) -> LoadedModel | None:
        """The one model."""
        return self._model

    async def open(self) -> None:
        """Nothing to bring up."""

    async def load(self, path: Path, name: str, on_progress: Progress) -> LoadedModel:
        """Raise `InvalidParameters`: the one model is part of the program."""
        raise self._fixed()

    async def unload(self) -> None:
        """Raise `InvalidParameters`, as `load`."""
        raise self._fixed()

    def _fixed(self) -> InvalidParameters:
        return InvalidParameters(
            f"This worker serves '{self._model.name}' alone; it loads and unloads nothing."
        )

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """Answer with the pieces of the function."""
        count, reason = 0, _STOP
        self.active += 1
        try:
            async with aclosing(self._answer(request)) as pieces:
                async for piece in pieces:
                    self._check_open()
                    if count == request.max_tokens:
                        reason = _LENGTH
                        break
                    count += 1
                    yield ChatChunk(text=piece)
            words = sum(len(text_of(each.content).split()) for each in request.messages)
            usage = Usage(prompt_tokens=words, completion_tokens=count)
            yield ChatChunk(finish_reason=reason, usage=usage)
        finally:
            self.active -= 1

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[ChatChunk, None]:
        """Answer a text as if somebody had said it."""
        given = request.model_dump(exclude_unset=True, exclude={"kind", "prompt"})
        message = {"role": "user", "content": request.prompt}
        asked = ChatRequest.model_validate({**given, "messages": [message]})
        async with aclosing(self.chat(asked)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def close(self) -> None:
        """End the answers in progress at their next piece."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ServiceNotAvailable("The worker is ending; the answer was given up.")


_STOP: FinishReason = "stop"
_LENGTH: FinishReason = "length"


def text_of(content: object) -> str:
    """Return the text of a message's content, which may be a list of OpenAI's parts."""
    if isinstance(content, list):
        parts = (part.get("text", "") for part in content if isinstance(part, dict))
        return " ".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


async def echo(request: ChatRequest) -> AsyncGenerator[str, None]:
    """Repeat the last message, word by word."""
    for word in text_of(request.messages[-1].content).split():
        await asyncio.sleep(PAUSE)
        yield word + " "


def main() -> NoReturn:
    """Serve the echo, as a model of the name that `--name` gives."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--name", default="echo")
    options, _ = parser.parse_known_args()
    serve(echo, model=options.name)


if __name__ == "__main__":
    main()
