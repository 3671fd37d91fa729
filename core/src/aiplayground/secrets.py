"""Secrets of a home: in the operating system's keyring, else in files of the user's alone.

Where the user's keyring can be used (the Secret Service or KWallet on Linux, the Keychain on macOS,
the Credential Manager on Windows; through the library `keyring`), a secret lies there, and an empty
note beside the other files says so: a keyring is only asked for what it holds. Where there is none,
or it does not answer, a secret is a file of its own (0600 in a folder of 0700).

A file counts before the keyring: there is one only because the keyring did not take a newer value.
An environment variable counts before both.

Nothing here is written to a log; no error and no `repr` holds a value.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ._keyring import Found, Keyring, Unusable
from ._logs._redact import hiding
from .errors import InvalidParameters, ServiceNotAvailable
from .paths import APP_NAME, Paths, file_error, make_folder

HF_TOKEN = "hf-token"
"""The name of the token for Hugging Face."""

API_KEY = "api-key"
"""The name of the key that the gateway asks for beyond loopback."""

VARIABLES: Mapping[str, str] = {HF_TOKEN: "HF_TOKEN"}
"""Environment variables that count before what is kept, by the secret's name."""

DEADLINE = 3.0
"""Seconds that the keyring may take: a locked one waits for a person, who may not be there."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


class Secrets:
    """The secrets of one home, by name: `hf-token`, `api-key`, a plugin's own.

    Names are lower-case letters, digits and `-`. Everything here blocks, for `deadline` seconds at
    most where the keyring is asked: call it in a thread.
    """

    def __init__(
        self,
        paths: Paths,
        environ: Mapping[str, str] = os.environ,
        *,
        deadline: float = DEADLINE,
    ) -> None:
        self._folder = paths.state / "secrets"
        self._environ = environ
        self._keyring = Keyring(_entry(paths), deadline)
        self._known: frozenset[str] = frozenset()
        self._hide = hiding(())

    @property
    def problem(self) -> str | None:
        """Why the keyring was not used when it was asked last; None if it was."""
        return self._keyring.problem

    def get(self, name: str, *, strict: bool = False) -> str | None:
        """Return a secret, or None if there is none.

        One that the keyring holds but does not give (it is locked, or cannot be reached) is None,
        too; if `strict`, it raises `ServiceNotAvailable`. Raises `FileOperationError`.
        """
        found = self._find(name)
        if found is None and strict and self._note(name).exists() and self.problem:
            raise self._unreachable(name)
        return found.value if found else None

    def where(self, name: str) -> str | None:
        """Say where a secret is kept, for a person; None if there is none."""
        found = self._find(name)
        if found is None and self._note(name).exists() and self.problem:
            return f"the keyring, which cannot be used now: {self.problem}"
        return found.place if found else None

    def set(self, name: str, value: str) -> None:
        """Keep a secret in place of a former one.

        Raises `InvalidParameters` for what cannot be one, and `FileOperationError`.
        """
        value = _checked_value(name, value)
        self._remember(value)
        file, note = self._file(name), self._note(name)
        try:
            self._keyring.set(name, value)
        except Unusable as unusable:
            write_private(file, value)
            if unusable.late:  # it may still take it: so it must be asked when this is cleared
                write_private(note, "")
            return
        write_private(note, "")
        _remove(file)

    def clear(self, name: str) -> None:
        """Forget a secret, wherever it is kept; an environment variable stays.

        Raises `ServiceNotAvailable` when the keyring holds it and cannot be asked now, and
        `FileOperationError`.
        """
        file, note = self._file(name), self._note(name)
        _remove(file)
        if note.exists():
            try:
                self._keyring.delete(name)
            except Unusable as unusable:
                raise self._unreachable(name) from unusable
            _remove(note)

    def hide(self, text: str) -> str:
        """Take out of a text every secret that was asked for or set here."""
        return self._hide(text)

    def __repr__(self) -> str:
        return f"Secrets({str(self._folder)!r})"

    def _find(self, name: str) -> Found | None:
        found = self._in_environment(name) or self._in_file(name) or self._in_keyring(name)
        if found:
            self._remember(found.value)
        return found

    def _remember(self, value: str) -> None:
        if value not in self._known:  # replaced, never changed: other threads read it
            self._known |= {value}
            self._hide = hiding(self._known)

    def _in_environment(self, name: str) -> Found | None:
        variable = VARIABLES.get(name, "")
        value = self._environ.get(variable, "").strip()
        return Found(value, f"the environment variable {variable}") if value else None

    def _in_file(self, name: str) -> Found | None:
        file = self._file(name)
        try:
            value = file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            # Not chained: such an error holds what it could not read.
            raise InvalidParameters(
                f"{file} is not text. Remove it, and set the secret again.",
                details={"path": str(file)},
            ) from None
        except OSError as error:
            raise file_error("read", file, error) from error
        return Found(value, str(file)) if value else None

    def _in_keyring(self, name: str) -> Found | None:
        if not self._note(name).exists():
            return None
        try:
            return self._keyring.get(name)
        except Unusable:
            return None  # `problem` says why

    def _unreachable(self, name: str) -> ServiceNotAvailable:
        return ServiceNotAvailable(
            f"The keyring holds the secret '{name}' and cannot be used now: {self.problem}. "
            "Unlock it and try again, or set the secret anew.",
            details={"secret": name},
        )

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            message = f"{name!r} is no name of a secret: use lower-case letters, digits and '-'."
            raise InvalidParameters(message, details={"name": name})
        return self._folder / name

    def _note(self, name: str) -> Path:
        return self._file(name).with_suffix(".keyring")


def write_private(path: Path, text: str) -> None:
    """Write a file that only the user can read (0600), in place of a former one. Blocks.

    Raises `FileOperationError`; what was there before is there still then.
    """
    make_folder(path.parent, private=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        try:
            part.unlink(missing_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            with suppress(OSError):  # the first error is the one to tell
                part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise file_error("write", path, error) from error


def _entry(paths: Paths) -> str:
    """Return what the keyring knows a home by: a second home has secrets of its own."""
    usual = Paths.resolve(environ={}).state == paths.state
    return APP_NAME if usual else f"{APP_NAME} ({paths.state})"


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise file_error("remove", file, error) from error


def _checked_value(name: str, value: str) -> str:
    value = value.strip()
    if not value or not value.isprintable():
        what = "empty" if not value else "more than one line, or has control characters"
        message = f"The value for '{name}' is {what}. A secret is one line of text."
        raise InvalidParameters(message, details={"secret": name})
    return value
