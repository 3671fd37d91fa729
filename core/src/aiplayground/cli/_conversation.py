"""A conversation in the terminal: history, a few commands, and Ctrl-C that stops the answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from aiplayground.conversations import MessageStatus
from aiplayground.errors import AIPlaygroundError, ModelNotFound, suggest

from ._answer import Answer, Terminal, ask, find_model
from ._errors import report
from ._output import note, say, without_controls
from ._presets import of_chat, without
from ._prompt import LEAVE, Prompt
from ._record import Record, Resumed
from ._status import narrated
from ._terms import Terms, Wanted, agree

if TYPE_CHECKING:
    from ._app import App
    from ._kernels import ChatKernel

HISTORY = "chat_history"

COMMANDS = {
    "/help": "show this",
    "/clear": "begin a new conversation",
    "/model": "show the model, or go on with another: /model NAME",
    "/system": "show the instructions, or set them: /system TEXT (/system - drops them)",
    "/preset": "show the preset, or go on with one: /preset NAME (/preset - drops it)",
    "/exit": "leave (so does Ctrl-D)",
}
_COMMAND = re.compile(r"/([a-z]*)(\s|$)")


async def converse(app: App, kernel: ChatKernel, wanted: Wanted, resume: str | None = None) -> None:
    """Hold a conversation until the person leaves; `resume` names one to go on with."""
    record = Record(kernel.paths)
    try:
        await _converse(app, kernel, record, wanted, resume)
    finally:
        await record.close()


async def _converse(
    app: App, kernel: ChatKernel, record: Record, wanted: Wanted, resume: str | None
) -> None:
    found = None if resume is None else await record.resume(resume)
    terms = await agree(app, kernel, wanted, found and found.conversation)
    conversation = Conversation(app, kernel, terms, record)
    await conversation.warm_up()
    if found is not None:
        conversation.messages = found.messages
        _say_where(found)
    say("/help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves.", dim=True)
    prompt = Prompt(kernel.paths.state / HISTORY, list(COMMANDS))
    assert app.signals is not None
    # From here to the end, also between a line and its answer: Ctrl-C never ends the program.
    with app.signals.divert(conversation.interrupt):
        while (line := await prompt.read()) is not LEAVE:
            if line.strip() and not await conversation.take(line):
                return


def _say_where(found: Resumed) -> None:
    title = without_controls(found.conversation.title)
    say(f"Going on with: {title} ({len(found.messages)} messages)")
    if found.ended is not MessageStatus.COMPLETE:
        note(f"(the last answer is not whole: {found.ended.value})")


class Conversation:
    """What was said so far, and on which terms."""

    def __init__(self, app: App, kernel: ChatKernel, terms: Terms, record: Record) -> None:
        self.terms = terms
        self.messages: list[dict[str, Any]] = []
        self._app = app
        self._kernel = kernel
        self._record = record
        self._answering: asyncio.Task[None] | None = None

    async def warm_up(self) -> None:
        """Load the model before the first question; raises what is wrong with it."""
        found = find_model(await self._kernel.models(), self.terms.name)
        if found is None:
            return  # a file, or a name that the first question explains
        async with narrated(self._kernel, self.terms.name):
            await self._kernel.ensure_ready(found.service, found.name)
        say(f"{found.name} on {self._kernel.service(found.service).title}.", bold=True)

    def interrupt(self) -> None:
        """Stop the answer, if one is being given."""
        if self._answering is not None:
            self._answering.cancel()

    async def take(self, line: str) -> bool:
        """Do what a line says; returns whether to go on."""
        command = _COMMAND.match(line)
        try:
            if command is None:
                await self._answer(line)
            elif f"/{command[1]}" in ("/exit", "/quit", "/bye"):
                return False
            else:
                await self._obey(f"/{command[1]}", line[command.end() :].strip())
        except AIPlaygroundError as error:
            report(error)
        return True

    async def _answer(self, line: str) -> None:
        turn = {"role": "user", "content": line}
        request = self.terms.request([*self.messages, turn])
        answer = Answer()
        self._record.begin(line, self.terms, answer)
        try:
            stopped = await self._until_stopped(ask(self._kernel, request, Terminal(), answer))
        except AIPlaygroundError as error:
            await self._record.end(answer, error=error)
            raise
        finally:
            if answer.text:
                self.messages += [turn, {"role": "assistant", "content": answer.text}]
        await self._record.end(answer, MessageStatus.STOPPED if stopped else MessageStatus.COMPLETE)
        if stopped:
            note("(stopped)")
        elif not answer.text:
            note("(the model said nothing)")

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do the work until it is done or interrupted; returns whether it was interrupted."""
        self._answering = task = asyncio.create_task(work)
        try:
            await asyncio.wait({task})
        finally:
            self._answering = None
            # Only if this one was cancelled itself: the work must not outlive it.
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if task.cancelled():
            return True
        task.result()
        return False

    async def _obey(self, command: str, argument: str) -> None:
        if command == "/clear":
            self.messages.clear()
            self._record.begin_anew()
            note("A new conversation.")
        elif command == "/model":
            await self._choose(argument)
        elif command == "/system":
            self._instruct(argument)
        elif command == "/preset":
            await self._take_preset(argument)
        else:
            if command != "/help":
                say(f"There is no command '{command}'.{suggest(command, COMMANDS)}", err=True)
            for name, meaning in COMMANDS.items():
                say(f"  {name:9} {meaning}")

    async def _choose(self, name: str) -> None:
        if name:
            models = await self._kernel.models()
            if find_model(models, name) is None and not name.lower().endswith(".gguf"):
                names = [each.name for each in models]
                raise ModelNotFound(
                    f"There is no model '{name}'.{suggest(name, names)} "
                    f"Models here: {', '.join(names) or 'none'}."
                )
            await self.terms.choose(self._kernel, name)
        say(f"Model: {self.terms.name}")

    def _instruct(self, text: str) -> None:
        if text:
            self.terms.system = "" if text == "-" else text
        say(f"Instructions: {without_controls(self.terms.instructions) or 'none'}")

    async def _take_preset(self, name: str) -> None:
        if name:
            none = name == "-"
            says = without() if none else await asyncio.to_thread(of_chat, self._app, name)
            await self.terms.take(self._kernel, None if none else name, says)
            await self.terms.choose(self._kernel)
        say(f"Preset: {self.terms.preset or 'none'}; model: {self.terms.name}")
