"""`aipg pull`: download a model, with the running kernel or one of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

import click

from aiplayground.cli._app import json_option
from aiplayground.cli._output import is_terminal, note, print_json, say, size_text

if TYPE_CHECKING:
    from aiplayground.cli._app import App

    from .bar import Bar

LOOK = 0.2
"""Seconds between looks at the download."""

STEP = 10
"""Percent from one line to the next where there is no bar."""

ENDED = ("complete", "cancelled", "error")
Call = Callable[..., Awaitable[Any]]


class Shows(Protocol):
    """What shows how far a download is, while it is entered."""

    def __enter__(self) -> object: ...

    def __exit__(self, *exc: object) -> None: ...

    def show(self, state: dict[str, Any]) -> None:
        """Show it as it is now."""


@click.command("pull")
@json_option
@click.argument("source", metavar="MODEL")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only files that match.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="No files that match.")
@click.option("--revision", metavar="NAME", help="A branch, tag or commit.")
@click.option("--type", "kind", metavar="TYPE", help="llm (default), embedding, checkpoint, lora…")
@click.option("--to", metavar="FOLDER", help="Folder below that of models, such as llm/mistral-7b.")
@click.pass_obj
def command(
    app: App,
    source: str,
    files: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    revision: str | None,
    kind: str | None,
    to: str | None,
) -> None:
    """Download a model from the Hugging Face Hub.

    MODEL is owner/repository, owner/repository:Q4_K_M for one of its quantizations, or the address
    of a page at huggingface.co. Without a FILE or a pattern it is what is usual: of GGUF files one
    quantization with all its parts and the projector, else the whole repository.

    \b
    aipg pull ggml-org/gemma-3-1b-it-GGUF
    aipg pull hf.co/bartowski/Qwen_Qwen3-4B-GGUF:Q4_K_M
    aipg pull sentence-transformers/all-MiniLM-L6-v2 --type embedding --exclude 'onnx/'

    Ctrl-C ends it; the same command goes on where it ended.
    """
    asked = {
        "repo": source,
        "files": list(files),
        "include": list(include),
        "exclude": list(exclude),
        "type": kind or "",
        "destination": to or "",
        **({"revision": revision} if revision else {}),
    }
    state = _with_any_kernel(app, lambda call: pull(call, asked, _display(app)))
    if app.json:
        print_json({name: state[name] for name in ("repo", "type", "filename", "path", "total")})
    else:
        say(f"{state['path']}  ({size_text(state.get('total'))})")


async def pull(call: Call, asked: dict[str, Any], display: Shows) -> dict[str, Any]:
    """Download, showing how far it is; returns the last state. Raises what it failed with.

    A cancelled caller cancels the download, and is told that what came is kept.
    """
    from aiplayground.errors import from_dict

    state: dict[str, Any] = await call("startDownload", asked)
    try:
        with display:
            while state["status"] not in ENDED:
                display.show(state)
                await asyncio.sleep(LOOK)
                state = await _state(call, state)
            display.show(state)
    except asyncio.CancelledError:
        state = await call("cancelDownload", state["id"])
        if state["status"] != "complete":
            came = f" ({size_text(state['downloaded'])})" if state["downloaded"] else ""
            note(f"Ended. What came{came} is kept: the same command goes on there.")
        raise
    if state["status"] != "complete":
        raise from_dict(state["error"])
    return state


async def _state(call: Call, before: dict[str, Any]) -> dict[str, Any]:
    from aiplayground.errors import ServiceNotAvailable

    for each in await call("listDownloads"):
        if each["id"] == before["id"]:
            found: dict[str, Any] = each
            return found
    raise ServiceNotAvailable("The kernel that downloaded went away. Run the command again.")


def _with_any_kernel(app: App, work: Callable[[Call], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    from aiplayground.cli._remote import running
    from aiplayground.cli._run import run, run_with_kernel

    if running(app.paths) is None:
        return run_with_kernel(app, lambda kernel: work(kernel.call))

    async def main() -> dict[str, Any]:
        from aiplayground.client import AsyncClient

        async with AsyncClient(home=app.home) as client:
            return await work(client.call)

    return run(app, main)


def _display(app: App) -> Shows:
    if app.json:
        return Silent()
    return _bar() if is_terminal() else Lines()


def _bar() -> Bar:
    from .bar import Bar

    return Bar()


class Silent:
    """Shows nothing."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        pass

    def show(self, state: dict[str, Any]) -> None:
        """Show it as it is now."""


class Lines(Silent):
    """A line on stderr when the status changes, and for each tenth."""

    def __init__(self) -> None:
        self._told: tuple[str, str, int] | None = None

    def show(self, state: dict[str, Any]) -> None:
        """Print a line if there is something new."""
        tenth = int(state["progress"] // STEP) * STEP
        now = (state["status"], state.get("message", ""), tenth)
        if now == self._told:
            return
        self._told = now
        parts = [state["filename"], state["status"]]
        if state["status"] == "downloading":
            parts += [f"{tenth} %", state.get("speed", ""), state.get("eta", "")]
        parts.append(state.get("message", ""))
        note("  ".join(part for part in parts if part))
