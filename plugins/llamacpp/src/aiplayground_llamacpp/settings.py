"""The settings of llamacpp-backend; the reference in the docs is made from these fields."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


class Adapter(BaseModel):
    """A LoRA adapter: a GGUF file made for the model, and how strongly it works."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    scale: Annotated[float, Field(ge=-100, le=100)] = 1.0


class ModelOptions(BaseModel):
    """What differs for one model; what is not set is as for all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    context_size: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    gpu_layers: Annotated[int, Field(ge=-1, le=100_000)] | None = None
    chat_template: str | None = None
    adapters: tuple[Adapter, ...] = ()
    projector: str | None = None
    draft: str | None = None


class Settings(BaseModel):
    """How llama.cpp runs models. Changes hold from the next load of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["python", "llama-server"] = Field(
        default="python",
        description=(
            "What runs the models: llama.cpp inside this program (python), or its own server "
            "(llama-server)."
        ),
    )
    llama_server: str = Field(
        default="",
        description=(
            "Path of the llama-server program. Empty takes the one that `aipg setup "
            "llamacpp-backend` fetched, else the one on PATH."
        ),
    )
    llama_server_build: Literal["auto", "cpu", "vulkan", "cuda", "rocm", "sycl", "metal"] = Field(
        default="auto",
        description=(
            "Which build of llama-server `aipg setup llamacpp-backend` fetches; auto takes what "
            "this computer shows, and the CPU's if that does not run."
        ),
    )
    llama_server_mirror: str = Field(
        default="",
        description=(
            "Where `aipg setup` fetches it from instead of GitHub: a URL under which the release's "
            "files lie as TAG/FILE. The checksums hold in any case."
        ),
    )
    devices: tuple[str, ...] = Field(
        default=(),
        description=(
            "Devices to compute on, by the names in the last column of `aipg devices` (CUDA0, "
            "Vulkan0); empty takes the one that was selected there, else all that llama.cpp finds; "
            "`none` the CPU alone."
        ),
    )
    cache_type_k: CacheType = Field(
        default="f16",
        description="How the keys of the context are kept: q8_0 takes half the memory of f16.",
    )
    cache_type_v: CacheType = Field(
        default="f16",
        description="How the values of the context are kept; less than f16 needs flash attention.",
    )
    extra_arguments: tuple[str, ...] = Field(
        default=(),
        description=(
            "Further options in the words of llama-server's command line, for instance "
            "`--rope-freq-base`, `10000`. The engine python takes those that say how a model or "
            "a context is made, and refuses others."
        ),
    )
    models: dict[str, ModelOptions] = Field(
        default_factory=dict,
        description=(
            "What differs for single models, by name: context_size, gpu_layers, chat_template, "
            "adapters (LoRA files with a scale), projector (the file for images; if not given, "
            "the one beside the model; empty for none), draft (a small model that guesses ahead; "
            "with the engine llama-server alone). Files without a folder are looked for beside "
            "the model."
        ),
    )
    context_size: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        default=0,
        description=(
            "Tokens of context: prompt and answer together. 0 takes the model's own, but at most "
            "4096, since memory grows with it."
        ),
    )
    slots: Annotated[int, Field(ge=1, le=64)] = Field(
        default=8,
        description=(
            "How many answers are computed at the same time; further requests wait. They share "
            "the memory of the context: each may use all of context_size, and where the model is "
            "so small that it costs little (256 MiB) there is room for several at full length. "
            "When that memory is full, the request that came last waits for the others."
        ),
    )
    kv_unified: bool = Field(
        default=True,
        description=(
            "Let the slots share one memory of keys and values. Off, each has memory for the whole "
            "of context_size, all of it taken at load: answers come a few percent faster while "
            "most slots are busy, and slower where a model is large and every other slot is idle. "
            "llama-server's slots never share."
        ),
    )
    prompt_cache: Annotated[int, Field(ge=0, le=2**20)] = Field(
        default=512,
        description=(
            "MiB of main memory for conversations that no slot holds any more, so that they go on "
            "without being read again. 0 turns it off."
        ),
    )
    gpu_layers: Annotated[int, Field(ge=-1, le=100_000)] = Field(
        default=-1,
        description=(
            "How many layers to keep in GPU memory: -1 for all, 0 for none. Without effect where "
            "llama-cpp-python was built for the CPU alone."
        ),
    )
    threads: Annotated[int, Field(ge=0, le=512)] = Field(
        default=0,
        description=(
            "CPU threads to compute with. 0 takes one for each physical core, and a single one "
            "for models so small that more would only wait for each other."
        ),
    )
    batch_size: Annotated[int, Field(ge=32, le=8192)] = Field(
        default=512,
        description=(
            "Most tokens that are computed at once. More reads long prompts faster where a step "
            "of so many takes less than a tenth of a second, and takes more memory."
        ),
    )
    flash_attention: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="A faster form of attention that saves memory; auto uses it where it works.",
    )
    memory_map: bool = Field(
        default=True,
        description=(
            "Map the model file into memory rather than read it: faster to load, and shared "
            "between workers. Turn it off for models on slow or network disks."
        ),
    )
    lock_memory: bool = Field(
        default=False,
        description="Keep the model in memory even when the system would swap it out.",
    )
    check_tensors: bool = Field(
        default=False,
        description="Look for invalid numbers in the weights at load: finds damage, costs time.",
    )
    chat_template: str = Field(
        default="",
        description=(
            "A chat template in Jinja to use instead of the model's own, or the path of a file "
            "with one."
        ),
    )
    template_timeout: Annotated[float, Field(gt=0, le=60)] = Field(
        default=2.0,
        description="Seconds that a model's chat template may take to format a conversation.",
    )
    load_timeout: Annotated[float, Field(gt=0)] = Field(
        default=600.0,
        description="Seconds that loading a model may take before it counts as failed.",
    )
    verbose: bool = Field(
        default=False,
        description="Write everything that llama.cpp reports to the log, not warnings alone.",
    )
