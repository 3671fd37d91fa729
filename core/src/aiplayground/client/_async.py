"""The client with `async`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from pydantic import BaseModel, TypeAdapter

from aiplayground.api import (
    ApiServiceInformation,
    DeviceInfo,
    LogEntry,
    ModelDownloadInfo,
    ModelInfo,
    NodeRepoData,
    OpenDialogOptions,
    Readiness,
    SaveDialogOptions,
    StoreAnswer,
    StoreInfo,
    StoreSnapshot,
)
from aiplayground.states import BackendStatus

from ._calls import Calls
from ._events import RemoteEvent, events
from ._place import Address

if TYPE_CHECKING:
    from aiplayground.stores import Store, StoreState
    from aiplayground.stores.views import BackendServices, Models, OpenAiCompatibleChat, Presets

    from ._stores import Mirrors, RemoteStore

    S = TypeVar("S", bound=StoreState)

T = TypeVar("T")

PATIENCE = 900.0
"""Seconds for an answer: a start may load a large model."""

RECONNECT_PATIENCE = 60.0
"""Seconds for which a kernel that went away is looked for again."""


class AsyncClient:
    """Calls the IPC methods of a running kernel.

    Without `url` it is the kernel of this computer's user (or of `home`), with its token. `timeout`
    is in seconds and holds for each call. The methods have the names of the API reference in
    snake_case, and raise what `Kernel` raises.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        home: Path | str | None = None,
        timeout: float = PATIENCE,
    ) -> None:
        self._address = Address(url, token, home)
        self._calls = Calls(self._address)
        self._timeout = timeout
        self._mirrors: Mirrors | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; mirrors of stores end."""
        if self._mirrors is not None:
            await self._mirrors.aclose()
        await self._calls.aclose()

    async def base_url(self) -> str:
        """Return where the kernel answers: the OpenAI-compatible API is at `/v1` below it."""
        return (await self._address.place()).url

    async def call(self, method: str, *params: Any, timeout: float | None = None) -> Any:
        """Call any method by its outside name, a plugin's too; plain data in and out."""
        plain = [
            each.model_dump(mode="json", by_alias=True, exclude_none=True)
            if isinstance(each, BaseModel)
            else each
            for each in params
        ]
        return await self._calls.call(method, plain, self._timeout if timeout is None else timeout)

    async def _as(self, kind: type[T], method: str, *params: Any) -> T:
        checked: T = TypeAdapter(kind).validate_python(await self.call(method, *params))
        return checked

    def events(
        self, *names: str, patience: float = RECONNECT_PATIENCE
    ) -> AsyncGenerator[RemoteEvent, None]:
        """Yield events (those of these outside names, if any is given), beginning with a snapshot.

        Where events were lost, or the connection broke, a snapshot comes again. Raises
        `ServiceNotAvailable` when the kernel stays away for `patience` seconds. Close it with
        `aclose`, as any generator that is left early.
        """
        return events(self._address, names, patience)

    @overload
    async def store(self, name: Literal["backendServices"]) -> BackendServices: ...
    @overload
    async def store(self, name: Literal["models"]) -> Models: ...
    @overload
    async def store(self, name: Literal["presets"]) -> Presets: ...
    @overload
    async def store(self, name: Literal["openAiCompatibleChat"]) -> OpenAiCompatibleChat: ...
    @overload
    async def store(self, name: str, kind: type[Store[S]]) -> RemoteStore[S]: ...
    @overload
    async def store(self, name: str) -> Any: ...
    async def store(self, name: str, kind: type[Store[Any]] | None = None) -> Any:
        """Return a store of the kernel: a mirror of its state, with its actions.

        It is as `kernel.store` returns it, and follows the kernel across lost connections. `kind`
        is the class of a plugin's store; without it the state is plain data. Raises
        `InvalidParameters` for one that there is not.
        """
        from aiplayground._stores import BUILT_IN, load_store

        from ._stores import Mirrors

        if kind is None and name in BUILT_IN:
            kind = load_store(name, "aiplayground", BUILT_IN[name])
        self._mirrors = self._mirrors or Mirrors(self._address, self.call, RECONNECT_PATIENCE)
        return await self._mirrors.open(name, kind)

    # The methods of the API reference -----------------------------------------------------

    async def get_services(self) -> list[ApiServiceInformation]:
        """Return every service and its state."""
        return await self._as(list[ApiServiceInformation], "getServices")

    async def send_start_signal(self, service_name: str) -> BackendStatus:
        """Start a service; returns when it runs."""
        return await self._as(BackendStatus, "sendStartSignal", service_name)

    async def send_stop_signal(self, service_name: str) -> BackendStatus:
        """Stop a service."""
        return await self._as(BackendStatus, "sendStopSignal", service_name)

    async def restart_service(self, service_name: str) -> BackendStatus:
        """Stop a service and start it again; returns when it runs."""
        return await self._as(BackendStatus, "restartService", service_name)

    async def get_service_log(self, service_name: str, lines: int = 100) -> list[LogEntry]:
        """Return the last lines of a service's log, oldest first."""
        return await self._as(list[LogEntry], "getServiceLog", service_name, lines)

    async def set_up_service(self, service_name: str) -> None:
        """Install what a service needs."""
        await self.call("setUpService", service_name)

    async def ensure_backend_readiness(self, backend: str, model: str) -> None:
        """Have a service running with a model in memory."""
        await self.call("ensureBackendReadiness", backend, model)

    async def explain_readiness(self, backend: str, model: str) -> Readiness:
        """Say what loading a model would need, and what would be unloaded for it."""
        return await self._as(Readiness, "explainReadiness", backend, model)

    async def unload_model(self, backend: str, model: str) -> None:
        """Free the memory that a model takes."""
        await self.call("unloadModel", backend, model)

    async def load_models(self) -> list[ModelInfo]:
        """Return the language models that are there."""
        return await self._as(list[ModelInfo], "loadModels")

    async def refresh_llm_models(self) -> None:
        """Look at the disk again for language models."""
        await self.call("refreshLLMModels")

    async def get_model_paths(self) -> dict[str, str]:
        """Return the folder of each kind of model."""
        return await self._as(dict[str, str], "getModelPaths")

    async def download_model(self, model_info: ModelDownloadInfo) -> None:
        """Download a model."""
        await self.call("downloadModel", model_info)

    async def check_model_exists(self, path: str) -> bool:
        """Say whether the file of a model is there."""
        return await self._as(bool, "checkModelExists", path)

    async def detect_devices(self) -> list[DeviceInfo]:
        """Return what can compute on the kernel's computer."""
        return await self._as(list[DeviceInfo], "detectDevices")

    async def select_device(self, device: str) -> None:
        """Choose the device to compute on, by id or name; `auto` takes the choice back."""
        await self.call("selectDevice", device)

    async def show_open_dialog(self, options: OpenDialogOptions) -> list[str] | None:
        """Let the user choose files in the window's dialog."""
        answer: list[str] | None = await self.call("showOpenDialog", options)
        return answer

    async def show_save_dialog(self, options: SaveDialogOptions) -> str | None:
        """Let the user name a file in the window's dialog."""
        answer: str | None = await self.call("showSaveDialog", options)
        return answer

    async def save_image(self, image_data: str, filename: str) -> str:
        """Save a picture, in base64 or as a data URL; returns its path."""
        return await self._as(str, "saveImage", image_data, filename)

    async def open_image_with_system(self, path: str) -> None:
        """Open a picture with the system's program for it."""
        await self.call("openImageWithSystem", path)

    async def mini_window(self) -> None:
        """Make the program's window small."""
        await self.call("miniWindow")

    async def exit_app(self) -> None:
        """Close the program's window and end the program."""
        await self.call("exitApp")

    async def set_full_screen(self, fullscreen: bool) -> None:
        """Let the program's window fill the screen, or no longer."""
        await self.call("setFullScreen", fullscreen)

    async def comfyui_download_custom_node(self, node_repo_data: NodeRepoData) -> None:
        """Download and install a custom node of ComfyUI."""
        await self.call("comfyui:downloadCustomNode", node_repo_data)

    async def comfyui_list_installed_custom_nodes(self) -> list[str]:
        """Return the custom nodes of ComfyUI that are installed."""
        return await self._as(list[str], "comfyui:listInstalledCustomNodes")

    async def comfyui_is_custom_node_installed(self, node_ref: str) -> bool:
        """Say whether a custom node of ComfyUI is installed."""
        return await self._as(bool, "comfyui:isCustomNodeInstalled", node_ref)

    async def stores_list(self) -> list[StoreInfo]:
        """Return what stores there are."""
        return await self._as(list[StoreInfo], "stores:list")

    async def stores_get(self, name: str) -> StoreSnapshot:
        """Return where a store stands, as plain data; see `store`."""
        return await self._as(StoreSnapshot, "stores:get", name)

    async def stores_call(
        self, name: str, action: str, params: list[Any] | dict[str, Any]
    ) -> StoreAnswer:
        """Call an action of a store, with plain data; see `store`."""
        return await self._as(StoreAnswer, "stores:call", name, action, params)
