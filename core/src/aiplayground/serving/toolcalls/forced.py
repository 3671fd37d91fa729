"""The reader for a call that a JSON schema forced: the answer is the call, in no family's form."""

from __future__ import annotations

from .parts import Part, call_of, decode, skip, text_parts


class ForcedReader:
    """Holds the answer back until it is whole; one that was cut short is text."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> list[Part]:
        """Take in more text."""
        self._held += text
        return []

    def finish(self) -> list[Part]:
        """Return the call."""
        found = decode(self._held, skip(self._held, 0))
        call = call_of(found[0]) if found else None
        return text_parts(self._held) if call is None else [call]
