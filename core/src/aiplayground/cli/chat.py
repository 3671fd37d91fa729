"""`aipg chat`: one answer, or a conversation."""

from __future__ import annotations

import sys
import threading
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

import click

from ._app import App, json_option
from ._output import note, print_json
from ._run import run_with_any
from ._sampling import given, sampling_options
from .completion import complete_model, complete_preset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._kernels import ChatKernel
    from ._record import Record
    from ._terms import Terms, Wanted

PATIENCE = 3.0
"""Seconds of waiting for the end of what is piped in, after which a person is told of it."""


@click.command("chat")
@click.argument("message", nargs=-1)
@click.option(
    "-m",
    "--model",
    metavar="NAME",
    shell_complete=complete_model,
    help="Name of a model (see `aipg models`) or path of a GGUF file.",
)
@click.option("-s", "--system", metavar="TEXT", help="Instructions that stand before everything.")
@click.option("-c", "--continue", "newest", is_flag=True, help="Go on with the last conversation.")
@click.option(
    "--conversation", metavar="ID", help="Go on with this one; `aipg chats` lists what is kept."
)
@click.option(
    "-p",
    "--preset",
    metavar="NAME",
    shell_complete=complete_preset,
    help="Take what a preset says (see `aipg presets`), or its variant: NAME/VARIANT.",
)
@sampling_options
@json_option
@click.pass_obj
def command(
    app: App,
    /,
    message: Sequence[str],
    model: str | None,
    system: str | None,
    newest: bool,
    conversation: str | None,
    preset: str | None,
    **options: Any,
) -> None:
    """Talk to a model, once or in a conversation.

    \b
    aipg chat "What is AI Playground?"
    aipg chat -m guide                      a conversation; Ctrl-D leaves it
    cat notes.txt | aipg chat "Summarise"   the message, then what is piped

    In a conversation Ctrl-C stops the answer, not the program; /help lists its commands.
    Conversations are kept (`aipg chats`); a single answer only with --continue or --conversation.
    """
    resume = conversation or ("last" if newest else None)
    says = None
    if preset is not None:
        from ._presets import of_chat, without

        says = of_chat(app, preset) if preset else without()
    from ._terms import Wanted

    wanted = Wanted(
        model=model or None, system=system, sampling=given(options), preset=preset, says=says
    )
    text = _message(message)
    if text is not None:
        said = run_with_any(app, lambda kernel: _once(app, kernel, wanted, text, resume))
        if app.json:
            print_json(said)
        return
    if app.json or not sys.stdout.isatty():
        raise click.UsageError("Say something: `aipg chat TEXT`, or pipe the text into it.")
    from ._conversation import converse

    if model is None and resume is None and not (says and says.model):
        from ._starter import offer

        offer(app)
    run_with_any(app, lambda kernel: converse(app, kernel, wanted, resume))


def _message(words: Sequence[str]) -> str | None:
    """Return the arguments and what is piped in; None where a person is to be asked."""
    argument = " ".join(words)
    if sys.stdin is None or sys.stdin.isatty():
        return argument if argument.strip() else None
    piped = _piped().strip("\n")
    text = "\n\n".join(part for part in (argument, piped) if part.strip())
    if not text:
        raise click.UsageError("The message is empty: nothing was given or piped in.")
    return text


def _piped() -> str:
    """Read stdin to its end; if that does not come, say what is being waited for."""
    waiting = threading.Timer(PATIENCE, note, ["(reading what is piped in, up to its end)"])
    waiting.daemon = True
    waiting.start()
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text spoil the rest no more
    try:
        return sys.stdin.read()
    finally:
        waiting.cancel()


async def _once(
    app: App, kernel: ChatKernel, wanted: Wanted, text: str, resume: str | None
) -> dict[str, Any]:
    """Show one answer, and return it as `--json` prints it; keep it where one is gone on with."""
    from ._terms import agree

    if resume is None:
        terms = await agree(app, kernel, wanted)
        return await _answer(app, kernel, terms, [], text, None)
    from ._record import Record

    record = Record(kernel.paths)
    try:
        found = await record.resume(resume)
        terms = await agree(app, kernel, wanted, found.conversation)
        return await _answer(app, kernel, terms, found.messages, text, record)
    finally:
        await record.close()


async def _answer(
    app: App,
    kernel: ChatKernel,
    terms: Terms,
    before: list[dict[str, Any]],
    text: str,
    record: Record | None,
) -> dict[str, Any]:
    from aiplayground.errors import AIPlaygroundError

    from ._answer import Answer, Silent, Terminal, ask, find_model

    answer = Answer()
    request = terms.request([*before, {"role": "user", "content": text}])
    if record is not None:
        record.begin(text, terms, answer)
    try:
        await ask(kernel, request, Silent() if app.json else Terminal(), answer)
    except AIPlaygroundError as error:
        if record is not None:
            await record.end(answer, error=error)
        raise
    if record is not None:
        await record.end(answer)
    found = find_model(await kernel.models(), terms.name) if app.json else None
    return answer.as_json(found.name if found else terms.name, found.service if found else None)
