"""`aipg chat`: one answer, or a conversation."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ._app import App, json_option
from ._output import print_json
from ._run import run_with_any
from ._sampling import given, sampling_options
from .completion import complete_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._kernels import ChatKernel


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
@sampling_options
@json_option
@click.pass_obj
def command(
    app: App, /, message: Sequence[str], model: str | None, system: str | None, **options: Any
) -> None:
    """Talk to a model, once or in a conversation.

    \b
    aipg chat "What is AI Playground?"
    aipg chat -m guide                      a conversation; Ctrl-D leaves it
    cat notes.txt | aipg chat "Summarise"   the message, then what is piped

    In a conversation Ctrl-C stops the answer, not the program; /help lists its commands.
    """
    sampling = given(options)
    text = _message(message)
    if text is not None:
        said = run_with_any(app, lambda kernel: _once(app, kernel, model, system, text, sampling))
        if app.json:
            print_json(said)
        return
    if app.json or not sys.stdout.isatty():
        raise click.UsageError("Say something: `aipg chat TEXT`, or pipe the text into it.")
    from ._conversation import converse

    if model is None:
        from ._starter import offer

        offer(app)
    run_with_any(app, lambda kernel: converse(app, kernel, model, system, sampling))


def _message(words: Sequence[str]) -> str | None:
    """Return the arguments and what is piped in; None where a person is to be asked."""
    argument = " ".join(words)
    if sys.stdin is None or sys.stdin.isatty():
        return argument if argument.strip() else None
    piped = sys.stdin.read().strip("\n")
    text = "\n\n".join(part for part in (argument, piped) if part.strip())
    if not text:
        raise click.UsageError("The message is empty: nothing was given or piped in.")
    return text


async def _once(
    app: App,
    kernel: ChatKernel,
    model: str | None,
    system: str | None,
    text: str,
    sampling: dict[str, Any],
) -> dict[str, Any]:
    """Show one answer, and return it as `--json` prints it."""
    from ._answer import Answer, Silent, Terminal, ask, find_model
    from ._sampling import chat_request

    name = model or await kernel.default_model()
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    answer = Answer()
    request = chat_request(name, messages, sampling)
    await ask(kernel, request, Silent() if app.json else Terminal(), answer)
    found = find_model(await kernel.models(), name) if app.json else None
    return answer.as_json(found.name if found else name, found.service if found else None)
