"""A model and its context in llama.cpp: every native call on them, with its checks.

Much of what a caller can get wrong ends the process (an id out of range, a batch too large, two
threads in one context): nothing here passes such a value on. All but `Model.tokenize` and
`Model.control_texts` is called from the engine's thread alone.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from aiplayground.errors import ServiceNotAvailable

from .bindings import EngineLog, holding_the_lock
from .enginelog import bad_model, diagnose
from .machine import default_threads
from .settings import Settings

MAX_UBATCH = 512
NO_VOCABULARY = 0  # LLAMA_VOCAB_TYPE_NONE
CONTROL = 1 << 3  # LLAMA_TOKEN_ATTR_CONTROL
_FLASH = {"auto": -1, "off": 0, "on": 1}
_BUFFER = 256


class Model:
    """A loaded model. `lib` is the module of `bindings.load_bindings`."""

    def __init__(
        self,
        lib: Any,
        log: EngineLog,
        path: Path,
        settings: Settings,
        keep_on: Callable[[float], bool],
    ) -> None:
        """Load it; `keep_on` is told how far that is, 0 to 1, and may answer False to end it."""
        self.lib = lib
        self.path = path
        self._lock = threading.Lock()
        callback = lib.llama_progress_callback(lambda fraction, _data: keep_on(fraction))
        parameters = _model_parameters(lib, settings)
        parameters.progress_callback = callback
        log.clear()
        self._model = lib.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:  # a null pointer is false, but not None
            raise diagnose(log.lines(), path)
        self._vocab = lib.llama_model_get_vocab(self._model)
        self.vocabulary = int(lib.llama_vocab_n_tokens(self._vocab))
        self._pieces: dict[int, bytes] = {}
        self._buffer = ctypes.create_string_buffer(_BUFFER)
        self._check_usable()

    def _check_usable(self) -> None:
        lib, why = self.lib, None
        if lib.llama_vocab_type(self._vocab) == NO_VOCABULARY or self.vocabulary < 1:
            why = "has no vocabulary, so it cannot read or write text."
        elif lib.llama_model_has_encoder(self._model):
            why = "is an encoder-decoder model, which llamacpp-backend does not serve."
        elif not lib.llama_model_has_decoder(self._model):
            why = "makes embeddings, not text. Choose a language model."
        if why is not None:
            self.close()
            raise bad_model(self.path, why)

    @property
    def pointer(self) -> Any:
        """The native model."""
        return self._model

    @property
    def vocab(self) -> Any:
        """The native vocabulary."""
        return self._vocab

    @property
    def size(self) -> int:
        """Bytes of all weights."""
        return int(self.lib.llama_model_size(self._model))

    @property
    def trained_context(self) -> int:
        """Tokens of context that the model was trained on."""
        return int(self.lib.llama_model_n_ctx_train(self._model))

    @cached_property
    def bos_text(self) -> str:
        """The text of the token that begins a sequence, or ""."""
        return self._token_text(self.lib.llama_vocab_bos(self._vocab))

    @cached_property
    def eos_text(self) -> str:
        """The text of the token that ends one, or ""."""
        return self._token_text(self.lib.llama_vocab_eos(self._vocab))

    @property
    def adds_bos(self) -> bool:
        """Whether the tokenizer begins a sequence itself."""
        return bool(self.lib.llama_vocab_get_add_bos(self._vocab))

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """All tokens that end an answer."""
        is_end = self.lib.llama_vocab_is_eog
        return tuple(token for token in range(self.vocabulary) if is_end(self._vocab, token))

    def is_end(self, token: int) -> bool:
        """Say whether the token ends the answer."""
        return bool(self.lib.llama_vocab_is_eog(self._vocab, token))

    def metadata(self, key: str) -> str | None:
        """Return a metadata value as text."""
        size = self.lib.llama_model_meta_val_str(self._model, key.encode(), self._buffer, _BUFFER)
        return self._buffer.value.decode("utf-8", "replace") if 0 <= size < _BUFFER else None

    def piece(self, token: int) -> bytes:
        """Return the bytes that the token stands for; none for a control token."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._piece(token)
        return piece

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Turn text into tokens. From any thread; raises `ServiceNotAvailable` after `close`."""
        data = text.encode()
        with self._lock:
            if not self._model:
                raise unloaded()
            return self._tokenize(data, add_special, parse_special)

    def control_texts(self) -> tuple[str, ...]:
        """Return the texts of all control tokens. From any thread."""
        with self._lock:
            if not self._model:
                raise unloaded()
            return self._control_texts

    def close(self) -> None:
        """Free it; its contexts must have been freed before."""
        with self._lock:
            if self._model:
                self.lib.llama_model_free(self._model)
                self._model = None

    @cached_property
    def _control_texts(self) -> tuple[str, ...]:
        attributes = self.lib.llama_vocab_get_attr
        control = (
            self._token_text(token)
            for token in range(self.vocabulary)
            if attributes(self._vocab, token) & CONTROL
        )
        return tuple(text for text in control if text)

    def _tokenize(self, data: bytes, add_special: bool, parse_special: bool) -> list[int]:
        room = len(data) + 16
        while True:
            tokens = (ctypes.c_int32 * room)()
            count = self.lib.llama_tokenize(
                self._vocab, data, len(data), tokens, room, add_special, parse_special
            )
            if count >= 0:
                return tokens[:count]
            room = -count

    def _piece(self, token: int) -> bytes:
        size = _BUFFER
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = self.lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def _token_text(self, token: int) -> str:
        if not 0 <= token < self.vocabulary:  # an id out of range ends the process
            return ""
        text = self.lib.llama_vocab_get_text(self._vocab, token)
        return (text or b"").decode("utf-8", "replace")


class Context:
    """The memory of one conversation: the keys and values of its tokens.

    `size` is in tokens. `tokens` is what it holds now.
    """

    def __init__(self, model: Model, log: EngineLog, settings: Settings, size: int) -> None:
        self._lib = lib = model.lib
        parameters = _context_parameters(model, settings, size)
        log.clear()
        self._context = lib.llama_init_from_model(model.pointer, parameters)
        if not self._context:
            raise diagnose(log.lines(), model.path)
        self._memory = lib.llama_get_memory(self._context)
        if not self._memory:
            self.close()
            raise bad_model(model.path, "makes embeddings, not text. Choose a language model.")
        self.size = min(int(lib.llama_n_ctx_seq(self._context)), size)
        self.batch_size = int(parameters.n_batch)
        self.tokens: list[int] = []
        self._batch = _Batch(lib, self.batch_size)
        self._sample = holding_the_lock(lib, lib.llama_sampler_sample)

    def keep(self, count: int) -> int:
        """Forget all but the first `count` tokens; return how many could be kept."""
        removed = self._lib.llama_memory_seq_rm(self._memory, 0, count, -1)
        if not removed:  # recurrent models and sliding windows cannot go back
            self._lib.llama_memory_clear(self._memory, False)
            count = 0
        del self.tokens[count:]
        return count

    def decode(self, tokens: Sequence[int]) -> int:
        """Add tokens and compute what follows the last one; return llama.cpp's status.

        0 is success, 1 a full context, after which nothing has changed.
        """
        if not 0 < len(tokens) <= self.batch_size:
            raise ValueError(f"a batch of {len(tokens)} tokens")
        batch = self._batch.fill(tokens, len(self.tokens))
        status = int(self._lib.llama_decode(self._context, batch))
        if status == 0:
            self.tokens.extend(tokens)
        return status

    def sample(self, chain: Any) -> int:
        """Choose the token that follows; only right after a successful `decode`."""
        return int(self._sample(chain, self._context, -1))

    def close(self) -> None:
        """Free it."""
        if self._context:
            self._lib.llama_free(self._context)
            self._context = None


class _Batch:
    """A `llama_batch` over arrays of our own, for one sequence."""

    def __init__(self, lib: Any, size: int) -> None:
        self._tokens = (ctypes.c_int32 * size)()
        self._positions = (ctypes.c_int32 * size)()
        self._counts = (ctypes.c_int32 * size)(*[1] * size)
        self._sequence = (ctypes.c_int32 * 1)(0)
        pointer = ctypes.cast(self._sequence, ctypes.POINTER(ctypes.c_int32))
        self._sequences = (ctypes.POINTER(ctypes.c_int32) * size)(*[pointer] * size)
        self._logits = (ctypes.c_int8 * size)()
        self._batch = lib.llama_batch(
            0, self._tokens, None, self._positions, self._counts, self._sequences, self._logits
        )

    def fill(self, tokens: Sequence[int], start: int) -> Any:
        """Return the batch of `tokens` from position `start`, with logits for the last."""
        count = len(tokens)
        self._tokens[:count] = list(tokens)
        self._positions[:count] = list(range(start, start + count))
        ctypes.memset(self._logits, 0, count)
        self._logits[count - 1] = 1
        self._batch.n_tokens = count
        return self._batch


def unloaded() -> ServiceNotAvailable:
    """Return the error of a request whose model goes away."""
    return ServiceNotAvailable("The model was unloaded. Load it again and repeat the request.")


def _model_parameters(lib: Any, settings: Settings) -> Any:
    parameters = lib.llama_model_default_params()
    parameters.n_gpu_layers = settings.gpu_layers
    parameters.check_tensors = settings.check_tensors
    modes = {
        (True, False): lib.LLAMA_LOAD_MODE_MMAP,
        (True, True): lib.LLAMA_LOAD_MODE_MMAP_MLOCK,
        (False, True): lib.LLAMA_LOAD_MODE_MLOCK,
        (False, False): lib.LLAMA_LOAD_MODE_NONE,
    }
    parameters.load_mode = modes[settings.memory_map, settings.lock_memory]
    return parameters


def _context_parameters(model: Model, settings: Settings, size: int) -> Any:
    parameters = model.lib.llama_context_default_params()
    threads = settings.threads or default_threads(model.size)
    parameters.n_ctx = size
    parameters.n_batch = min(settings.batch_size, max(size, 32))
    parameters.n_ubatch = min(parameters.n_batch, MAX_UBATCH)
    parameters.n_seq_max = 1
    parameters.n_outputs_max = 1  # logits are asked for one token at a time
    parameters.n_threads = parameters.n_threads_batch = threads
    parameters.flash_attn_type = _FLASH[settings.flash_attention]
    parameters.no_perf = True
    return parameters
