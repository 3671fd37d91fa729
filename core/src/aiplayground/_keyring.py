"""The user's keyring (through the library `keyring`), which may not answer at all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

T = TypeVar("T")

RECOMMENDED = 1
"""The least priority of a keyring worth using: below are `fail`, `null`, and plain files."""


class Found(NamedTuple):
    """A secret, and in words where it is kept."""

    value: str
    place: str

    def __repr__(self) -> str:
        return f"<secret in {self.place}>"


class Unusable(Exception):
    """The keyring cannot be used; `late`: it was asked, and may still do what it was asked."""

    def __init__(self, reason: str, *, late: bool = False) -> None:
        super().__init__(reason)
        self.late = late


class Keyring:
    """The user's keyring, asked in a thread of its own.

    One that does not answer is left alone until it has: it neither gets a second question nor
    makes anybody wait again.
    """

    def __init__(self, entry: str, deadline: float) -> None:
        self._entry = entry
        self._deadline = deadline
        self._asking: threading.Thread | None = None
        self.problem: str | None = None

    def get(self, name: str) -> Found | None:
        """Return a secret; raises `Unusable`, as the others do."""

        def ask(backend: KeyringBackend) -> Found | None:
            value = backend.get_password(self._entry, name)
            return Found(value, f"the keyring ({backend.name})") if value else None

        return self._ask(ask)

    def set(self, name: str, value: str) -> None:
        """Keep a secret in place of a former one."""
        self._ask(lambda backend: backend.set_password(self._entry, name, value))

    def delete(self, name: str) -> None:
        """Forget a secret, if it is there."""

        def delete(backend: KeyringBackend) -> None:
            if backend.get_password(self._entry, name) is not None:
                backend.delete_password(self._entry, name)

        self._ask(delete)

    def _ask(self, question: Callable[[KeyringBackend], T]) -> T:
        try:
            answer = self._in_time(question)
        except Unusable as unusable:
            self.problem = str(unusable)
            raise
        self.problem = None
        return answer

    def _in_time(self, question: Callable[[KeyringBackend], T]) -> T:
        if self._asking is not None and self._asking.is_alive():
            raise Unusable("it still has not answered an earlier question")
        answers: list[T] = []
        failures: list[Unusable] = []

        def ask() -> None:
            try:
                answers.append(question(_usable_backend()))
            except Unusable as unusable:
                failures.append(unusable)
            except Exception as error:  # noqa: BLE001  # backends raise errors of their libraries
                # Its class alone: what a backend writes into an error is not ours to know.
                failures.append(Unusable(f"it failed with {type(error).__name__}"))

        self._asking = threading.Thread(target=ask, name="keyring", daemon=True)
        self._asking.start()
        self._asking.join(self._deadline)
        if answers:
            return answers[0]
        if failures:
            raise failures[0]
        raise Unusable(f"it did not answer within {self._deadline:g} s", late=True)


def _usable_backend() -> KeyringBackend:
    import keyring

    backend = keyring.get_keyring()
    if backend.priority < RECOMMENDED:
        raise Unusable("there is none on this system")
    return backend
