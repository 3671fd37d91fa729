"""What a kernel holds of its home: the lock of an exclusive one, and the ledger of its children."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from ._processes.ledger import Ledger, end_leftovers
from .errors import FileOperationError, ServiceNotAvailable
from .paths import file_error, is_disk_full

if TYPE_CHECKING:
    from .paths import Paths


class HomeLock:
    """Held by the one exclusive kernel of a home; a second one is told who holds it."""

    def __init__(self, paths: Paths) -> None:
        from filelock import FileLock  # here: most kernels are not exclusive

        self._lock = FileLock(paths.runtime / "home.lock", blocking=False)
        self._note = paths.runtime / "home.json"

    def __enter__(self) -> None:
        from filelock import Timeout

        try:
            self._lock.acquire()
        except Timeout:
            raise ServiceNotAvailable(
                f"A kernel already runs with this home ({self._holder()}). Use that one, stop it, "
                f"or set AIPG_HOME to another folder.",
                details={"lock": self._lock.lock_file},
            ) from None
        try:
            self._note.write_text(json.dumps({"pid": os.getpid()}), encoding="utf-8")
        except OSError as error:
            self._lock.release()
            raise file_error("write", self._note, error) from error

    def _holder(self) -> str:
        try:
            return f"process {json.loads(self._note.read_text(encoding='utf-8'))['pid']}"
        except (OSError, ValueError, KeyError):
            return "another process"

    def __exit__(self, *exc: object) -> None:
        self._note.unlink(missing_ok=True)
        self._lock.release()


def open_ledger(paths: Paths, kernel: str) -> Ledger:
    """End what kernels that died left running, then begin a ledger of our own. Blocks."""
    root = paths.state / "kernels"
    try:
        end_leftovers(root)
        return Ledger(root / kernel)
    except OSError as error:
        if is_disk_full(error):
            raise file_error("write to", root, error) from error
        raise FileOperationError(
            f"Cannot write to {root}: {error.strerror or error}. Check its permissions, or set "
            f"AIPG_HOME to a folder of your own.",
            details={"path": str(root)},
        ) from error
