"""Keyrings of a test's own: in memory, one that hangs, one that fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError


class MemoryKeyring(KeyringBackend):
    """Keeps what it is given, and says what it was asked."""

    priority: Any = 5

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated there
        self.kept: dict[tuple[str, str], str] = {}
        self.asked: list[tuple[str, str]] = []

    def get_password(self, service: str, username: str) -> str | None:
        self.asked.append(("get", username))
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.asked.append(("set", username))
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self.asked.append(("delete", username))
        if (service, username) not in self.kept:
            raise PasswordDeleteError(username)
        del self.kept[service, username]


class HangingKeyring(MemoryKeyring):
    """A locked one: it answers when `unlock` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()

    def unlock(self) -> None:
        self.open.set()

    def get_password(self, service: str, username: str) -> str | None:
        self.open.wait(30)
        return super().get_password(service, username)

    def set_password(self, service: str, username: str, password: str) -> None:
        self.open.wait(30)
        super().set_password(service, username, password)


class FailingKeyring(MemoryKeyring):
    """Raises, with the secret in its message."""

    def get_password(self, service: str, username: str) -> str | None:
        raise OSError(f"no {username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        raise OSError(f"cannot keep {password}")


class UselessKeyring(MemoryKeyring):
    """Says of itself that nobody should use it, as `fail` and `null` do."""

    priority = -1


@contextmanager
def using(backend: KeyringBackend, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make a keyring the system's own, for a while."""
    with monkeypatch.context() as patch:
        patch.setattr(keyring, "get_keyring", lambda: backend)
        yield
