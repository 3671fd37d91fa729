"""One answer: asked for, shown as it comes, and kept."""

from __future__ import annotations

import shutil
import sys
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import click

from ._output import colour, is_terminal, note, without_controls
from ._status import narrated
from ._wrap import Wrapper

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiplayground.types import ChatChunk, ChatRequest, ModelInfo, Usage

    from ._kernels import ChatKernel


@dataclass(slots=True)
class Answer:
    """What a model has said so far."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None

    def add(self, chunk: ChatChunk) -> None:
        """Take in the next piece."""
        self.text += chunk.text
        self.reasoning += chunk.reasoning
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.usage = chunk.usage or self.usage

    def as_json(self, model: str, service: str | None) -> dict[str, Any]:
        """Return what `aipg chat --json` prints."""
        body: dict[str, Any] = {"model": model, "service": service, "text": self.text}
        if self.reasoning:
            body["reasoning"] = self.reasoning
        body["finish_reason"] = self.finish_reason
        body["usage"] = self.usage and {
            "prompt_tokens": self.usage.prompt_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "total_tokens": self.usage.total_tokens,
        }
        return body


class Screen(Protocol):
    """Where an answer is shown."""

    def show(self, chunk: ChatChunk) -> None:
        """Show the next piece."""

    def finish(self, answer: Answer) -> None:
        """End what was shown, complete or not."""


class Terminal:
    """Shows an answer on stdout; a model's reasoning on stderr, if somebody watches."""

    def __init__(self) -> None:
        self._wrapper = Wrapper(shutil.get_terminal_size().columns) if is_terminal() else None
        self._watched = is_terminal(sys.stderr)
        self._reasoning = False

    def show(self, chunk: ChatChunk) -> None:
        """Print at once what came; into a pipe exactly as the model gave it."""
        if chunk.reasoning and self._watched:
            self._reasoning = True
            text = without_controls(chunk.reasoning)
            click.echo(click.style(text, dim=True), nl=False, err=True, color=colour())
        if chunk.text:
            self._end_reasoning()
            wrapper = self._wrapper
            text = wrapper.feed(without_controls(chunk.text)) if wrapper else chunk.text
            click.echo(text, nl=False)

    def finish(self, answer: Answer) -> None:
        """End the line, and say so if the answer was cut off."""
        self._end_reasoning()
        if self._wrapper is not None:
            click.echo(self._wrapper.flush(), nl=False)
        if answer.text and not answer.text.endswith("\n"):
            click.echo()
        if answer.finish_reason == "length" and self._watched:
            note("(cut off: no more tokens were allowed, see --max-tokens)")

    def _end_reasoning(self) -> None:
        if self._reasoning:
            self._reasoning = False
            click.echo("\n", err=True)


class Silent:
    """Shows nothing: for `--json`."""

    def show(self, chunk: ChatChunk) -> None:
        """Show nothing."""

    def finish(self, answer: Answer) -> None:
        """Show nothing."""


async def ask(kernel: ChatKernel, request: ChatRequest, screen: Screen, answer: Answer) -> None:
    """Fill `answer` and show it on the way; what came is kept when this is cancelled or fails."""
    try:
        async with (
            narrated(kernel, request.model) as status,
            aclosing(kernel.chat(request)) as chunks,
        ):
            async for chunk in chunks:
                if chunk.text or chunk.reasoning:
                    status.end()
                answer.add(chunk)
                screen.show(chunk)
    finally:
        screen.finish(answer)


def find_model(models: Iterable[ModelInfo], name: str) -> ModelInfo | None:
    """Return the model that a name means; None for a file outside the folders, or an unknown."""
    for model in models:
        if name in (model.name, f"{model.service}/{model.name}", model.path):
            return model
    folded = name.casefold().removesuffix(".gguf")
    return next((each for each in models if each.name.casefold() == folded), None)
