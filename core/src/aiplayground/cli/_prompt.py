"""The line that a person types: prompt_toolkit, with a history that outlives the program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from ._output import note

LEAVE = None
"""What `Prompt.read` returns when the person leaves."""


class Prompt:
    """Asks for lines. Alt-Enter begins a new line within one; so does pasting several."""

    def __init__(self, history: Path, commands: Sequence[str]) -> None:
        self._session: PromptSession[str] = PromptSession(
            "> ",
            history=FileHistory(str(history)),
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
            key_bindings=_keys(),
            prompt_continuation="  ",
        )

    async def read(self) -> str | None:
        """Return the next line; Ctrl-C empties the line, Ctrl-D leaves."""
        while True:
            try:
                return await self._session.prompt_async()
            except KeyboardInterrupt:
                if not self._session.default_buffer.text:
                    note("(Ctrl-D or /exit leaves)")
            except EOFError:
                return LEAVE


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
