"""What a manifest says, as values; and the words that it may use.

Without `slots`, which make a class twice: importing this is a part of what discovery costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from aiplayground.specs import OPENAI_PARAMETERS, Capability

Kind = Literal["text", "int", "float", "bool", "path", "list"]
KINDS: tuple[Kind, ...] = ("text", "int", "float", "bool", "path", "list")
"""Types of a setting; a list is one of texts."""

CAPABILITIES = tuple(
    each.value
    for each in (
        Capability.CHAT,
        Capability.COMPLETION,
        Capability.EMBEDDING,
        Capability.TOOLS,
        Capability.VISION,
    )
)
"""What the kernel's own hooks can do with a program that speaks the OpenAI API."""

PARAMETERS = OPENAI_PARAMETERS | {
    "chat_template_kwargs",
    "grammar",
    "ignore_eos",
    "min_p",
    "repeat_penalty",
    "top_k",
    "typical_p",
}
"""Request fields that such a program may honour."""

KERNEL_SETTINGS = frozenset({"attach", "autostart", "port", "start_timeout"})
"""Settings that every service has from the kernel."""

MODEL_PLACES = ("model", "model.name", "model.projector")
PLACES = ("port", "host", "key", "python", "here", "data", "cache", *MODEL_PLACES)
"""Placeholders, besides `settings.NAME`."""
FACTS = ("model.embedding", "model.vision")
"""What only a condition can ask."""


class Group(NamedTuple):
    """Arguments that are given together; left out when one of their placeholders has no value."""

    texts: tuple[str, ...]


class Choice(NamedTuple):
    """Arguments that depend on whether something is set and true."""

    condition: str
    then: tuple[str, ...]
    otherwise: tuple[str, ...] = ()


Part = str | Group | Choice


def texts_of(part: Part) -> tuple[str, ...]:
    """Return the texts of a part, in which placeholders may stand."""
    if isinstance(part, str):
        return (part,)
    return part.texts if isinstance(part, Group) else (*part.then, *part.otherwise)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting that a manifest declares; `default` None: not set."""

    name: str
    kind: Kind = "text"
    default: Any = None
    least: float | None = None
    most: float | None = None
    options: tuple[Any, ...] = ()
    description: str = ""


class NamedModel(NamedTuple):
    """A model that the manifest itself names; without a path, its name is what programs get."""

    name: str
    path: Path | None = None
    embedding: bool = False


@dataclass(frozen=True, kw_only=True)
class Models:
    """Which models there are: named ones, or files in a folder.

    With neither, they are those of the kernel's own folders if the command takes a model, else
    what the running program lists.
    """

    named: tuple[NamedModel, ...] = ()
    folder: Path | None = None
    pattern: str = "*.gguf"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A backend that is a file. Times are in seconds."""

    file: Path
    name: str
    command: tuple[Part, ...]
    title: str = ""
    description: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    ready: str = "/health"
    health: str | None = None
    capabilities: frozenset[Capability] = frozenset({Capability.CHAT})
    parameters: frozenset[str] = frozenset()
    port: int | None = None
    start_timeout: float | None = None
    models: Models = Models()
    settings: tuple[Setting, ...] = ()

    @property
    def texts(self) -> Iterator[str]:
        """Every text in which placeholders may stand."""
        for part in self.command:
            yield from texts_of(part)
        yield from self.env.values()
        yield self.cwd or ""
