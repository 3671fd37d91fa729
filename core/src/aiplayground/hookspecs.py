"""The hook specifications: what a plugin can implement.

A plugin is a module (or an object) whose functions carry `@hookimpl`, named by an entry point in
the group `aiplayground.plugins`. It takes only the arguments that it needs. The kernel calls the
hooks of one backend through its router and never broadcasts them; it awaits coroutines, iterates
generators, and owns every deadline. An error that leaves a hook is given the plugin's name and
the hook's; raise those of `aiplayground.errors` to choose the code that the caller sees.

The contract has a number. A plugin states the one that it was built for: `AIPG_HOOK_API = 1` in
its module, or a tuple of several. Where nothing that it uses has changed in a breaking way it
runs with a newer kernel, and `aipg plugins` says what its author should know; else it is left
out, with what changed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from .context import ServiceContext
    from .specs import BackendSpec, Device, Health, MemoryEstimate, SetupProgress
    from .types import (
        ChatChunk,
        ChatRequest,
        Embeddings,
        EmbedRequest,
        GenerateEvent,
        GenerateRequest,
        ModelInfo,
    )

PROJECT = "aiplayground"
ENTRY_POINT_GROUP = "aiplayground.plugins"
HOOK_API = 1
"""The number of this contract. It grows when a hook changes its meaning or goes."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def backend() -> BackendSpec | Sequence[BackendSpec]:
    """Say who this backend is. Called once, at discovery, and must cost nothing.

    A plugin without this hook is no backend: it may still bring models, methods or middleware.
    """


@hookspec
def setup(ctx: ServiceContext) -> AsyncIterator[SetupProgress]:
    """Install what the engine needs, yielding progress (an async generator).

    Called by `aipg setup` and `setUpService`. It must be resumable, leave nothing half-done that
    counts as done when it is closed in the middle, and verify the result before it ends. A
    backend without it is installed as soon as its package is.
    """


@hookspec
async def start(ctx: ServiceContext) -> None:
    """Launch the workers with `ctx.spawn`.

    Called once for each start of the service, never by two callers at a time. `ctx.model` is the
    model that the caller wants first. The call is cancelled when a stop arrives; the kernel ends
    what was spawned. A restart after a crash respawns the worker and does not call this hook.
    """


@hookspec
async def stop(ctx: ServiceContext) -> None:
    """Do what stopping needs beyond ending the workers, which the kernel does afterwards."""


@hookspec
async def health(ctx: ServiceContext) -> Health:
    """Say whether the backend answers, and with which models loaded.

    Called at the end of a start, and when someone asks. A running worker process is watched by the
    kernel itself, through its `ready_path`; a backend without workers is asked this every
    `liveness.interval` seconds, has failed once it is not well, and runs again when it is.
    """


@hookspec
def chat(ctx: ServiceContext, request: ChatRequest) -> AsyncIterator[ChatChunk]:
    """Answer a conversation, chunk by chunk (an async generator).

    The model that the request names has been loaded. The generator is closed at once when the
    caller goes away; the engine must stop then. The last chunk carries `finish_reason`.
    """


@hookspec
def generate(ctx: ServiceContext, request: GenerateRequest) -> AsyncIterator[GenerateEvent]:
    """Make what `request.kind` names, event by event (an async generator).

    Only kinds that the backend declares as capabilities arrive here.
    """


@hookspec
async def list_models(ctx: ServiceContext) -> Sequence[ModelInfo]:
    """List what this backend can serve now, running or not."""


@hookspec
async def embed(ctx: ServiceContext, request: EmbedRequest) -> Embeddings:
    """Turn texts into vectors."""


@hookspec
async def load_model(ctx: ServiceContext, model: str) -> None:
    """Bring a model into memory. Called once however many requests wait for it.

    Called only while the service runs. Raise `InvalidModelFile` or `ServiceFailed` with the cause
    when it does not load.
    """


@hookspec
async def unload_model(ctx: ServiceContext, model: str) -> None:
    """Free a model's memory. Called only when nothing uses it."""


@hookspec
async def estimate_memory(ctx: ServiceContext, model: str) -> MemoryEstimate | None:
    """Say what a model will take in memory, with the settings as they are now.

    Called before each load, and by `aipg models plan`, running or not; must neither load nor start
    anything. None: that cannot be told, and the model is loaded unchecked. Without this hook the
    kernel goes by the size of the model's files.
    """


@hookspec
async def release_memory(ctx: ServiceContext, model: str, wanted: int) -> int:
    """Give back memory that a loaded model can do without, such as caches; return the bytes.

    Asked for when another model needs `wanted` bytes, before any model is unloaded. The model goes
    on answering, if slower for a while. With 0 nothing is to be given back: say how much could be.
    That is asked before each decision, and must be quick.
    """


@hookspec
async def endpoint(ctx: ServiceContext, model: str | None) -> str:
    """Return the base URL of the worker that speaks the OpenAI API for this model.

    Without this hook it is the primary worker's.
    """


@hookspec
async def uninstall(ctx: ServiceContext) -> None:
    """Remove what `setup` installed, models excepted."""


@hookspec
async def installed_version(ctx: ServiceContext) -> str | None:
    """Return the engine's version, or None when the engine is not installed.

    An empty text: it is there, of a version that is not known.

    Called when the kernel comes up and after `setup`; must not start the engine. Raise
    `ServiceFailed` when the installation is there but broken.
    """


@hookspec
def detect_devices() -> Sequence[Device]:
    """List the compute devices that this plugin knows of. Asked in a thread; must never hang.

    The kernel joins them with what the system shows. `ctx.selected_devices` tells a start which of
    them the user chose; a running service restarts when that changes.
    """


@hookspec
def model_files() -> Sequence[Path]:
    """Return model files that ship with this plugin."""


@hookspec
def preset_folders() -> Sequence[Path]:
    """Return folders with preset files that ship with this plugin."""


@hookspec
def register_methods() -> Mapping[str, Callable[..., Any]]:
    """Return IPC methods by outside name: coroutine functions that take the kernel first.

    The other parameters and the result are validated by their annotations; outside, their names
    are in camelCase. Callers need the kernel's token, unless the function has the attribute
    `aiplayground_open = True`: only for what lists and changes nothing.
    """


@hookspec
def register_routes() -> Sequence[Any]:
    """Return Starlette routes that the gateway mounts.

    A request's scope has the kernel as `aiplayground.kernel`. A route needs the kernel's token
    unless its endpoint has the attribute `aiplayground_open = True`; every WebSocket needs it.
    """


@hookspec
def register_commands() -> Mapping[str, str]:
    """Return CLI commands by name, each as `"package.module:click_command"`, imported on use.

    A name with a space is a command inside a built-in group: `"config hf-token"`.
    """


@hookspec
def register_stores() -> Mapping[str, str]:
    """Return user-interface stores by name, each as `"package.module:StoreClass"`."""


@hookspec
def register_shell() -> str | None:
    """Return `"package.module:ShellClass"`: the window and its dialogs, if it hosts one.

    The class is called with the kernel, at the first call of a window method; its instances have
    any of the methods of `aiplayground.shell.Shell`.
    """


@hookspec
def register_middleware() -> Sequence[Any]:
    """Return middleware: objects with any of the methods of `aiplayground.middleware.Middleware`.

    The kernel composes them around lifecycle, request and chunk, outermost first.
    """
