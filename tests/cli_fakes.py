"""A backend for tests of the command line, and running `aipg` with it in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PLUGIN = '''
import asyncio, os, sys
from pathlib import Path

from aiplayground.hookspecs import hookimpl
from aiplayground.specs import BackendSpec, Capability, LaunchSpec, SetupProgress

PARAMETERS = frozenset({"temperature", "max_tokens", "seed", "stop"})
HOME = Path(os.environ["AIPG_HOME"])
SERVER = """
import http.server, os, pathlib, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
pathlib.Path(sys.argv[2]).write_text(str(os.getpid()))
server.serve_forever()
"""


@hookimpl
def backend():
    chat = frozenset({Capability.CHAT})
    return [
        BackendSpec(name="fake-backend", title="Fake", capabilities=chat, parameters=PARAMETERS),
        BackendSpec(name="absent-backend", title="Absent", capabilities=chat),
    ]


@hookimpl
async def installed_version(ctx):
    there = (HOME / "absent-installed").exists()
    return "9.9" if ctx.service == "fake-backend" or there else None


@hookimpl
async def setup(ctx):
    for percent in range(0, 101, 5):
        stage = "download" if percent < 60 else "verify"
        yield SetupProgress(stage=stage, progress=percent, message=f"part {percent} [x]")
    (HOME / "absent-installed").touch()


@hookimpl
async def start(ctx):
    if os.environ.get("FAKE_FAILS"):
        from aiplayground.errors import FailureClass, ServiceFailed

        raise ServiceFailed("no luck today", failure=FailureClass.EXIT)
    argv = [sys.executable, "-c", SERVER, "{port}", str(HOME / "worker.pid")]
    await ctx.spawn(LaunchSpec(argv=argv))


@hookimpl
async def list_models(ctx):
    from aiplayground.types import ModelInfo

    if ctx.service == "absent-backend":
        return []
    return [
        ModelInfo(name="parrot", size=1_600_000, quantization="F16", parameters=790_000),
        ModelInfo(name="giant", size=5_000_000_000),
        *[ModelInfo(name=each.name, path=str(each.path)) for each in await ctx.local_models()],
    ]


@hookimpl
async def chat(request):
    from aiplayground.types import ChatChunk, Usage

    words = request.messages[-1].content.split()
    for word in words:
        if word == "explode":
            raise RuntimeError("boom")
        try:
            await asyncio.sleep(60 if word == "wait" else 0.01)
        except asyncio.CancelledError:
            (HOME / "cancelled").touch()
            raise
        yield ChatChunk(text=word + " ")
    roles = "".join(message.role[0] for message in request.messages)
    usage = Usage(prompt_tokens=3, completion_tokens=len(words))
    yield ChatChunk(text=f"<{roles}>", finish_reason="stop", usage=usage)


@hookimpl
def register_commands():
    return {
        "parrot": "fakecommands:parrot",
        "config parrot": "fakecommands:parrot",
        "broken": "fakecommands:nothing",
    }
'''

COMMANDS = '''
import click


@click.command()
@click.pass_obj
def parrot(app):
    """Say where the home is."""
    click.echo(f"squawk {app.home}")
'''


def install(folder: Path, name: str = "fake-backend", module: str = "fakeplug") -> None:
    """Install the fake backend: a distribution as pip leaves one."""
    info = folder / f"{module}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[aiplayground.plugins]\n{name} = {module}\n")
    (folder / f"{module}.py").write_text(PLUGIN)
    (folder / "fakecommands.py").write_text(COMMANDS)


def environment(home: Path, plugins: Path | None = None, **more: str) -> dict[str, str]:
    """Return the environment of a run: a home of its own, and only the fake plugin."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIPG_")}
    kept |= {"AIPG_HOME": str(home), "NO_COLOR": "1", "PROMPT_TOOLKIT_NO_CPR": "1"}
    if plugins is not None:
        kept |= {"PYTHONPATH": str(plugins), "AIPG_PLUGINS__ALLOW": '["fake-backend"]'}
    return kept | more


class Cli:
    """Runs `aipg` with the fake backend in a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.plugins = folder / "plugins"
        install(self.plugins)
        self.argv = [sys.executable, "-m", "aiplayground.cli"]

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a run."""
        return environment(self.home, self.plugins, **more)

    def run(
        self, *args: str, text: str | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; `text` is piped in, else standard input is empty."""
        return subprocess.run(
            [*self.argv, *args],
            input=text or "",
            capture_output=True,
            text=True,
            env=self.environment(**more),
            timeout=60,
            check=False,
        )

    def json(self, *args: str, code: int = 0, **more: str) -> Any:
        """Run with `--json`, and return the one document on stdout."""
        done = self.run(*args, "--json", **more)
        assert done.returncode == code, (done.stdout, done.stderr)
        return json.loads(done.stdout)

    def worker(self) -> int:
        """Return the pid of the last worker."""
        return int((self.home / "worker.pid").read_text())
