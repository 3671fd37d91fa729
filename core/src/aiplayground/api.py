"""The shapes of the IPC API as programs outside see them: camelCase there, snake_case here.

Source: the API reference, "IPC API". What we add is optional: a client that does not know it loses
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from .states import BackendStatus
from .types import ModelKind

if TYPE_CHECKING:
    from ._logs import LogLine
    from .admission import LoadPlan
    from .devices import ComputeDevice
    from .status import ServiceInfo


class Shape(BaseModel):
    """Base: immutable, camelCase outside, unknown fields refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


class Answer(BaseModel):
    """Base of what comes back: as `Shape`, and what a newer kernel adds is kept."""

    model_config = ConfigDict(
        frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True
    )


class ServiceError(Answer):
    """Why a service is broken, failed, or being restarted."""

    code: int
    message: str
    details: dict[str, Any] = Field(default_factory=dict)


class ApiServiceInformation(Answer):
    """A service; `error` is there while something is wrong with it."""

    name: str
    base_url: str
    port: int
    current_status: BackendStatus
    version: str | None = None
    is_required: bool
    is_set_up: bool
    error: ServiceError | None = None

    @classmethod
    def of(cls, info: ServiceInfo) -> ApiServiceInformation:
        """Return a service of the kernel as it looks from outside."""
        return cls.model_validate(info.as_api())


class ModelInfo(Answer):
    """A model; `size` is in bytes, `context_length` in tokens, `parameters` counts weights.

    `path` is a file or a folder; empty for one that lies with a server elsewhere. `backend` is the
    service that has it in memory, else the first that can serve it; without one, none can here.
    `backends` are all that can, where there are several. `format` is `gguf`, `safetensors`,
    `pickle`, `openvino`, `transformers` or `diffusers`; `repo` is where it came from.
    """

    name: str
    path: str
    type: ModelKind
    size: int | None = None
    loaded: bool | None = None
    format: str | None = None
    quantization: str | None = None
    context_length: int | None = None
    parameters: int | None = None
    architecture: str | None = None
    vision: bool | None = None
    backend: str | None = None
    backends: tuple[str, ...] | None = None
    repo: str | None = None


class MemoryParts(Answer):
    """What a model takes in memory, in bytes; `on_device` of it in the memory of `device`.

    `rough`: told from the size of its files alone.
    """

    total: int
    weights: int
    cache: int
    compute: int
    projector: int
    other: int
    on_device: int
    device: str | None = None
    rough: bool


class PlannedUnload(Answer):
    """A model that would be unloaded first, what that gives back in bytes, and why this one."""

    service_name: str
    model: str
    bytes: int
    why: str


class LogEntry(Answer):
    """A line of a log; `time` is in seconds since 1970, `seq` counts the lines of its service."""

    seq: int
    time: float
    level: str
    source: str
    text: str

    @classmethod
    def of(cls, line: LogLine) -> LogEntry:
        """Return a line as it looks from outside."""
        return cls(
            seq=line.seq, time=line.time, level=line.level, source=line.source, text=line.text
        )


class Readiness(Answer):
    """What loading a model would do now; `needs` and `free` are bytes by kind of memory.

    `outcome` is `loaded`, `load`, `unload-first`, `wait`, `refuse` or `unchecked`. `unload` goes in
    this order, `wait_for` are in use, `change` says what would let it fit.
    """

    service_name: str
    model: str
    outcome: Literal["loaded", "load", "unload-first", "wait", "refuse", "unchecked"]
    message: str
    estimate: MemoryParts | None = None
    needs: dict[str, int] = Field(default_factory=dict)
    free: dict[str, int] = Field(default_factory=dict)
    unload: list[PlannedUnload] = Field(default_factory=list)
    wait_for: list[str] = Field(default_factory=list)
    change: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @classmethod
    def of(cls, plan: LoadPlan) -> Readiness:
        """Return a plan of the kernel as it looks from outside."""
        from .admission import parts_of

        made = plan.estimate
        return cls(
            service_name=plan.service,
            model=plan.model,
            outcome=plan.outcome,
            message=plan.message,
            estimate=MemoryParts.model_validate(parts_of(made)) if made else None,
            needs=dict(plan.needs),
            free=dict(plan.free),
            unload=[
                PlannedUnload(
                    service_name=each.service, model=each.model, bytes=each.bytes, why=each.why
                )
                for each in plan.unload
            ],
            wait_for=list(plan.wait_for),
            change=list(plan.change),
            notes=list(made.notes) if made else [],
        )


class ModelDownloadInfo(Shape):
    """What to download, and where to.

    `repo` is `owner/repository`, with `:Q4_K_M` for one of its quantizations, or an address of the
    Hub. `filename` is a file of it, all parts of a split one included; without it, and without
    patterns to `include` or `exclude`, what is usual. `destination` is a folder relative to the
    root of models (`llm/mistral-7b`), by default one for the repository in the folder of the
    `type`, which is by default `llm`.
    """

    repo: Annotated[str, Field(min_length=1, max_length=2048)]
    filename: Annotated[str, Field(max_length=1024)] = ""
    destination: Annotated[str, Field(max_length=1024)] = ""
    type: Annotated[str, Field(max_length=64)] = ""
    revision: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    files: Annotated[tuple[str, ...], Field(strict=False, max_length=10_000)] = ()
    include: Annotated[tuple[str, ...], Field(strict=False, max_length=1000)] = ()
    exclude: Annotated[tuple[str, ...], Field(strict=False, max_length=1000)] = ()


class DeviceInfo(Answer):
    """A device that can compute.

    `vram` is in bytes: of an integrated GPU, an NPU or the CPU the main memory, which they share; 0
    where it is not known. `aliases` are what engines call it, `selected` is whether the user chose
    it.
    """

    name: str
    id: str
    type: Literal["Arc", "iGPU", "GPU", "NPU", "CPU"]
    vram: int
    aliases: tuple[str, ...] = ()
    selected: bool = False

    @classmethod
    def of(cls, each: ComputeDevice, *, selected: bool) -> DeviceInfo:
        """Return a device of the kernel as it looks from outside."""
        device = each.device
        return cls(
            name=device.name,
            id=device.id,
            type=device.kind,
            vram=device.memory,
            aliases=each.aliases,
            selected=selected,
        )


class FileFilter(Shape):
    """A kind of files that a dialog shows; extensions are without a dot."""

    name: str
    extensions: Annotated[tuple[str, ...], Field(strict=False)]


class SaveDialogOptions(Shape):
    """What a dialog for saving shows."""

    title: str | None = None
    default_path: str | None = None
    filters: Annotated[tuple[FileFilter, ...] | None, Field(strict=False)] = None


class OpenDialogOptions(SaveDialogOptions):
    """What a dialog for choosing files or folders shows."""

    properties: Annotated[
        tuple[Literal["openFile", "openDirectory", "multiSelections"], ...] | None,
        Field(strict=False),
    ] = None


class NodeRepoData(Shape):
    """A custom node of ComfyUI: its Git repository, and which commit of it."""

    repository: Annotated[str, Field(min_length=1)]
    commit: str | None = None


class SetupProgress(Answer):
    """A step of an installation; `progress` is 0 to 100."""

    service_name: str
    stage: str
    progress: float
    message: str | None = None


class ServiceExit(Answer):
    """A service's worker went away that nobody stopped; `code` is negative for a signal."""

    service_name: str
    code: int
    message: str | None = None


class DownloadProgress(Answer):
    """A download moved on; `progress` is 0 to 100, `downloaded` and `total` are in bytes.

    `status` is `queued`, `resolving`, `waiting`, `downloading`, `verifying`, or one of the last:
    `complete`, `cancelled`, `error`. `message` says why it waits or failed.
    """

    filename: str
    progress: float
    speed: str | None = None
    eta: str | None = None
    id: str | None = None
    repo: str | None = None
    status: str | None = None
    downloaded: int | None = None
    total: int | None = None
    message: str | None = None


class ModelChange(Answer):
    """A model came into memory or left it; `reason` says why it left."""

    service_name: str
    model: str
    reason: str | None = None


class ModelsChange(Answer):
    """The models on the disk changed; `count` is how many there are now."""

    count: int


class StoreActionInfo(Answer):
    """An action of a store; one that is `open` needs no token."""

    name: str
    parameters: tuple[str, ...]
    open: bool


class StoreInfo(Answer):
    """What there is in a store; all of a `private` one needs the token."""

    name: str
    summary: str
    private: bool
    fields: tuple[str, ...]
    getters: tuple[str, ...]
    actions: tuple[StoreActionInfo, ...]


class StoreSnapshot(Answer):
    """Where a store stands; `getters` holds what follows from its state."""

    store: str
    version: int
    state: dict[str, Any]
    getters: dict[str, Any]


class StoreAnswer(Answer):
    """What an action returned, and the version of the state by then."""

    version: int
    result: Any = None


class Moment(Answer):
    """Something that has no figures."""
