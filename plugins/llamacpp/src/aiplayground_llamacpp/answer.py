"""What the loop makes of the tokens that the engine's thread has chosen: text, in chunks.

The engine's thread touches as little as it can between two batches: while it works here, nothing
is computed. So it hands over bytes, and the event loop, which would wait, makes text of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from aiplayground.types import ChatChunk, FinishReason, Usage

from .text import AnswerText

if TYPE_CHECKING:
    from .jobs import Task

Entry = dict[str, Any]


class Chosen(NamedTuple):
    """A token of an answer: its bytes, why it is the last, and what its log probabilities are.

    `piece` is None where no token was chosen.
    """

    answer: Answer
    piece: bytes | None
    reason: FinishReason | None = None
    entry: Entry | None = None


class Answer:
    """One of the answers that a task asks for. Made and used on the loop, but for two fields.

    `over`: nobody wants more of it, because its reader is gone or a stop text has appeared; the
    engine's thread looks at it before each step. `cached`: how many tokens of the prompt that
    thread found in memory; told before the first token.
    """

    def __init__(self, task: Task, index: int) -> None:
        self.over = False
        self.cached: int | None = None
        self._index = index
        self._prompt = task.size
        self._text = AnswerText(task.stops)
        self._count = 0
        self._entries: list[Entry] = []
        self._ended = False

    def take(self, chosen: Chosen) -> ChatChunk | None:
        """Return what a token lets out. With a finish reason it is the last chunk."""
        if self._ended:
            return None  # chosen before the engine's thread knew
        _, piece, reason, entry = chosen
        text = ""
        if piece is not None:
            self._count += 1
            text = self._text.feed(piece)
        if entry is not None:
            self._entries.append(entry)
        if self._text.stopped:
            self._entries = covering(self._entries, len(text))
            reason = "stop"
        if reason is not None:
            return self._last(text, reason)
        if not text:
            return None
        return self._chunk(text) if self._entries else ChatChunk(index=self._index, text=text)

    def _last(self, text: str, reason: FinishReason) -> ChatChunk:
        self._ended = self.over = True
        # With several answers the prompt counts once.
        first = self._index == 0
        usage = Usage(
            prompt_tokens=self._prompt if first else 0,
            completion_tokens=self._count,
            cached_tokens=self.cached if first else 0,
        )
        return self._chunk(text + self._text.flush(), finish_reason=reason, usage=usage)

    def _chunk(self, text: str, **fields: Any) -> ChatChunk:
        if self._entries:
            fields["logprobs"], self._entries = self._entries, []
        return ChatChunk(index=self._index, text=text, **fields)


def covering(entries: Sequence[Entry], length: int) -> list[Entry]:
    """Return the first entries, whose tokens together make up a text of this length."""
    kept: list[Entry] = []
    for entry in entries:
        if length <= 0:
            break
        kept.append(entry)
        length -= len(entry["token"])
    return kept
