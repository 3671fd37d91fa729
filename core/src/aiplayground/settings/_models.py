"""The kernel's settings: one place for every limit and deadline, with its default and unit.

The field descriptions are the reference: `aipg config list` and the settings page of the
documentation are made from them. Durations are in seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from aiplayground.models._external import PROGRAMS
from aiplayground.models._kinds import KINDS

from ._attach import AttachSettings, EndpointSettings
from ._section import Folder, Names, Section

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A duration in seconds; 0 means "never" or "no limit" where the description says so."""

Port = Annotated[int, Field(ge=1, le=65535)]


def _address(text: str) -> str:
    """Refuse what is no address; return it without the slash at its end."""
    if not text.startswith(("http://", "https://")) or any(c.isspace() for c in text):
        raise ValueError("must begin with http:// or https://")
    return text.rstrip("/")


Address = Annotated[str, AfterValidator(_address)]


PROXIES = ("http", "https", "socks5", "socks5h")


def _proxy(value: SecretStr) -> SecretStr:
    """Refuse what is no address of a proxy, without showing it."""
    scheme, separator, rest = value.get_secret_value().strip().partition("://")
    if not separator or scheme not in PROXIES or not rest or any(c.isspace() for c in rest):
        raise ValueError("must be an address such as http://proxy:8080")
    return value


def _program(entry: str) -> str:
    """Refuse what is neither a program's name nor the path of a folder: a misspelt name."""
    if entry not in PROGRAMS and not Path(entry).expanduser().is_absolute():
        raise ValueError(f"must be one of {', '.join(PROGRAMS)}, or an absolute path")
    return entry


Programs = Annotated[tuple[Annotated[str, AfterValidator(_program)], ...], Field(strict=False)]


class PluginSettings(Section):
    """Which plugins load."""

    allow: Names | None = Field(
        default=None, description="Plugins that may load; not set: all that are installed."
    )
    deny: Names = Field(default=(), description="Plugins that never load, whatever `allow` says.")


def _kind(name: str) -> Any:
    """Describe the setting of one kind's folder."""
    kind = KINDS[name]
    text = f"Folder of {kind.title}; not set: `{kind.folder}` in the root."
    return Field(default=None, description=text)


class ModelPathSettings(Section):
    """The folder of each kind of model, where it is not below the root."""

    llm: Folder | None = _kind("llm")
    embedding: Folder | None = _kind("embedding")
    checkpoint: Folder | None = _kind("checkpoint")
    inpaint: Folder | None = _kind("inpaint")
    lora: Folder | None = _kind("lora")
    vae: Folder | None = _kind("vae")
    controlnet: Folder | None = _kind("controlnet")
    upscale: Folder | None = _kind("upscale")
    diffusion_model: Folder | None = _kind("diffusion_model")
    text_encoder: Folder | None = _kind("text_encoder")
    clip_vision: Folder | None = _kind("clip_vision")
    style_model: Folder | None = _kind("style_model")
    textual_inversion: Folder | None = _kind("textual_inversion")
    hypernetwork: Folder | None = _kind("hypernetwork")
    gligen: Folder | None = _kind("gligen")
    photomaker: Folder | None = _kind("photomaker")
    ipadapter: Folder | None = _kind("ipadapter")
    vae_approx: Folder | None = _kind("vae_approx")
    audio_encoder: Folder | None = _kind("audio_encoder")
    model_patch: Folder | None = _kind("model_patch")
    latent_upscale: Folder | None = _kind("latent_upscale")
    stt: Folder | None = _kind("stt")
    tts: Folder | None = _kind("tts")
    face_swap: Folder | None = _kind("face_swap")
    face_restore: Folder | None = _kind("face_restore")
    nsfw_detector: Folder | None = _kind("nsfw_detector")


class ModelSettings(Section):
    """Where models lie, and which one is meant when none is named."""

    root: Folder | None = Field(
        default=None, description="Folder of our own models; not set: `models` in the data folder."
    )
    paths: ModelPathSettings = Field(
        default=ModelPathSettings(),
        description="The folder of each kind of model, where it is not below the root.",
    )
    external: Programs = Field(
        default=(),
        description=(
            "Other programs whose models are used where they lie, and never changed: "
            "`huggingface`, `lm-studio`, `ollama`, or the path of such a program's folder."
        ),
    )
    folders: Annotated[tuple[Folder, ...], Field(strict=False)] = Field(
        default=(), description="Further folders with model files; only ever read."
    )
    watch: Literal["auto", "poll", "off"] = Field(
        default="auto",
        description=(
            "Whether model folders are watched while a page or program listens for changes: as the "
            "system tells of them (auto), by looking now and then (poll), or not (off)."
        ),
    )
    watch_interval: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=5, description="Seconds between looks at the folders where they are polled."
    )
    default: str | None = Field(
        default=None, description="Model that a chat uses when the caller names none."
    )


class HubSettings(Section):
    """How models are downloaded from the Hugging Face Hub (by aiplayground-models)."""

    endpoint: Address | None = Field(
        default=None,
        description=(
            "Address of the Hub, or of a server that speaks as it does; not set: `HF_ENDPOINT`, "
            "else `https://huggingface.co`. The token goes there alone."
        ),
    )
    mirror: Address | None = Field(
        default=None,
        description=(
            "Address that files are fetched from where it has them; what comes is checked against "
            "the endpoint's checksums. It never gets the token."
        ),
    )
    proxy: Annotated[SecretStr, AfterValidator(_proxy)] | None = Field(
        default=None,
        description="Address of the proxy; not set: `HTTPS_PROXY` and `HTTP_PROXY`.",
    )
    ca_bundle: Folder | None = Field(
        default=None,
        description="File (PEM) with the certificate authorities to trust; not set: the system's.",
    )
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=30, description="Seconds without a byte after which a connection is given up."
    )
    parallel: Annotated[int, Field(ge=1, le=64)] = Field(
        default=3, description="Downloads at the same time; others wait."
    )
    connections: Annotated[int, Field(ge=1, le=64)] = Field(
        default=4, description="Files of one download that are fetched at the same time."
    )
    retries: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=5, description="Attempts in a row that bring nothing until a download fails."
    )
    retry_wait: Annotated[float, Field(gt=0, le=60)] = Field(
        default=1, description="Seconds before the second attempt; twice as long before each other."
    )
    patience: Seconds = Field(
        default=300,
        description="Seconds in all that a file waits for a Hub that asks to wait (HTTP 429).",
    )
    keep_partial: Annotated[float, Field(ge=0, le=36_500)] = Field(
        default=30,
        description=(
            "Days that what a download left of a file is kept; what is older is removed when the "
            "next one begins. 0: never. `aipg downloads` lists it."
        ),
    )
    xet: bool = Field(
        default=True, description="Fetch files over Xet, the Hub's storage by chunks, where it can."
    )


class FileSettings(Section):
    """Where pictures are saved, and which files may be opened."""

    output: Folder | None = Field(
        default=None,
        description="Folder that pictures are saved to; not set: `outputs` in the data folder.",
    )
    folders: Annotated[tuple[Folder, ...], Field(strict=False)] = Field(
        default=(), description="Further folders whose pictures may be opened; only ever read."
    )
    max_image: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=64, description="MiB of a picture that is saved at most."
    )


class ResidencySettings(Section):
    """Which models stay in memory."""

    idle_timeout: Seconds = Field(
        default=600, description="Seconds without a job until a model is unloaded; 0: never."
    )
    max_models: int = Field(
        default=2,
        ge=1,
        description="Models in memory at most; the least recently used idle one makes room.",
    )
    pinned: Names = Field(default=(), description="Models that are never unloaded on their own.")
    memory_check: Literal["refuse", "warn", "off"] = Field(
        default="refuse",
        description=(
            "What happens to a model that is estimated to need more memory than is free, whatever "
            "is unloaded for it: it is refused, or loaded with a warning in the log. off: nothing "
            "is estimated or unloaded for want of memory."
        ),
    )
    memory_margin: int = Field(
        default=256, ge=0, description="MiB of memory that a load must leave free."
    )
    memory_limit: int | None = Field(
        default=None,
        ge=1,
        description="MiB of main memory for all models together; not set: all that is free.",
    )


class TimeoutSettings(Section):
    """How long the kernel waits, in seconds."""

    start: Seconds = Field(
        default=60, description="Seconds until a worker must be ready; its progress renews them."
    )
    load: Seconds = Field(default=600, description="Seconds that loading a model may take.")
    answer: Seconds = Field(
        default=600, description="Seconds that a backend may send nothing while it answers."
    )
    stop_grace: Seconds = Field(
        default=5, description="Seconds from asking a worker to end until it is killed."
    )
    hook: Seconds = Field(
        default=60, description="Seconds that a plugin's hook may take where no other limit holds."
    )
    detect: Seconds = Field(
        default=15, description="Seconds that a plugin may take to list the devices it knows."
    )
    health: Seconds = Field(default=3, description="Seconds that one health probe may take.")
    setup: Seconds = Field(default=0, description="Seconds an installation may take; 0: no limit.")
    drain: Seconds = Field(
        default=10, description="Seconds that answers in progress may take to end at shutdown."
    )
    shutdown: Seconds = Field(
        default=30, description="Seconds that stopping all services may take at shutdown."
    )
    probe_interval: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.02, description="Seconds between looks whether a new worker is ready."
    )


class RestartSettings(Section):
    """What follows a crash: the n-th restart waits `base * factor ** n`, at most `cap`."""

    limit: int = Field(
        default=5, ge=0, description="Restarts in a row before the service counts as failed."
    )
    base: Seconds = Field(default=0.5, description="Seconds before the first restart.")
    factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Field(
        default=2, description="By what the wait grows from one restart to the next."
    )
    cap: Seconds = Field(default=30, description="Seconds that a wait grows to at most.")
    jitter: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="Part of the wait that is random, from 0 to 1."
    )
    stable_after: Seconds = Field(
        default=10, description="Seconds of running after which the count starts anew."
    )


class LivenessSettings(Section):
    """When a running worker counts as hung."""

    interval: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=5, description="Seconds between health probes of a running worker."
    )
    limit: Seconds = Field(
        default=30, description="Seconds of failed probes, no CPU use and no log until it is hung."
    )
    hard_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Field(
        default=10, description="After `limit` times this it is hung even if it uses the CPU."
    )


class LogSettings(Section):
    """The log files: one for each service, and the kernel's own."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe messages that are kept."
    )
    max_bytes: int = Field(
        default=5 * 1024 * 1024, ge=4096, description="Bytes after which a log file is put aside."
    )
    backups: int = Field(default=3, ge=0, description="Put-aside files that are kept.")


class ServiceSettings(Section):
    """What the kernel itself lets you set for each service."""

    port: Port | None = Field(
        default=None, description="Port of its primary worker; not set: the preferred, or a free."
    )
    autostart: bool = Field(default=False, description="Start it when the kernel comes up.")
    start_timeout: Seconds | None = Field(
        default=None, description="Seconds, in place of `timeouts.start` for this service."
    )
    attach: AttachSettings = AttachSettings()


class OwnSettings(BaseModel):
    """Base for a backend's settings model (`BackendSpec.settings`); any pydantic model will do."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KernelSettings(Section):
    """All settings of a kernel. `services` holds only the services that were given any."""

    plugins: PluginSettings = PluginSettings()
    models: ModelSettings = ModelSettings()
    hub: HubSettings = HubSettings()
    files: FileSettings = FileSettings()
    residency: ResidencySettings = ResidencySettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    restart: RestartSettings = RestartSettings()
    liveness: LivenessSettings = LivenessSettings()
    logs: LogSettings = LogSettings()
    services: dict[str, ServiceSettings] = Field(default_factory=dict)
    attach: dict[str, EndpointSettings] = Field(default_factory=dict)

    def service(self, name: str) -> ServiceSettings:
        """Return the kernel-level settings of a service: the defaults if none were given."""
        return self.services.get(service_key(name), ServiceSettings())

    def attachment(self, name: str) -> AttachSettings | None:
        """Return where a service is attached; None if the kernel runs it itself."""
        own = self.service(name).attach
        return own if own.url is not None else self.attach.get(service_key(name))


def service_key(name: str) -> str:
    """Return a service's name as settings spell it: variables can only hold `_` for `-`."""
    return name.lower().replace("_", "-")
