"""No room on the disk: said, with what to do, wherever it is noticed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import Served, kernel

from aiplayground._home import HomeLock
from aiplayground._processes.ledger import Ledger
from aiplayground.errors import FileOperationError, ServiceFailed
from aiplayground.paths import Paths


def no_room(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_lock_that_cannot_be_noted_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths.resolve(tmp_path)
    paths.ensure()
    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", no_room)
        with pytest.raises(FileOperationError, match="the disk is full") as caught, HomeLock(paths):
            pass
    assert caught.value.details["reason"] == "disk-full"
    with HomeLock(paths):
        pass


async def test_a_worker_that_cannot_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kernel(tmp_path, Served()) as k:
        monkeypatch.setattr(Ledger, "record", no_room)
        with pytest.raises(ServiceFailed, match=r"the disk is full\. Free some space") as caught:
            await k.start("served")
        assert caught.value.details["reason"] == "disk-full"
