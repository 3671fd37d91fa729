"""Opening the file: checked, brought up to date, put aside where it is damaged."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiplayground._processes import forks, locks
from aiplayground.errors import AIPlaygroundError, FileOperationError
from aiplayground.paths import file_error, make_folder

from . import _rows, _search
from ._schema import migrate, transaction

FILE = "conversations.db"
BUSY = 5.0
"""Seconds to wait for another program that writes to the file."""

_SIDES = ("", "-wal", "-shm")
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_READ_ONLY = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})


@dataclass(slots=True)
class Opened:
    """The open file. `report` says what had to be put aside; `interrupted` counts answers."""

    connection: sqlite3.Connection
    folder: Path
    writer: str
    lock: int
    fts5: bool
    report: str | None = None
    interrupted: int = 0

    def close(self) -> None:
        """Close the file, and leave nothing of this writer."""
        try:
            self.connection.close()
        finally:
            locks.remove(self.folder / "writers" / self.writer, self.lock)

    def reap(self, conversation: str) -> None:
        """Mark the answers of programs that have died; within a transaction.

        Those of this writer in the conversation as well: it is about to give another.
        """
        alive, dead = _writers(self.folder)
        try:
            self.interrupted += _rows.interrupt_streaming(self.connection, alive)
            _rows.interrupt_own(self.connection, conversation, self.writer)
        finally:
            dead.remove()

    def suspect(self) -> None:
        """Have the next opening check the whole file."""
        with suppress(OSError):  # the damage itself is reported anyway
            (self.folder / "check").touch()


@dataclass(slots=True)
class _Dead:
    """Writers that ended without closing; their locks are held until they are removed."""

    folders: list[tuple[Path, int]] = field(default_factory=list)

    def remove(self) -> None:
        for folder, lock in self.folders:
            locks.remove(folder, lock)


def open_file(folder: Path, busy: float = BUSY) -> Opened:
    """Open the conversations of a folder, which is made. Blocks.

    A damaged file is put aside, and the report says where. Raises `FileOperationError`.
    """
    make_folder(folder, private=True)
    path = folder / FILE
    try:
        with _alone(folder, busy):
            writer = uuid.uuid4().hex
            lock = locks.lock_new(folder / "writers" / writer)
            try:
                return _open(path, writer, lock, busy)
            except BaseException:
                locks.remove(folder / "writers" / writer, lock)
                raise
    except sqlite3.Error as error:
        raise explain(error, path) from error
    except OSError as error:
        raise file_error("open", path, error) from error


def _open(path: Path, writer: str, lock: int, busy: float) -> Opened:
    folder = path.parent
    alive, dead = _writers(folder)
    suspected = folder / "check"
    report = None
    try:
        try:
            doubt = bool(dead.folders) or suspected.exists()
            connection, interrupted = _checked(path, busy, alive, thorough=doubt)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            report = _put_aside(path, error, [each for each in alive if each != writer])
            connection, interrupted = _checked(path, busy, alive, thorough=False)
        suspected.unlink(missing_ok=True)
        fts5 = _search.has_fts5(connection)
        return Opened(connection, folder, writer, lock, fts5, report, interrupted)
    finally:
        dead.remove()


def _checked(
    path: Path, busy: float, alive: list[str], *, thorough: bool
) -> tuple[sqlite3.Connection, int]:
    """Connect, and mark what dead writers left; raises `sqlite3.DatabaseError` for a damaged file.

    The whole file is looked at only after a program that died, or that met damage: it takes as
    long as reading it.
    """
    # Made here, so that nobody else can ever read it; the files beside it get the same mode.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.name == "posix":
            os.fchmod(descriptor, 0o600)  # a copy from elsewhere may have come with more
    finally:
        os.close(descriptor)
    connection = sqlite3.connect(path, timeout=busy, isolation_level=None)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        # A reader and a writer do not wait for each other, and a crash of the program loses
        # nothing. FULL: neither does one of the machine. There are few writes (one for a message,
        # one a second for an answer), all in a thread of their own: the difference is not felt.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        if thorough:
            [(found,), *_] = connection.execute("PRAGMA quick_check(1)").fetchall()
            if found != "ok":
                raise _damaged(found)
        migrate(connection)
        _search.prepare(connection, fts5=_search.has_fts5(connection))
        _rows.list_conversations(connection, 1, None)
        with transaction(connection):
            interrupted = _rows.interrupt_streaming(connection, alive)
    except BaseException:
        connection.close()
        raise
    return connection, interrupted


def _damaged(found: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(found)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _put_aside(path: Path, error: sqlite3.DatabaseError, others: list[str]) -> str:
    """Move a damaged file away under a name that is free; return what to tell of it."""
    if others:
        raise FileOperationError(
            f"{path} is damaged ({error}), and another program has it open. Close that one (a "
            f"running `aipg serve`?) and try again: the file is then put aside and kept.",
            details={"path": str(path), "reason": "damaged"},
        )
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in range(1000):
        name = f"{path.name}.damaged-{stamp}" + (f"-{number}" if number else "")
        aside = path.with_name(name)
        if not aside.exists():
            break
    else:
        raise FileOperationError(
            f"{path.parent} holds too many damaged files. Move them elsewhere.",
            details={"path": str(path)},
        )
    # Its companions go along: SQLite needs them to recover what was written last.
    for side in _SIDES:
        with suppress(FileNotFoundError):
            shutil.move(f"{path}{side}", f"{aside}{side}")
    return (
        f"The file of the conversations was damaged ({error}). It was put aside as {aside}, and a "
        f"new one was begun. `sqlite3 {aside.name} .recover` gets back what can be read."
    )


def _writers(folder: Path) -> tuple[list[str], _Dead]:
    """Return the writers that live, and those that died, whose folders are held."""
    alive: list[str] = []
    dead = _Dead()
    for each in sorted((folder / "writers").iterdir()):
        try:
            lock = _try_lock(each)
        except FileNotFoundError:
            continue  # it closes just now
        if lock is None:
            alive.append(each.name)
        else:
            dead.folders.append((each, lock))
    return alive, dead


@contextmanager
def _alone(folder: Path, busy: float) -> Iterator[None]:
    """Let no two programs open the file at once: one may have to put it aside."""
    door = folder / "opening"
    door.mkdir(mode=0o700, exist_ok=True)
    deadline = time.monotonic() + busy
    while (lock := _try_lock(door)) is None:
        if time.monotonic() > deadline:
            raise busy_error(folder / FILE)
        time.sleep(0.02)
    try:
        yield
    finally:
        forks.close(lock)


def _try_lock(folder: Path) -> int | None:
    try:
        return locks.try_lock(folder)
    except BlockingIOError:
        return None


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_damage(error: sqlite3.Error) -> bool:
    """Say whether an error means that the file is damaged."""
    return _code(error) in _DAMAGED


def busy_error(path: Path) -> FileOperationError:
    """Return the error for a file that another program does not let go."""
    return FileOperationError(
        f"Another program is writing to {path} and did not finish in time. Try again; if it "
        f"stays so, close the other program.",
        details={"path": str(path), "reason": "busy"},
    )


def explain(error: sqlite3.Error, path: Path) -> AIPlaygroundError:
    """Return what an error of SQLite means for a person. Codes: https://sqlite.org/rescode.html."""
    code = _code(error)
    if code in _BUSY:
        return busy_error(path)
    causes = {
        sqlite3.SQLITE_FULL: ("the disk is full. Free some space, then try again", "disk-full"),
        sqlite3.SQLITE_IOERR: ("the disk reports an error. Check it", "io"),
        sqlite3.SQLITE_CANTOPEN: ("it cannot be opened. Check its folder's permissions", "open"),
        **dict.fromkeys(_READ_ONLY, ("it is read-only. Change its permissions", "read-only")),
        **dict.fromkeys(
            _DAMAGED,
            (
                f"the file is damaged ({error}). Restart the program: the file is then put aside, "
                f"nothing of it is deleted",
                "damaged",
            ),
        ),
    }
    cause, reason = causes.get(code, (str(error), "sqlite"))
    return FileOperationError(
        f"The conversations in {path} cannot be used: {cause}.",
        details={"path": str(path), "reason": reason},
    )
