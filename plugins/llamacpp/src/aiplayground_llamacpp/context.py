"""The memory in which the engine computes: every native call on a context, with its checks.

One context holds many sequences ("slots"), whose keys and values share its cells, or have a part of
them each. Much of what a caller can get wrong ends the process (a batch too large, a sequence that
is none, logits of a row without any): nothing here passes such a value on. Called from the
engine's thread alone.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from time import perf_counter, thread_time
from typing import Any, NamedTuple

from .bindings import EngineLog, holding_the_lock
from .enginelog import bad_model, diagnose
from .machine import default_threads
from .native import Model
from .settings import Settings
from .tuning import tune_cache, tune_context

OK = 0
FULL = 1  # llama_decode: no room for the batch, nothing has changed
INTERRUPTED = 2  # what the sequences of the batch hold beyond their former ends is undefined

MAX_UBATCH = 512
_FLASH = {"auto": -1, "off": 0, "on": 1}


class Row(NamedTuple):
    """Tokens to add to a sequence from a position on; `wanted`: compute what follows the last."""

    sequence: int
    start: int
    tokens: list[int]
    wanted: bool


class Context:
    """A context of `slots` sequences with up to `size` tokens each, `cells` for all together.

    `whole`: a batch is computed in one piece, as images need it that are seen as a whole.
    """

    def __init__(
        self,
        model: Model,
        log: EngineLog,
        settings: Settings,
        *,
        size: int,
        cells: int,
        whole: bool = False,
    ) -> None:
        self.model = model
        self._lib = lib = model.lib
        self.slots = settings.slots
        parameters = _parameters(model, settings, cells)
        if whole:
            parameters.n_ubatch = parameters.n_batch
        # Asked for often, so it must not be Python: "is the flag's text not empty?"
        self._flag = ctypes.create_string_buffer(2)
        parameters.abort_callback = ctypes.cast(_strlen(), lib.ggml_abort_callback)
        parameters.abort_callback_data = ctypes.addressof(self._flag)
        log.clear()
        self._context = lib.llama_init_from_model(model.pointer, parameters)
        if not self._context:  # a null pointer is false, but not None
            raise diagnose(log.lines(), model.path)
        self._memory = lib.llama_get_memory(self._context)
        if not self._memory:
            self.close()
            raise bad_model(model.path, "makes embeddings, not text. Choose a language model.")
        model.adapt(self._context)
        self.size = min(int(lib.llama_n_ctx_seq(self._context)), size)
        self.batch_size = int(parameters.n_batch)
        # What sees itself as a whole cannot be computed in pieces: more ends the process.
        self.most_at_once = int(parameters.n_ubatch)
        # The state of a recurrent model has no beginning that could be taken over.
        self.sharing = not model.recurrent
        self.unified = settings.kv_unified
        self._window = int(lib.llama_model_n_swa(model.pointer))
        # Where one thread does it all, its CPU time tells how long a batch takes whoever else is
        # busy; that of Windows is too coarse.
        alone = parameters.n_threads == 1 and not lib.llama_supports_gpu_offload()
        self.clock = thread_time if alone and sys.platform != "win32" else perf_counter
        self._batch = Batch(lib, self.batch_size, self.slots)
        self._decode = lib.llama_decode
        self._sample = holding_the_lock(lib, lib.llama_sampler_sample)
        self._logits = holding_the_lock(lib, lib.llama_get_logits_ith, ctypes.c_void_p)
        # For those who read the logits as arrays: these, by address and rows; and of each place
        # the likeliest token, once somebody has looked for it.
        self.views: dict[tuple[int, int], Any] = {}
        self.winners: dict[int, int] | None = None
        self.outputs: Sequence[int] = ()

    @property
    def reach(self) -> int:
        """The most tokens that a saved sequence may have for its beginning to be of use too."""
        if not self.sharing:
            return 0
        # What a window has passed over is not saved.
        return self._window - 1 if self._window else sys.maxsize

    def decode(self, rows: Sequence[Row]) -> tuple[int, list[int]]:
        """Compute a batch; return llama.cpp's status, and where the wanted logits are.

        `OK`; `FULL`, after which nothing has changed; `INTERRUPTED`, after which the sequences of
        the batch must be trimmed. After any other status nobody knows what the memory holds. The
        places are those for `sample` and `logits`, in the order of the rows
        that are wanted, and good until the next call.
        """
        batch, places = self._batch.fill(rows)
        self._flag[0] = b"\0"
        status: int = self._decode(self._context, batch)
        self.outputs, self.winners = places if status == OK else (), None
        return status, places

    def decode_embeddings(
        self, sequence: int, embeddings: Any, positions: Sequence[int], count: int, *, causal: bool
    ) -> int:
        """Compute `count` embeddings, which stand for tokens, as one batch; status as `decode`.

        `embeddings` points to that many; `positions` has one, or several sections of them.
        `causal`: each sees only those before it; if not, they are `most_at_once` at most.
        """
        self._check_sequence(sequence)
        if not 0 < count <= (self.batch_size if causal else self.most_at_once):
            raise ValueError(f"a batch of {count} embeddings")
        self._flag[0] = b"\0"
        self.outputs = ()
        lib, own = self._lib, ctypes.c_int32 * count
        pointer = ctypes.POINTER(ctypes.c_int32)
        sequences = (pointer * count)(*[ctypes.pointer(ctypes.c_int32(sequence))] * count)
        places = (ctypes.c_int32 * len(positions))(*positions)
        wanted = (ctypes.c_int8 * count)()
        batch = lib.llama_batch(
            count, None, embeddings, places, own(*[1] * count), sequences, wanted
        )
        if causal:
            return int(lib.llama_decode(self._context, batch))
        lib.llama_set_causal_attn(self._context, False)
        try:
            return int(lib.llama_decode(self._context, batch))
        finally:
            lib.llama_set_causal_attn(self._context, True)

    def interrupt(self) -> None:
        """Let the batch in work end soon, where the device can. From any thread."""
        self._flag[0] = b"\1"

    def sample(self, chain: Any, place: int) -> int:
        """Choose a token with a native chain, which takes note of it."""
        if place not in self.outputs:
            raise ValueError(f"there are no logits at {place}")
        token: int = self._sample(chain, self._context, place)
        return token

    def logits(self, place: int) -> int:
        """Return the address of the logits at a place: as many floats as the vocabulary has."""
        if place not in self.outputs:
            raise ValueError(f"there are no logits at {place}")
        address: int = self._logits(self._context, place)
        return address

    def trim(self, sequence: int, count: int) -> int:
        """Forget all but the first `count` tokens; return how many could be kept."""
        self._check_sequence(sequence)
        trimmed = self._lib.llama_memory_seq_rm(self._memory, sequence, count, -1)
        if trimmed and self._reaches_back(sequence, count):
            return count
        # Recurrent models cannot go back: what they had read is part of all that followed.
        self._lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return 0

    def copy(self, source: int, target: int, count: int) -> int:
        """Let an empty sequence share the first `count` tokens of another; return how many."""
        self._check_sequence(source)
        self._check_sequence(target)
        if not self.sharing:
            raise ValueError("this memory cannot share a beginning")
        if self.unified:
            self._lib.llama_memory_seq_cp(self._memory, source, target, 0, count)
        else:  # between parts llama.cpp copies whole ones alone, and ends the process otherwise
            data = self.save(source, self.state_size(source))
            if data is None or not self.restore(target, data):
                return 0
        return self.trim(target, count)

    def state_size(self, sequence: int) -> int:
        """Return the bytes that `save` would copy."""
        self._check_sequence(sequence)
        return int(self._lib.llama_state_seq_get_size(self._context, sequence))

    def save(self, sequence: int, size: int) -> ctypes.Array[ctypes.c_ubyte] | None:
        """Copy a sequence of `size` bytes out of the memory; None if there is nothing to copy."""
        self._check_sequence(sequence)
        data = _bytes(size)
        written = self._lib.llama_state_seq_get_data(self._context, data, size, sequence)
        return data if written else None

    def restore(self, sequence: int, data: ctypes.Array[ctypes.c_ubyte]) -> bool:
        """Put back what was saved; False if there is no room, and then the sequence is empty."""
        self._check_sequence(sequence)
        self.trim(sequence, 0)
        if self._lib.llama_state_seq_set_data(self._context, data, len(data), sequence):
            return True
        self.trim(sequence, 0)
        return False

    def clear(self) -> None:
        """Forget everything."""
        self._lib.llama_memory_clear(self._memory, False)

    def close(self) -> None:
        """Free it."""
        if self._context:
            self._lib.llama_free(self._context)
            self._context = None

    def _reaches_back(self, sequence: int, count: int) -> bool:
        """Say whether all is there that the token after the first `count` looks at.

        Layers with a sliding window forget what no later token can see: what was saved, and what
        others needed the room of. Going back, it would be missing without a word.
        """
        if count == 0 or self._window == 0:
            return True
        first = int(self._lib.llama_memory_seq_pos_min(self._memory, sequence))
        return 0 <= first <= max(0, count - self._window + 1)

    def _check_sequence(self, sequence: int) -> None:
        if not 0 <= sequence < self.slots:  # ends the process
            raise ValueError(f"there is no sequence {sequence}")


class Batch:
    """A `llama_batch` over arrays of our own, for tokens of `slots` sequences."""

    def __init__(self, lib: Any, size: int, slots: int) -> None:
        self._size, self._slots = size, slots
        self._tokens = (ctypes.c_int32 * size)()
        self._positions = (ctypes.c_int32 * size)()
        self._counts = (ctypes.c_int32 * size)(*[1] * size)
        self._sequences = (ctypes.c_int32 * size)()
        # Each token has a list of its sequences; here they are the cells of one array.
        kind, start = ctypes.POINTER(ctypes.c_int32), ctypes.addressof(self._sequences)
        self._lists = (kind * size)()
        addresses = (ctypes.c_void_p * size).from_buffer(self._lists)
        width = ctypes.sizeof(ctypes.c_int32)
        addresses[:] = [start + width * n for n in range(size)]
        self._wanted = (ctypes.c_int8 * size)()
        self._batch = lib.llama_batch(
            0, self._tokens, None, self._positions, self._counts, self._lists, self._wanted
        )

    def fill(self, rows: Sequence[Row], *, every: bool = False) -> tuple[Any, list[int]]:
        """Return the batch of these rows, and where in it the wanted logits will be.

        `every`: mark all tokens, as pooling wants them. Raises `ValueError` for what would end the
        process.
        """
        place, wanted = 0, []
        for sequence, start, tokens, want in rows:
            count = len(tokens)
            end = place + count
            if end > self._size or not 0 <= sequence < self._slots or count == 0:
                raise ValueError(f"a batch of {end} tokens, with {count} of sequence {sequence}")
            if count == 1:  # by slices it would take three times as long
                self._tokens[place] = tokens[0]
                self._positions[place] = start
                self._sequences[place] = sequence
            else:
                self._tokens[place:end] = [*tokens]
                self._positions[place:end] = [*range(start, start + count)]
                self._sequences[place:end] = [sequence] * count
                ctypes.memset(ctypes.byref(self._wanted, place), every, count)
            self._wanted[end - 1] = want
            if want:
                wanted.append(end - 1)
            place = end
        if place == 0 or len(wanted) > self._slots:
            raise ValueError(f"a batch of {place} tokens with {len(wanted)} outputs")
        self._batch.n_tokens = place
        return self._batch, wanted


def _bytes(size: int) -> ctypes.Array[ctypes.c_ubyte]:
    """Return a buffer as it comes: clearing it would take longer than what it is for."""
    make = ctypes.pythonapi.PyByteArray_FromStringAndSize
    make.argtypes, make.restype = (ctypes.c_char_p, ctypes.c_ssize_t), ctypes.py_object
    return (ctypes.c_ubyte * size).from_buffer(make(None, size))


def _strlen() -> Any:
    library = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
    return library.strlen


def _parameters(model: Model, settings: Settings, cells: int) -> Any:
    parameters = model.lib.llama_context_default_params()
    threads = settings.threads or default_threads(model.size)
    parameters.n_ctx = cells
    parameters.n_batch = max(min(settings.batch_size, max(cells, 32)), settings.slots)
    parameters.n_ubatch = min(parameters.n_batch, MAX_UBATCH)
    parameters.n_seq_max = settings.slots
    parameters.kv_unified = settings.kv_unified
    parameters.n_outputs_max = settings.slots  # logits are asked for one token a slot
    parameters.n_threads = parameters.n_threads_batch = threads
    parameters.flash_attn_type = _FLASH[settings.flash_attention]
    parameters.no_perf = True
    tune_cache(parameters, settings)
    tune_context(parameters, settings)
    return parameters
