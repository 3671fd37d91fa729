"""The IPC methods: one table for every door (in process, WebSocket, page).

Each is a coroutine function that takes the kernel first; names and shapes are those of the API
reference. `Kernel.call` is the door in process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import Field

from . import _store_methods
from ._files import confined, save_image
from ._listing import list_models, model_exists
from ._method import OPEN_ATTRIBUTE, Handler, Method, Parameters
from .api import (
    ApiServiceInformation,
    DeviceInfo,
    LogEntry,
    ModelDownloadInfo,
    ModelInfo,
    NodeRepoData,
    OpenDialogOptions,
    Readiness,
    SaveDialogOptions,
)
from .errors import ServiceNotAvailable
from .kernel import Kernel
from .shell import DIALOG_PATIENCE
from .states import BackendStatus

__all__ = ["METHODS", "Method", "Parameters"]

ServiceName = Annotated[str, Field(min_length=1, max_length=64)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]
LineCount = Annotated[int, Field(ge=1, le=1000)]
Function = TypeVar("Function", bound=Handler)

STORES = "Stores"
SERVICES, MODELS, DEVICES = "Service management", "Model management", "Device management"
FILES, WINDOW, COMFYUI = "File operations", "Window management", "ComfyUI management"

_WITH_MODELS = "the plugin for models and downloads: pip install aiplayground-models"
_WITH_COMFYUI = "the plugin for ComfyUI: pip install aiplayground-comfyui"

_table: dict[str, Method] = {}


def _method(
    name: str, group: str, *, listing: Any = False, waits_for: str | None = None
) -> Callable[[Function], Function]:
    """Enter a function into the table; one that is `listing` needs no token."""

    def enter(function: Function) -> Function:
        setattr(function, OPEN_ATTRIBUTE, listing)
        _table[name] = Method(name, function, group, waits_for=waits_for)
        return function

    return enter


def _missing(name: str, needs: str) -> ServiceNotAvailable:
    return ServiceNotAvailable(
        f"{name} needs {needs}", details={"method": name, "reason": "not-installed"}
    )


# Services -----------------------------------------------------------------------------------


@_method("getServices", SERVICES, listing=True)
async def get_services(kernel: Kernel) -> list[ApiServiceInformation]:
    """Return every service and its state."""
    return [ApiServiceInformation.of(each) for each in kernel.services()]


@_method("sendStartSignal", SERVICES)
async def send_start_signal(kernel: Kernel, service_name: ServiceName) -> BackendStatus:
    """Start a service; returns when it runs, and rejects with the reason if it does not.

    `ensureBackendReadiness` starts one with a model.
    """
    return (await kernel.start(service_name)).status


@_method("sendStopSignal", SERVICES)
async def send_stop_signal(kernel: Kernel, service_name: ServiceName) -> BackendStatus:
    """Stop a service; a start in progress is ended."""
    return (await kernel.stop(service_name)).status


@_method("restartService", SERVICES)
async def restart_service(kernel: Kernel, service_name: ServiceName) -> BackendStatus:
    """Stop a service and start it again; returns when it runs."""
    return (await kernel.restart(service_name)).status


@_method("getServiceLog", SERVICES)
async def get_service_log(
    kernel: Kernel, service_name: ServiceName, lines: LineCount = 100
) -> list[LogEntry]:
    """Return the last lines of a service's log, oldest first; `kernel` has one, too."""
    return [LogEntry.of(each) for each in kernel.log(service_name).tail(lines)]


@_method("setUpService", SERVICES)
async def set_up_service(kernel: Kernel, service_name: ServiceName) -> None:
    """Install what a service needs; `serviceSetUpProgress` events tell how far it is."""
    await kernel.set_up(service_name)


@_method("ensureBackendReadiness", SERVICES)
async def ensure_backend_readiness(kernel: Kernel, backend: ServiceName, model: Text) -> None:
    """Have a service running with a model in memory, starting and loading what is needed.

    `ai-backend` means whichever backend has the model; as the model's name, the default one.
    """
    await kernel.ensure_ready(backend, model)


@_method("explainReadiness", SERVICES, listing=True)
async def explain_readiness(kernel: Kernel, backend: ServiceName, model: Text) -> Readiness:
    """Say what loading a model would need, what is free, and what would be unloaded for it.

    Nothing is loaded or unloaded. A refusal says what to change.
    """
    return Readiness.of(await kernel.plan(model, backend))


@_method("unloadModel", SERVICES)
async def unload_model(kernel: Kernel, backend: ServiceName, model: Text) -> None:
    """Free the memory that a model takes; refused while it is in use."""
    await kernel.unload(backend, model)


# Models -------------------------------------------------------------------------------------


@_method("loadModels", MODELS, listing=True)
async def load_models(kernel: Kernel) -> list[ModelInfo]:
    """Return the models that backends serve and those that lie in the model folders, by name."""
    return await list_models(kernel)


@_method("refreshLLMModels", MODELS, listing=True)
async def refresh_llm_models(kernel: Kernel) -> None:
    """Look at the model folders again; `modelsChanged` tells if something is different."""
    await kernel.library.refresh()


@_method("getModelPaths", MODELS, listing=True)
async def get_model_paths(kernel: Kernel) -> dict[str, str]:
    """Return the folder of each kind of model; it may not be there yet."""
    return {kind: folder.as_posix() for kind, folder in kernel.model_paths.folders.items()}


@_method("downloadModel", MODELS, waits_for=_WITH_MODELS)
async def download_model(kernel: Kernel, model_info: ModelDownloadInfo) -> None:
    """Download a model; `modelDownloadProgress` events tell how far it is."""
    raise _missing("downloadModel", _WITH_MODELS)


@_method("checkModelExists", MODELS)
async def check_model_exists(kernel: Kernel, path: Text) -> bool:
    """Say whether a model, or a file of one, is there, whole.

    `path` is relative to the model folders (`llm/x.gguf`), or lies in one of them.
    """
    return await model_exists(kernel, path)


# Devices ------------------------------------------------------------------------------------


@_method("detectDevices", DEVICES, listing=True)
async def detect_devices(kernel: Kernel) -> list[DeviceInfo]:
    """Return what can compute on this computer: GPUs, NPUs, and the CPU."""
    chosen = kernel.selected_device
    found = await kernel.compute_devices()
    return [DeviceInfo.of(each, selected=bool(chosen and chosen.id == each.id)) for each in found]


@_method("selectDevice", DEVICES)
async def select_device(kernel: Kernel, device: Text) -> None:
    """Choose the device to compute on, by its id or a name that means one alone.

    `auto` takes the choice back. Running services that can use it restart onto it.
    """
    await kernel.select_device(device)


# Files --------------------------------------------------------------------------------------


@_method("showOpenDialog", FILES)
async def show_open_dialog(
    kernel: Kernel,
    options: OpenDialogOptions = OpenDialogOptions(),  # noqa: B008  # immutable
) -> list[str] | None:
    """Let the user choose files or folders in the window's dialog; nothing if none was chosen."""
    asked = options.model_dump(mode="json", by_alias=True, exclude_none=True)
    chosen = await kernel.shells.ask("show_open_dialog", asked, patience=DIALOG_PATIENCE)
    return None if chosen is None else list(chosen)


@_method("showSaveDialog", FILES)
async def show_save_dialog(
    kernel: Kernel,
    options: SaveDialogOptions = SaveDialogOptions(),  # noqa: B008  # immutable
) -> str | None:
    """Let the user name a file in the window's dialog; nothing if none was named."""
    asked = options.model_dump(mode="json", by_alias=True, exclude_none=True)
    named: str | None = await kernel.shells.ask("show_save_dialog", asked, patience=DIALOG_PATIENCE)
    return named


@_method("saveImage", FILES)
async def save_an_image(kernel: Kernel, image_data: str, filename: str) -> str:
    """Save a picture, given in base64 or as a data URL, in the folder for outputs.

    Returns the path. Nothing is overwritten: a name that is taken gets a number.
    """
    limit = kernel.settings.files.max_image * 2**20
    path = await asyncio.to_thread(save_image, kernel.output_folder, image_data, filename, limit)
    return str(path)


@_method("openImageWithSystem", FILES)
async def open_image_with_system(kernel: Kernel, path: Text) -> None:
    """Open a picture with the system's program for it; it must lie in one of the known folders."""
    roots = [kernel.output_folder, *kernel.settings.files.folders]
    found = await asyncio.to_thread(confined, path, roots)
    await asyncio.to_thread(kernel.opener.open, found)


# The window ---------------------------------------------------------------------------------


@_method("miniWindow", WINDOW)
async def mini_window(kernel: Kernel) -> None:
    """Make the program's window small."""
    await kernel.shells.ask("mini_window")


@_method("exitApp", WINDOW)
async def exit_app(kernel: Kernel) -> None:
    """Close the program's window and end the program."""
    await kernel.shells.ask("exit_app")


@_method("setFullScreen", WINDOW)
async def set_full_screen(kernel: Kernel, fullscreen: bool) -> None:
    """Let the program's window fill the screen, or no longer."""
    await kernel.shells.ask("set_full_screen", fullscreen)


# ComfyUI ------------------------------------------------------------------------------------


@_method("comfyui:downloadCustomNode", COMFYUI, waits_for=_WITH_COMFYUI)
async def download_custom_node(kernel: Kernel, node_repo_data: NodeRepoData) -> None:
    """Download and install a custom node of ComfyUI."""
    raise _missing("comfyui:downloadCustomNode", _WITH_COMFYUI)


@_method("comfyui:listInstalledCustomNodes", COMFYUI, listing=True, waits_for=_WITH_COMFYUI)
async def list_installed_custom_nodes(kernel: Kernel) -> list[str]:
    """Return the custom nodes of ComfyUI that are installed."""
    raise _missing("comfyui:listInstalledCustomNodes", _WITH_COMFYUI)


@_method("comfyui:isCustomNodeInstalled", COMFYUI, listing=True, waits_for=_WITH_COMFYUI)
async def is_custom_node_installed(kernel: Kernel, node_ref: Text) -> bool:
    """Say whether a custom node of ComfyUI is installed; `node_ref` is `repo@commit`."""
    raise _missing("comfyui:isCustomNodeInstalled", _WITH_COMFYUI)


# Stores -------------------------------------------------------------------------------------


_method("stores:list", STORES, listing=True)(_store_methods.list_stores)
_method("stores:get", STORES, listing=_store_methods.may_get)(_store_methods.get_store)
_method("stores:call", STORES, listing=_store_methods.may_call)(_store_methods.call_store)


METHODS: Mapping[str, Method] = MappingProxyType(_table)
"""The kernel's own methods by their outside names."""
