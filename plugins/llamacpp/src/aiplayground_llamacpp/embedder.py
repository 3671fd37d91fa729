"""Texts to vectors, or to scores, in a context of their own: in the engine's thread alone.

A text is computed in one piece, since pooling needs all of its tokens at once. Source of the calls:
`examples/embedding` of llama.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from aiplayground.errors import FailureClass, ServiceFailed

from .bindings import EngineLog
from .context import Batch, Row
from .enginelog import diagnose
from .machine import default_threads, text_size
from .native import Model
from .settings import Settings
from .tuning import tune_context

MOST_TEXTS = 16
"""Texts in a batch: answers wait while it is computed."""

UNSPECIFIED, NONE, MEAN, RANK = -1, 0, 1, 4  # enum llama_pooling_type


class Embedder:
    """Makes embeddings with a model, or scores if it `ranks`.

    `size` is the most tokens that a text may have.
    """

    def __init__(
        self, model: Model, log: EngineLog, settings: Settings, *, ranks: bool = False
    ) -> None:
        self._lib = lib = model.lib
        self.ranks = ranks
        self.size = text_size(settings.context_size, model.trained_context)
        self._width = int(lib.llama_model_n_embd_out(model.pointer))
        # A model that has an encoder and nothing to write with; the others' `decode` reads texts
        # in both directions too, where the model does.
        self._encodes = bool(lib.llama_model_has_encoder(model.pointer))
        log.clear()
        self._context = self._open(model, settings, RANK if ranks else UNSPECIFIED)
        if self._context and lib.llama_pooling_type(self._context) == NONE:
            # A model that writes text: it says nothing about vectors.
            lib.llama_free(self._context)
            self._context = self._open(model, settings, MEAN)
        if not self._context:
            raise diagnose(log.lines(), model.path)
        model.adapt(self._context)
        self._batch = Batch(lib, self.size, MOST_TEXTS)

    def embed(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return a vector of length 1 for each text, given as tokens; they fit into one batch."""
        self._compute(texts)
        return [_normalised(self._pooled(each, self._width)) for each in range(len(texts))]

    def rank(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """Return the score of each pair of query and document, given as tokens."""
        self._compute(texts)
        # Models that tell more classes apart have the one that counts first.
        return [self._pooled(each, 1)[0] for each in range(len(texts))]

    def close(self) -> None:
        """Free it."""
        if self._context:
            self._lib.llama_free(self._context)
            self._context = None

    def _compute(self, texts: Sequence[Sequence[int]]) -> None:
        if not 0 < len(texts) <= MOST_TEXTS or sum(map(len, texts)) > self.size:
            raise ValueError("the texts do not fit into a batch")
        memory = self._lib.llama_get_memory(self._context)
        if memory:  # models that read in both directions have none
            self._lib.llama_memory_clear(memory, False)
        rows = [Row(number, 0, list(text), True) for number, text in enumerate(texts)]
        batch = self._batch.fill(rows, every=True)[0]
        compute = self._lib.llama_encode if self._encodes else self._lib.llama_decode
        status = int(compute(self._context, batch))
        if status != 0:
            raise ServiceFailed(
                f"llama.cpp failed to compute embeddings (status {status}).",
                failure=FailureClass.CRASH,
                details={"status": status},
            )

    def _pooled(self, sequence: int, width: int) -> list[float]:
        found = self._lib.llama_get_embeddings_seq(self._context, sequence)
        if not found:
            raise ServiceFailed("llama.cpp made no embedding.", failure=FailureClass.CRASH)
        values: list[float] = found[:width]
        return values

    def _open(self, model: Model, settings: Settings, pooling: int) -> Any:
        parameters = self._lib.llama_context_default_params()
        tune_context(parameters, settings)
        # Planned for as many texts of one length: where they do not divide it, the process ends.
        cells = -(-self.size // MOST_TEXTS) * MOST_TEXTS
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = cells
        parameters.n_seq_max = MOST_TEXTS
        parameters.kv_unified = True
        parameters.embeddings = True
        parameters.pooling_type = pooling
        threads = settings.threads or default_threads(model.size)
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.no_perf = True
        return self._lib.llama_init_from_model(model.pointer, parameters)


def _normalised(values: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]


def batches(lengths: Sequence[int], size: int) -> Iterator[slice]:
    """Divide texts of so many tokens, in their order, into batches of at most `size` tokens."""
    start = total = 0
    for number, length in enumerate(lengths):
        if number > start and (total + length > size or number - start == MOST_TEXTS):
            yield slice(start, number)
            start, total = number, 0
        total += length
    if start < len(lengths):
        yield slice(start, len(lengths))
