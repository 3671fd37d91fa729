"""The servers of the gateway's measurement: workers that answer at once or at a pace, the gateway.

python -m tests.benchmarks.gateway_children worker --port PORT
python -m tests.benchmarks.gateway_children bare PORT
python -m tests.benchmarks.gateway_children gateway PORT URL HOME

`worker` is made with `aiplayground.serving`, as the workers of our engines are; `bare` is the
cheapest that uvicorn can serve. The message that is asked says how: `128 0.005` are 128 pieces,
one each 5 ms.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator
from typing import Any

import uvicorn
import uvloop

from aiplayground import BackendSpec, Capability, Health, Kernel, ModelInfo, hookimpl
from aiplayground.serving.simple import serve, text_of
from aiplayground.types import ChatRequest

CHUNKS = 128
EVENTS = {"worker": CHUNKS + 3, "bare": CHUNKS + 1}
"""Events in the answer of 128 chunks: the worker opens and closes it, and `[DONE]`."""

PIECES = [
    b"data: "
    + json.dumps({"choices": [{"index": 0, "delta": {"content": f"word {n} "}}]}).encode()
    + b"\n\n"
    for n in range(CHUNKS)
]
WHOLE = json.dumps(
    {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}}]}
).encode()


async def answer(request: ChatRequest) -> AsyncGenerator[str, None]:
    """Answer with pieces: words, or where there is a pause the microsecond of each."""
    number, pause = text_of(request.messages[-1].content).split()
    loop, due = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    for piece in range(int(number)):
        if not float(pause):
            yield f"word {piece} "
            continue
        due += float(pause)
        await asyncio.sleep(due - loop.time())
        yield f"@{time.monotonic_ns() // 1000} "


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Answer a chat at once, streamed or whole (ASGI)."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    stream = json.loads(body or b"{}").get("stream")
    kind = b"text/event-stream" if stream else b"application/json"
    headers = [(b"content-type", kind)]
    if not stream:
        headers.append((b"content-length", str(len(WHOLE)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for piece in PIECES if stream else ():
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    last = b"data: [DONE]\n\n" if stream else WHOLE
    await send({"type": "http.response.body", "body": last})


class Attached:
    """A backend whose worker is another child."""

    def __init__(self, url: str) -> None:
        self.url = url

    @hookimpl
    def backend(self) -> BackendSpec:
        chat = frozenset({Capability.CHAT})
        return BackendSpec(name="attached", title="Attached", api="openai", capabilities=chat)

    @hookimpl
    async def start(self) -> None:
        """Have nothing to launch."""

    @hookimpl
    async def health(self) -> Health:
        return Health(ok=True)

    @hookimpl
    async def endpoint(self) -> str:
        return self.url

    @hookimpl
    async def list_models(self) -> list[ModelInfo]:
        return [ModelInfo(name="m")]


async def serve_gateway(port: int, url: str, home: str) -> None:
    """Serve until killed."""
    import aiplayground_ai_backend.plugin as ai_backend

    plugins = {"ai-backend": ai_backend, "attached": Attached(url)}
    settings = {"services": {"ai-backend": {"port": port}}}
    async with Kernel(home=home, plugins=plugins, discover=False, settings=settings) as kernel:
        await kernel.start("ai-backend")
        await asyncio.Event().wait()


if __name__ == "__main__":
    kind = sys.argv.pop(1)
    if kind == "worker":
        serve(answer, model="m")
    elif kind == "bare":
        uvicorn.run(bare, port=int(sys.argv[1]), log_level="error", loop="uvloop")
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve_gateway(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
