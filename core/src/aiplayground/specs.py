"""Plain data that plugins and the kernel exchange where no validation is needed.

Nothing here imports pydantic: a plugin's door (`plugin.py`) loads this module at discovery, and
discovery must stay cheap. Requests and responses are in `types`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal


class Capability(StrEnum):
    """What a backend can do. A request outside what is declared answers -4."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    IMAGE = "image"
    VIDEO = "video"
    TRANSCRIPTION = "transcription"
    SPEECH = "speech"
    RERANK = "rerank"
    TOOLS = "tools"
    VISION = "vision"


OPENAI_PARAMETERS = frozenset(
    {
        "dimensions",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "response_format",
        "seed",
        "stop",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
    }
)
"""The request fields that OpenAI's own API has, of those that ours has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """Who a backend is: returned by the `backend` hook.

    `settings` names a pydantic model as `"package.module:Class"`, which is imported on first use,
    or is a function without arguments that returns the model.
    `parameters` lists the request fields that the backend honours; another one answers -4.
    `api="openai"` says that the primary worker speaks the OpenAI API: the kernel then supplies
    `chat`, `generate` (completion, rerank), `embed`, `list_models` and `health`.
    """

    name: str
    title: str
    capabilities: frozenset[Capability] = frozenset()
    parameters: frozenset[str] = frozenset()
    preferred_port: int | None = None
    required: bool = False
    settings: str | Callable[[], type[Any]] | None = None
    api: Literal["openai"] | None = None
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """How to start one worker process: given to `ctx.spawn`.

    `argv`, and the values of `env`: `{port}`, `{fd}`, `{token}` are replaced. A worker that takes
    `{fd}` gets a bound socket which it listens on; one that takes `{port}` opens the port itself
    and is shown to own it.
    `ours`: the program calls `aiplayground.serving.parent.watch_parent` and so ends with the
    kernel; any other program runs under the kernel's guard.
    `ready_path` is asked with GET until it answers 200.
    `start_timeout` (seconds) is extended by progress: each line of log output renews it.
    `authorize`: the program asks for a key, which is `{token}`; the kernel's HTTP client sends it.
    """

    argv: Sequence[str]
    name: str = "main"
    primary: bool = True
    model: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    ours: bool = False
    ready_path: str = "/health"
    start_timeout: float | None = None
    authorize: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupProgress:
    """One step of an installation; `progress` is 0 to 100."""

    stage: str
    progress: float
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether a backend answers, and with which models loaded."""

    ok: bool
    models: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A compute device: `memory` is in bytes, 0 where it is not known.

    `free` is what of it nobody used when it was looked at, None where that is not known; it is no
    part of what makes two devices the same.
    """

    id: str
    name: str
    kind: Literal["Arc", "iGPU", "GPU", "NPU", "CPU"]
    memory: int = 0
    free: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Saving:
    """A change that makes a model take less memory: what to do, and the bytes that it saves."""

    change: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """What a model takes in memory once it is loaded and in use, in bytes.

    `weights`, `cache` (keys, values and states of the context), `compute` (what a step works in),
    `projector` and `other` are the whole. `on_device` of it lies in `device`, which has memory of
    its own; the rest, or all of it without a device, in main memory. `rough`: told from the size of
    the files alone. `savings` is what would make it smaller, `notes` what to know about it.
    """

    weights: int = 0
    cache: int = 0
    compute: int = 0
    projector: int = 0
    other: int = 0
    device: Device | None = None
    on_device: int = 0
    rough: bool = False
    savings: tuple[Saving, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.compute + self.projector + self.other

    @property
    def in_main(self) -> int:
        """What of it lies in main memory."""
        return max(0, self.total - self.on_device)
