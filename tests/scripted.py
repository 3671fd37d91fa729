"""An engine whose model writes what a test says, served over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from aiplayground.errors import InvalidParameters
from aiplayground.serving.app import App
from aiplayground.serving.engine import LoadedModel, Progress
from aiplayground.serving.host import Host
from aiplayground.serving.shape import Shaper, shaped
from aiplayground.serving.toolcalls import detect
from aiplayground.serving.tools import asked
from aiplayground.types import (
    ChatChunk,
    ChatRequest,
    CompletionRequest,
    Embeddings,
    EmbedRequest,
    RerankRequest,
    Sampling,
    Scores,
    Usage,
)
from tests.asgi import serving

PARAMETERS = frozenset(
    {
        "chat_template_kwargs",
        "dimensions",
        "grammar",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "n",
        "response_format",
        "seed",
        "stop",
        "temperature",
        "tools",
        "top_logprobs",
    }
)

Script = Callable[[Sampling, int], str]
"""From a request, and the number of one of its answers, to what the model writes."""


class ScriptedEngine:
    """Writes its script in pieces of three characters, each of them a token.

    `prompt` is what the model is said to continue; `seen` are the requests as they came to it.
    """

    parameters = PARAMETERS

    def __init__(self, script: Script, template: str = "", prompt: str = "") -> None:
        self._script = script
        self._dialect = detect(template)
        self._prompt = prompt
        self.loaded: LoadedModel | None = None
        self.active = 0
        self.seen: list[Sampling] = []

    @property
    def counters(self) -> Mapping[str, float]:
        return {"steps": 5}

    async def open(self) -> None:
        """Have nothing to bring up."""

    async def load(self, path: Path, name: str, on_progress: Progress) -> LoadedModel:
        on_progress(1)
        self.loaded = LoadedModel(name=name, path=path, context_length=4096)
        return self.loaded

    async def unload(self) -> None:
        self.loaded = None

    async def close(self) -> None:
        await self.unload()

    def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        shaper = Shaper(self._dialect, request)
        shaper.begin(self._prompt)
        return shaped(self._write(asked(request)), shaper)

    def complete(self, request: CompletionRequest) -> AsyncGenerator[ChatChunk, None]:
        return self._write(request)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        if "" in request.input:
            raise InvalidParameters("'input' has an empty text.", details={"field": "input"})
        size = request.dimensions or 3
        vectors = [[len(text) + 0.25] * size for text in request.input]
        return Embeddings(model=request.model, vectors=vectors, usage=Usage(prompt_tokens=7))

    async def rerank(self, request: RerankRequest) -> Scores:
        scores = [len(set(text) & set(request.query)) / 4 for text in request.documents]
        return Scores(model="m", scores=scores, usage=Usage(prompt_tokens=7))

    async def _write(self, request: Sampling) -> AsyncGenerator[ChatChunk, None]:
        self.seen.append(request)
        answers = request.n or 1
        texts = [pieces(self._script(request, index)) for index in range(answers)]
        for index, text in enumerate(texts):
            for piece in text:
                await asyncio.sleep(0)
                yield ChatChunk(index=index, text=piece, logprobs=_logprobs(request, piece))
            usage = Usage(
                prompt_tokens=0 if index else 10, completion_tokens=len(text), cached_tokens=4
            )
            yield ChatChunk(index=index, finish_reason="stop", usage=usage)


def pieces(text: str) -> list[str]:
    """Return the tokens of a text."""
    return [text[place : place + 3] for place in range(0, len(text), 3)]


def _logprobs(request: Sampling, piece: str) -> list[dict[str, object]] | None:
    if not request.logprobs:
        return None
    entry: dict[str, object] = {"token": piece, "logprob": -0.5, "bytes": list(piece.encode())}
    top = [{"token": "x" * n, "logprob": -n, "bytes": []} for n in range(request.top_logprobs or 0)]
    return [{**entry, "top_logprobs": top}]


@asynccontextmanager
async def served(engine: ScriptedEngine) -> AsyncIterator[str]:
    """Serve the engine with a model named `m`; yields the base URL."""
    lines: list[str] = []
    host = Host(engine, lines.append)
    await host.launch(Path("model"), "m")
    async with serving(App(host, "secret")) as url:
        yield url


def says(*texts: str) -> Script:
    """Return the script that writes the texts, one for each answer."""

    def script(request: Sampling, index: int) -> str:
        return texts[index % len(texts)]

    return script


def functions(*names: str) -> Sequence[dict[str, object]]:
    """Return definitions of tools."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    return [
        {"type": "function", "function": {"name": name, "parameters": schema}} for name in names
    ]
