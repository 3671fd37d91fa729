"""The client without `async`: the same on an event loop in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic import TypeAdapter

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

from ._async import PATIENCE, RECONNECT_PATIENCE, AsyncClient
from ._events import RemoteEvent

if TYPE_CHECKING:
    from aiplayground.stores import Store

    from ._blocking_store import BlockingStore

T = TypeVar("T")


class Client:
    """`AsyncClient` with blocking methods; any thread may call it. Use it with `with`."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        home: Path | str | None = None,
        timeout: float = PATIENCE,
    ) -> None:
        self._inner = AsyncClient(url, token, home=home, timeout=timeout)
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal("asyncio"))
            stack.enter_context(portal.wrap_async_context_manager(self._inner))
            self._portal = portal
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._portal = None
        self._stack.close()

    def _run(self, work: Callable[..., Any], *args: Any) -> Any:
        if self._portal is None:
            raise RuntimeError("Use it as a context manager: `with Client() as client:`")
        future = self._portal.start_task_soon(work, *args)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupt (Ctrl-C) ends what was waited for
            raise

    def base_url(self) -> str:
        """Return where the kernel answers: the OpenAI-compatible API is at `/v1` below it."""
        return str(self._run(self._inner.base_url))

    def call(self, method: str, *params: Any, timeout: float | None = None) -> Any:
        """Call any method by its outside name, a plugin's too; plain data in and out."""

        async def work() -> Any:
            return await self._inner.call(method, *params, timeout=timeout)

        return self._run(work)

    def _as(self, kind: type[T], method: str, *params: Any) -> T:
        return TypeAdapter(kind).validate_python(self.call(method, *params))

    def events(self, *names: str, patience: float = RECONNECT_PATIENCE) -> Iterator[RemoteEvent]:
        """Yield events as `AsyncClient.events` does; leaving the loop ends the subscription."""
        stream = self._inner.events(*names, patience=patience)
        try:
            while (event := self._run(anext, stream, None)) is not None:
                yield event
        finally:
            if self._portal is not None:
                self._run(stream.aclose)

    def store(self, name: str, kind: type[Store[Any]] | None = None) -> BlockingStore:
        """Return a store of the kernel, as `AsyncClient.store` does, with blocking methods."""
        from ._blocking_store import BlockingStore

        async def work() -> Any:
            return await (self._inner.store(name, kind) if kind else self._inner.store(name))

        return BlockingStore(self._run(work), self._run)

    # The methods of the API reference -----------------------------------------------------

    def get_services(self) -> list[ApiServiceInformation]:
        """Return every service and its state."""
        return self._as(list[ApiServiceInformation], "getServices")

    def send_start_signal(self, service_name: str) -> BackendStatus:
        """Start a service; returns when it runs."""
        return self._as(BackendStatus, "sendStartSignal", service_name)

    def send_stop_signal(self, service_name: str) -> BackendStatus:
        """Stop a service."""
        return self._as(BackendStatus, "sendStopSignal", service_name)

    def restart_service(self, service_name: str) -> BackendStatus:
        """Stop a service and start it again; returns when it runs."""
        return self._as(BackendStatus, "restartService", service_name)

    def get_service_log(self, service_name: str, lines: int = 100) -> list[LogEntry]:
        """Return the last lines of a service's log, oldest first."""
        return self._as(list[LogEntry], "getServiceLog", service_name, lines)

    def set_up_service(self, service_name: str) -> None:
        """Install what a service needs."""
        self.call("setUpService", service_name)

    def ensure_backend_readiness(self, backend: str, model: str) -> None:
        """Have a service running with a model in memory."""
        self.call("ensureBackendReadiness", backend, model)

    def explain_readiness(self, backend: str, model: str) -> Readiness:
        """Say what loading a model would need, and what would be unloaded for it."""
        return self._as(Readiness, "explainReadiness", backend, model)

    def unload_model(self, backend: str, model: str) -> None:
        """Free the memory that a model takes."""
        self.call("unloadModel", backend, model)

    def load_models(self) -> list[ModelInfo]:
        """Return the language models that are there."""
        return self._as(list[ModelInfo], "loadModels")

    def refresh_llm_models(self) -> None:
        """Look at the disk again for language models."""
        self.call("refreshLLMModels")

    def get_model_paths(self) -> dict[str, str]:
        """Return the folder of each kind of model."""
        return self._as(dict[str, str], "getModelPaths")

    def download_model(self, model_info: ModelDownloadInfo) -> None:
        """Download a model."""
        self.call("downloadModel", model_info)

    def check_model_exists(self, path: str) -> bool:
        """Say whether the file of a model is there."""
        return self._as(bool, "checkModelExists", path)

    def detect_devices(self) -> list[DeviceInfo]:
        """Return what can compute on the kernel's computer."""
        return self._as(list[DeviceInfo], "detectDevices")

    def select_device(self, device: str) -> None:
        """Choose the device to compute on, by id or name; `auto` takes the choice back."""
        self.call("selectDevice", device)

    def show_open_dialog(self, options: OpenDialogOptions) -> list[str] | None:
        """Let the user choose files in the window's dialog."""
        answer: list[str] | None = self.call("showOpenDialog", options)
        return answer

    def show_save_dialog(self, options: SaveDialogOptions) -> str | None:
        """Let the user name a file in the window's dialog."""
        answer: str | None = self.call("showSaveDialog", options)
        return answer

    def save_image(self, image_data: str, filename: str) -> str:
        """Save a picture, in base64 or as a data URL; returns its path."""
        return self._as(str, "saveImage", image_data, filename)

    def open_image_with_system(self, path: str) -> None:
        """Open a picture with the system's program for it."""
        self.call("openImageWithSystem", path)

    def mini_window(self) -> None:
        """Make the program's window small."""
        self.call("miniWindow")

    def exit_app(self) -> None:
        """Close the program's window and end the program."""
        self.call("exitApp")

    def set_full_screen(self, fullscreen: bool) -> None:
        """Let the program's window fill the screen, or no longer."""
        self.call("setFullScreen", fullscreen)

    def comfyui_download_custom_node(self, node_repo_data: NodeRepoData) -> None:
        """Download and install a custom node of ComfyUI."""
        self.call("comfyui:downloadCustomNode", node_repo_data)

    def comfyui_list_installed_custom_nodes(self) -> list[str]:
        """Return the custom nodes of ComfyUI that are installed."""
        return self._as(list[str], "comfyui:listInstalledCustomNodes")

    def comfyui_is_custom_node_installed(self, node_ref: str) -> bool:
        """Say whether a custom node of ComfyUI is installed."""
        return self._as(bool, "comfyui:isCustomNodeInstalled", node_ref)

    def stores_list(self) -> list[StoreInfo]:
        """Return what stores there are."""
        return self._as(list[StoreInfo], "stores:list")

    def stores_get(self, name: str) -> StoreSnapshot:
        """Return where a store stands, as plain data; see `store`."""
        return self._as(StoreSnapshot, "stores:get", name)

    def stores_call(
        self, name: str, action: str, params: list[Any] | dict[str, Any]
    ) -> StoreAnswer:
        """Call an action of a store, with plain data; see `store`."""
        return self._as(StoreAnswer, "stores:call", name, action, params)
