"""How a conversation at the terminal goes on: with which model, instructions and settings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiplayground.conversations import ROUTER, Conversation
from aiplayground.conversations._model import model_with
from aiplayground.errors import InvalidParameters
from aiplayground.presets import ChatParameters

from ._presets import of_chat
from ._sampling import chat_request

if TYPE_CHECKING:
    from aiplayground.types import ChatRequest

    from ._app import App
    from ._kernels import ChatKernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What stands on the command line; `says` is what its preset means. '' is no preset."""

    model: str | None = None
    system: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    says: ChatParameters | None = None


@dataclass(slots=True, kw_only=True)
class Terms:
    """A conversation's own model, instructions and settings, and what its preset says.

    `system` None: it has no instructions of its own; '' keeps the preset's away.
    """

    model: str = ""
    backend: str = ROUTER
    system: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    says: ChatParameters = field(default_factory=ChatParameters)

    @property
    def name(self) -> str:
        """What a request calls the model."""
        if self.backend == ROUTER or self.model.startswith(f"{self.backend}/"):
            return self.model
        return f"{self.backend}/{self.model}"

    @property
    def instructions(self) -> str:
        """The instructions that hold, '' for none."""
        return (self.says.under(self.system, {})[0] or "").strip()

    def request(self, messages: Sequence[Mapping[str, Any]]) -> ChatRequest:
        """Return the request for what follows these messages."""
        system = self.instructions
        first = [{"role": "system", "content": system}] if system else []
        sampling = self.says.under(None, self.sampling)[1]
        return chat_request(self.name, [*first, *messages], sampling)

    def kept(self) -> dict[str, Any]:
        """Return them as the fields of a kept conversation."""
        # The running kernel's name for its default is no model's name elsewhere.
        model = "" if self.model == ROUTER else self.model
        own = self.system or ""
        if self.system is not None and not self.system.strip() and self.preset is not None:
            own = " "  # as the store has it: no instructions, not even the preset's
        return {
            "model": model,
            "backend": self.backend,
            "system_prompt": own,
            "settings": dict(self.sampling),
            "preset": self.preset,
        }

    async def take(self, kernel: ChatKernel, preset: str | None, says: ChatParameters) -> None:
        """Go on with a preset, or with none; `choose` its model then."""
        self.preset, self.says = preset, says
        models = await kernel.models()
        self.model, self.backend = model_with(models, says, self.model, self.backend)

    async def choose(self, kernel: ChatKernel, model: str | None = None) -> None:
        """Go on with a model, whichever backend has it; without one with what there is to go on.

        That is the model of the conversation or its preset, else the backend's default.
        """
        if model is not None:
            self.model, self.backend = model, ROUTER
        elif not self.model:
            service = None if self.backend == ROUTER else self.backend
            self.model = await kernel.default_model(service)


async def agree(
    app: App, kernel: ChatKernel, wanted: Wanted, kept: Conversation | None = None
) -> Terms:
    """Return the terms of a conversation, new or gone on with: the command line wins."""
    terms = Terms() if kept is None else _as_kept(kept)
    if wanted.system is not None:
        terms.system = wanted.system
    terms.sampling = {**terms.sampling, **wanted.sampling}
    if wanted.says is not None:
        await terms.take(kernel, wanted.preset or None, wanted.says)
    elif terms.preset is not None:
        terms.says = await asyncio.to_thread(_still, app, terms.preset)
    await terms.choose(kernel, wanted.model)
    return terms


def _still(app: App, preset: str) -> ChatParameters:
    """Return what a conversation's preset means by now."""
    try:
        return of_chat(app, preset)
    except InvalidParameters as error:
        hint = "Go on with another one, `--preset NAME`, or without: `--preset ''`."
        raise InvalidParameters(f"{error.message} {hint}", details=error.details) from error


def _as_kept(kept: Conversation) -> Terms:
    return Terms(
        model=kept.model,
        backend=kept.backend,
        system=kept.system_prompt or None,
        sampling=kept.settings,
        preset=kept.preset,
    )
