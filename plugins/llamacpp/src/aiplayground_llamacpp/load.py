"""Load a GGUF file: check it, then the model, its context and its chat template."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiplayground.errors import (
    AIPlaygroundError,
    FailureClass,
    InvalidModelFile,
    InvalidParameters,
    InvalidSettings,
)
from aiplayground.gguf import GgufError, GgufFile, GgufReason, check_vocabulary, read_gguf
from aiplayground.memory import free_memory

from .adapters import LoraFile, check_adapters
from .bindings import EngineLog
from .context import Context
from .enginelog import bad_model, out_of_memory
from .headers import impossible
from .machine import cache_bytes, context_cells, context_size, scales_by_length
from .native import Model
from .options import model_options
from .projector import find_projector
from .ranking import TEMPLATE_KEY
from .sampling import METADATA_KEYS, model_defaults
from .settings import Settings
from .sight import Sight
from .template import CHATML, CHATML_STOP, ChatTemplate

_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


@dataclass(frozen=True, slots=True)
class Beside:
    """Checked files that go with a model; `named`: the settings ask for the projector.

    `draft` is a small model that guesses ahead, for llama-server alone.
    """

    adapters: tuple[LoraFile, ...] = ()
    projector: Path | None = None
    named: bool = False
    draft: Path | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is in memory. `template` is an error where the file's template is no valid one.

    A model for embeddings has no context to write in; one that ranks neither. `settings` are those
    that hold for it, `rank_form` is how a ranker wants query and document, if its file says so.
    """

    model: Model
    context: Context | None
    template: ChatTemplate | InvalidParameters
    template_is_guess: bool
    defaults: Mapping[str, float]
    settings: Settings
    sight: Sight | None = None
    ranks: bool = False
    rank_form: str | None = None

    @property
    def template_stops(self) -> tuple[str, ...]:
        """Texts that end an answer because the template was guessed, not the model's own."""
        return (CHATML_STOP,) if self.template_is_guess else ()

    def close(self) -> None:
        """Free it, in the order that the library demands."""
        if self.context is not None:
            self.context.close()
        if self.sight is not None:
            self.sight.close()
        self.model.close()


def check_file(path: Path) -> GgufFile:
    """Read the headers of a model's files. Raises `InvalidModelFile` with cause and next step."""
    try:
        gguf = read_gguf(path)
        check_vocabulary(gguf)
        for part in part_paths(path, gguf.split_count)[1:]:
            read_gguf(part)
    except GgufError as error:
        missing = error.reason is GgufReason.MISSING
        failure = FailureClass.MISSING_FILE if missing else FailureClass.BAD_MODEL
        error.details["failure"] = failure.value
        raise
    if (why := unsuitable(gguf) or impossible(gguf)) is not None:
        raise bad_model(path, why)
    return gguf


def check_beside(
    gguf: GgufFile, settings: Settings, name: str, report: Callable[[str], None]
) -> Beside:
    """Check what goes with the model of this name; raises `InvalidSettings`."""
    special = model_options(settings, name)
    parts = part_paths(gguf.path, gguf.split_count)
    adapters = check_adapters(special.adapters, name, gguf, parts)
    if gguf.is_embedding:
        return Beside(adapters)
    projector = find_projector(special.projector, name, gguf, parts, report)
    return Beside(adapters, projector, named=special.projector is not None)


def unsuitable(gguf: GgufFile) -> str | None:
    """Say why a sound GGUF file is no language model, or None."""
    if gguf.is_projector:
        return "is the image part of another model. Load that model instead."
    if gguf.is_adapter:
        return "is a LoRA adapter. Load the model that it was made for."
    if gguf.split_number > 0:
        return "is a later part of a split model. Load the first part, which ends in 00001-of-…."
    return None


def part_paths(path: Path, count: int) -> list[Path]:
    """Return the files of a split model by the name of the first, else the one file."""
    match = _PART.search(path.name)
    if count < 2 or match is None:
        return [path]
    stem = path.name[: match.start()]
    return [path.with_name(f"{stem}-{n:05}-of-{match[2]}.gguf") for n in range(1, count + 1)]


def load(
    lib: Any,
    log: EngineLog,
    gguf: GgufFile,
    settings: Settings,
    beside: Beside,
    keep_on: Callable[[float], bool],
    report: Callable[[str], None],
) -> Loaded:
    """Load a checked file and what goes with it; blocks, in the engine's thread.

    `settings` are those that hold for this model (`options.options_for`).
    Raises `InvalidModelFile`, or `ServiceFailed` when the memory does not suffice.
    """
    source = override(settings.chat_template) or gguf.chat_template
    model = Model(lib, log, gguf.path, settings, keep_on)
    sight = None
    try:
        for adapter in beside.adapters:
            model.add_adapter(log, *adapter)
            report(f"adapter {adapter.path.name} with scale {adapter.scale:g}")
        sight = _make_sight(log, model, beside, settings, report)
        writes = not gguf.is_embedding
        whole = sight is not None and not sight.causal
        context = _make_context(log, model, gguf, settings, report, whole=whole) if writes else None
    except AIPlaygroundError:
        if sight is not None:
            sight.close()
        model.close()
        raise
    template, guessed = _make_template(model, source, settings)
    defaults = model_defaults({key: model.metadata(key) or "nan" for key in METADATA_KEYS})
    ranks, form = gguf.is_reranker, gguf.text(TEMPLATE_KEY)
    return Loaded(model, context, template, guessed, defaults, settings, sight, ranks, form)


def _make_sight(
    log: EngineLog,
    model: Model,
    beside: Beside,
    settings: Settings,
    report: Callable[[str], None],
) -> Sight | None:
    if beside.projector is None:
        return None
    # Said before: where it is so wrong that the process ends, this is the log's last line.
    report(f"opening the projector {beside.projector.name}")
    try:
        return Sight(model, log, beside.projector, settings)
    except InvalidModelFile as error:
        if beside.named:
            raise
        # It happens to lie beside the model, which writes text all the same.
        report(f"no images: {error.message}")
        return None


def _make_context(
    log: EngineLog,
    model: Model,
    gguf: GgufFile,
    settings: Settings,
    report: Callable[[str], None],
    *,
    whole: bool,
) -> Context:
    size = context_size(settings.context_size, model.trained_context)
    if size > model.trained_context > 0:
        report(
            f"context_size {size} is more than the {model.trained_context} tokens that the model "
            "was trained on: long texts may get worse answers"
        )
    types = (settings.cache_type_k, settings.cache_type_v)
    token = None if scales_by_length(gguf) else cache_bytes(gguf, 1, types)
    cells = context_cells(size, settings, token)
    needed, free = cache_bytes(gguf, cells, types), free_memory()
    # Linux grants memory that it does not have and kills who uses it; on a GPU llama.cpp is told.
    if needed and needed > free and not lib_offloads(model.lib):
        raise out_of_memory(gguf.path, needed, free)
    return Context(model, log, settings, size=size, cells=cells, whole=whole)


def lib_offloads(lib: Any) -> bool:
    """Say whether the library was built for a GPU."""
    return bool(lib.llama_supports_gpu_offload())


def _make_template(
    model: Model, source: str | None, settings: Settings
) -> tuple[ChatTemplate | InvalidParameters, bool]:
    try:
        template = ChatTemplate(
            source or CHATML,
            bos=model.bos_text,
            eos=model.eos_text,
            timeout=settings.template_timeout,
        )
    except InvalidParameters as error:
        return error, False
    model.show(template.dialect.markers)
    return template, source is None


def override(setting: str) -> str | None:
    """Return the template that the settings ask for: itself, or what the file it names holds.

    Raises `InvalidSettings` if there is no such file.
    """
    if not setting or "{" in setting:
        return setting or None
    try:
        return Path(setting).expanduser().read_text("utf-8")
    except (OSError, ValueError) as error:
        raise InvalidSettings(
            f"Setting 'chat_template' is neither a template nor a file that can be read: {error}."
        ) from error
