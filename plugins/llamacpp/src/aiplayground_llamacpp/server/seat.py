"""A model in a `llama-server`: loading it, what is known of it, and how it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from aiplayground.errors import InvalidModelFile, InvalidParameters
from aiplayground.gguf import GgufFile, read_gguf
from aiplayground.memory import free_memory
from aiplayground.serving.engine import LoadedModel
from aiplayground_llamacpp.embedder import MEAN, NONE
from aiplayground_llamacpp.enginelog import out_of_memory
from aiplayground_llamacpp.load import Beside, override
from aiplayground_llamacpp.machine import (
    cache_bytes,
    context_size,
    default_threads,
    scales_by_length,
    text_size,
)
from aiplayground_llamacpp.ranking import TEMPLATE_KEY, Frame
from aiplayground_llamacpp.sampling import METADATA_KEYS, model_defaults
from aiplayground_llamacpp.settings import Settings
from aiplayground_llamacpp.template import CHATML, CHATML_STOP, ChatTemplate

from . import argv
from .child import Child
from .client import Client, Tokenizer
from .program import check_devices, has_devices
from .ranking import frame_of
from .seeing import OLD_MARKER, Eyes, tokens_at_once

Report = Callable[[str], None]


@dataclass(slots=True)
class Served:
    """A process and the client for it."""

    child: Child
    client: Client

    async def close(self) -> None:
        """End the process."""
        await self.child.end()
        await self.client.close()


@dataclass(slots=True, kw_only=True)
class Seat:
    """A loaded model. `template` is an error where the file's template is no valid one.

    `marker` stands for an image in a prompt, if the model sees. `rank_form` is how a model that
    ranks wants query and document.
    `served` makes its texts, or its embeddings if it does nothing else; `second` the embeddings of
    a model that writes, once somebody wants some.
    """

    gguf: GgufFile
    settings: Settings
    beside: Beside
    facts: LoadedModel
    served: Served
    tokenizer: Tokenizer
    vocabulary: int
    template: ChatTemplate | InvalidParameters
    template_is_guess: bool
    defaults: dict[str, float]
    marker: str | None = None
    rank_form: str | Frame | None = None
    second: Served | None = None
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    closed: bool = False

    @property
    def writes(self) -> bool:
        """Whether it makes texts."""
        return not self.gguf.is_embedding

    def eyes(self, tokenizer: Tokenizer) -> Eyes | None:
        """Return what sees for one request, or None if the model does not see."""
        return Eyes(tokenizer, self.marker) if self.marker is not None else None

    @property
    def template_stops(self) -> tuple[str, ...]:
        """Texts that end an answer because the template was guessed, not the model's own."""
        return (CHATML_STOP,) if self.template_is_guess else ()

    async def close(self) -> None:
        """Free it."""
        self.closed = True
        async with self.opening:
            for each in (self.served, self.second):
                if each is not None:
                    await each.close()


async def open_seat(
    program: str,
    gguf: GgufFile,
    name: str,
    settings: Settings,
    beside: Beside,
    report: Report,
) -> Seat:
    """Load a checked file and what goes with it.

    Raises `InvalidModelFile`, `InvalidSettings` or `ServiceFailed`.
    """
    source = override(settings.chat_template) or gguf.chat_template
    await asyncio.to_thread(check_devices, program, settings.devices)
    if gguf.is_embedding:
        model = _embedding_model(gguf, settings, beside)
        line = argv.embedder(program, model, settings, pooling=_pooling(gguf))
        served = await serve(line, gguf.path, settings, report)
    else:
        model = await asyncio.to_thread(_writing_model, program, gguf, settings, beside, report)
        served, beside = await _serve_writer(program, model, settings, beside, report)
    try:
        return await _look(served, gguf, name, model.size, settings, beside, source)
    except BaseException:
        await served.close()
        raise


async def open_second(program: str, seat: Seat, report: Report) -> Served:
    """Load the model once more, for embeddings."""
    model = _embedding_model(seat.gguf, seat.settings, seat.beside)
    line = argv.embedder(program, model, seat.settings, pooling="mean")
    return await serve(line, seat.gguf.path, seat.settings, report)


def embedding_size(gguf: GgufFile, settings: Settings) -> int:
    """Return the most tokens of a text for embeddings."""
    return text_size(settings.context_size, gguf.context_length or 0)


async def serve(line: list[str], path: Path, settings: Settings, report: Report) -> Served:
    """Start a process and make a client for it."""
    child = Child(line, path, report, verbose=settings.verbose)
    await child.start(settings.load_timeout)
    return Served(child, Client(child.base_url, child.key))


async def _look(
    served: Served,
    gguf: GgufFile,
    name: str,
    size: int,
    settings: Settings,
    beside: Beside,
    source: str | None,
) -> Seat:
    props = await served.client.get("/props")
    models = await served.client.get("/v1/models")
    room = int(props["default_generation_settings"]["n_ctx"])
    bos, eos = str(props.get("bos_token") or ""), str(props.get("eos_token") or "")
    template = _template(source, bos, eos, settings)
    writes = not gguf.is_embedding
    tokenizer = Tokenizer(served.client.blocking, bos)
    sees = beside.projector is not None
    return Seat(
        gguf=gguf,
        settings=settings,
        beside=beside,
        served=served,
        tokenizer=tokenizer,
        marker=str(props.get("media_marker") or OLD_MARKER) if sees else None,
        rank_form=await _rank_form(gguf, served.client, tokenizer),
        vocabulary=int(models["data"][0]["meta"]["n_vocab"]),
        template=template,
        template_is_guess=source is None,
        defaults=model_defaults({key: str(gguf.metadata.get(key, "nan")) for key in METADATA_KEYS}),
        facts=LoadedModel(
            name=name,
            path=gguf.path,
            context_length=min(size, room),
            chat=writes and source is not None,
        ),
    )


def _template(
    source: str | None, bos: str, eos: str, settings: Settings
) -> ChatTemplate | InvalidParameters:
    try:
        return ChatTemplate(source or CHATML, bos=bos, eos=eos, timeout=settings.template_timeout)
    except InvalidParameters as error:
        return error


async def _serve_writer(
    program: str, model: argv.Model, settings: Settings, beside: Beside, report: Report
) -> tuple[Served, Beside]:
    """Start the process; a projector that only happens to lie there may be no use."""
    if beside.projector is None:
        return await serve(
            argv.writer(program, model, settings), model.path, settings, report
        ), beside
    projector = await asyncio.to_thread(read_gguf, beside.projector)
    sighted = model._replace(projector=beside.projector, at_once=tokens_at_once(projector))
    line = argv.writer(program, sighted, settings)
    try:
        return await serve(line, model.path, settings, report), beside
    except InvalidModelFile as error:
        if beside.named:
            raise
        report(f"no images: {error.message}")
    blind = replace(beside, projector=None)
    return await _serve_writer(program, model, settings, blind, report)


async def _rank_form(gguf: GgufFile, client: Client, tokenizer: Tokenizer) -> str | Frame | None:
    if not gguf.is_reranker:
        return None
    return gguf.text(TEMPLATE_KEY) or await frame_of(client, tokenizer)


def _writing_model(
    program: str, gguf: GgufFile, settings: Settings, beside: Beside, report: Report
) -> argv.Model:
    trained = gguf.context_length or 0
    size = context_size(settings.context_size, trained)
    stretch = None
    if size > trained > 0:
        report(
            f"context_size {size} is more than the {trained} tokens that the model was trained on: "
            "long texts may get worse answers"
        )
        stretch = None if scales_by_length(gguf) else f"{gguf.architecture}.context_length"
    needed, free = cache_bytes(gguf, size), free_memory()
    if needed and needed > free and not has_devices(program):
        # Linux grants memory that it does not have and kills who uses it.
        raise out_of_memory(gguf.path, needed, free)
    slots = argv.slots_for(settings.slots, needed, free)
    if slots < settings.slots:
        report(f"{slots} answers at a time rather than {settings.slots}: memory holds no more")
    threads = settings.threads or default_threads(_weights(gguf))
    return argv.Model(
        gguf.path, size, slots, threads, stretch, adapters=beside.adapters, draft=beside.draft
    )


def _embedding_model(gguf: GgufFile, settings: Settings, beside: Beside) -> argv.Model:
    threads = settings.threads or default_threads(_weights(gguf))
    size = embedding_size(gguf, settings)
    return argv.Model(gguf.path, size, 1, threads, adapters=beside.adapters)


def _pooling(gguf: GgufFile) -> str | None:
    """Return the pooling to ask for; None where the model says which."""
    if gguf.is_reranker:
        return "rank"
    told = gguf.hyperparameter("pooling_type")
    return "mean" if told in (None, NONE, MEAN) else None


def _weights(gguf: GgufFile) -> int:
    """Bytes of all weights in the file; of a split model's first part."""
    return gguf.size - gguf.data_offset
