"""What a backend says of itself, checked without starting anything."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiplayground.errors import AIPlaygroundError, InvalidSettings, suggest
from aiplayground.specs import BackendSpec, Capability
from aiplayground.testing.lab import Broken

from . import rule

if TYPE_CHECKING:
    from aiplayground.testing.facts import Facts
    from aiplayground.testing.lab import Lab

HEAVY = (
    "aiohttp", "httpx", "numpy", "openvino", "pandas", "PIL", "pydantic", "requests", "rich",
    "starlette", "llama_cpp", "torch", "transformers", "uvicorn",
)  # fmt: skip
"""What importing a plugin must not import: each costs tens of milliseconds or more."""

IMPORT_TIMEOUT = 60
HOOK_OF = {
    Capability.CHAT: "chat",
    Capability.EMBEDDING: "embed",
    Capability.TOOLS: "chat",
    Capability.VISION: "chat",
}
"""The hook behind each capability; `generate` is behind all others."""

BY_DEFAULT = frozenset(
    {Capability.CHAT, Capability.COMPLETION, Capability.EMBEDDING, Capability.RERANK}
)
"""What the kernel's own hooks do for a backend whose worker speaks the OpenAI API."""


def _is_module(facts: Facts) -> str | None:
    module = getattr(facts.plugin, "__spec__", None)
    return None if module is not None else "the subject is an object and no module"


def _has_settings(facts: Facts) -> str | None:
    return None if facts.spec.settings else "the backend has no settings of its own"


@rule(
    "declaration.loads",
    mend="Do what the message says; `aipg plugins` shows it too.",
    see="docs/reference/hooks.md",
)
async def loads(lab: Lab) -> None:
    """The plugin imports, the kernel accepts its hooks, and it declares a backend."""
    _ = lab.facts.spec  # a plugin that does not load has no lab: the examiner says why


@rule(
    "declaration.import-cost",
    mend="Import it inside the functions that need it, or under `TYPE_CHECKING` for annotations.",
    see="docs/reference/hooks.md",
    needs=(_is_module,),
    basis="declaration.loads",
)
async def import_cost(lab: Lab) -> None:
    """Importing the plugin's module loads no HTTP, UI or machine learning library."""
    name = lab.facts.plugin.__name__
    source = f"import sys, {name}; print(*sorted({set(HEAVY)!r} & sys.modules.keys()))"
    command = [sys.executable, "-c", "import sys; sys.path[:] = sys.argv[2:]; exec(sys.argv[1])"]
    done = subprocess.run(  # noqa: ASYNC221  # nothing else runs on this loop
        [*command, source, *sys.path],
        capture_output=True,
        text=True,
        timeout=IMPORT_TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise Broken(f"importing {name} in a fresh interpreter failed: {done.stderr[-500:]}")
    if done.stdout.strip():
        raise Broken(f"importing {name} imports {', '.join(done.stdout.split())}")


@rule(
    "declaration.pure",
    mend="Return a constant; look at the machine in `installed_version` or `start`.",
    see="docs/reference/hooks.md#backend",
    basis="declaration.loads",
)
async def pure(lab: Lab) -> None:
    """The hook `backend` returns the same each time."""
    plugin = lab.facts.plugin
    function = getattr(plugin, "backend", None)
    if function is None:
        return  # a manifest: a file says the same each time
    first, second = _declared(function()), _declared(function())
    if first != second:
        raise Broken(f"it returned {first} and then {second}", hook="backend")


def _declared(returned: Any) -> list[BackendSpec]:
    """Return the specs; a settings model that is made on demand is not compared."""
    specs = [returned] if isinstance(returned, BackendSpec) else list(returned)
    return [
        replace(each, settings=each.settings if isinstance(each.settings, str) else None)
        for each in specs
    ]


@rule(
    "declaration.capabilities",
    mend="Implement the hook, or take the capability out of the BackendSpec.",
    see="docs/reference/hooks.md#backend",
    basis="declaration.loads",
)
async def capabilities(lab: Lab) -> None:
    """Each capability that is declared has a hook behind it."""
    spec, hooks = lab.facts.spec, lab.facts.hooks
    for capability in sorted(spec.capabilities):
        hook = HOOK_OF.get(capability, "generate")
        by_default = spec.api == "openai" and (capability in BY_DEFAULT or hook == "chat")
        if hook not in hooks and not by_default:
            raise Broken(f"it declares '{capability}' and has no '{hook}'", hook=hook)


@rule(
    "declaration.hooks",
    mend="Declare the capability in the BackendSpec: without it callers are refused with -4.",
    see="docs/reference/hooks.md#backend",
    basis="declaration.loads",
)
async def declared(lab: Lab) -> None:
    """Each inference hook has a declared capability, so that it can be reached."""
    spec, hooks = lab.facts.spec, lab.facts.hooks
    reached = {HOOK_OF.get(each, "generate") for each in spec.capabilities}
    for hook in sorted({"chat", "embed", "generate"} & hooks - reached):
        raise Broken(f"it implements '{hook}', which no declared capability reaches", hook=hook)


@rule(
    "declaration.parameters",
    mend="Use the names of the request fields; leave out what the engine does not honour.",
    see="docs/reference/hooks.md#backend",
    basis="declaration.loads",
)
async def parameters(lab: Lab) -> None:
    """Each declared parameter is a field of a request."""
    known = _request_fields()
    for name in sorted(lab.facts.spec.parameters - known):
        hint = suggest(name, known)
        raise Broken(f"it declares the parameter '{name}', which no request has.{hint}")


def _request_fields() -> set[str]:
    from aiplayground import types

    kinds: list[type[Any]] = [
        types.ChatRequest, types.CompletionRequest, types.ImageRequest, types.VideoRequest,
        types.TranscriptionRequest, types.SpeechRequest, types.RerankRequest, types.EmbedRequest,
    ]  # fmt: skip
    return {name for kind in kinds for name in kind.__pydantic_fields__}


@rule(
    "declaration.settings",
    mend="Give every setting a default, and derive the settings model from "
    "`aiplayground.settings.OwnSettings` (or any frozen pydantic model).",
    see="docs/reference/settings.md",
    needs=(_has_settings,),
    basis="declaration.loads",
)
async def settings(lab: Lab) -> None:
    """The settings model is found, works without any configuration, and refuses unknown keys."""
    from aiplayground.settings import service_settings

    spec = lab.facts.spec
    try:
        service_settings(lab.kernel.layers, spec)
    except Exception as error:
        raise Broken(f"reading its settings raised {_told(error)}") from error
    wrong = {"services": {spec.name: {"no-such-setting": 1}}}
    try:
        service_settings(lab.maker.kernel(lab.folder / "wrong", settings=wrong).layers, spec)
    except InvalidSettings:
        return
    except Exception as error:
        raise Broken(f"an unknown setting raised {_told(error)}, not InvalidSettings") from error
    raise Broken("an unknown setting was taken without a word")


@rule(
    "declaration.settings-described",
    mend='Write `Field(default=..., description="...")`, with the unit.',
    see="docs/reference/settings.md",
    needs=(_has_settings,),
    basis="declaration.settings",
)
async def settings_described(lab: Lab) -> None:
    """Each setting of its own has a description: `aipg config list` shows it."""
    from aiplayground.settings import settings_class

    model: Any = settings_class(lab.facts.spec)
    for name, field in model.model_fields.items():
        if not field.description:
            raise Broken(f"its setting '{name}' has no description")


@rule(
    "declaration.version",
    mend="Return the version as text, None where the engine is not installed; start nothing.",
    see="docs/reference/hooks.md#installed_version",
    basis="declaration.loads",
)
async def version(lab: Lab) -> None:
    """The engine's version can be told without starting it, and the engine is installed."""
    async with lab.within("coming up"):
        await lab.open()
    if lab.kernel.faults.launches:
        raise Broken("finding out the version launched a worker", hook="installed_version")
    info = lab.info
    if info.version is not None and not isinstance(info.version, str):
        raise Broken(f"the version is {info.version!r}, not text", hook="installed_version")
    if not info.set_up:
        why = f": {info.error['message']}" if info.error else ""
        raise Broken(
            f"its engine counts as {info.installation.value}{why}. Without the engine nothing "
            f"more can be checked; install it first (`aipg setup {info.name}`)",
            hook="installed_version",
        )


def _told(error: Exception) -> str:
    told = error.message if isinstance(error, AIPlaygroundError) else str(error)
    return f"{type(error).__name__}: {told}"
