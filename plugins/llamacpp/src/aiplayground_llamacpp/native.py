"""A model in llama.cpp: every native call on it, with its checks.

Much of what a caller can get wrong ends the process, such as an id out of range: nothing here
passes such a value on. All but `Model.tokenize` and `Model.control_texts` is called from the
engine's thread alone.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiplayground.errors import InvalidParameters, ServiceNotAvailable

from .backends import device_array
from .bindings import EngineLog, holding_the_lock
from .enginelog import bad_model, diagnose
from .settings import Settings
from .tuning import tune_model

if TYPE_CHECKING:
    from .candidates import Groups

NO_VOCABULARY = 0  # LLAMA_VOCAB_TYPE_NONE
CONTROL = 1 << 3  # LLAMA_TOKEN_ATTR_CONTROL
_BUFFER = 256
SENTENCE_PIECE = 1  # LLAMA_VOCAB_TYPE_SPM
BYTE_TOKENS = frozenset(f"<0x{byte:02X}>" for byte in range(256))
NEAR_START = 1024
"""Tokens among which those for bytes usually are: looking at all takes long."""


class Model:
    """A loaded model. `lib` is the module of `bindings.load_bindings`.

    `has_arrays`: what needs numpy has been imported, so that using it takes no time.
    """

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
        devices = device_array(lib, settings.devices)  # kept until the model is loaded
        if devices is not None:
            parameters.devices = ctypes.cast(devices, ctypes.c_void_p)
        parameters.progress_callback = callback
        log.clear()
        self._model = lib.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:  # a null pointer is false, but not None
            raise diagnose(log.lines(), path)
        self._vocab = lib.llama_model_get_vocab(self._model)
        self.vocabulary = int(lib.llama_vocab_n_tokens(self._vocab))
        self._is_end = holding_the_lock(lib, lib.llama_vocab_is_eog)
        self._groups: Groups | None = None
        self._pieces: dict[int, bytes] = {}
        self.has_arrays = False
        self._spoken: dict[int, bytes | None] = {}
        self._buffer = ctypes.create_string_buffer(_BUFFER)
        self._adapters: list[tuple[Any, float]] = []
        self._check_usable()

    def _check_usable(self) -> None:
        lib, why = self.lib, None
        if lib.llama_vocab_type(self._vocab) == NO_VOCABULARY or self.vocabulary < 1:
            why = "has no vocabulary, so it cannot read or write text."
        elif lib.llama_model_has_encoder(self._model) and lib.llama_model_has_decoder(self._model):
            why = "is an encoder-decoder model, which llamacpp-backend does not serve."
        if why is not None:
            self.close()
            raise bad_model(self.path, why)

    def add_adapter(self, log: EngineLog, path: Path, scale: float) -> None:
        """Load a checked LoRA adapter, which the contexts made from now on use.

        It is freed with the model. Raises `InvalidModelFile` if llama.cpp does not take it.
        """
        log.clear()
        adapter = self.lib.llama_adapter_lora_init(self._model, str(path).encode())
        if not adapter:
            raise diagnose(log.lines(), path)
        self._adapters.append((adapter, scale))

    def adapt(self, context: Any) -> None:
        """Let a new native context use the adapters."""
        count = len(self._adapters)
        if count == 0:
            return
        pointers = (self.lib.llama_adapter_lora_p_ctypes * count)()
        pointers[:] = [pointer for pointer, _ in self._adapters]
        scales = (ctypes.c_float * count)(*(scale for _, scale in self._adapters))
        if self.lib.llama_set_adapters_lora(context, pointers, count, scales):
            raise bad_model(self.path, "does not take the LoRA adapters of the settings.")

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

    @property
    def recurrent(self) -> bool:
        """Whether it keeps a state in which tokens cannot be told apart, if only in some layers."""
        lib, model = self.lib, self._model
        return bool(lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model))

    @cached_property
    def bos_text(self) -> str:
        """The text of the token that begins a sequence, or ""."""
        return self._token_text(self.lib.llama_vocab_bos(self._vocab))

    @cached_property
    def eos_text(self) -> str:
        """The text of the token that ends one, or ""."""
        return self._token_text(self.lib.llama_vocab_eos(self._vocab))

    @property
    def first_token(self) -> int:
        """A token that a text may begin with, whatever it is."""
        bos = int(self.lib.llama_vocab_bos(self._vocab))
        return bos if 0 <= bos < self.vocabulary else 0

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """All tokens that end an answer."""
        is_end = self.lib.llama_vocab_is_eog
        return tuple(token for token in range(self.vocabulary) if is_end(self._vocab, token))

    def is_end(self, token: int) -> bool:
        """Say whether the token ends the answer."""
        return bool(self._is_end(self._vocab, token))

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

    def spoken(self, token: int) -> bytes | None:
        """Return the bytes that an answer gets of a token; None for one that ends the answer."""
        try:
            return self._spoken[token]
        except KeyError:
            said = self._spoken[token] = None if self.is_end(token) else self.piece(token)
            return said

    def show(self, texts: Iterable[str]) -> None:
        """Let these control tokens appear in answers, as marks for those who read them."""
        for text in texts:
            tokens = self.tokenize(text, add_special=False, parse_special=True)
            if len(tokens) == 1:
                self._pieces[tokens[0]] = text.encode()
                self._spoken.pop(tokens[0], None)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Turn text into tokens. From any thread; raises `ServiceNotAvailable` after `close`.

        Raises `InvalidParameters` for letters that the model has no tokens for.
        """
        data = text.encode()
        with self._lock:
            if not self._model:
                raise unloaded()
            if self._letters is not None:
                self._check_letters(text, self._letters, parse_special)
            return self._tokenize(data, add_special, parse_special)

    def control_texts(self) -> tuple[str, ...]:
        """Return the texts of all control tokens. From any thread."""
        with self._lock:
            if not self._model:
                raise unloaded()
            return self._control_texts

    def group(self) -> Groups:
        """Return the vocabulary by first bytes. From any thread; the first time takes long."""
        from .candidates import group

        with self._lock:
            if not self._model:
                raise unloaded()
            if self._groups is None:
                self._groups = group([self._piece(token) for token in range(self.vocabulary)])
            return self._groups

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

    @cached_property
    def _letters(self) -> frozenset[str] | None:
        """The letters that a text may have; None where bytes stand for those that are missing.

        A vocabulary of SentencePiece's kind without tokens for bytes ends the process over others.
        """
        if self.lib.llama_vocab_type(self._vocab) != SENTENCE_PIECE:
            return None
        first = {self._token_text(token) for token in range(min(self.vocabulary, NEAR_START))}
        if first >= BYTE_TOKENS:
            return None
        texts = {self._token_text(token) for token in range(self.vocabulary)}
        return None if texts >= BYTE_TOKENS else frozenset(each for each in texts if len(each) == 1)

    def _check_letters(self, text: str, letters: frozenset[str], parse_special: bool) -> None:
        for control in self._control_texts if parse_special else ():
            text = text.replace(control, "")
        # A space is written like this, and one is put before most texts.
        missing = sorted(set(f" {text}".replace(" ", "\u2581")) - letters)
        if missing:
            raise InvalidParameters(
                f"This model's vocabulary has no token for {missing[0]!r}, nor for single bytes. "
                "Leave it out, or use another model.",
                details={"character": missing[0]},
            )

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
    tune_model(lib, parameters, settings)
    return parameters
