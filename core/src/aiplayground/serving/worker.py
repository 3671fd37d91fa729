"""Run an engine as a worker process of the kernel.

`run` is the whole main program of a worker. It ends with the kernel, serves from the socket that
the kernel bound, says what went wrong in one line that the kernel reads, and ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from aiplayground.errors import (
    AIPlaygroundError,
    FailureClass,
    InvalidSettings,
    ServiceFailed,
)

from .engine import Engine
from .parent import inherited_socket, watch_parent
from .protocol import ERROR_PREFIX, TOKEN_VARIABLE

if TYPE_CHECKING:
    from .host import Host
    from .server import OwnedServer

Task: TypeAlias = "asyncio.Task[None]"

EngineFactory: TypeAlias = Callable[[Mapping[str, Any]], Engine]
"""Makes the engine from its settings; called on the loop, must return at once."""

GRACE = 3
"""Seconds in which open answers may end after SIGTERM; the kernel's own grace is longer."""

CLOSE_TIMEOUT = 5.0
"""Seconds in which the engine may free what it holds; then the process ends all the same."""

SWITCH = 0.0005
"""Seconds for which a thread may keep the interpreter from another that wants it: ten times less
than Python's default, since the engine's thread and the loop wait for each other at every step."""

BACKLOG = 2048

KEEP_ALIVE = 75
"""Seconds for which an idle connection stays open: one that is closed while a request is on its way
costs that request."""


def run(factory: EngineFactory, argv: Sequence[str] | None = None) -> NoReturn:
    """Serve the engine until SIGTERM or the kernel's end; exits with 0, or 1 after an error."""
    watch_parent()
    sys.setswitchinterval(SWITCH)
    options = _parse(argv)
    try:
        status = _run(factory, options)
    except AIPlaygroundError as error:
        report_failure(error)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: an engine that still runs in its thread would be torn down under its feet.
    os._exit(status)


def report_failure(error: AIPlaygroundError) -> None:
    """Print the line from which the kernel learns why this worker gives up."""
    line = ERROR_PREFIX + json.dumps(error.to_dict())
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # the protocol with the kernel


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A worker process of AI Playground.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--fd", type=int, help="descriptor of a bound socket to listen on")
    where.add_argument("--port", type=int, help="port of 127.0.0.1 to listen on")
    parser.add_argument("--model", type=Path, help="model file to load at once")
    parser.add_argument("--name", help="name that requests give the model; default: the file's")
    parser.add_argument("--settings", default="{}", help="the engine's settings, as JSON")
    return parser.parse_args(argv)


def _settings(text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise InvalidSettings(f"--settings is not valid JSON: {error}.") from error
    if isinstance(settings, dict):
        return settings
    raise InvalidSettings("--settings must be a JSON object.")


def _socket(options: argparse.Namespace) -> socket.socket:
    if options.fd is not None:
        return inherited_socket(options.fd)
    # With the protocol named, asyncio turns off Nagle's algorithm, which costs 40 ms an answer.
    sock = socket.socket(proto=socket.IPPROTO_TCP)
    if os.name == "posix":  # on Windows the option means something else, and is not needed
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", options.port))
    except OSError as error:
        raise ServiceFailed(
            f"Port {options.port} cannot be used: {error.strerror or error}. "
            "Stop the program that has it, or choose another port.",
            failure=FailureClass.PORT_TAKEN,
        ) from error
    return sock


def _run(factory: EngineFactory, options: argparse.Namespace) -> int:
    sock = _socket(options)
    settings = _settings(options.settings)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(factory(settings), options, sock))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not made for this platform
        return None
    return uvloop.new_event_loop


async def _serve(engine: Engine, options: argparse.Namespace, sock: socket.socket) -> int:
    from .host import Host

    stop = asyncio.Event()
    _on_terminate(stop.set)
    host = Host(engine, _print_line)
    launch = asyncio.create_task(_launch(host, options))
    # Let the engine start: it works in its own thread while the server is imported here.
    await asyncio.sleep(0)
    server = _make_server(host)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await _until_stopped(launch, serving, stopping)
    finally:
        server.end()
        launch.cancel()
        # Answers in progress end with an error now: nothing keeps the server waiting.
        await _close(engine)
    await serving
    return 0


async def _until_stopped(launch: Task, serving: Task, stopping: asyncio.Task[Any]) -> None:
    """Return when the worker is to end; raises what made the launch or the server fail."""
    await asyncio.wait({launch, serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if launch.done():
        launch.result()
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()


async def _launch(host: Host, options: argparse.Namespace) -> None:
    name = options.name or (options.model.stem if options.model else "")
    await host.launch(options.model, name)
    # What is there now stays: looking through it for garbage would hold up an answer (30 ms).
    gc.freeze()


def _make_server(host: Host) -> OwnedServer:
    import uvicorn

    from .app import App
    from .server import OwnedServer

    return OwnedServer(
        uvicorn.Config(
            App(host, os.environ.pop(TOKEN_VARIABLE, None)),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE,
        )
    )


def _on_terminate(callback: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, callback)
        except NotImplementedError:  # Windows: the handler must be the interpreter's own
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(callback))


async def _close(engine: Engine) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await engine.close()
    except TimeoutError:
        _print_line("the engine did not end in time; ending without it")


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # a worker's log is its stderr
