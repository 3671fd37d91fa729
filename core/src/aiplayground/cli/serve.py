"""`aipg serve`: the kernel with its one port, until it is stopped."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._app import App, json_option
from ._notify import READY, STOPPING, Notifier
from ._output import print_json, say
from ._remote import Remote, running
from ._run import run_with_kernel
from .exits import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiplayground.kernel import Kernel

GATEWAY = "ai-backend"

RESTART_GAP = 1.0
"""Seconds after which a gateway that was stopped is not being restarted."""

COME_UP = 60.0
"""Seconds that a kernel in the background may take to come up."""

OUTPUT = "serve.out"


@click.command("serve")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on, and no other.")
@click.option("--host", metavar="ADDRESS", help="Address to listen on; default: this computer.")
@click.option("--detach", is_flag=True, help="Go on in the background; `aipg stop` ends it.")
@json_option
@click.pass_obj
def command(app: App, port: int | None, host: str | None, detach: bool) -> None:
    """Serve every backend on one local port.

    The OpenAI and Anthropic APIs, and the program's own, until Ctrl-C; `aipg stop` ends it from
    elsewhere.
    """
    if detach:
        _announce(app, _in_background(app, port, host))
        return
    given = {"port": port, "host": host}
    own = {name: value for name, value in given.items() if value is not None}
    app.loop_factory = _fast_loop()
    options: dict[str, Any] = {"settings": {"services": {GATEWAY: own}} if own else {}}
    notifier = Notifier()
    try:
        run_with_kernel(
            app, lambda kernel: _serve(app, kernel, notifier), exclusive=True, **options
        )
    except Interrupted:
        return  # that is how it ends


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop: it writes a head and its body at once."""
    try:
        import uvloop
    except ImportError:  # not made for this platform
        return None
    return uvloop.new_event_loop


async def _serve(app: App, kernel: Kernel, notifier: Notifier) -> None:
    if GATEWAY not in {each.name for each in kernel.services()}:
        from aiplayground.errors import ServiceNotAvailable

        raise ServiceNotAvailable(
            "The gateway is not installed, or failed to load (`aipg plugins` says which). "
            "Run: pip install aiplayground-ai-backend",
            details={"service": GATEWAY},
        )
    await kernel.start(GATEWAY)
    found = await asyncio.to_thread(running, kernel.paths)
    assert found is not None, "the gateway of an exclusive kernel writes the runtime file"
    _announce(app, found)
    notifier.tell(READY)
    try:
        await _until_stopped(kernel)
    finally:
        notifier.tell(STOPPING)


async def _until_stopped(kernel: Kernel) -> None:
    """Return when the gateway was stopped through its own door, or failed for good."""
    from aiplayground.events import ServiceInfoUpdate
    from aiplayground.states import Runtime

    over = (Runtime.STOPPED, Runtime.FAILED)
    async with kernel.subscribe(ServiceInfoUpdate) as events:
        async for _ in events:
            if kernel.service(GATEWAY).runtime in over:
                await asyncio.sleep(RESTART_GAP)
                if kernel.service(GATEWAY).runtime in over:
                    return


def _announce(app: App, found: Remote) -> None:
    told = found.told
    if app.json:
        print_json({key: told[key] for key in ("url", "pid", "token_file", "link")})
        return
    say(f"AI Playground serves on {found.url}", bold=True)
    say(f"  for OpenAI clients   {found.url}/v1")
    say(f"  in a browser         {told['link']}  (works once)")
    say(f"  token                {told['token_file']}")
    if told.get("api_key"):
        say(f"  API key              {told['api_key']}")
    say("Ctrl-C or `aipg stop` ends it.", dim=True)
    sys.stdout.flush()


def _in_background(app: App, port: int | None, host: str | None) -> Remote:
    """Start `aipg serve` in a session of its own, and wait until it answers."""
    output = app.paths.logs / OUTPUT
    output.parent.mkdir(parents=True, exist_ok=True)
    options = [f"--port={port}"] if port else []
    options += [f"--host={host}"] if host else []
    home = ["--home", app.home] if app.home else []
    with output.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "aiplayground.cli", *home, "serve", *options],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return _wait_for(app, child, output)


def _wait_for(app: App, child: subprocess.Popen[bytes], output: Path) -> Remote:
    from aiplayground.errors import FailureClass, ServiceFailed

    deadline = time.monotonic() + COME_UP
    while child.poll() is None and time.monotonic() < deadline:
        found = running(app.paths)
        if found is not None and found.told.get("pid") == child.pid:
            child.returncode = 0  # it lives on, and is not ours to wait for
            return found
        time.sleep(0.05)
    child.kill()
    child.wait(timeout=5)
    said = output.read_text(encoding="utf-8", errors="replace").strip()
    raise ServiceFailed(
        f"It did not come up: {said or 'it said nothing'}", failure=FailureClass.EXIT
    )
