"""All tokens with their logits, as arrays: what grammars and log probabilities need.

numpy costs a third of a second to import, so that only who needs it imports this module.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .bindings import holding_the_lock
from .context import Context
from .native import Model

BYTES = 256
NOTHING = BYTES  # the group of tokens that stand for no text

_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Groups(NamedTuple):
    """A vocabulary by first bytes: each token's, and for each byte a token that is it alone.

    `alone` is -1 where there is no such token. Tokens without a text have the byte `NOTHING`.
    """

    first: NDArray[np.int16]
    alone: NDArray[np.int32]


def group(pieces: list[bytes]) -> Groups:
    """Sort a vocabulary, given as the bytes of each token."""
    first = np.array([piece[0] if piece else NOTHING for piece in pieces], dtype=np.int16)
    alone = np.full(BYTES, -1, dtype=np.int32)
    for token, piece in enumerate(pieces):
        if len(piece) == 1:
            alone[piece[0]] = token
    return Groups(first, alone)


class Candidates:
    """A native array of tokens that samplers work on, with room for a whole vocabulary."""

    def __init__(self, model: Model) -> None:
        self._size = model.vocabulary
        self._data = np.zeros(self._size, _DATA)
        lib = model.lib
        pointer = ctypes.POINTER(lib.llama_token_data)
        self._pointer = ctypes.cast(self._data.ctypes.data, pointer)
        self._array = lib.llama_token_data_array()
        self._fresh = np.zeros(self._size, _DATA)
        self._fresh["id"] = np.arange(self._size)
        self._apply = holding_the_lock(lib, lib.llama_sampler_apply)

    @property
    def logits(self) -> NDArray[np.float32]:
        """The logits that the samplers left."""
        left: NDArray[np.float32] = self._data["logit"][: self._array.size]
        return left

    def fill(self, logits: NDArray[np.float32] | None, chosen: NDArray[Any] | None = None) -> None:
        """Take in the logits of all tokens, or of those chosen; without logits they are zero."""
        if chosen is None and logits is not None:
            count = self._size
            np.copyto(self._data, self._fresh)  # one copy is faster than one for each field
            self._data["logit"] = logits
        else:
            ids = self._fresh["id"] if chosen is None else chosen
            count = len(ids)
            data = self._data[:count]
            data["id"], data["p"] = ids, 0
            data["logit"] = 0 if logits is None else logits[ids]
        array = self._array
        array.data, array.size, array.selected, array.sorted = self._pointer, count, -1, False

    def apply(self, sampler: Any) -> None:
        """Let a sampler, or a chain of them, work on the candidates."""
        self._apply(sampler, ctypes.byref(self._array))

    def selected(self) -> int | None:
        """Return the chosen token; None if there is none that has a chance."""
        place = int(self._array.selected)
        if not 0 <= place < self._array.size:
            return None
        chosen = self._array.data[place]
        return int(chosen.id) if np.isfinite(chosen.logit) else None


def logits_of(context: Context, place: int) -> NDArray[np.float32]:
    """Return the logits at a place of the last batch as an array, without copying them."""
    row: NDArray[np.float32] = _view(context, place, 1)[0]
    return row


def rows_of(context: Context) -> NDArray[np.float32]:
    """Return the logits at all places of the last batch, a row each: so they lie in memory."""
    return _view(context, context.outputs[0], len(context.outputs))


def _view(context: Context, place: int, rows: int) -> NDArray[np.float32]:
    key = context.logits(place), rows
    view: NDArray[np.float32] | None = context.views.get(key)
    if view is None:
        floats = ctypes.c_float * context.model.vocabulary * rows
        view = context.views[key] = np.ctypeslib.as_array(floats.from_address(key[0]))
    return view


def log_probabilities(
    logits: NDArray[np.float32], token: int, count: int
) -> tuple[float, list[tuple[int, float]]]:
    """Return the log probability of a token, and the `count` likeliest with theirs, in order."""
    values = logits.astype(np.float64)
    highest = values.max()
    values -= highest + np.log(np.exp(values - highest).sum())
    if count == 0:
        return float(values[token]), []
    count = min(count, len(values))
    top = np.argpartition(values, -count)[-count:]
    top = top[np.argsort(-values[top], kind="stable")]
    return float(values[token]), [(int(each), float(values[each])) for each in top]
