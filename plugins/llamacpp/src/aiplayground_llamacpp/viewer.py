"""Images on their way into the memory, a piece at a time between the batches of text.

An image is encoded by its projector in one go, which nothing can interrupt; its embeddings are then
computed like a prompt, in pieces, in batches of their own: a batch holds tokens or embeddings.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

from .branch import Branch
from .context import OK, Context
from .scheduler import Part, Slot
from .sight import Image, Sight


class View(NamedTuple):
    """An image that is next in a slot."""

    slot: Slot[Branch]
    work: Branch
    image: Image


class Viewer:
    """Works on one image at a time, that of who came first."""

    def __init__(self, context: Context, sight: Sight) -> None:
        self._context = context
        self._sight = sight
        self._view: View | None = None
        self._embeddings: ctypes.Array[ctypes.c_float] | None = None
        self._done = 0

    def next(self, slots: Sequence[Slot[Branch]]) -> View | None:
        """Return the image to work on now: the one begun, else that of who came first."""
        views = [view for slot in slots if (view := _next_in(slot)) is not None]
        begun = self._view
        if begun is not None and not any(view == begun for view in views):
            self.drop()
        if self._view is None:
            self._view = min(views, key=lambda view: view.work.order, default=None)
        return self._view

    def step(self, view: View, most: int) -> int:
        """Do the next piece of an image, of `most` embeddings; return llama.cpp's status.

        At the end of the image its slot holds it. Raises `ServiceFailed` if it cannot be encoded.
        """
        slot, _, image = view
        if self._embeddings is None:
            self._embeddings, self._done = self._sight.encode(image), 0
            return OK
        first, left = self._done, image.size - self._done
        count = left if not self._sight.causal else min(left, most, self._context.batch_size)
        status = self._context.decode_embeddings(
            slot.index,
            self._sight.part(self._embeddings, first),
            self._sight.positions(image, first, count),
            count,
            causal=self._sight.causal,
        )
        if status == OK:
            self._done += count
        if self._done == image.size:
            slot.tokens.extend(view.work.tokens[image.start : image.end])
            self.drop()
        return status

    def drop(self) -> None:
        """Forget the image that was begun; whoever does trims its slot."""
        self._view, self._embeddings, self._done = None, None, 0

    def begun_in(self, slot: Slot[Branch]) -> bool:
        """Say whether the slot's memory holds the beginning of an image behind its tokens."""
        return self._view is not None and self._view.slot is slot and self._done > 0


def _next_in(slot: Slot[Branch]) -> View | None:
    work = slot.work
    if work is None or not work.images:
        return None
    place = len(slot.tokens)
    for image in work.images:
        if image.start == place:
            return View(slot, work, image)
    return None


def up_to_images(parts: Sequence[Part[Branch]]) -> list[Part[Branch]]:
    """Cut the parts of a step where an image is next; what stands before one is not final."""
    return [cut for part in parts if (cut := _up_to_image(part)).size]


def _up_to_image(part: Part[Branch]) -> Part[Branch]:
    slot, size, _ = part
    start = len(slot.tokens)
    borders = [image.start - start for image in (slot.work.images if slot.work else ())]
    room = min((border for border in borders if 0 <= border < size), default=None)
    return part if room is None else Part(slot, room, False)
